package procpool

import (
	"context"
	"sync"
	"time"
)

// waitQueue is a bounded queue of callers who wait for something of type T: by
// priority, and within one first come, first served, as long as it is not
// overloaded (see codel). Its owner's lock covers it; of its methods only wait
// takes that lock itself.
type waitQueue[T any] struct {
	name    string
	max     int           // waiters of low and normal priority,
	beyond  int           // and so many more, for whom there is a place already
	timeout time.Duration // of each one's wait
	clk     clock
	mu      *sync.Mutex // the owner's

	lines [priorities]line[T]
	count int // in all lines
	codel codel
	stats QueueStats

	// One timer serves all waiters: it runs expire at alarmAt, when the first
	// of them may have waited for long enough. It is left to run out when the
	// queue empties, so that waits shorter than the timeout cost nothing.
	alarm   alarm // nil until somebody waits
	alarmAt time.Time

	spare sync.Pool // of *waiter[T]
}

const (
	// highPlaces is how many requests of high priority may wait, besides the
	// places that the queue has for all others.
	highPlaces = 16
	// expiryGrain is how much later than its time a wait may end, so that an
	// overloaded queue is not woken up for each one.
	expiryGrain = 5 * time.Millisecond
)

// waiter is one caller. It is settled exactly once: served or failed.
type waiter[T any] struct {
	ctx      context.Context
	priority Priority
	since    time.Time
	queued   bool
	settled  chan struct{} // gets one token when value and err are final
	value    T
	err      error

	previous, next *waiter[T] // in its line
}

// line has the waiters of one priority, the oldest first.
type line[T any] struct {
	front, back *waiter[T]
	count       int
}

func newWaitQueue[T any](name string, max int, timeout time.Duration, clk clock, mu *sync.Mutex) waitQueue[T] {
	return waitQueue[T]{name: name, max: max, timeout: timeout, clk: clk, mu: mu, codel: codel{timeout: timeout}}
}

func (q *waitQueue[T]) len() int { return q.count }

func (q *waitQueue[T]) line(p Priority) *line[T] { return &q.lines[p-Low] }

// oldest returns since when somebody waits, the zero time when nobody does.
func (q *waitQueue[T]) oldest() (since time.Time) {
	for i := range q.lines {
		if w := q.lines[i].front; w != nil && (since.IsZero() || w.since.Before(since)) {
			since = w.since
		}
	}
	return since
}

func (q *waitQueue[T]) snapshot() QueueStats {
	s := q.stats
	s.OverloadedSince = q.codel.since
	return s
}

// passed notes that someone was served without having to wait.
func (q *waitQueue[T]) passed() { q.stats.Waits.add(0) }

// join appends a waiter, or refuses. Its caller is obliged to wait.
func (q *waitQueue[T]) join(ctx context.Context, priority Priority) (*waiter[T], error) {
	now := q.clk.now()
	if q.codel.arrived(q.count, now) {
		q.expireAt(now)
		q.wakeAt(now.Add(q.codel.interval()), now)
	}
	if q.patience(priority) <= 0 {
		q.stats.Shed++
		return nil, q.refusal(ErrOverloaded, 0, now)
	}
	if !q.room(priority, now) {
		q.stats.Full++
		return nil, q.refusal(ErrQueueFull, 0, now)
	}
	w, ok := q.spare.Get().(*waiter[T])
	if !ok {
		w = &waiter[T]{settled: make(chan struct{}, 1)}
	}
	w.ctx, w.priority, w.since, w.queued = ctx, priority, now, true
	l := q.line(priority)
	if w.previous = l.back; w.previous != nil {
		w.previous.next = w
	} else {
		l.front = w
	}
	l.back = w
	l.count++
	q.count++
	q.wakeAt(now.Add(q.patience(priority)), now)
	return w, nil
}

// room reports whether one more may wait, for whom the last of the low ones
// makes place when the queue is full.
func (q *waitQueue[T]) room(priority Priority, now time.Time) bool {
	low, normal := q.line(Low), q.line(Normal)
	switch {
	case priority == Returned: // so many as there were slots for
		return true
	case priority == High:
		return q.line(High).count < highPlaces
	case low.count+normal.count < q.max+q.beyond:
		return true
	case priority == Normal && low.back != nil:
		q.stats.Full++
		q.refuse(low.back, ErrQueueFull, now)
		return true
	}
	return false
}

