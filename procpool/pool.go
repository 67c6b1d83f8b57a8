package procpool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Config configures a Pool.
type Config struct {
	// Name stands in errors, log lines and the workers' environment.
	Name string
	// Command starts a worker. Its descriptor 3 is one end of a stream socket
	// pair, the other end of which Attach is given; 4 is another one, on
	// which the pool writes commands and the worker says what it is asked, a
	// line each; 5 is a pipe to which a signal has it write its stacks; 0 is
	// /dev/null, 1 and 2 are log lines. GATECREW_WORKER=NAME/NUMBER is added
	// to Env.
	Command Command

	// Preload has the workers forked from a process that has loaded the
	// application once, so that they share its memory and start in
	// milliseconds. Each generation of workers has one. It is started before
	// its first worker, and it is Command with the argument --preload added.
	// Its descriptor 3 is a socket of type SOCK_SEQPACKET, there is no 5,
	// and the others are as a worker's. When it has loaded the application it sends the packet
	// "ready". Each packet that it gets then asks for a worker: lines
	// NAME=value, to be set in the worker's environment, and with them the
	// five descriptors that become 1 to 5 there. It forks the worker
	// in such a way that the worker's parent has ended, and answers with the
	// worker's process id, or with the reason why there is none. The end of
	// its socket tells it to exit. BecomeReaper must have been called.
	Preload bool

	// Min and Max bound the number of workers. Equal, the pool is static;
	// else it is dynamic: it grows when requests wait or spare workers are
	// missing, and shrinks when workers idle. Max 0 means Min; both 0 mean
	// 1. With Min 0 and a Max the pool is on demand: it starts no worker
	// before the first request, and all of them may idle away.
	Min, Max int
	// MinSpare is how many idle workers a dynamic pool keeps for requests to
	// come, within Max. 0 means that it grows only when requests wait.
	// MaxSpare is how many may stay idle for longer than IdleTimeout. Less
	// than MinSpare means MinSpare.
	MinSpare, MaxSpare int
	// IdleTimeout is how long a worker must have been idle before a dynamic
	// pool ends it. They are ended one by one, a tenth of it apart. 0 means
	// 60 s.
	IdleTimeout time.Duration

	// QueueLength is how many leases may wait, besides a few of high
	// priority. 0 means 100, a negative number that none does.
	QueueLength int
	// QueueTimeout is how long each may wait while the queue is not
	// overloaded. 0 means 10 s.
	QueueTimeout time.Duration

	// MaxRequests is after how many requests a worker is replaced, plus a
	// random part of MaxRequestsJitter. 0 means never.
	//
	// A worker that is to be replaced, for this reason or for one below,
	// serves until the replacement is ready, and ends what it has begun
	// however long that takes.
	MaxRequests, MaxRequestsJitter int
	// MaxAge is how long after its start a worker is replaced, less a random
	// part of up to a tenth. 0 means never.
	MaxAge time.Duration
	// MaxMemory is how many bytes a worker, with what it has started, may
	// hold after a request before it is replaced. One that holds more when
	// it has just become ready is not replaced for it: the next one would be
	// no smaller. 0 means no limit.
	MaxMemory int64
	// HardMemory is how many bytes it may hold at any time. One that holds
	// more gets KILL, and its requests fail. That is seen within 0.2 s while
	// it starts or has requests, and else within 10 s. 0 means no limit.
	HardMemory int64
	// MemoryBudget is how many bytes all workers may hold together. Above
	// it, the biggest of those that have grown since they were ready is
	// replaced, one at a time. 0 means no limit.
	MemoryBudget int64
	// MemoryPSS measures the proportional set size, in which pages that
	// several processes share count in parts, rather than the resident one.
	MemoryPSS bool
	// MaxReplacing is how many workers may be in replacement at once, for
	// all reasons together: so many more than Max there may be. 0 means a
	// quarter of them, at least one.
	MaxReplacing int

	// StartTimeout is how long a worker may take to be ready, warm-up
	// included. 0 means 60 s.
	StartTimeout time.Duration
	// GracefulTimeout is how long a retired worker may take to exit after
	// its last request, and how long the other requests on a condemned
	// worker may still take. A retired worker that takes longer for its
	// requests no longer counts in MaxReplacing. 0 means 30 s.
	GracefulTimeout time.Duration
	// StallTimeout is how long the event loop of a worker may stand still
	// before the worker is stopped, with all requests on it. That is seen
	// only while there are requests for it. 0 means no limit.
	StallTimeout time.Duration
	// StopGrace is the time between TERM and KILL, at most a second once the
	// pool was closed. 0 means 5 s.
	StopGrace time.Duration

	// Attach negotiates on a new worker's socket. That it returns means that
	// the worker can take requests. It must return when ctx ends. Required.
	Attach func(ctx context.Context, w WorkerInfo, conn net.Conn) (Session, error)
	// WarmUp has a new worker do something before its first request. Its
	// error is a failed start. It must return when ctx ends. Nil means that
	// a worker is ready once it is attached.
	WarmUp func(ctx context.Context, w WorkerInfo, s Session) error
	// Log gets the workers' starts and ends. Nil means no log.
	Log *zap.Logger
	// Output gets each line that a worker writes to descriptor 1 ("stdout")
	// or 2 ("stderr"), from two goroutines for each worker. It must not keep
	// line. Nil means Log, at level info.
	Output func(w WorkerInfo, stream string, line []byte)
	// Modules gets the files that a worker says its application has
	// imported, from one goroutine for each worker. Those of a worker that
	// fails to start come before Failure knows of it. Nil means that nobody
	// asks.
	Modules func(w WorkerInfo, files []string)

	clk    *clock
	memory func(pid int, pss bool) (int64, error) // nil means processMemory
}

