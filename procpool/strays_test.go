package procpool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// strays counts the marked processes that lead a session and are sleep, which is
// what tests move away.
func strays(t *testing.T, mark string) (n int) {
	t.Helper()
	for _, pid := range marked(t, mark) {
		session, err := syscall.Getpgid(pid)
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && session == pid && string(name) == "sleep\n" {
			n++
		}
	}
	return n
}

// straysMain runs the scripts that it reads, a line each: "KEEP TEXT", "END
// TEXT" or "WHOLE TEXT" with a Runner that keeps what is left behind, doesn't, or
// ends what has left the group too, "STOP TEXT" with
// a stop once the script has written something, and "HANG TEXT" which is left
// running. It answers each with a line, and the end of the lines with the end of
// everything.
func straysMain() {
	if err := BecomeReaper(); err != nil {
		panic(err)
	}
	plain := NewRunner(RunnerConfig{Name: "cgi", StopGrace: 100 * time.Millisecond})
	keeping := NewRunner(RunnerConfig{Name: "cgi", KeepBackground: true})
	whole := NewRunner(RunnerConfig{Name: "socket", EndWhole: true})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		kind, text, _ := strings.Cut(lines.Text(), " ")
		runner := plain
		switch kind {
		case "KEEP":
			runner = keeping
		case "WHOLE":
			runner = whole
		}
		env := []string{"PATH=/bin:/usr/bin", markVar + "=" + os.Getenv(markVar)}
		p, err := runner.Start(context.Background(), Command{Path: "/bin/sh", Argv: []string{"sh", "-c", text}, Env: env}, os.Stderr)
		if err != nil {
			panic(err)
		}
		one := make([]byte, 1)
		_, _ = io.ReadFull(p.Stdout, one)
		switch kind {
		case "STOP":
			p.Stop()
		case "HANG":
		default:
			_, _ = io.Copy(io.Discard, p.Stdout)
		}
		if kind != "HANG" {
			<-p.Done()
			_ = p.Close()
		}
		fmt.Println("did", kind)
	}
	plain.Close()
	keeping.Close()
	whole.Close()
	EndStrays(300 * time.Millisecond)
	fmt.Println("did all")
	os.Exit(0)
}

type straysGateway struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startStrays(t *testing.T) *straysGateway {
	t.Helper()
	g := &straysGateway{Cmd: exec.Command(self(t))}
	g.Env = []string{"GORACE=atexit_sleep_ms=0", roleVar + "=strays", mark(t)}
	g.Stderr = os.Stderr
	var err error
	if g.in, err = g.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.out = bufio.NewReader(out)
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Process.Kill()
		_ = g.Wait()
		for _, pid := range marked(t, t.Name()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return g
}

func (g *straysGateway) await(t *testing.T, want string) {
	t.Helper()
	if line, err := g.out.ReadString('\n'); err != nil || line != "did "+want+"\n" {
		t.Fatalf("%q, %v; want %q", line, err, want)
	}
}

func (g *straysGateway) run(t *testing.T, kind, text string) {
	t.Helper()
	fmt.Fprintln(g.in, kind, text)
	g.await(t, kind)
}

// sleepers returns the arguments of the marked processes that are sleep.
func sleepers(t *testing.T, mark string) (arguments []string) {
	for _, pid := range marked(t, mark) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if words := bytes.Split(bytes.Trim(line, "\x00"), []byte{0}); string(words[0]) == "sleep" {
			arguments = append(arguments, string(words[1]))
		}
	}
	return arguments
}

