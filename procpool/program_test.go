package procpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// programs is a supervisor under test, whose programs write what happens to
// them into one file.
type programs struct {
	*Programs
	t     *testing.T
	clock *fakeClock
	logs  *observer.ObservedLogs
	file  string
}

func newPrograms(t *testing.T, list ...Program) *programs {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	ps := &programs{t: t, clock: newFakeClock(), logs: logs, file: filepath.Join(t.TempDir(), "events")}
	for i := range list {
		list[i].Command.Env = append(list[i].Command.Env, "PATH=/bin:/usr/bin", mark(t), "NAME="+list[i].Name, "EVENTS="+ps.file)
	}
	var err error
	ps.Programs, err = NewPrograms(ProgramsConfig{List: list, Log: zap.New(core), clk: ps.clock.clock()})
	if err != nil {
		t.Fatal(err)
	}
	ps.Start()
	t.Cleanup(func() {
		ps.hurry(ps.Close)
		noneLeft(t, t.Name())
	})
	return ps
}

// sh is a program that is a line of shell.
func sh(name, script string, after ...string) Program {
	return Program{Name: name, After: after, Command: Command{Path: "/bin/sh", Argv: []string{"sh", "-c", script}}}
}

const (
	say = `say() { echo "$NAME $1" >>"$EVENTS"; }; `
	// serve runs until it is told to end.
	serve = say + `trap 'say stopped; exit 0' TERM; say started; sleep 300 & wait`
	// deaf ends by KILL alone, and so does what it has started.
	deaf = `trap '' TERM; ` + say + `say started; (while :; do sleep 1; done) & while :; do sleep 1; done`
)

// events returns what the programs have written.
func (ps *programs) events() []string {
	data, _ := os.ReadFile(ps.file) // there is no file before the first event
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (ps *programs) wantEvents(want ...string) {
	ps.t.Helper()
	eventually(ps.t, fmt.Sprintf("events %q", want), func() bool { return slices.Equal(ps.events(), want) })
}

func (ps *programs) stats(name string) ProgramStats {
	list := ps.Stats()
	return list[slices.IndexFunc(list, func(s ProgramStats) bool { return s.Name == name })]
}

func (ps *programs) wantState(name string, want ProgramState) ProgramStats {
	ps.t.Helper()
	eventually(ps.t, fmt.Sprintf("%s %v", name, want), func() bool { return ps.stats(name).State == want })
	return ps.stats(name)
}

// wantUp waits until a program has been started, for the given time in all, and
// lets it run for as long as it takes to be up.
func (ps *programs) wantUp(name string, starts int) ProgramStats {
	ps.t.Helper()
	eventually(ps.t, fmt.Sprintf("%s started %d times", name, starts), func() bool {
		s := ps.stats(name)
		return s.Starts == starts && s.PID != 0 && slices.Contains(ps.events(), name+" started")
	})
	ps.clock.advance(upAfter)
	return ps.wantState(name, ProgramUp)
}

// hurry does what needs time to pass.
func (ps *programs) hurry(do func()) {
	ps.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		do()
	}()
	eventually(ps.t, "an end", func() bool {
		ps.clock.advance(50 * time.Millisecond)
		return closed(ended)
	})
}

