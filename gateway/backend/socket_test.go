package backend

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/stdio"
)

// program makes the backend of a shell script.
func program(t *testing.T, script string, framing stdio.Framing) *Socket {
	t.Helper()
	runner := procpool.NewRunner(procpool.RunnerConfig{Name: "socket", Max: 2, QueueLength: -1, StopGrace: 300 * time.Millisecond, EndWhole: true})
	t.Cleanup(func() {
		runner.Close()
		if used := runner.Stats().InUse; used != 0 {
			t.Errorf("%d processes are left", used)
		}
	})
	return &Socket{
		Scripts: Scripts{Runner: runner, Command: []string{"/bin/sh", "-c", script}, Inherited: []string{"PATH=" + os.Getenv("PATH")}, Dir: t.TempDir()},
		Framing: framing, MaxOutput: 1 << 20, CloseTimeout: 200 * time.Millisecond, Log: zap.NewNop(),
	}
}

// client is the other end of a socket.
type client struct {
	t testing.TB
	protocol.Socket
	unread []byte
	err    error
}

// connect opens a socket and reads the head of its answer.
func connect(t *testing.T, b *Socket, params ...protocol.Param) *client {
	t.Helper()
	x, err := b.Open(t.Context(), &protocol.Request{Role: protocol.WebSocket, Params: params})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, Socket: x.(protocol.Socket)}
	t.Cleanup(func() { c.Close() })
	for !strings.Contains(string(c.unread), "\r\n\r\n") {
		c.more()
	}
	head, rest, _ := strings.Cut(string(c.unread), "\r\n\r\n")
	if !strings.HasPrefix(head, "Status: 101") {
		t.Fatalf("the head is %q", head)
	}
	c.unread = []byte(rest)
	return c
}

func (c *client) more() {
	p := make([]byte, 1000)
	c.Wait()
	n, err := c.Read(p)
	c.unread, c.err = append(c.unread, p[:n]...), err
}

func (c *client) send(kind protocol.MessageKind, content string) {
	c.t.Helper()
	if _, err := c.Write(append(protocol.AppendMessage(nil, kind, len(content)), content...)); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next message, "" and 0 when no more come.
func (c *client) receive() (protocol.MessageKind, string) {
	c.t.Helper()
	for {
		if len(c.unread) >= protocol.MessageHeader {
			kind, length, ok := protocol.ParseMessage(c.unread)
			if !ok {
				c.t.Fatalf("no message: %q", c.unread)
			}
			if rest := c.unread[protocol.MessageHeader:]; len(rest) >= length {
				c.unread = rest[length:]
				return kind, string(rest[:length])
			}
		}
		if c.err != nil {
			return 0, ""
		}
		c.more()
	}
}

func (c *client) expect(kind protocol.MessageKind, content string) {
	c.t.Helper()
	if k, text := c.receive(); k != kind || text != content {
		c.t.Fatalf("message %d %q (%v), want %d %q", k, text, c.err, kind, content)
	}
}

// closed fails the test unless the next message is a close, and the last.
func (c *client) closed(code uint16, reason string) {
	c.t.Helper()
	c.expect(protocol.Close, string(protocol.AppendClose(nil, code, reason)[protocol.MessageHeader:]))
	if kind, text := c.receive(); kind != 0 || c.err != io.EOF {
		c.t.Fatalf("behind the close: %d %q, %v", kind, text, c.err)
	}
}

func TestSocketOfLines(t *testing.T) {
	b := program(t, `echo "hello $WEBSOCKET_PROTOCOL"; while read -r line; do echo "<$line>"; done; echo end >&2`, stdio.Lines)
	b.Subprotocols = []string{"a", "b"}
	c := connect(t, b, protocol.Param{Name: "HTTP_SEC_WEBSOCKET_PROTOCOL", Value: "c, b,a"})
	c.expect(protocol.Text, "hello b")
	for _, text := range []string{"1", "", strings.Repeat("x", 200_000)} {
		c.send(protocol.Text, text)
		c.expect(protocol.Text, "<"+text+">")
	}
	c.send(protocol.Binary, "x")
	c.closed(1003, "only text messages are taken here")
}

func TestSocketOfLengths(t *testing.T) {
	c := connect(t, program(t, "exec cat", stdio.Lengths))
	for _, text := range []string{"\x00\n\xff", "", strings.Repeat("\n", 100_000)} {
		sent := make(chan struct{})
		go func() { c.send(protocol.Binary, text); close(sent) }()
		c.expect(protocol.Binary, text)
		<-sent
	}
}

// How the program ends is how the socket does, behind all that it wrote.
func TestSocketEnds(t *testing.T) {
	for _, test := range []struct {
		script  string
		framing stdio.Framing
		last    string
		code    uint16
		reason  string
	}{
		{"printf a", stdio.Lines, "a", 1000, ""},
		{"echo a; sleep 1000 >&- 2>&- <&- &", stdio.Lines, "a", 1000, ""},
		{"echo a; exec >&-; read line", stdio.Lines, "a", 1000, ""},
		{"echo a; printf half; exit 3", stdio.Lines, "a", 1011, "exit status 3"},
		{"echo a; kill -9 $$", stdio.Lines, "a", 1011, "signal: killed"},
		{"echo a; head -c 2000000 /dev/zero; sleep 1000", stdio.Lines, "a", 1011, "a message of the program is too long"},
		{"echo hello", stdio.Lengths, "", 1011, "a message of the program is too long"},
	} {
		c := connect(t, program(t, test.script, test.framing))
		if test.last != "" {
			c.expect(protocol.Text, test.last)
		}
		c.send(protocol.Text, "go on")
		c.closed(test.code, test.reason)
	}
	c := connect(t, program(t, `printf '\000\000\000\005he'`, stdio.Lengths))
	for c.err == nil {
		c.more()
	}
	if protocol.KindOf(c.err) != protocol.Died || !errors.Is(c.err, stdio.ErrCut) {
		t.Errorf("an end inside of a message: %v", c.err)
	}
}

// pids waits for a file with that many process ids.
func pids(t *testing.T, file string, n int) []int {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(file)
		if fields := strings.Fields(string(text)); len(fields) == n && strings.HasSuffix(string(text), "\n") {
			var ids []int
			for _, f := range fields {
				id, err := strconv.Atoi(f)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, id)
			}
			return ids
		}
	}
	t.Fatalf("no %d numbers in %s", n, file)
	return nil
}

