package procpool

import (
	"context"
	"sync"
	"time"
)

// Limiter bounds how many do something at once, with a bounded queue before
// it that is served in order.
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
	Max, InUse, Queued       int
	QueueFull, QueueTimeouts uint64 // refusals since the start
}

// NewLimiter returns a Limiter of max slots, at least one. A queueLength of
// 0 means 100, a negative one no queue; a queueTimeout of 0 means 10 s. The name
// stands in errors.
func NewLimiter(name string, max int, queueLength int, queueTimeout time.Duration) *Limiter {
	return newLimiter(name, max, queueLength, queueTimeout, realClock)
}

func newLimiter(name string, slots, queueLength int, queueTimeout time.Duration, clk clock) *Limiter {
	queueLength, queueTimeout = queueDefaults(queueLength, queueTimeout)
	return &Limiter{max: max(1, slots), queue: newWaitQueue[struct{}](name, queueLength, queueTimeout, clk)}
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
		l.mu.Unlock()
		return nil
	}
	w, err := l.queue.join(Normal)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = l.queue.wait(ctx, w, func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.queue.leave(w, err)
	})
	return err
}

// Release gives a slot back, to the one who has waited longest.
func (l *Limiter) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.len() > 0 {
		l.queue.serve(struct{}{})
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
	return LimiterStats{
		Max: l.max, InUse: l.inUse, Queued: l.queue.len(),
		QueueFull: l.queue.full, QueueTimeouts: l.queue.timedOut,
	}
}