// Session is what a pool needs to know of a connection to a worker. That of a
// worker which may have an event loop is an EventLoop as well.
type Session interface {
	// Capacity is how many requests the worker takes at once, at least 1.
	Capacity() int
	// Ahead is how many requests more it takes before it can start them. A
	// worker that takes any gives back those that it has not started when
	// it reads the line "recall" from descriptor 4.
	Ahead() int
	// CloseWrite tells the worker that no more requests come. It is called
	// when none is in progress.
	CloseWrite() error
	// Close ends the connection.
	Close() error
	// Refusing is closed when the connection takes no further request. It
	// must be closed before the lease of a request is released that failed
	// for this reason, so that the worker isn't leased again.
	Refusing() <-chan struct{}
	// Done is closed when the connection is of no more use.
	Done() <-chan struct{}
}

// WorkerInfo names a worker.
type WorkerInfo struct {
	Pool string
	// Number is the worker's place in the pool, from 1. A new worker takes
	// the lowest that is free.
	Number int
	PID    int
	// Name is "POOL/NUMBER".
	Name string
}

// Pool is a set of like worker processes.
//
// One goroutine owns the workers' lives: starts, ends, size. Leases go by it:
// what they need is under mu, so that taking a free slot is a lock, a look and
// no switch of goroutine.
type Pool struct {
	cfg Config
	log *zap.Logger
	clk clock

	wake      chan struct{} // a hint to the owner to look again
	startOnce sync.Once
	ready     chan struct{} // closed when the first worker became ready
	failed    chan struct{} // closed when a worker failed to start and none had been ready
	done      chan struct{} // closed when the owner has ended
	zygotes   sync.WaitGroup

	// mu guards everything below and the fields of all workers. It covers
	// queue and slots together, so that a slot that becomes free goes to the
	// longest waiter in one step. Nothing that can block is done under it.
	mu         sync.Mutex
	phase      phase
	gen        *generation   // the last one that was good
	gens       []*generation // those that aren't closed
	rollout    *rollout      // the restart in progress
	restart    Restart       // the last restart, as it stands
	lastCanary time.Time     // when the last one was started
	workers    []*worker
	queue      waitQueue[*Lease]
	overload   overload
	min, max   int
	target     int
	lastDown   time.Time    // when the pool last shrank by itself
	ramp       ramp         // of the spare workers
	slowUntil  time.Time    // until then no request is given ahead
	aheadWatch time.Time    // until then the owner looks by itself at requests given ahead
	waryUntil  atomic.Int64 // until then waryAfter holds for event loops: ns after born
	loopWatch  atomic.Int64 // and at event loops: ns after born
	born       time.Time
	spareWatch time.Time // and whether there are enough idle workers
	idleWatch  time.Time // and whether there are too many
	memory     memoryWatch
	backoff    backoff
	stillborn  int // failures in a row to become ready
	failure    *StartFailure
	trouble    string    // why the last worker failed that did
	acting     time.Time // since when the owner does what it has decided on; zero when it waits
	totals     Totals
	lastExit   map[int]string // by worker number
}

// phase is how far a pool's end has come.
type phase uint8

const (
	running  phase = iota
	draining       // no new leases; queued and running requests end
	closing        // everything is stopped
)

