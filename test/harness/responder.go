package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// StartResponder starts test/apps/fcgi/responder.pl, a FastCGI application on
// the reference implementation, with this many processes, and returns the path
// of its socket. It stops with the test.
func StartResponder(t testing.TB, processes int) (socket string) {
	t.Helper()
	// The path of a Unix socket has room for 107 bytes; t.TempDir's may be longer.
	dir, err := os.MkdirTemp("", "fcgi-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := exec.Command("perl", App(t, "fcgi", "responder.pl"), socket, fmt.Sprint(processes))
	var complaints output
	cmd.Stderr = &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := onLongLivedThread(cmd.Start); err != nil {
		t.Fatalf("harness: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("responder.pl's standard error:\n%s", tail(complaints.String()))
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed, as it must be
	})
	Eventually(t, 10*time.Second, "responder.pl listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return socket
}
