package procpool

import (
	"context"
	"sync"
	"time"
)

// Limiter bounds how many do something at once, with a bounded queue before
// it like a Pool's.
type Limiter struct {
	max int

	// mu covers the count and the queue: handing a slot to the next waiter
	// is one step, so that a newcomer can't overtake.
	mu     sync.Mutex
	inUse  int
	closed bool
	queue  waitQueue[struct{}]
}

// LimiterStats is a Limiter at one moment.
type LimiterStats struct {
	Max, InUse, Queued int
	Queue              QueueStats
}

// NewLimiter returns a Limiter of max slots, at least one. A queueLength of
// 0 means 100, a negative one no queue; a queueTimeout of 0 means 10 s. The name
// stands in errors.
func NewLimiter(name string, max int, queueLength int, queueTimeout time.Duration) *Limiter {
	return newLimiter(name, max, queueLength, queueTimeout, realClock)
}

func newLimiter(name string, slots, queueLength int, queueTimeout time.Duration, clk clock) *Limiter {
	queueLength, queueTimeout = queueDefaults(queueLength, queueTimeout)
	l := &Limiter{max: max(1, slots)}
	l.queue = newWaitQueue[struct{}](name, queueLength, queueTimeout, clk, &l.mu)
	return l
}

// Acquire takes a slot, waiting in the queue for one. It fails with a
// *QueueError, with ErrClosed, or with ctx's cause; a nil error obliges to
// Release.
func (l *Limiter) Acquire(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	if l.inUse < l.max {
		l.inUse++
		l.queue.passed()
		l.mu.Unlock()
		return nil
	}
	w, err := l.queue.join(ctx, Normal)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = l.queue.wait(w)
	return err
}

// Release gives a slot back, to the one whose turn it is.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.queue.first(); w != nil {
		l.queue.serve(w, struct{}{}, l.queue.clk.now())
		return
	}
	l.inUse--
}

// Close makes every wait, present and future, fail with ErrClosed. Slots in use
// stay so.
func (l *Limiter) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.queue.fail(ErrClosed)
}

// Stats returns the present numbers.
func (l *Limiter) Stats() LimiterStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LimiterStats{Max: l.max, InUse: l.inUse, Queued: l.queue.len(), Queue: l.queue.snapshot()}
}
