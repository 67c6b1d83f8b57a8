package procpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ProgramsConfig configures Programs.
type ProgramsConfig struct {
	// List has each program after those that it comes after.
	List []Program
	// Log gets a line for each start and end. Nil means no log.
	Log *zap.Logger
	// Output gets each line that a program writes to descriptor 1
	// ("stdout") or 2 ("stderr"), from two goroutines for each program. It
	// must not keep line. Nil means Log, at level info.
	Output func(program, stream string, line []byte)

	clk *clock
}

// Programs starts, watches and ends programs. One that keeps failing is started
// at growing intervals, and disturbs neither the others nor the pools.
//
// A program waits for those it comes after, at each of its starts, until they
// are up; but no longer than the StartTimeout of each, so that one that never
// comes up does not keep the rest from working. It is not ended when one of them
// ends.
type Programs struct {
	log    *zap.Logger
	output func(program, stream string, line []byte)
	clk    clock
	list   []*program

	wake       chan struct{} // a hint to the owner to look again
	startOnce  sync.Once
	failed     chan struct{} // closed when a program has ended that had never been up
	failedOnce sync.Once
	done       chan struct{} // closed when the owner has ended

	runs sync.WaitGroup // a goroutine for each process

	// mu guards everything below and the programs.
	mu      sync.Mutex
	phase   phase
	changed chan struct{} // closed, and replaced, when a state has changed
}

// NewPrograms starts nothing.
func NewPrograms(cfg ProgramsConfig) (*Programs, error) {
	ps := &Programs{
		log: cfg.Log, output: cfg.Output, clk: realClock,
		wake: make(chan struct{}, 1), failed: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
	}
	if ps.log == nil {
		ps.log = zap.NewNop()
	}
	if ps.output == nil {
		ps.output = func(program, stream string, line []byte) {
			ps.log.Info(string(line), zap.String("program", program), zap.String("stream", stream))
		}
	}
	if cfg.clk != nil {
		ps.clk = *cfg.clk
	}
	for _, c := range cfg.List {
		if c.Name == "" || ps.find(c.Name) != nil {
			return nil, fmt.Errorf("procpool: programs: the name %q is empty or given twice", c.Name)
		}
		if c.StartTimeout <= 0 {
			c.StartTimeout = time.Minute
		}
		if c.StopTimeout <= 0 {
			c.StopTimeout = 10 * time.Second
		}
		if c.StopSignal == 0 {
			c.StopSignal = syscall.SIGTERM
		}
		p := &program{Program: c, since: ps.clk.now()}
		for _, name := range c.After {
			first := ps.find(name)
			if first == nil {
				return nil, fmt.Errorf("procpool: program %s comes after %q, which does not stand before it", c.Name, name)
			}
			p.after = append(p.after, first)
			first.dependants = append(first.dependants, p)
		}
		ps.list = append(ps.list, p)
	}
	return ps, nil
}

func (ps *Programs) find(name string) *program {
	i := slices.IndexFunc(ps.list, func(p *program) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return ps.list[i]
}

// Start begins to start the programs. It does not wait for them.
func (ps *Programs) Start() { ps.startOnce.Do(func() { go ps.own() }) }

// Failed is closed when a program has ended, or could not be started, that had
// never been up. It is tried again as its Restart says.
func (ps *Programs) Failed() <-chan struct{} { return ps.failed }

// Await waits until each of the named programs is up. When one is not, and has
// not been for its StartTimeout or will never be, the error says why; it is
// ErrClosed when the programs are being stopped, and else ctx's cause.
func (ps *Programs) Await(ctx context.Context, names ...string) error {
	for {
		down, changed, err := ps.awaited(names)
		if changed == nil {
			if err == nil && len(down) > 0 {
				err = errors.New("not up: " + strings.Join(down, ", "))
			}
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaited returns a channel that is closed when it makes sense to look again,
// or nil and those that are not up.
func (ps *Programs) awaited(names []string) (down []string, changed <-chan struct{}, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.phase != running {
		return nil, nil, fmt.Errorf("procpool: programs: %w", ErrClosed)
	}
	for _, name := range names {
		p := ps.find(name)
		switch {
		case p == nil:
			return nil, nil, fmt.Errorf("procpool: there is no program %q", name)
		case !p.settled():
			changed = ps.changed
		case p.state != ProgramUp && p.state != ProgramEnded:
			down = append(down, p.down())
		}
	}
	return down, changed, nil
}

// Stats returns the present state of all programs, in the order of the list. It
// does not wait.
func (ps *Programs) Stats() []ProgramStats {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	now := ps.clk.now()
	list := make([]ProgramStats, len(ps.list))
	for i, p := range ps.list {
		list[i] = ProgramStats{Name: p.Name, State: p.state, Since: p.since, Starts: p.starts, LastExit: p.lastExit, Reason: p.reason}
		if p.child != nil {
			list[i].PID = p.child.pid
		}
		if p.state == ProgramBackingOff {
			list[i].RetryIn = p.backoff.wait(now)
		}
	}
	return list
}

// Stop ends the programs, each when all that come after it have ended: its
// StopSignal, after its StopTimeout KILL. When ctx ends first the rest is
// stopped as by Close, and ctx's cause returned.
func (ps *Programs) Stop(ctx context.Context) error {
	ps.end(draining)
	select {
	case <-ps.done:
		return nil
	case <-ctx.Done():
		ps.Close()
		return context.Cause(ctx)
	}
}

// Close ends all programs together and quickly: their StopSignal, and KILL
// after a second or StopTimeout when that is less. It waits for their end.
func (ps *Programs) Close() {
	ps.end(closing)
	if !ps.clk.endsWithin(hurriedGrace, ps.done) {
		ps.log.Error("programs have not ended after KILL")
	}
}

func (ps *Programs) end(to phase) {
	ps.startOnce.Do(func() { close(ps.done) }) // never started: nothing to end
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.phase = max(ps.phase, to)
	ps.poke()
}

// poke has the owner, and those who wait, look again.
func (ps *Programs) poke() {
	close(ps.changed)
	ps.changed = make(chan struct{})
	select {
	case ps.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// notify is poke for who doesn't hold the lock.
func (ps *Programs) notify() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.poke()
}
