package procpool

import (
	"cmp"
	"slices"
	"time"
)

// Stats is a pool at one moment.
type Stats struct {
	Name     string
	Min, Max int
	// Target is how many workers there should be.
	Target int
	// State sums the pool up.
	State PoolState
	// Live is false when the pool's own goroutine has ended or hangs:
	// nothing but a new gateway helps then.
	Live bool
	// Ready is true when the pool takes a request now, or would start a
	// worker for it. It may have to wait in the queue.
	Ready bool
	// Reason is why the last worker failed, while State is PoolDegraded or
	// PoolDown: the last line that it wrote, or how it ended.
	Reason string
	// RetryIn is when the next worker may be started, while workers fail.
	RetryIn time.Duration
	// States counts the workers by State.
	States [stateCount]int
	// Queued is how many leases wait, of at most QueueLength and a few of high
	// priority.
	Queued, QueueLength int
	// Queue is how the queue has served so far.
	Queue QueueStats
	// OldestWait is how long the first of them has waited.
	OldestWait time.Duration
	// Restart is the last restart.
	Restart Restart
	Totals  Totals
	// List has the workers that exist, by number.
	List []WorkerStats
}

// Totals count since the pool was made.
type Totals struct {
	Requests         uint64 // leases given
	Started          uint64 // workers
	Deaths           uint64 // workers that ended unasked, or never became ready
	RecycledRequests uint64 // workers replaced after MaxRequests
	RecycledAge      uint64 // workers replaced after MaxAge
	RecycledMemory   uint64 // workers replaced above MaxMemory
	RecycledBudget   uint64 // workers replaced to keep MemoryBudget
	RecycledRestart  uint64 // workers replaced by those of another generation
	KilledMemory     uint64 // workers killed above HardMemory
	Recalls          uint64 // times a worker was asked for requests that it had not started
}

// WorkerStats is one worker.
type WorkerStats struct {
	WorkerInfo
	State State
	// Generation is the version of the application that it runs.
	Generation int
	Requests   int // given to it so far
	InFlight   int
	Capacity   int
	Age        time.Duration
	// BusyFor is how long it has had requests without a pause, 0 when it has
	// none.
	BusyFor time.Duration
	// Memory is how many bytes it held when it was last measured, 0 when the
	// pool has no limit of memory.
	Memory int64
	// Reason is why it is being replaced or stopped, "" when it is not.
	Reason string
	// LastExit is how the worker before it with this number ended, "" when
	// there was none.
	LastExit string
}

// Workers returns how many processes there are.
func (s Stats) Workers() int {
	n := 0
	for state, count := range s.States {
		if State(state) != Dead {
			n += count
		}
	}
	return n
}

// Stats returns the present numbers. It needs no worker and does not wait.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clk.now()
	s := Stats{
		Name: p.cfg.Name, Min: p.min, Max: p.max, Target: p.target,
		Queued: p.queue.len(), QueueLength: p.cfg.QueueLength, Queue: p.queue.snapshot(),
		State: p.state(now), Live: p.live(now), RetryIn: p.backoff.wait(now),
		Restart: p.restart, Totals: p.totals,
	}
	switch s.State {
	case PoolDegraded, PoolDown:
		s.Reason = p.trouble
	}
	if since := p.queue.oldest(); !since.IsZero() {
		s.OldestWait = now.Sub(since)
	}
	for _, w := range p.workers {
		s.States[w.state]++
		ws := WorkerStats{
			WorkerInfo: w.info, State: w.state, Generation: w.gen.number, Requests: w.served, InFlight: w.inFlight,
			Capacity: w.capacity, Age: now.Sub(w.started), Memory: w.memory.bytes, Reason: w.reason, LastExit: p.lastExit[w.info.Number],
		}
		if w.inFlight > 0 {
			ws.BusyFor = now.Sub(w.busySince)
		}
		if w.reason == "" && w.worn.cause != unworn {
			ws.Reason = p.why(w.worn)
		}
		s.List = append(s.List, ws)
	}
	serves := s.States[Ready]+s.States[Busy] > 0
	s.Ready = s.Live && p.phase == running && (serves || p.min == 0 && p.backoff.failures == 0)
	slices.SortFunc(s.List, func(a, b WorkerStats) int { return cmp.Compare(a.Number, b.Number) })
	return s
}

// StartFailure is a worker that never became ready.
type StartFailure struct {
	Worker WorkerInfo
	At     time.Time
	// Err is the reason: the exit, a timeout, a failed negotiation, or
	// ErrStart when there was no process.
	Err error
	// Exit is how the process ended.
	Exit Exit
	// Output has the last lines (at most 50) that it wrote.
	Output []string
}

// Failure returns the last failed start, nil when there was none.
func (p *Pool) Failure() *StartFailure {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}