// patience is how long someone may wait at present.
func (q *waitQueue[T]) patience(priority Priority) time.Duration {
	switch {
	case priority >= High || q.codel.since.IsZero():
		return q.timeout
	case priority == Low:
		return 0
	}
	return q.codel.interval()
}

// first returns the one to be served next, nil when nobody waits. Those whose
// callers have gone are dropped on the way: they are not worth a slot.
func (q *waitQueue[T]) first() *waiter[T] {
	for priority := Returned; priority >= Low; priority-- {
		for l := q.line(priority); l.front != nil; {
			w := l.front
			if priority < High && !q.codel.since.IsZero() {
				w = l.back
			}
			if w.ctx.Err() == nil {
				return w
			}
			var none T
			q.settle(w, none, context.Cause(w.ctx), q.clk.now())
		}
	}
	return nil
}

// serve gives value to w.
func (q *waitQueue[T]) serve(w *waiter[T], value T, now time.Time) {
	q.stats.Waits.add(now.Sub(w.since))
	q.codel.served(now)
	q.settle(w, value, nil, now)
}

// fail ends every wait with err.
func (q *waitQueue[T]) fail(err error) {
	var none T
	for i := range q.lines {
		for q.lines[i].front != nil {
			q.settle(q.lines[i].front, none, err, q.clk.now())
		}
	}
	if q.alarm != nil {
		q.alarm.Stop()
		q.alarmAt = time.Time{}
	}
}

// refuse ends w's wait.
func (q *waitQueue[T]) refuse(w *waiter[T], err error, now time.Time) {
	var none T
	q.settle(w, none, q.refusal(err, now.Sub(w.since), now), now)
}

func (q *waitQueue[T]) settle(w *waiter[T], value T, err error, now time.Time) {
	l := q.line(w.priority)
	if w.previous != nil {
		w.previous.next = w.next
	} else {
		l.front = w.next
	}
	if w.next != nil {
		w.next.previous = w.previous
	} else {
		l.back = w.previous
	}
	l.count--
	q.count--
	q.codel.note(q.count, now)
	w.queued, w.value, w.err = false, value, err
	w.settled <- struct{}{}
}

// wait waits until w is settled or its ctx has ended. A waiter that is served
// while that ends has its value: its caller finds out itself.
func (q *waitQueue[T]) wait(w *waiter[T]) (T, error) {
	select {
	case <-w.settled:
	case <-w.ctx.Done():
		q.mu.Lock()
		if w.queued {
			var none T
			q.settle(w, none, context.Cause(w.ctx), q.clk.now())
		}
		q.mu.Unlock()
		<-w.settled
	}
	value, err := w.value, w.err
	*w = waiter[T]{settled: w.settled}
	q.spare.Put(w)
	return value, err
}

// expire is what the alarm runs.
func (q *waitQueue[T]) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.alarmAt = time.Time{}
	now := q.clk.now()
	q.expireAt(now)
	if q.codel.note(q.count, now); !q.codel.since.IsZero() {
		q.wakeAt(now.Add(q.codel.interval()), now) // to see when it is over
	}
}

// expireAt refuses those who have waited for long enough.
func (q *waitQueue[T]) expireAt(now time.Time) {
	for priority := Low; priority <= Returned; priority++ {
		l := q.line(priority)
		for l.front != nil {
			w, patience := l.front, q.patience(priority)
			if end := w.since.Add(patience); now.Before(end) {
				q.wakeAt(end, now)
				break
			}
			err := ErrQueueTimeout
			if patience < q.timeout {
				q.stats.Shed++
				err = ErrOverloaded
			} else {
				q.stats.TimedOut++
			}
			q.refuse(w, err, now)
		}
	}
}

// wakeAt has expire run at t, if it doesn't run before.
func (q *waitQueue[T]) wakeAt(t, now time.Time) {
	if soon := now.Add(expiryGrain); t.Before(soon) {
		t = soon
	}
	if !q.alarmAt.IsZero() && !t.Before(q.alarmAt) {
		return
	}
	if q.alarm == nil {
		q.alarm = q.clk.alarm(q.expire)
	}
	q.alarmAt = t
	q.alarm.Reset(t.Sub(now))
}

// refusal says that another try makes sense when those who wait now will have
// been served.
func (q *waitQueue[T]) refusal(err error, waited time.Duration, now time.Time) error {
	retry := max(time.Second, min(q.codel.backlog(q.count, now), q.timeout))
	return &QueueError{Name: q.name, Err: err, Length: q.count, Waited: waited, RetryAfter: retry}
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
