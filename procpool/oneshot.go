package procpool

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lingerTime is how long after its leader's exit a process group may keep
// the request open: time to read what is still in the pipes.
const lingerTime = 500 * time.Millisecond

// RunnerConfig configures a Runner.
type RunnerConfig struct {
	// Name stands in errors and log lines.
	Name string
	// Max is how many processes may run at once. 0 means 32.
	Max int
	// QueueLength is how many may wait for a place. 0 means 100, a negative
	// number that nobody waits.
	QueueLength int
	// QueueTimeout is how long each may wait. 0 means 10 s.
	QueueTimeout time.Duration
	// StopGrace is the time between TERM and KILL. 0 means 5 s.
	StopGrace time.Duration
	// KeepBackground lets processes live on that a program left behind when
	// it exited, also when the gateway ends. By default they are killed with
	// their group, and what has left the group ends with the gateway.
	KeepBackground bool
	// EndWhole has what has left the group end with its program, also when
	// that ends by itself. By default it then ends with the gateway.
	EndWhole bool
	// Warm has scripts started from processes that have them loaded; nil
	// starts every process by itself.
	Warm *WarmConfig
	// Log gets a line for each process that had to be killed. Nil means no
	// log.
	Log *zap.Logger

	clk *clock
}

// Runner starts one process per call, so many at a time.
type Runner struct {
	cfg   RunnerConfig
	clk   clock
	log   *zap.Logger
	slots *Limiter
	warm  *warmKeeper // nil without Warm

	mu      sync.Mutex
	running map[*Process]struct{}
	closed  bool
	ended   sync.WaitGroup
}

const defaultStopGrace = 5 * time.Second

// NewRunner returns a Runner. It starts nothing.
func NewRunner(cfg RunnerConfig) *Runner {
	if cfg.Max <= 0 {
		cfg.Max = 32
	}
	if cfg.StopGrace <= 0 {
		cfg.StopGrace = defaultStopGrace
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	clk := realClock
	if cfg.clk != nil {
		clk = *cfg.clk
	}
	r := &Runner{
		cfg: cfg, clk: clk, log: cfg.Log.With(zap.String("runner", cfg.Name)),
		slots:   newLimiter(cfg.Name, cfg.Max, cfg.QueueLength, cfg.QueueTimeout, clk),
		running: make(map[*Process]struct{}),
	}
	if cfg.Warm != nil {
		r.warm = newWarmKeeper(*cfg.Warm, clk, cfg.Log.With(zap.String("runner", cfg.Name)))
	}
	return r
}

// Stats returns the present numbers: a process uses a slot until it has been
// reaped and its group killed.
func (r *Runner) Stats() LimiterStats { return r.slots.Stats() }

// Start waits for a place and starts c, with pipes as its descriptors 0, 1 and 2
// and no others. What it writes to descriptor 2 goes to stderr (nil discards it)
// from one goroutine, all the time and however much it is: a Write must not
// block. No Write comes after Process.Done.
//
// ctx bounds the wait for a place, not the process. Errors are a *QueueError,
// ErrClosed, ErrStart, or ctx's cause. The caller must Close the Process.
func (r *Runner) Start(ctx context.Context, c Command, stderr io.Writer) (*Process, error) {
	if err := r.slots.Acquire(ctx); err != nil {
		return nil, fmt.Errorf("procpool: %s: %w", r.cfg.Name, err)
	}
	if !r.enter() {
		r.slots.Release()
		return nil, fmt.Errorf("procpool: %s: %w", r.cfg.Name, ErrClosed)
	}
	if r.cfg.KeepBackground {
		c.background = true
		strangers.Store(true)
	}
	p, err := startProcess(c, func(files ...uintptr) (*child, error) {
		if r.warm != nil && c.Script != nil {
			if ch, err := r.warm.fork(c, files); ch != nil || err != nil {
				return ch, err
			}
		}
		return spawnUnattended(c, files...)
	}, stderr, r.cfg.StopGrace, r.clk)
	if err != nil {
		r.slots.Release()
		r.ended.Done()
		return nil, err
	}
	p.spare, p.log = r.cfg.KeepBackground, r.log
	if r.cfg.EndWhole {
		p.child.endWhole()
	}
	p.ended = func() {
		r.mu.Lock()
		delete(r.running, p)
		r.mu.Unlock()
		r.slots.Release()
		close(p.done)
		r.ended.Done()
	}
	r.mu.Lock()
	r.running[p] = struct{}{}
	closed := r.closed
	r.mu.Unlock()
	p.begin()
	if closed { // Close has gone through the table already
		p.Stop()
	}
	return p, nil
}

// enter counts a process in, for Close to wait for, unless the runner is closed.
func (r *Runner) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.ended.Add(1)
	return true
}

// Renew has scripts that are kept warm loaded anew, with all that they import.
func (r *Runner) Renew() {
	if r.warm != nil {
		r.warm.renew()
	}
}

// Close refuses new processes, stops those that run and waits until they have
// ended.
func (r *Runner) Close() {
	r.slots.Close()
	r.mu.Lock()
	r.closed = true
	for p := range r.running {
		p.Stop()
	}
	r.mu.Unlock()
	r.ended.Wait()
	if r.warm != nil {
		r.warm.close()
	}
}
