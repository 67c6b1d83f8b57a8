package procpool

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Program is a long-running command that runs beside the pools: a task queue,
// a scheduler, a database of the application's own.
type Program struct {
	// Name stands in log lines and in After of others. Required, and no two
	// are the same.
	Name string
	// Command is what is started. It must stay in the foreground: one that
	// puts itself into the background has ended.
	Command Command
	// After names programs that have to be up before this one is started,
	// and that are stopped after it. They stand before it in
	// ProgramsConfig.List, so that there are no circles.
	After []string
	// Ready returns nil when the program is up. It is asked ten times a
	// second, each time with a second to answer, until then. Nil means
	// that the program is up once it has run for a second.
	Ready func(ctx context.Context) error
	// Restart says what becomes of it when it has ended by itself. The zero
	// value is RestartAlways.
	Restart RestartPolicy
	// StartTimeout is how long it may take to be up; then it is stopped, and
	// counts as one that failed. It is also how long others wait for it.
	// 0 means a minute.
	StartTimeout time.Duration
	// StopSignal asks it to end. It is sent to the program itself and not to
	// what that has started. 0 means TERM.
	StopSignal syscall.Signal
	// StopTimeout is the time between StopSignal and KILL, which goes to its
	// whole process group. 0 means 10 s.
	StopTimeout time.Duration
}

// RestartPolicy says what becomes of a program that has ended by itself.
type RestartPolicy uint8

const (
	RestartAlways    RestartPolicy = iota // it is started again
	RestartOnFailure                      // it is started again unless its exit status was 0
	RestartNever                          // it is left
)

// ProgramState is where a program is in its life.
//
//	waiting ──► starting ──► up
//	               │ ▲       │
//	               ▼ │       │
//	          backing off ◄──┘     (ended by itself)
//
//	any state ──► stopping ──► ended, failed
type ProgramState uint8

const (
	ProgramWaiting    ProgramState = iota // for those it comes after
	ProgramStarting                       // it runs, and is not up yet
	ProgramUp                             // it does its work
	ProgramBackingOff                     // it has ended and will be started again
	ProgramStopping                       // it was told to end
	ProgramEnded                          // it was stopped, or has ended with status 0 and stays so
	ProgramFailed                         // it has ended otherwise and stays so
)

var programStateNames = [...]string{"waiting", "starting", "up", "backing off", "stopping", "ended", "failed"}

func (s ProgramState) String() string {
	if int(s) < len(programStateNames) {
		return programStateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// ProgramStats is a program at one moment.
type ProgramStats struct {
	Name  string
	State ProgramState
	// Since is when it came to this state.
	Since time.Time
	// PID is its process, 0 when there is none.
	PID int
	// Starts is how often it was started.
	Starts int
	// RetryIn is when it is started next, while it is backing off.
	RetryIn time.Duration
	// LastExit is how its process last ended, or why there was none; ""
	// before the first end.
	LastExit string
	// Reason is why it last ended, when it was not told to: what it wrote
	// last. "" when it wrote nothing, and when it is up again.
	Reason string
}

const (
	// upAfter is how long a program without Ready has to run to be up.
	upAfter = time.Second
	// steadyAfter is how long a program has to run for its failures before
	// to be forgotten: longer than the longest back-off, so that one which
	// dies over and over is not taken for one that works.
	steadyAfter = 2 * backoffMax
	// readyInterval is the time between two questions to Program.Ready, and
	// readyPatience how long each may take.
	readyInterval = 100 * time.Millisecond
	readyPatience = time.Second
)

// program is a Program and what has become of it. The supervisor's lock guards
// the fields below the first group.
type program struct {
	Program
	after      []*program
	dependants []*program // those that have it in their After

	state   ProgramState
	since   time.Time // of the state
	started time.Time // its process
	starts  int
	process bool   // there is one, or will be in a moment
	child   *child // nil until started
	isReady bool   // Ready has said so
	wasUp   bool   // at any time
	killed  bool
	backoff backoff
	failure error // why it is stopped although nothing else is

	// waitedFor is until when others wait for it; zero before its first
	// start, and while it is up. abandoned says that they no longer do.
	waitedFor time.Time
	abandoned bool

	fleeting int // ends in a row with status 0 right after the start
	lastExit string
	reason   string
}

func (p *program) enter(to ProgramState, now time.Time) { p.state, p.since = to, now }

// over reports whether nothing of it runs, nor will again.
func (p *program) over() bool { return p.state >= ProgramEnded }

// settled reports whether others need wait for it no longer.
func (p *program) settled() bool { return p.state == ProgramUp || p.over() || p.abandoned }

// mayStart reports whether it need wait for others no longer.
func (p *program) mayStart() bool {
	for _, first := range p.after {
		if !first.settled() {
			return false
		}
	}
	return true
}

// mayStop reports whether nothing needs it any longer.
func (p *program) mayStop() bool {
	for _, d := range p.dependants {
		if !d.over() {
			return false
		}
	}
	return true
}

// staysEnded reports whether a program that has ended by itself is left so.
func (p *program) staysEnded(success bool) bool {
	return p.Restart == RestartNever || p.Restart == RestartOnFailure && success
}

// down says why p is not up, for those who wanted it.
func (p *program) down() string {
	why := p.state.String()
	if p.lastExit != "" {
		why += ", " + p.lastExit
	}
	if p.reason != "" {
		why += ": " + p.reason
	}
	return p.Name + " (" + why + ")"
}
