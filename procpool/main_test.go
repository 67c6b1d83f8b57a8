package procpool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleVar has the test binary play another part than the tests.
const roleVar = "PROCPOOL_TEST_ROLE"

// markVar is in the environment of processes that must be gone in the end.
const markVar = "PROCPOOL_TEST_MARK"

// mark is that variable for the processes of a test. They are looked for in the
// whole machine, on which the same test may run for another source tree.
func mark(t *testing.T) string { return markOf(t.Name()) }

func markOf(test string) string { return fmt.Sprintf("%s=%s/%d", markVar, test, os.Getpid()) }

func TestMain(m *testing.M) {
	GuardMain()
	switch os.Getenv(roleVar) {
	case "worker":
		workerMain()
	case "gateway":
		gatewayMain()
	case "confined gateway":
		confinedGatewayMain()
	case "orphans":
		orphansMain()
	case "zygote":
		zygoteMain()
	case "between":
		betweenMain()
	case "reaper":
		if err := BecomeReaper(); err != nil {
			panic(err)
		}
	case "eater":
		eaterMain()
	case "strays":
		straysMain()
	case "cgroup":
		cgroupMain()
	}
	from := goleak.IgnoreCurrent()
	code := m.Run()
	// The spawner and the guard's keeper live as long as the process does.
	if err := goleak.Find(from,
		goleak.IgnoreAnyFunction("gatecrew/procpool.spawnAll"),
		goleak.IgnoreAnyFunction("gatecrew/procpool.(*guardKeeper).attend"),
		goleak.IgnoreAnyFunction("gatecrew/procpool.(*child).watch"),
	); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// workerMain is a worker. It says "ready CAPACITY", and answers "ID ARGUMENT…"
// with "ID ANSWER", any number at a time. $WORKER has the ways in which it
// misbehaves.
func workerMain() {
	mode := os.Getenv("WORKER")
	has := func(word string) bool { return slices.Contains(strings.Fields(mode), word) }
	switch {
	case has("fail"):
		for i := range 60 {
			fmt.Fprintf(os.Stderr, "traceback line %d\n", i)
		}
		if has("modules") {
			fmt.Fprintln(os.NewFile(4, "control"), `{"modules": ["/srv/app.py"`+strings.Repeat(`, "/srv/module.py"`, 20000)+"]}")
		}
		syscall.Exit(4) // os.Exit would let a coverage build add a line
	case has("unready"):
		select {}
	}
	if has("ignore-term") {
		signal.Ignore(syscall.SIGTERM)
	}
	if has("grandchild") {
		// A shell that ignores TERM as well, in the worker's group.
		c := exec.Command("/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done")
		if err := c.Start(); err != nil {
			panic(err)
		}
	}
	if has("stray") {
		c := exec.Command("/bin/sleep", "300")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			panic(err)
		}
	}
	capacity := 1
	if n, err := strconv.Atoi(os.Getenv("CAPACITY")); err == nil {
		capacity = n
	}
	conn := os.NewFile(3, "socket")
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(conn, format+"\n", args...)
	}
	hung := make(chan struct{}) // closed when what hangs is interrupted
	if has("control") {
		go answerCommands(mode, hung)
	}
	say("ready %d", capacity)
	var inProgress sync.WaitGroup
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Fields(lines.Text())
		inProgress.Go(func() {
			switch words[1] {
			case "sleep":
				d, _ := time.ParseDuration(words[2])
				time.Sleep(d)
			case "hang":
				<-hung
			case "exit":
				os.Exit(7)
			case "print":
				fmt.Println(words[2])
			}
			say("%s done", words[0])
		})
	}
	inProgress.Wait()
	if has("deaf") {
		select {}
	}
	os.Exit(0)
}

// testWorker is the command of a worker that misbehaves in the given ways.
func testWorker(t *testing.T, mode string, env ...string) Command {
	t.Helper()
	return Command{
		Path: self(t), Argv: []string{"worker"},
		// The race detector would have every exit wait for a second.
		Env: append([]string{"GORACE=atexit_sleep_ms=0", roleVar + "=worker", "WORKER=" + mode, mark(t)}, env...),
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// testSession speaks to workerMain.
type testSession struct {
	conn     net.Conn
	capacity int
	done     chan struct{}

	mu      sync.Mutex
	next    int
	pending map[string]chan struct{}
}

func attachTest(ctx context.Context, _ WorkerInfo, conn net.Conn) (Session, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReader(conn)
	s := &testSession{conn: conn, done: make(chan struct{}), pending: make(map[string]chan struct{})}
	if _, err := fmt.Fscanf(r, "ready %d\n", &s.capacity); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.done)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			id, _, _ := strings.Cut(line, " ")
			s.mu.Lock()
			close(s.pending[id])
			delete(s.pending, id)
			s.mu.Unlock()
		}
	}()
	return s, nil
}

