package procpool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// newRunner returns a Runner that is closed, and must leave nothing, at the end.
func newRunner(t *testing.T, cfg RunnerConfig) *Runner {
	t.Helper()
	cfg.Name = "cgi"
	r := NewRunner(cfg)
	t.Cleanup(func() {
		r.Close()
		noneLeft(t, t.Name())
		if s := r.Stats(); s.InUse != 0 {
			t.Errorf("%d slots in use in the end", s.InUse)
		}
	})
	return r
}

func shell(t *testing.T, script string) Command {
	t.Helper()
	return Command{
		Path: "/bin/sh", Argv: []string{"sh", "-c", script},
		Env: []string{"PATH=/usr/bin:/bin", mark(t)},
	}
}

func start(t *testing.T, r *Runner, c Command, stderr io.Writer) *Process {
	t.Helper()
	p, err := r.Start(t.Context(), c, stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// readAll reads a program's output and closes its input first.
func readAll(t *testing.T, p *Process) string {
	t.Helper()
	_ = p.Stdin.Close()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestOneShot(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	var stderr bytes.Buffer
	dir := t.TempDir()
	c := shell(t, `pwd; echo "$1 $FOO"; cat; echo oops >&2; exit 3`)
	c.Argv = append(c.Argv, "name", "argument")
	c.Env = append(c.Env, "FOO=bar")
	c.Dir = dir
	p := start(t, r, c, &stderr)
	if _, err := p.Stdin.WriteString("body\n"); err != nil {
		t.Fatal(err)
	}
	if got, want := readAll(t, p), dir+"\nargument bar\nbody\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	<-p.Done()
	if stderr.String() != "oops\n" {
		t.Errorf("stderr %q", stderr.String())
	}
	if p.State() != (Exit{Code: 3}) || p.State().String() != "exit status 3" || p.State().Success() {
		t.Errorf("state %v", p.State())
	}
}

func TestOneShotStartErrors(t *testing.T) {
	r := newRunner(t, RunnerConfig{Max: 1, QueueLength: -1})
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	noexec := file + "2"
	if err := os.WriteFile(noexec, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		command Command
		want    error
	}{
		{Command{Path: file + "-absent"}, fs.ErrNotExist},
		{Command{Path: file}, fs.ErrPermission},
		{Command{Path: noexec}, syscall.ENOEXEC},
		{Command{Path: "/bin/true", Env: []string{"X=" + strings.Repeat("x", 200<<10)}}, syscall.E2BIG},
		{Command{Path: "/bin/true", Env: []string{"X=\x00"}}, syscall.EINVAL},
		{Command{Path: "/bin/true", Dir: file + "-absent"}, fs.ErrNotExist},
	} {
		// The slot must be free again each time.
		if _, err := r.Start(t.Context(), c.command, nil); !errors.Is(err, ErrStart) || !errors.Is(err, c.want) {
			t.Errorf("%.40v: %v, want %v", c.command, err, c.want)
		}
	}
}

func TestOneShotQueue(t *testing.T) {
	r := newRunner(t, RunnerConfig{Max: 1, QueueLength: 1, QueueTimeout: 50 * time.Millisecond})
	p := start(t, r, shell(t, "cat"), nil)
	var refused *QueueError
	if _, err := r.Start(t.Context(), shell(t, "true"), nil); !errors.Is(err, ErrQueueTimeout) || !errors.As(err, &refused) {
		t.Fatalf("no place in time: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Start(ctx, shell(t, "true"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("client gone: %v", err)
	}
	_ = readAll(t, p)
	<-p.Done()
	_ = readAll(t, start(t, r, shell(t, "true"), nil))
}

// Class 41: a program has descriptors 0, 1 and 2 and no others.
func TestOneShotDescriptors(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	var wg sync.WaitGroup
	for range 20 { // many forks at once is when descriptors leak
		wg.Go(func() {
			p := start(t, r, Command{Path: "/bin/ls", Argv: []string{"ls", "/proc/self/fd"}}, nil)
			// ls itself has the directory open, as the lowest free number.
			if got := strings.Fields(readAll(t, p)); strings.Join(got, " ") != "0 1 2 3" {
				t.Errorf("descriptors %q", got)
			}
		})
	}
	wg.Wait()
}

// Class 43: what a program leaves running doesn't hold its answer open.
func TestOneShotBackgroundChild(t *testing.T) {
	for _, c := range []struct {
		name, script string
		keep         bool
		survive      bool
	}{
		{"killed", "sleep 300 & echo hello", false, false},
		{"kept", "sleep 300 & echo hello", true, true},
		// In a session of its own it is out of reach, but the answer ends.
		{"escaped", "setsid sleep 300 & sleep 0.1; echo hello", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunner(t, RunnerConfig{KeepBackground: c.keep})
			begin := time.Now()
			p := start(t, r, shell(t, c.script), io.Discard)
			if got := readAll(t, p); got != "hello\n" {
				t.Errorf("stdout %q", got)
			}
			<-p.Done()
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if p.State() != (Exit{}) {
				t.Errorf("state %v", p.State())
			}
			if c.survive {
				left := marked(t, t.Name())
				if len(left) != 1 {
					t.Fatalf("left: %v", left)
				}
				_ = syscall.Kill(left[0], syscall.SIGKILL)
			}
		})
	}
}

// An answer that is still in the pipe when its program has ended is whole.
func TestOneShotSlowReader(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, shell(t, "sleep 300 & head -c 60000 /dev/zero"), nil)
	<-p.Done()
	if got := readAll(t, p); len(got) != 60000 {
		t.Errorf("%d bytes of 60000", len(got))
	}
}

// Wait returns when there is something to read, the end, or a deadline.
func TestOneShotWait(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, shell(t, "read line; echo $line; exec >&-; read line; exit 1"), nil)
	waited := make(chan struct{})
	wait := func() {
		p.Stdout.Wait()
		waited <- struct{}{}
	}
	go wait()
	select {
	case <-waited:
		t.Fatal("there was nothing to wait for")
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := p.Stdin.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	<-waited
	p.Stdout.Wait() // it takes nothing away
	if got, err := io.ReadAll(p.Stdout); string(got) != "hello\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	p.Stdout.Wait() // the end

	p = start(t, r, shell(t, "read line"), nil)
	go wait()
	_ = p.Stdout.SetReadDeadline(time.Unix(1, 0))
	<-waited
	_ = p.Stdout.SetReadDeadline(time.Time{})
	go wait()
	_ = p.Stdin.Close() // it ends
	<-waited
	_ = p.Stdout.Close()
	p.Stdout.Wait()
}

func TestOneShotStop(t *testing.T) {
	const tree = `%s echo ready; (trap '' TERM HUP; while :; do sleep 1; done) & while :; do sleep 1; done`
	for _, c := range []struct {
		name, trap string
		want       Exit
	}{
		{"on TERM", "", Exit{Signal: syscall.SIGTERM}},
		{"on KILL", "trap '' TERM;", Exit{Signal: syscall.SIGKILL}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunner(t, RunnerConfig{StopGrace: 200 * time.Millisecond})
			p := start(t, r, shell(t, strings.Replace(tree, "%s", c.trap, 1)), nil)
			if _, err := io.ReadFull(p.Stdout, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				p.Stop()
			}
			<-p.Done()
			if p.State() != c.want {
				t.Errorf("state %v, want %v", p.State(), c.want)
			}
			noneLeft(t, t.Name())
		})
	}
}

func TestOneShotReadDeadline(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, shell(t, "sleep 300"), nil)
	if err := p.Stdout.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdout.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
}