func gone(t *testing.T, ids []int) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for slices.ContainsFunc(ids, func(id int) bool { return syscall.Kill(id, 0) == nil && !zombie(id) }) {
		if time.Now().After(deadline) {
			for _, id := range ids {
				stat, _ := os.ReadFile("/proc/" + strconv.Itoa(id) + "/stat")
				t.Logf("%d: %s", id, stat)
			}
			t.Fatalf("some of %v are still there", ids)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func zombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// When the client goes the program may finish what it is at; one that doesn't
// listen is stopped, and all that it started goes with it.
func TestSocketEndsTheProgram(t *testing.T) {
	b := program(t, `while read -r line; do echo "$line" >> said; done; echo one last line; echo end >> said; echo $? $$ > done`, stdio.Lines)
	c := connect(t, b)
	c.send(protocol.Text, "last words")
	c.WriteClose(1000, "")
	c.Close()
	pids(t, filepath.Join(b.Dir, "done"), 2)
	if said, _ := os.ReadFile(filepath.Join(b.Dir, "said")); string(said) != "last words\nend\n" {
		t.Errorf("the program has read %q", said)
	}
	if _, err := c.Read(make([]byte, 10)); protocol.KindOf(err) != protocol.ClientGone {
		t.Errorf("a Read after Close: %v", err)
	}
	for _, script := range []string{
		`sleep 1000 & echo $$ $! > pids; wait`,
		`trap '' TERM; sleep 1000 & echo $$ $! > pids; while :; do sleep 1000; done`,
		`echo $$ $$ > pids; exec yes`,
	} {
		b := program(t, script, stdio.Lines)
		c := connect(t, b)
		ids := pids(t, filepath.Join(b.Dir, "pids"), 2)
		c.Close()
		gone(t, ids)
	}
	ctx, leave := context.WithCancel(t.Context())
	b = program(t, `echo $$ > pids; exec sleep 1000`, stdio.Lines)
	x, err := b.Open(ctx, &protocol.Request{Role: protocol.WebSocket})
	if err != nil {
		t.Fatal(err)
	}
	ids := pids(t, filepath.Join(b.Dir, "pids"), 1)
	leave()
	gone(t, ids)
	if _, err := x.Read(make([]byte, 100)); err == nil {
		_, err = x.Read(make([]byte, 100))
		if protocol.KindOf(err) != protocol.ClientGone {
			t.Errorf("after the end of the context: %v", err)
		}
	}
}

// A program that doesn't read makes the client wait, and one whose client
// doesn't read has to wait; either way nothing piles up, and Close ends it.
func TestSocketBackpressure(t *testing.T) {
	b := program(t, "exec sleep 1000", stdio.Lines)
	c := connect(t, b)
	text := append(protocol.AppendMessage(nil, protocol.Text, 50_000), make([]byte, 50_000)...)
	var written sync.WaitGroup
	var sent int
	var err error
	written.Go(func() {
		for err == nil {
			_, err = c.Write(text)
			sent++
		}
	})
	time.Sleep(100 * time.Millisecond)
	c.Close()
	written.Wait()
	if sent > 20 || protocol.KindOf(err) != protocol.ClientGone {
		t.Errorf("%d messages were taken, then %v", sent, err)
	}

	b = program(t, `echo $$ > pid; exec yes`, stdio.Lines)
	c = connect(t, b)
	c.expect(protocol.Text, "y")
	id := pids(t, filepath.Join(b.Dir, "pid"), 1)
	// It has written what the pipe and the socket hold, and waits.
	for written, deadline := "", time.Now().Add(5*time.Second); ; time.Sleep(50 * time.Millisecond) {
		now := wrote(t, id[0])
		if now == written {
			break
		}
		if written = now; time.Now().After(deadline) {
			t.Fatalf("it goes on writing: %s", written)
		}
	}
	for range 200_000 { // more than the pipe held
		c.expect(protocol.Text, "y")
	}
	c.Close()
	gone(t, id)
}

// wrote is the line of a process's /proc/PID/io on what it has written.
func wrote(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "wchar: ")
	line, _, _ := strings.Cut(after, "\n")
	return line
}

func TestSocketIsRefused(t *testing.T) {
	b := program(t, "exec cat", stdio.Lines)
	connect(t, b)
	second := connect(t, b)
	_, err := b.Open(t.Context(), &protocol.Request{Role: protocol.WebSocket})
	if protocol.KindOf(err) != protocol.Overloaded {
		t.Errorf("one too many: %v", err)
	}
	second.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		x, err := b.Open(t.Context(), &protocol.Request{Role: protocol.WebSocket})
		if err == nil {
			x.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no place after one has left: %v", err)
		}
	}
	b = program(t, "", stdio.Lines)
	b.Command = []string{"/nowhere/program"}
	if _, err := b.Open(t.Context(), &protocol.Request{Role: protocol.WebSocket}); protocol.KindOf(err) != protocol.Unavailable {
		t.Errorf("a program that there is not: %v", err)
	}
}
