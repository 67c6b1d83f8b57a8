package procpool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PoolState is how a pool is, in one word.
type PoolState string

const (
	PoolStarting PoolState = "starting" // no worker has been ready yet
	PoolOK       PoolState = "ok"
	PoolIdle     PoolState = "idle"     // no worker, and none is needed
	PoolDegraded PoolState = "degraded" // workers die before they have done anything, so that their starts are spaced
	PoolDown     PoolState = "down"     // none is left, and again and again one doesn't become ready: requests are refused
	PoolDraining PoolState = "draining" // it ends what it has begun
	PoolClosed   PoolState = "closed"
)

// ErrDown means that a pool's workers don't come up. It comes wrapped in a
// *DownError.
var ErrDown = errors.New("no worker comes up")

// DownError is a refusal by a pool that is down.
type DownError struct {
	// Name is the pool's.
	Name string
	// Reason is why the last worker failed: the last line that it wrote,
	// or how it ended.
	Reason string
	// RetryAfter is when another start has been tried, at least a second.
	RetryAfter time.Duration
}

func (e *DownError) Error() string {
	return fmt.Sprintf("procpool: %s: %v: %s", e.Name, ErrDown, e.Reason)
}

func (e *DownError) Unwrap() error { return ErrDown }

// downAfter is how many starts in a row must have failed for a pool to be down,
// when it has no worker left. Before that requests wait: one failure may be
// chance. Workers that a request has killed don't count, however soon it did:
// nobody shall be able to switch a pool off by three bad requests.
const downAfter = 3

// down reports whether requests are refused because no worker comes up. From
// time to time one is started to see (half-open, as of a circuit breaker): when
// it is ready it gets requests, and when it has done one the pool is as before.
func (p *Pool) down() bool {
	if p.stillborn < downAfter || p.rollout != nil && !p.rollout.proved {
		return false
	}
	for _, w := range p.workers {
		if w.state == Ready || w.state == Busy {
			return false
		}
	}
	return true
}

// refusal is the error for requests while the pool is down, else nil.
func (p *Pool) refusal() error {
	if !p.down() {
		return nil
	}
	retry := p.backoff.wait(p.clk.now()) + time.Second - 1
	return &DownError{Name: p.cfg.Name, Reason: p.trouble, RetryAfter: max(time.Second, retry.Truncate(time.Second))}
}

// state sums the pool up.
func (p *Pool) state(now time.Time) PoolState {
	ready, starting := 0, 0
	for _, w := range p.workers {
		switch w.state {
		case Ready, Busy:
			ready++
		case Starting:
			starting++
		}
	}
	switch {
	case p.phase == closing || closed(p.done):
		return PoolClosed
	case p.phase == draining:
		return PoolDraining
	case p.down():
		return PoolDown
	case p.backoff.failures > 0:
		return PoolDegraded
	case ready > 0:
		return PoolOK
	case starting > 0 || p.target > 0:
		return PoolStarting
	}
	return PoolIdle
}

// stuckAfter is how long the owner may take for what it has decided on. None of
// it waits for anything.
const stuckAfter = 10 * time.Second

// live reports whether the owner does its work.
func (p *Pool) live(now time.Time) bool {
	return !closed(p.done) && (p.acting.IsZero() || now.Sub(p.acting) < stuckAfter)
}

// Reason is the last line that a worker wrote which ended by itself, as a rule
// the end of a traceback; indented lines only add to another. Otherwise it is
// Err.
func (f *StartFailure) Reason() string {
	if !strings.HasSuffix(f.Err.Error(), f.Exit.String()) {
		return f.Err.Error() // it was ended, and what it wrote is no reason for that
	}
	for _, line := range slices.Backward(f.Output) {
		if line = strings.TrimRight(line, " \t"); line != "" && line[0] != ' ' && line[0] != '\t' {
			return line
		}
	}
	return f.Err.Error()
}
