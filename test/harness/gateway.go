package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Gateway is one gatecrew process under test. The exported fields down to
// StopWithin may be changed between New and Start.
type Gateway struct {
	Binary     string        // what to run; empty means Build(t)
	Args       []string      // its arguments
	Dir        string        // working directory: a temporary one unless changed
	Env        []string      // added to the test's own environment
	StartIn    time.Duration // how long it may take to be ready
	StopWithin time.Duration // how long it may take to end after a TERM

	URL  string // "http://127.0.0.1:PORT", known after Start
	Addr string // "127.0.0.1:PORT"
	PID  int

	t              testing.TB
	cmd            *exec.Cmd
	exited         chan struct{} // closed when the process has been waited for
	killed         bool
	stdout, stderr output
}

// readers has the --http1 of the gateways that New prepares for a test and those
// below it, by the test's name: see EachReader.
var readers sync.Map

// EachReader runs a test once for each reader of HTTP/1.1 that gateways have.
func EachReader(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, name := range []string{"fast", "net"} {
		t.Run(name, func(t *testing.T) {
			readers.Store(t.Name(), name)
			test(t)
		})
	}
}

// readerOf finds what EachReader has chosen for a test; "" when that didn't run it.
func readerOf(test string) string {
	for {
		if reader, ok := readers.Load(test); ok {
			return reader.(string)
		}
		slash := strings.LastIndexByte(test, '/')
		if slash < 0 {
			return ""
		}
		test = test[:slash]
	}
}

// New prepares `gatecrew ARGS…`. The subcommands run and serve get
// --bind 127.0.0.1:0 unless args choose an address themselves, and the --http1
// of EachReader.
func New(t testing.TB, args ...string) *Gateway {
	t.Helper()
	bound := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--bind") })
	if len(args) > 0 && (args[0] == "run" || args[0] == "serve") && !bound {
		args = append(slices.Clone(args), "--bind", "127.0.0.1:0")
	}
	if reader := readerOf(t.Name()); reader != "" && len(args) > 0 && (args[0] == "run" || args[0] == "serve") {
		args = append(slices.Clone(args), "--http1", reader)
	}
	return &Gateway{
		Args: args, Dir: t.TempDir(), StartIn: 30 * time.Second, StopWithin: 20 * time.Second,
		t: t, exited: make(chan struct{}),
	}
}

// Start is New and Start in one call.
func Start(t testing.TB, args ...string) *Gateway {
	t.Helper()
	return New(t, args...).Start()
}

// Serve starts `gatecrew serve` with a configuration given as text.
func Serve(t testing.TB, yaml string) *Gateway {
	t.Helper()
	return Start(t, "serve", "-c", WriteFile(t, "gatecrew.yaml", yaml))
}

// WriteFile writes a file into a new temporary folder and returns its path.
func WriteFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The ready line names the address: "gatecrew: ready on http://…".
var readyLine = regexp.MustCompile(`\bhttps?://(\S+?:\d+)`)

