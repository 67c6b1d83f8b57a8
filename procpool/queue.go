package procpool

import (
	"container/list"
	"context"
	"time"
)

// waitQueue is a bounded first-in first-out queue of callers who wait for
// something of type T. It has no lock: its owner's covers it, except in wait.
type waitQueue[T any] struct {
	name    string
	max     int           // waiters
	timeout time.Duration // of each one's wait
	clk     clock

	waiters list.List // of *waiter[T]

	full, timedOut uint64 // refusals since the start
}

// waiter is one caller. Exactly one of serve and leave settles it.
type waiter[T any] struct {
	since   time.Time
	settled chan struct{} // closed when value or err is set
	value   T
	err     error
	elem    *list.Element
}

func newWaitQueue[T any](name string, max int, timeout time.Duration, clk clock) waitQueue[T] {
	return waitQueue[T]{name: name, max: max, timeout: timeout, clk: clk}
}

func (q *waitQueue[T]) len() int { return q.waiters.Len() }

// oldest returns since when the first one waits, the zero time when nobody
// does.
func (q *waitQueue[T]) oldest() time.Time {
	if e := q.waiters.Front(); e != nil {
		return e.Value.(*waiter[T]).since
	}
	return time.Time{}
}

// join appends a waiter, or refuses with ErrQueueFull.
func (q *waitQueue[T]) join(_ Priority) (*waiter[T], error) {
	if q.waiters.Len() >= q.max {
		q.full++
		return nil, q.refusal(ErrQueueFull, 0)
	}
	w := &waiter[T]{since: q.clk.now(), settled: make(chan struct{})}
	w.elem = q.waiters.PushBack(w)
	return w, nil
}

// serve gives value to the waiter at the front. The queue must not be empty.
func (q *waitQueue[T]) serve(value T) {
	w := q.waiters.Remove(q.waiters.Front()).(*waiter[T])
	w.elem, w.value = nil, value
	close(w.settled)
}

// fail ends every wait with err.
func (q *waitQueue[T]) fail(err error) {
	for q.waiters.Len() > 0 {
		w := q.waiters.Remove(q.waiters.Front()).(*waiter[T])
		w.elem, w.err = nil, err
		close(w.settled)
	}
}

// leave ends w's wait with err, unless it was settled before.
func (q *waitQueue[T]) leave(w *waiter[T], err error) {
	if w.elem == nil {
		return
	}
	q.waiters.Remove(w.elem)
	if err == ErrQueueTimeout {
		q.timedOut++
		err = q.refusal(ErrQueueTimeout, q.clk.now().Sub(w.since))
	}
	w.elem, w.err = nil, err
	close(w.settled)
}

// wait waits until w is settled, ctx has ended or the time is up. leave is
// q.leave under the owner's lock.
func (q *waitQueue[T]) wait(ctx context.Context, w *waiter[T], leave func(error)) (T, error) {
	expired, stop := q.clk.at(w.since.Add(q.timeout))
	defer stop()
	select {
	case <-w.settled:
	case <-ctx.Done():
		leave(context.Cause(ctx))
	case <-expired:
		leave(ErrQueueTimeout)
	}
	// A waiter that was served while it left has its value: its caller
	// finds out itself that its request has gone.
	return w.value, w.err
}

func (q *waitQueue[T]) refusal(err error, waited time.Duration) error {
	retry := max(time.Second, (q.timeout + time.Second - 1).Truncate(time.Second))
	return &QueueError{Name: q.name, Err: err, Length: q.waiters.Len(), Waited: waited, RetryAfter: retry}
}

const (
	defaultQueueLength  = 100
	defaultQueueTimeout = 10 * time.Second
)

// queueDefaults resolves the zero meanings that all queues share.
func queueDefaults(length int, timeout time.Duration) (int, time.Duration) {
	switch {
	case length == 0:
		length = defaultQueueLength
	case length < 0:
		length = 0
	}
	if timeout <= 0 {
		timeout = defaultQueueTimeout
	}
	return length, timeout
}
