package procpool

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker that reads nothing holds nobody up, and gets whole lines when it reads
// again.
func TestCommandsThatNobodyReads(t *testing.T) {
	conn, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	peer := os.NewFile(uintptr(theirs), "worker")
	c := newControl(conn, nil, func([]byte) {})
	defer c.close()
	sent, refused := 0, 0
	text := strings.Repeat("x", 1000)
	for ; refused < 3; sent++ {
		if err := c.send("command %d %s", sent, text); err != nil {
			if !strings.Contains(err.Error(), "reads nothing") {
				t.Fatal(err)
			}
			refused++
		} else if refused > 0 {
			t.Fatal("taken after one that was not")
		}
	}
	lines := bufio.NewScanner(peer)
	for got := 0; got < sent-refused; got++ {
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), " "+text) {
			t.Fatalf("line %d: %q", got, lines.Text())
		}
	}
	if err := c.send("last %s", text); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() && lines.Text() != "last "+text {
		if !strings.HasPrefix(lines.Text(), "command ") || !strings.HasSuffix(lines.Text(), " "+text) {
			t.Fatalf("%q", lines.Text())
		}
	}
	peer.Close()
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	if err := c.send("nobody"); err == nil {
		t.Error("sent to nobody")
	}
}
