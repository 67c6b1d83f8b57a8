package procpool

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// eaterMain holds as many MiB as it is asked to, after a start of its like with
// EATER_CHILD set. It says when it does, and ends with its standard input.
func eaterMain() {
	mib, _ := strconv.Atoi(os.Getenv("EATER"))
	if os.Getenv("EATER_CHILD") != "" {
		c := exec.Command("/proc/self/exe")
		c.Env = []string{roleVar + "=eater", "EATER=" + os.Getenv("EATER_CHILD")}
		c.Stdin = os.Stdin
		out, _ := c.StdoutPipe()
		if err := c.Start(); err != nil {
			panic(err)
		}
		_, _ = bufio.NewReader(out).ReadString('\n')
	}
	// Not from the heap, for which the race detector takes as much again.
	block, err := unix.Mmap(-1, 0, max(1, mib<<20), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	block[0] = 2 // still in use
	os.Exit(0)
}

func TestProcessMemory(t *testing.T) {
	eat := func(mib, child string) int {
		t.Helper()
		c := exec.Command(self(t))
		c.Env = []string{roleVar + "=eater", "EATER=" + mib, "EATER_CHILD=" + child}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = c.Wait() })
		if line, _ := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "held" {
			t.Fatalf("the child said %q", line)
		}
		return c.Process.Pid
	}
	small, big, parent := eat("0", ""), eat("80", ""), eat("0", "80")
	for _, pss := range []bool{false, true} {
		if pss && !pssSupported() {
			t.Log("the kernel tells no Pss")
			continue
		}
		measure := func(pid int) int64 {
			t.Helper()
			n, err := processMemory(pid, pss)
			if err != nil {
				t.Fatal(err)
			}
			return n >> 20
		}
		base := measure(small)
		if got := measure(big) - base; got < 70 || got > 100 {
			t.Errorf("pss %v: 80 MiB more count as %d", pss, got)
		}
		// The child has a runtime of its own, too.
		if got := measure(parent) - base; got < 70 || got > 100+base {
			t.Errorf("pss %v: 80 MiB of a child count as %d", pss, got)
		}
		if base < 1 || base > 60 {
			t.Errorf("pss %v: a process with nothing holds %d MiB", pss, base)
		}
	}
	if n, err := processMemory(1<<30, false); err == nil {
		t.Errorf("a process that isn't there holds %d bytes", n)
	}
	if n := testing.AllocsPerRun(20, func() { _, _ = processMemory(small, false) }); n > 60 {
		t.Errorf("%v allocations", n)
	}
}