// Start runs the gateway and returns when it is ready. The test stops it at
// its end, see Stop.
func (g *Gateway) Start() *Gateway {
	g.t.Helper()
	g.Launch()
	deadline := time.Now().Add(g.StartIn)
	for g.URL == "" {
		if m := readyLine.FindStringSubmatch(g.Stdout()); m != nil {
			g.URL, g.Addr = m[0], m[1]
			break
		}
		if g.Exited() || time.Now().After(deadline) {
			g.t.Fatalf("harness: the gateway did not become ready (exited: %v)%s", g.Exited(), g.transcript())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return g
}

// Launch runs the gateway and does not wait for it: for starts that must fail.
func (g *Gateway) Launch() *Gateway {
	g.t.Helper()
	if g.Binary == "" {
		g.Binary = Build(g.t)
	}
	g.cmd = exec.Command(g.Binary, g.Args...)
	// A binary with the race detector otherwise waits a second before it exits.
	g.cmd.Dir, g.cmd.Env = g.Dir, slices.Concat([]string{"GORACE=atexit_sleep_ms=20"}, os.Environ(), g.Env)
	g.cmd.Stdout, g.cmd.Stderr = &g.stdout, &g.stderr
	// A child that inherited the pipes must not keep Wait from returning.
	g.cmd.WaitDelay = time.Second
	// Its own group keeps a Ctrl-C in the terminal from reaching it twice; the
	// death signal ends it when a test process dies without clean-up.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := onLongLivedThread(g.cmd.Start); err != nil {
		g.t.Fatalf("harness: %v", err)
	}
	g.PID = g.cmd.Process.Pid
	go func() {
		_ = g.cmd.Wait() // the exit status is in ProcessState
		close(g.exited)
	}()
	g.t.Cleanup(func() { g.Stop() })
	return g
}

// onLongLivedThread runs start on one thread that never ends: the kernel
// sends the parent-death signal when the starting thread ends, not the process.
func onLongLivedThread(start func() error) error {
	done := make(chan error)
	starter() <- func() { done <- start() }
	return <-done
}

var starter = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// Stop ends the gateway with a TERM, waits for it, and fails the test if it
// was late, ended badly (before this call, too), reported a data race or a
// panic, or left a process behind. Calling it again does no harm.
func (g *Gateway) Stop() {
	g.t.Helper()
	if g.Exited() {
		if code := g.ExitCode(); g.URL != "" && code != 0 && !g.killed {
			g.t.Errorf("harness: the gateway ended by itself with exit status %d%s", code, g.transcript())
		}
		g.checkOutput()
		return
	}
	family := Descendants(g.PID)
	g.Signal(syscall.SIGTERM)
	if !g.Wait(g.StopWithin) {
		g.Signal(syscall.SIGQUIT) // the Go runtime answers with all stacks
		if !g.Wait(2 * time.Second) {
			g.Signal(syscall.SIGKILL)
			g.Wait(10 * time.Second)
		}
		g.t.Errorf("harness: the gateway did not end within %v of a TERM%s", g.StopWithin, g.transcript())
		return
	}
	if code := g.ExitCode(); code != 0 {
		g.t.Errorf("harness: exit status %d after a TERM, want 0%s", code, g.transcript())
	}
	g.checkOutput()
	// What was killed together with it may need a moment to be gone.
	for deadline := time.Now().Add(time.Second); ; time.Sleep(5 * time.Millisecond) {
		family = slices.DeleteFunc(family, func(p Process) bool { return !p.Alive() })
		if len(family) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, p := range family {
		g.t.Errorf("harness: left behind: %v", p)
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// Kill9 ends the gateway as a crash would, and waits until it is gone.
func (g *Gateway) Kill9() {
	g.t.Helper()
	g.killed = true
	g.Signal(syscall.SIGKILL)
	if !g.Wait(10 * time.Second) {
		g.t.Fatal("harness: the gateway outlived a KILL")
	}
}

// Signal sends a signal to the gateway itself, not to its children.
func (g *Gateway) Signal(sig syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil && !g.Exited() {
		g.t.Fatalf("harness: signal %v: %v", sig, err)
	}
}

// Wait reports whether the gateway ended within d.
func (g *Gateway) Wait(d time.Duration) bool {
	select {
	case <-g.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// Exited reports whether the gateway has ended.
func (g *Gateway) Exited() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

// ExitCode is its exit status, -1 after a signal. It must have ended.
func (g *Gateway) ExitCode() int { return g.cmd.ProcessState.ExitCode() }

// Stdout and Stderr are what it has written so far.
func (g *Gateway) Stdout() string { return g.stdout.String() }
func (g *Gateway) Stderr() string { return g.stderr.String() }

// LogLine waits for a line on standard error that contains text.
func (g *Gateway) LogLine(text string) {
	g.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(g.Stderr(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("harness: no %q in the log%s", text, g.transcript())
		}
	}
}

// checkOutput looks for what must never be in a log, however the test ended.
func (g *Gateway) checkOutput() {
	g.t.Helper()
	for _, bad := range []string{"WARNING: DATA RACE", "panic:", "fatal error:", "goroutine 1 ["} {
		if strings.Contains(g.Stderr(), bad) {
			g.t.Errorf("harness: %q on standard error%s", bad, g.transcript())
			return
		}
	}
}

func (g *Gateway) transcript() string {
	return fmt.Sprintf("\n$ gatecrew %s\n--- stdout\n%s--- stderr\n%s",
		strings.Join(g.Args, " "), tail(g.Stdout()), tail(g.Stderr()))
}

// tail keeps failure messages readable.
func tail(s string) string {
	const limit = 16 << 10
	if len(s) <= limit {
		return s
	}
	return "[…]" + s[len(s)-limit:]
}

// output collects what the process writes; the zero value is empty.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
