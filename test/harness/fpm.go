package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// FPM is a running php-fpm with one static pool for test/apps/php.
type FPM struct {
	PID    int
	Dir    string // its files, and TEST_DIR for the scripts
	Socket string // the path of its FastCGI socket

	t testing.TB
}

// StartFPM starts php-fpm, as whoever runs the test, with this many children,
// each of which ends after maxRequests requests (0: never). It stops with the
// test.
func StartFPM(t testing.TB, children, maxRequests int) *FPM {
	t.Helper()
	// Debian puts the version into the name of the program.
	binaries, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if len(binaries) == 0 {
		t.Fatal("harness: no php-fpm here; install it with test/setup.sh")
	}
	template, err := os.ReadFile(App(t, "php", "fpm.conf.in"))
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// The path of a Unix socket has room for 107 bytes; t.TempDir's may be longer.
	dir, err := os.MkdirTemp("", "fpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := strings.NewReplacer(
		"@DIR@", dir, "@USER@", me.Username,
		"@CHILDREN@", fmt.Sprint(children), "@MAX_REQUESTS@", fmt.Sprint(maxRequests),
	).Replace(string(template))
	config := filepath.Join(dir, "fpm.conf")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}

	cmd := exec.Command(binaries[len(binaries)-1], "--allow-to-run-as-root", "--nodaemonize", "--fpm-config", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := onLongLivedThread(cmd.Start); err != nil {
		t.Fatalf("harness: %v", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed, as it must be
	})
	f := &FPM{PID: cmd.Process.Pid, Dir: dir, Socket: filepath.Join(dir, "php.sock"), t: t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("php-fpm's log:\n%s", f.Log())
		}
	})
	Eventually(t, 10*time.Second, "php-fpm is ready", func() bool {
		c, err := net.Dial("unix", f.Socket)
		if err == nil {
			c.Close()
		}
		return err == nil && len(Descendants(f.PID)) == children
	})
	return f
}

// Log is what php-fpm itself has logged so far, such as children that ended.
func (f *FPM) Log() string {
	data, err := os.ReadFile(filepath.Join(f.Dir, "fpm.log"))
	if err != nil && !os.IsNotExist(err) {
		f.t.Fatal(err)
	}
	return string(data)
}
