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
	// States counts the workers by State.
	States [stateCount]int
	// Queued is how many leases wait, of at most QueueLength.
	Queued, QueueLength int
	// OldestWait is how long the first of them has waited.
	OldestWait time.Duration
	// Degraded is true when workers die before they have done anything, so
	// that their starts are spaced. RetryIn is when the next one is due.
	Degraded bool
	RetryIn  time.Duration
	Totals   Totals
	// List has the workers that exist, by number.
	List []WorkerStats
}

// Totals count since the pool was made.
type Totals struct {
	Requests      uint64 // leases given
	QueueFull     uint64 // leases refused at once
	QueueTimeouts uint64 // leases refused after waiting
	Started       uint64 // workers
	Deaths        uint64 // workers that ended unasked, or never became ready
	Recycled      uint64 // workers replaced after MaxRequests
	Recalls       uint64 // times a worker was asked for requests that it had not started
}

// WorkerStats is one worker.
type WorkerStats struct {
	WorkerInfo
	State    State
	Requests int // given to it so far
	InFlight int
	Capacity int
	Age      time.Duration
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
		Queued: p.queue.len(), QueueLength: p.cfg.QueueLength,
		Degraded: p.backoff.failures > 0, RetryIn: p.backoff.wait(now),
		Totals: p.totals,
	}
	s.Totals.QueueFull, s.Totals.QueueTimeouts = p.queue.full, p.queue.timedOut
	if since := p.queue.oldest(); !since.IsZero() {
		s.OldestWait = now.Sub(since)
	}
	for _, w := range p.workers {
		s.States[w.state]++
		s.List = append(s.List, WorkerStats{
			WorkerInfo: w.info, State: w.state, Requests: w.served, InFlight: w.inFlight,
			Capacity: w.capacity, Age: now.Sub(w.started), LastExit: p.lastExit[w.info.Number],
		})
	}
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
