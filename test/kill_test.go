package test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Nothing survives a gateway that is killed with -9, neither process, whatever
// session it is in, nor folder nor socket, and the next one can take its place at
// once.
func TestClass44NothingOutlivesTheGateway(t *testing.T) {
	dir := harness.CGIDir(t)
	// The path of a Unix socket has room for 107 bytes; t.TempDir's may be longer.
	short, err := os.MkdirTemp("", "kill-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	tmp, socket := filepath.Join(short, "tmp"), filepath.Join(short, "http.sock")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	mark := "GATECREW_TEST_MARK=" + filepath.Base(short)
	config := harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
listen: [127.0.0.1:%d, "unix:%s"]
log: {access: "off"}
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 2, env: {TEST_DIR: %q, GATECREW_TEST_MARK: %q}}
sites:
  - routes:
      - {path: /cgi, cgi: {dir: %q, env: {TEST_DIR: %q, GATECREW_TEST_MARK: %q}}}
      - {path: /pool, pool: probe}
`, harness.FreePort(t), socket, harness.App(t), harness.Python(t), short, filepath.Base(short),
		dir, short, filepath.Base(short)))
	prepare := func() *harness.Gateway {
		g := harness.New(t, "serve", "-c", config, "--log-level", "warn")
		// harness.New chooses an address, and here it must be the same again.
		g.Args = g.Args[:len(g.Args)-2]
		g.Env = []string{"TMPDIR=" + tmp, mark}
		return g
	}
	for round := range scaled(5, 100) {
		g := prepare()
		if round%3 == 2 { // somewhere in its start
			g.Launch()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			g.Kill9()
		} else {
			g.Start()
			if conn, err := net.Dial("unix", socket); err != nil {
				t.Errorf("round %d: the Unix socket: %v", round, err)
			} else {
				conn.Close()
			}
			killUnderLoad(t, g, fmt.Sprintf("round-%d", round), short)
		}
		deadline := time.Now().Add(2 * time.Second)
		for len(marked(mark)) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		for _, p := range marked(mark) {
			t.Errorf("round %d: still there: %v %s", round, p, commandLine(p.PID))
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
		left, _ := filepath.Glob(filepath.Join(tmp, "*"))
		for len(left) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
			left, _ = filepath.Glob(filepath.Join(tmp, "*"))
		}
		if len(left) > 0 {
			t.Errorf("round %d: left in the temporary folder: %v", round, left)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("round %d: the socket is left: %v", round, err)
		}
	}
	g := prepare().Start()
	if r := g.Get("/pool/token?x=after"); r.Body != "after" {
		t.Errorf("after all of it: %+v", r)
	}
}

// killUnderLoad kills a gateway while it has requests of every kind, and waits
// until its guard has done its work.
func killUnderLoad(t *testing.T, g *harness.Gateway, name, dir string) {
	var clients sync.WaitGroup
	for _, target := range []string{
		"/pool/token?x=1", "/pool/sleep?s=0.05", "/cgi/echo.sh", "/cgi/drip.py?endless=1", "/cgi/hang.py?children=2",
		"/cgi/hang.py?children=1&ignore_term=1&setsid=1&name=" + name,
		"/cgi/double-fork.py?sleep=300&name=" + name + "-daemon",
	} {
		clients.Go(func() {
			c := newCaller(g)
			defer c.close()
			for {
				if _, err := c.call("GET", target, ""); err != nil {
					return // the gateway is gone
				}
			}
		})
	}
	family := append(pidsIn(t, filepath.Join(dir, name)), pidsIn(t, filepath.Join(dir, name+"-daemon"))...)
	family = append(family, harness.Descendants(g.PID)...)
	g.Kill9()
	clients.Wait()
	allGone(t, 2*time.Second, name, family)
}

// A socket's name outlives a process that is killed. It must neither be in the
// way of the next one, nor be taken from one that is alive.
func TestClass54UnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "socket-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "http.sock")
	prepare := func(addresses ...string) *harness.Gateway {
		args := []string{"run", harness.App(t, "cgi")}
		for _, a := range addresses {
			args = append(args, "--bind", a)
		}
		return harness.New(t, args...)
	}
	answers := func() error {
		c := &caller{network: "unix", addr: socket}
		defer c.close()
		r, err := c.call("GET", "/echo.sh?x=1", "")
		if err == nil && r.Status != 200 {
			err = fmt.Errorf("got %+v", r)
		}
		return err
	}

	killed := prepare("127.0.0.1:0", "unix:"+socket).Start()
	info, err := os.Stat(socket)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, %v; want a socket with 0660", info.Mode(), err)
	}
	if err := answers(); err != nil {
		t.Error(err)
	}
	killed.Kill9()
	harness.Eventually(t, 2*time.Second, "the socket is gone with its gateway", func() bool {
		_, err := os.Lstat(socket)
		return os.IsNotExist(err)
	})
	// One that nobody was left to remove.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	g := prepare("127.0.0.1:0", "unix:"+socket).Start()
	if err := answers(); err != nil {
		t.Errorf("over a stale socket: %v", err)
	}
	for _, address := range []string{"unix:" + socket, g.Addr} {
		second := prepare(address).Launch()
		if !second.Wait(10 * time.Second) {
			t.Fatal("a second gateway on the same address runs")
		}
		if code := second.ExitCode(); code != 1 {
			t.Errorf("%s: exit status %d, want 1", address, code)
		}
		message := second.Stderr()
		if !strings.Contains(message, strings.TrimPrefix(address, "unix:")) || !strings.Contains(message, "in use") || !strings.Contains(message, "--bind") {
			t.Errorf("%s: the message names neither address nor what to do: %s", address, message)
		}
		if err := answers(); err != nil {
			t.Errorf("the first gateway, after the start of a second one: %v", err)
		}
	}

	g.Stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("after a clean stop the socket is left: %v", err)
	}

	// What is no socket is somebody's file.
	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := prepare("unix:" + socket).Launch()
	if !refused.Wait(10*time.Second) || refused.ExitCode() != 1 {
		t.Error("a file in the socket's place was not refused with exit status 1")
	}
	if data, _ := os.ReadFile(socket); string(data) != "precious" {
		t.Errorf("the file has %q now", data)
	}
}