// What has left its process group ends with what started it when that was
// ended, and else with the gateway, unless it was to be kept.
func TestStrays(t *testing.T) {
	g := startStrays(t)
	has := func(what string, want ...string) {
		t.Helper()
		var now []string
		eventually(t, what, func() bool {
			now = sleepers(t, t.Name())
			return len(now) == len(want)
		})
		for _, w := range want {
			if !strings.Contains(" "+strings.Join(now, " ")+" ", " "+w+" ") {
				t.Errorf("%s: %v are left, want %v", what, now, want)
			}
		}
	}
	// A script that is stopped takes along what it moved away, whether the
	// parent of that still lives or not.
	g.run(t, "STOP", "trap '' TERM; setsid sleep 1001 & (setsid sleep 1002 &); sleep 0.1; echo x; while :; do sleep 1; done")
	if now := sleepers(t, t.Name()); len(now) != 0 {
		t.Errorf("after a stop: %v are left", now)
	}
	// So does one that is to end whole, however it ends.
	g.run(t, "WHOLE", "setsid sleep 1001 >/dev/null 2>&1 & (setsid sleep 1002 >/dev/null 2>&1 &); echo x; sleep 0.1")
	if now := sleepers(t, t.Name()); len(now) != 0 {
		t.Errorf("after an end as a whole: %v are left", now)
	}
	// One that ends in peace leaves its daemon, and nothing else.
	g.run(t, "END", "(setsid sleep 1003 >/dev/null 2>&1 &); sleep 1004 >/dev/null 2>&1 & echo x; sleep 0.1")
	has("a daemon after its script", "1003")
	// One that crashes doesn't.
	g.run(t, "END", "(setsid sleep 1005 >/dev/null 2>&1 &); sleep 0.1; kill -SEGV $$")
	has("after a crash", "1003")
	g.run(t, "KEEP", "(setsid sleep 1006 >/dev/null 2>&1 &); echo x; sleep 0.1")
	// A daemon that doesn't listen to TERM: a shell, whose sleep does.
	g.run(t, "END", `(setsid sh -c 'trap "" TERM; sleep 1007; sleep 1008' >/dev/null 2>&1 &); echo x; sleep 0.1`)
	has("daemons", "1003", "1006", "1007")
	_ = g.in.Close()
	g.await(t, "all")
	_ = g.Wait()
	has("after the end", "1006")
}

// Without strangers a stray needs no variable to be known.
func TestStraysThatHide(t *testing.T) {
	g := startStrays(t)
	g.run(t, "END", `(env -i `+markVar+`="$`+markVar+`" setsid sleep 1001 >/dev/null 2>&1 &); echo x; sleep 0.1`)
	eventually(t, "a daemon without a variable", func() bool { return len(sleepers(t, t.Name())) == 1 })
	_ = g.in.Close()
	g.await(t, "all")
	if now := sleepers(t, t.Name()); len(now) != 0 {
		t.Errorf("%v are left", now)
	}
}

// What is left to end when nobody ended it in order: also what hides, as long
// as its parent lives when it is stopped; and never what is to be kept.
func TestStraysAfterKill(t *testing.T) {
	g := startStrays(t)
	g.run(t, "KEEP", "(setsid sleep 1001 >/dev/null 2>&1 &); echo x; sleep 0.1")
	g.run(t, "END", "(setsid sleep 1002 >/dev/null 2>&1 &); echo x; sleep 0.1")
	g.run(t, "HANG", "setsid sleep 1003 & (setsid sleep 1004 & ); sleep 1005 & sleep 0.1; echo x; wait")
	eventually(t, "all daemons", func() bool { return len(sleepers(t, t.Name())) == 5 })
	_ = g.Process.Kill()
	eventually(t, "all but one end", func() bool {
		now := sleepers(t, t.Name())
		return len(now) == 1 && now[0] == "1001"
	})
}

func TestHasMark(t *testing.T) {
	const mark = "TOKEN"
	for value, want := range map[string]bool{"TOKEN/12": true, "TOKEN": true, "TOKEN2/1": false, "OTHER/1": false, "": false} {
		c := exec.Command("/bin/sleep", "300")
		c.Env = []string{"A=B", instanceVar + "=" + value, "C=D"}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its environment", func() bool { // which the kernel fills in a moment after the exec
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.Process.Pid))
			return err == nil && strings.HasSuffix(string(env), "C=D\x00")
		})
		if got := hasMark(c.Process.Pid, mark); got != want {
			t.Errorf("%q: %v", value, got)
		}
		if got := hasMark(c.Process.Pid, "TOKEN/1"); got {
			t.Errorf("%q is taken for TOKEN/1", value)
		}
		_ = c.Process.Kill()
		_, _ = c.Process.Wait()
	}
}

// The guard removes the socket that it was told of and no other.
func TestRemoveSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a b")
	listen := func() string {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		_ = l.Close()
		id, err := socketID(path)
		if err != nil {
			t.Fatal(err)
		}
		return id + " " + strconv.Quote(path)
	}
	first := listen()
	_ = os.Remove(path)
	second := listen()
	removeSocket(first)
	removeSocket("x")
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a socket that took the place of the first: %v", err)
	}
	removeSocket(second)
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	removeSocket(second)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a file that took the place of the socket: %v", err)
	}
	if _, err := GuardSocket(path); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("a file as a socket: %v", err)
	}
}