// New returns a pool. It starts nothing, and leases wait, until Start.
func New(cfg Config) (*Pool, error) {
	if cfg.Attach == nil {
		return nil, errors.New("procpool: new pool: Attach is required")
	}
	if cfg.Max == 0 {
		cfg.Min = max(cfg.Min, 1)
		cfg.Max = cfg.Min
	}
	if cfg.Min < 0 || cfg.Max < cfg.Min {
		return nil, fmt.Errorf("procpool: new pool: %d to %d workers: the maximum is below the minimum", cfg.Min, cfg.Max)
	}
	if cfg.Preload && !children.haveReaper() {
		return nil, errors.New("procpool: new pool: Preload needs BecomeReaper to be called first")
	}
	cfg.QueueLength, cfg.QueueTimeout = queueDefaults(cfg.QueueLength, cfg.QueueTimeout)
	for _, d := range []struct {
		value *time.Duration
		zero  time.Duration
	}{
		{&cfg.IdleTimeout, time.Minute},
		{&cfg.StartTimeout, time.Minute},
		{&cfg.GracefulTimeout, 30 * time.Second},
		{&cfg.StopGrace, defaultStopGrace},
	} {
		if *d.value <= 0 {
			*d.value = d.zero
		}
	}
	cfg.MaxSpare = max(cfg.MaxSpare, cfg.MinSpare)
	if cfg.memory == nil {
		cfg.memory = processMemory
	}
	clk := realClock
	if cfg.clk != nil {
		clk = *cfg.clk
	}
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	log = log.With(zap.String("pool", cfg.Name))
	if cfg.Output == nil {
		cfg.Output = func(w WorkerInfo, stream string, line []byte) {
			log.Info(string(line), zap.Int("worker", w.Number), zap.Int("pid", w.PID), zap.String("stream", stream))
		}
	}
	first := &generation{number: 1, command: cfg.Command}
	p := &Pool{
		cfg: cfg, log: log, clk: clk, born: clk.now(),
		wake: make(chan struct{}, 1), ready: make(chan struct{}), failed: make(chan struct{}), done: make(chan struct{}),
		gen: first, gens: []*generation{first}, restart: Restart{Generation: 1, State: RestartNone},
		min: cfg.Min, max: cfg.Max, target: cfg.Min,
		memory:   memoryWatch{stir: make(chan struct{}, 1)},
		lastExit: make(map[int]string),
	}
	p.queue = newWaitQueue[*Lease](cfg.Name, cfg.QueueLength, cfg.QueueTimeout, clk, &p.mu)
	p.queue.codel.turned = p.poke
	p.loopWatch.Store(-1)
	return p, nil
}

// Start begins to start workers. It does not wait for them.
func (p *Pool) Start() {
	p.startOnce.Do(func() {
		if p.cfg.Min == 0 {
			close(p.ready) // a request is all that is missing
		}
		go p.own()
	})
}

// Ready is closed when a worker is ready for the first time, and by Start when
// the pool is on demand.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// Failed is closed when a worker has failed to start before any was ready.
// Failure says why. The pool keeps trying.
func (p *Pool) Failed() <-chan struct{} { return p.failed }

// Resize changes both bounds by delta. The upper one stays at least 1, and so
// does the lower one of a pool that was not made to be on demand. Workers that
// are too many end what they have begun.
func (p *Pool) Resize(delta int) {
	p.mu.Lock()
	p.max = max(1, p.max+delta)
	p.min = min(max(min(p.cfg.Min, 1), p.min+delta), p.max)
	p.target = max(p.min, min(p.target+delta, p.max))
	low, high := p.min, p.max
	p.poke()
	p.mu.Unlock()
	p.log.Info("pool resized", zap.Int("min", low), zap.Int("max", high))
}

// Drain ends the pool without losing a request: no new lease is given, those
// that wait are still served, and workers exit when they have nothing left to
// do. When ctx ends first the rest is stopped as by Close, and ctx's cause
// returned.
func (p *Pool) Drain(ctx context.Context) error {
	p.end(draining)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Close()
		return context.Cause(ctx)
	}
}

// Close ends the pool quickly: waiting leases fail with ErrClosed, workers get
// TERM and after StopGrace KILL. It waits for their end.
func (p *Pool) Close() {
	p.end(closing)
	if !p.clk.endsWithin(p.cfg.StopGrace, p.done) {
		p.log.Error("workers have not ended after KILL", zap.Int("workers", p.Stats().Workers()))
	}
}

func (p *Pool) end(to phase) {
	p.startOnce.Do(func() { close(p.done) }) // never started: nothing to end
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = max(p.phase, to)
	select {
	case <-p.done:
		p.queue.fail(ErrClosed)
	default:
		p.poke()
	}
}

// poke has the owner look at the pool again.
func (p *Pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}