func (ps *programs) stop() { // in peace
	ps.t.Helper()
	ctx, cancel := context.WithTimeout(ps.t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := ps.Stop(ctx); err != nil {
			ps.t.Errorf("stop: %v", err)
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done(): // then it takes time, which does not pass by itself
		ps.hurry(func() { <-ended })
	}
}

func (ps *programs) logged(message string) []observer.LoggedEntry {
	return ps.logs.FilterMessage(message).All()
}

func TestProgramsStartAndStopInOrder(t *testing.T) {
	var ready atomic.Bool
	store := sh("store", serve)
	store.Ready = func(context.Context) error {
		if !ready.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	ps := newPrograms(t, store, sh("queue", serve, "store"), sh("other", serve), sh("clock", serve, "queue", "store"))
	eventually(t, "the first programs run", func() bool {
		return ps.stats("store").PID != 0 && ps.stats("other").PID != 0 && len(ps.events()) == 2
	})
	ps.clock.advance(upAfter)
	ps.wantState("other", ProgramUp)
	if s := ps.stats("store"); s.State != ProgramStarting || s.Starts != 1 {
		t.Errorf("without an answer: %+v", s)
	}
	if s := ps.stats("queue"); s.State != ProgramWaiting || s.Starts != 0 || s.PID != 0 {
		t.Errorf("before what it comes after: %+v", s)
	}
	up := make(chan error, 1)
	go func() { up <- ps.Await(t.Context(), "clock", "store") }()

	ready.Store(true)
	eventually(t, "store up", func() bool {
		ps.clock.advance(readyInterval)
		return ps.stats("store").State == ProgramUp
	})
	ps.wantUp("queue", 1)
	if err := ps.Await(t.Context(), "store", "queue"); err != nil {
		t.Errorf("await: %v", err)
	}
	select {
	case err := <-up:
		t.Errorf("the last of the three is not up: await returned %v", err)
	default:
	}
	ps.wantUp("clock", 1)
	if err := <-up; err != nil {
		t.Errorf("await: %v", err)
	}

	ps.stop()
	events := ps.events()
	position := func(event string) int { return slices.Index(events, event) }
	if len(events) != 8 || position("clock stopped") > position("queue stopped") || position("queue stopped") > position("store stopped") || position("other stopped") < 0 {
		t.Errorf("events %q", events)
	}
	for _, s := range ps.Stats() {
		if s.State != ProgramEnded || s.PID != 0 || s.LastExit != "exit status 0" || s.Reason != "" {
			t.Errorf("in the end: %+v", s)
		}
	}
	if err := ps.Await(t.Context(), "store"); !errors.Is(err, ErrClosed) {
		t.Errorf("await after the end: %v", err)
	}
}

func TestProgramsRestart(t *testing.T) {
	for _, c := range []struct {
		restart RestartPolicy
		end     string
		state   ProgramState
		exit    string
	}{
		{RestartAlways, "exit 0", ProgramBackingOff, "exit status 0"},
		{RestartAlways, "exit 3", ProgramBackingOff, "exit status 3"},
		{RestartOnFailure, "exit 0", ProgramEnded, "exit status 0"},
		{RestartOnFailure, "exit 3", ProgramBackingOff, "exit status 3"},
		{RestartOnFailure, "kill -9 $$", ProgramBackingOff, "signal: killed"},
		{RestartNever, "exit 0", ProgramEnded, "exit status 0"},
		{RestartNever, "exit 3", ProgramFailed, "exit status 3"},
		{RestartNever, "kill -9 $$", ProgramFailed, "signal: killed"},
	} {
		t.Run(fmt.Sprintf("%d %s", c.restart, c.end), func(t *testing.T) {
			p := sh("job", say+"say started; echo first; echo; echo 'because of this'; "+c.end)
			p.Restart = c.restart
			ps := newPrograms(t, p)
			s := ps.wantState("job", c.state)
			if s.Starts != 1 || s.LastExit != c.exit || s.Reason != "because of this" || s.PID != 0 {
				t.Errorf("%+v", s)
			}
			if closed(ps.Failed()) != (c.state != ProgramEnded) {
				t.Errorf("failed: %v", closed(ps.Failed()))
			}
			if c.state == ProgramBackingOff {
				if s.RetryIn != backoffFirst {
					t.Errorf("next start in %v, want %v", s.RetryIn, backoffFirst)
				}
				ps.clock.advance(backoffFirst)
				eventually(t, "a second start", func() bool { return ps.stats("job").Starts == 2 })
				return
			}
			ps.clock.advance(time.Hour)
			err := ps.Await(t.Context(), "job")
			if (err == nil) != (c.state == ProgramEnded) || err != nil && !strings.Contains(err.Error(), "job (failed, "+c.exit+": because of this)") {
				t.Errorf("await: %v", err)
			}
			if s := ps.stats("job"); s.Starts != 1 {
				t.Errorf("after an hour: %+v", s)
			}
		})
	}
}

// A program that keeps failing is tried at growing intervals, and one that had
// been at work for long at once; neither touches the other.
func TestProgramsBackOff(t *testing.T) {
	ps := newPrograms(t, sh("bad", say+"say started; exit 1"), sh("good", serve))
	good := ps.wantUp("good", 1)
	starts := ps.stats("bad").Starts
	for range 10 {
		ps.wantState("bad", ProgramBackingOff)
		s := ps.stats("bad")
		if s.Starts != starts {
			t.Fatalf("%+v: started before its time", s)
		}
		if want := backoffDelay(starts, 0); s.RetryIn != want {
			t.Fatalf("after %d starts: next in %v, want %v", starts, s.RetryIn, want)
		}
		ps.clock.advance(s.RetryIn)
		starts++
		eventually(t, "one more start", func() bool { return ps.stats("bad").Starts == starts })
	}
	if s := ps.wantState("bad", ProgramBackingOff); s.RetryIn != backoffMax {
		t.Errorf("the longest wait: %v", s.RetryIn)
	}
	if s := ps.stats("good"); s != good {
		t.Errorf("the other one: %+v, was %+v", s, good)
	}

	// It fails soon after it came up, twice, and then after a long time.
	for n, c := range []struct{ ran, wait time.Duration }{
		{upAfter, backoffFirst}, {upAfter, 2 * backoffFirst}, {steadyAfter, backoffFirst},
	} {
		s := ps.stats("good")
		ps.clock.advance(c.ran - upAfter)
		if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s = ps.wantState("good", ProgramBackingOff)
		if s.RetryIn != c.wait || s.LastExit != "signal: killed" {
			t.Errorf("death %d: %+v, want a wait of %v", n+1, s, c.wait)
		}
		ps.clock.advance(s.RetryIn)
		ps.wantUp("good", n+2)
	}
}

// A program that does not come up is stopped and tried again, and what comes
// after it waits no longer than its StartTimeout.
func TestProgramsStartTimeout(t *testing.T) {
	slow := sh("slow", serve)
	slow.Ready = func(context.Context) error { return errors.New("no") }
	slow.StartTimeout = 20 * time.Second
	ps := newPrograms(t, slow, sh("next", serve, "slow"))
	up := make(chan error, 1)
	go func() { up <- ps.Await(t.Context(), "slow") }()
	ps.wantEvents("slow started")
	ps.clock.advance(slow.StartTimeout - time.Millisecond)
	if s := ps.stats("next"); s.State != ProgramWaiting || ps.stats("slow").State != ProgramStarting {
		t.Errorf("before the time: %+v", ps.Stats())
	}
	ps.clock.advance(time.Millisecond)
	if err := <-up; err == nil || !strings.Contains(err.Error(), "slow (") {
		t.Errorf("await: %v", err)
	}
	s := ps.wantState("slow", ProgramBackingOff)
	if s.LastExit != "not up after 20s, exit status 0" {
		t.Errorf("%+v", s)
	}
	ps.wantUp("next", 1)
	if len(ps.logged("program is started although others that it comes after are not up")) != 1 ||
		len(ps.logged("program is not up in time; what comes after it is started without it")) != 1 {
		t.Errorf("log: %v", ps.logs.All())
	}
	ps.clock.advance(s.RetryIn)
	eventually(t, "a second start", func() bool { return ps.stats("slow").Starts == 2 })
}

// A dependant that has to be started again waits for what it comes after, too.
func TestProgramsWaitAtEachStart(t *testing.T) {
	ps := newPrograms(t, sh("store", serve), sh("queue", serve, "store"))
	store := ps.wantUp("store", 1)
	queue := ps.wantUp("queue", 1)
	_ = syscall.Kill(store.PID, syscall.SIGKILL)
	ps.wantState("store", ProgramBackingOff)
	if s := ps.stats("queue"); s.PID != queue.PID {
		t.Errorf("it ended with what it comes after: %+v", s)
	}
	_ = syscall.Kill(queue.PID, syscall.SIGKILL)
	ps.wantState("queue", ProgramBackingOff)
	ps.clock.advance(backoffFirst)
	eventually(t, "store starts", func() bool { return ps.stats("store").Starts == 2 && ps.stats("store").PID != 0 })
	if s := ps.stats("queue"); s.Starts != 1 {
		t.Errorf("it did not wait: %+v", s)
	}
	ps.clock.advance(upAfter)
	ps.wantState("store", ProgramUp)
	eventually(t, "queue starts", func() bool { return ps.stats("queue").Starts == 2 })
}

func TestProgramsStopTimeout(t *testing.T) {
	p := sh("deaf", deaf)
	p.StopTimeout = 30 * time.Second
	ps := newPrograms(t, sh("store", serve), p)
	ps.wantUp("store", 1)
	ps.wantUp("deaf", 1)
	ended := make(chan error, 1)
	go func() { ended <- ps.Stop(t.Context()) }()
	ps.wantState("store", ProgramEnded)
	ps.wantState("deaf", ProgramStopping)
	ps.clock.advance(p.StopTimeout - time.Millisecond)
	if s := ps.stats("deaf"); s.State != ProgramStopping || !alive(s.PID) {
		t.Errorf("before the time: %+v", s)
	}
	ps.clock.advance(time.Millisecond)
	if err := <-ended; err != nil {
		t.Errorf("stop: %v", err)
	}
	if s := ps.stats("deaf"); s.State != ProgramEnded || s.LastExit != "signal: killed" {
		t.Errorf("%+v", s)
	}
	noneLeft(t, t.Name())
	if n := len(ps.logged("program did not end when it was told to, killing its process group")); n != 1 {
		t.Errorf("%d lines about the kill", n)
	}
}

// Close does not wait for an order, nor for long.
func TestProgramsClose(t *testing.T) {
	ps := newPrograms(t, sh("store", serve), sh("deaf", deaf, "store"), sh("bad", "exit 1"), sh("never", serve, "bad"))
	ps.wantUp("store", 1)
	ps.wantUp("deaf", 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ps.Stop(ctx) }()
	ps.wantState("deaf", ProgramStopping)
	if s := ps.stats("store"); s.State != ProgramUp {
		t.Errorf("in peace it is stopped last: %+v", s)
	}
	hurry := errors.New("hurry")
	cancel(hurry)
	ps.wantState("store", ProgramEnded)
	if s := ps.stats("deaf"); s.State != ProgramStopping {
		t.Errorf("without a grace: %+v", s)
	}
	ps.clock.advance(hurriedGrace)
	if err := <-ended; err != hurry {
		t.Errorf("stop: %v", err)
	}
	for _, s := range ps.Stats() {
		if s.State != ProgramEnded {
			t.Errorf("in the end: %+v", s)
		}
	}
}

// The signal goes to the program alone: a master tells its own workers, when
// they have finished.
func TestProgramsSignalTheLeader(t *testing.T) {
	// Not by wait: that of dash, after a signal, has slept on though the child had ended.
	p := sh("master", say+`trap 'say told; sleep 0.1; kill -USR1 $!' HUP
		sh -c "trap 'echo child hung up >>$EVENTS; exit' HUP; trap 'echo child ended >>$EVENTS; exit' USR1; echo child started >>$EVENTS; while :; do sleep 0.01; done" &
		while kill -0 $! 2>/dev/null; do sleep 0.01; done`)
	p.StopSignal = syscall.SIGHUP
	ps := newPrograms(t, p)
	ps.wantEvents("child started")
	ps.stop()
	ps.wantEvents("child started", "master told", "child ended")
}

func TestProgramsThatCannotStart(t *testing.T) {
	gone := Program{Name: "gone", Command: Command{Path: "/no/such/program"}}
	once := gone
	once.Name, once.Restart = "once", RestartNever
	ps := newPrograms(t, gone, once, sh("next", serve, "gone", "once"))
	<-ps.Failed()
	if s := ps.wantState("gone", ProgramBackingOff); !strings.Contains(s.LastExit, "/no/such/program: no such file") || s.RetryIn != backoffFirst {
		t.Errorf("%+v", s)
	}
	ps.wantState("once", ProgramFailed)
	eventually(t, "both are logged", func() bool {
		return len(ps.logged("program could not be started")) == 1 && len(ps.logged("program could not be started, and is not tried again")) == 1
	})
	if fields := ps.logged("program could not be started")[0].ContextMap(); fields["pid"] != nil || fields["error"] == nil || fields["hint"] == nil {
		t.Errorf("logged %v", fields)
	}
	if s := ps.stats("next"); s.State != ProgramWaiting {
		t.Errorf("%+v", s)
	}
	ps.stop() // with nothing that runs
}

// A program that puts itself into the background is not one that works.
func TestProgramsInTheBackground(t *testing.T) {
	ps := newPrograms(t, sh("daemon", "exit 0"))
	for starts := range 3 {
		eventually(t, "one more end", func() bool { s := ps.stats("daemon"); return s.Starts == starts+1 && s.State == ProgramBackingOff })
		ps.clock.advance(ps.stats("daemon").RetryIn)
	}
	hinted := ps.logs.FilterField(zap.String("hint", fleetingHint)).All()
	if len(hinted) != 1 || hinted[0].Level != zapcore.ErrorLevel {
		t.Errorf("hints: %v", hinted)
	}
}

func TestNewProgramsRefuses(t *testing.T) {
	for _, list := range [][]Program{
		{{}},
		{{Name: "a"}, {Name: "a"}},
		{{Name: "a", After: []string{"a"}}},
		{{Name: "a", After: []string{"b"}}, {Name: "b"}},
	} {
		if _, err := NewPrograms(ProgramsConfig{List: list}); err == nil {
			t.Errorf("%+v was taken", list)
		}
	}
	ps, err := NewPrograms(ProgramsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ps.Await(t.Context(), "a"); err == nil {
		t.Error("await of a program that there is not")
	}
	ps.Close() // never started
}