func (s *testSession) Capacity() int             { return s.capacity }
func (s *testSession) Ahead() int                { return 0 }
func (s *testSession) CloseWrite() error         { return s.conn.(*net.UnixConn).CloseWrite() }
func (s *testSession) Close() error              { return s.conn.Close() }
func (s *testSession) Refusing() <-chan struct{} { return s.done }
func (s *testSession) Done() <-chan struct{}     { return s.done }

var errDied = errors.New("the worker died")

// do has a worker do something and waits until it has.
func (s *testSession) do(what string) error {
	s.mu.Lock()
	s.next++
	id, answered := strconv.Itoa(s.next), make(chan struct{})
	s.pending[id] = answered
	s.mu.Unlock()
	if _, err := io.WriteString(s.conn, id+" "+what+"\n"); err != nil {
		// A connection that failed must be Done before its slot is free.
		_ = s.conn.Close()
		<-s.done
		return errDied
	}
	select {
	case <-answered:
		return nil
	case <-s.done:
	}
	select {
	case <-answered:
		return nil
	default:
		return errDied
	}
}

func do(l *Lease, what string) error { return l.Session().(*testSession).do(what) }

// newPool starts a pool that is closed, and must leave nothing, at the end.
func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	cfg.Name = "test"
	if cfg.Attach == nil {
		cfg.Attach = attachTest
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Start()
	t.Cleanup(func() {
		p.Close()
		noneLeft(t, t.Name())
	})
	return p
}

func lease(t *testing.T, p *Pool) *Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := p.Lease(ctx, Normal)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// eventually waits for what other processes have to do first.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// marked returns the processes, but for zombies, that have mark in their
// environment.
func marked(t *testing.T, test string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		env, err := os.ReadFile(file) // gone meanwhile, or a zombie: empty
		if err == nil && slices.Contains(strings.Split(string(env), "\x00"), markOf(test)) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func noneLeft(t *testing.T, mark string) {
	t.Helper()
	eventually(t, "no process of "+mark+" left", func() bool { return len(marked(t, mark)) == 0 })
}

// fakeClock stands still until it is advanced. Its chance is 0.
type fakeClock struct {
	mu     sync.Mutex
	at     time.Time
	timers map[chan time.Time]time.Time
	alarms []*fakeAlarm
}

func newFakeClock() *fakeClock {
	return &fakeClock{at: time.Now(), timers: make(map[chan time.Time]time.Time)}
}

func (f *fakeClock) clock() *clock {
	return &clock{now: f.now, at: f.timer, alarm: f.alarm, random: func() float64 { return 0 }}
}

func (f *fakeClock) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *fakeClock) timer(at time.Time) (<-chan time.Time, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan time.Time, 1)
	if !at.After(f.at) {
		c <- f.at
	} else {
		f.timers[c] = at
	}
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.timers, c)
	}
}

func (f *fakeClock) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
	for _, a := range f.alarms {
		if !a.due.IsZero() && !a.due.After(f.at) {
			a.due = time.Time{}
			go a.run()
		}
	}
	for c, at := range f.timers {
		if !at.After(f.at) {
			delete(f.timers, c)
			c <- f.at
		}
	}
}

func (f *fakeClock) alarm(run func()) alarm {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &fakeAlarm{clock: f, run: run}
	f.alarms = append(f.alarms, a)
	return a
}

// fakeAlarm is a timer of a fakeClock.
type fakeAlarm struct {
	clock *fakeClock
	run   func()
	due   time.Time // zero when it is not set
}

func (a *fakeAlarm) Reset(d time.Duration) bool {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	was := !a.due.IsZero()
	a.due = a.clock.at.Add(d)
	return was
}

func (a *fakeAlarm) Stop() bool {
	a.clock.mu.Lock()
	defer a.clock.mu.Unlock()
	was := !a.due.IsZero()
	a.due = time.Time{}
	return was
}