// Class 36: a flood on descriptor 2 doesn't block the answer.
func TestOneShotStderrFlood(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	var bytes int
	lines := NewLines(func(b []byte) { bytes += len(b) + 1 })
	begin := time.Now()
	p := start(t, r, shell(t, "head -c 100000000 /dev/zero >&2; echo hello"), lines)
	if got := readAll(t, p); got != "hello\n" {
		t.Errorf("stdout %q", got)
	}
	<-p.Done()
	if limit := outputBurst + int(time.Since(begin).Seconds()+1)*outputRate; bytes > limit {
		t.Errorf("%d bytes of log in %v", bytes, time.Since(begin))
	}
}

// Class 55: a script that is being rewritten while it is called.
func TestOneShotTextBusy(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			// Each writes its own program and calls it at once: its fork,
			// or a neighbour's, may hold the file open for writing.
			path := filepath.Join(t.TempDir(), "program"+strconv.Itoa(worker))
			for range 40 {
				_ = os.Remove(path)
				if err := os.WriteFile(path, program, 0o700); err != nil {
					t.Error(err)
				}
				p, err := r.Start(t.Context(), Command{Path: path}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_ = readAll(t, p)
				<-p.Done()
				_ = p.Close()
			}
		})
	}
	wg.Wait()
}

func TestSpawnWaitsForTextBusy(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(program); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, RunnerConfig{})
	if _, err := r.Start(t.Context(), Command{Path: path}, nil); !errors.Is(err, syscall.ETXTBSY) {
		t.Fatalf("open for writing: %v", err)
	}
	time.AfterFunc(30*time.Millisecond, func() { _ = f.Close() })
	p := start(t, r, Command{Path: path}, nil)
	_ = readAll(t, p)
}

func TestRunnerClose(t *testing.T) {
	r := newRunner(t, RunnerConfig{StopGrace: 100 * time.Millisecond})
	p := start(t, r, shell(t, "trap '' TERM; echo ready; while :; do sleep 1; done"), nil)
	if _, err := io.ReadFull(p.Stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	<-p.Done()
	if _, err := r.Start(t.Context(), shell(t, "true"), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("start after close: %v", err)
	}
}

// A kernel without pidfd: the exit is waited for on a thread.
func TestWatchWithoutPidfd(t *testing.T) {
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "sleep 0.05; exit 5"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		t.Fatal(err)
	}
	c := &child{pid: pid, exited: make(chan struct{})}
	c.watch(-1)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the process was reaped by watching it: %v", err)
	}
	if exit := c.reap(false); exit.Code != 5 {
		t.Errorf("exit %v", exit)
	}
	c.signal(syscall.SIGKILL) // must reach nobody
}

// Nothing must be left open by a thousand processes.
func TestOneShotLeaks(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	run := func() {
		p := start(t, r, Command{Path: "/bin/true"}, nil)
		_ = readAll(t, p)
		<-p.Done()
		_ = p.Close()
	}
	run()
	before := openFiles(t)
	for range 100 {
		run()
	}
	eventually(t, "descriptors closed", func() bool { return openFiles(t) <= before })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
