package backend

import (
	"sync"
	"time"
)

// term ends something that has lasted for too long, or in which nothing has
// happened for too long.
type term struct {
	idle time.Duration
	end  func(reason string)

	mu        sync.Mutex
	touched   time.Time
	stopped   bool
	old, lull *time.Timer // nil without the limit
}

// newTerm begins the time; 0 means no limit. end is called in a goroutine of
// its own, at most once for each of the limits.
func newTerm(maxAge, idle time.Duration, end func(reason string)) *term {
	t := &term{idle: idle, end: end, touched: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if maxAge > 0 {
		t.old = time.AfterFunc(maxAge, func() { end("it has lasted for " + maxAge.String()) })
	}
	if idle > 0 {
		t.lull = time.AfterFunc(idle, t.lulled)
	}
	return t
}

// touch says that something has happened.
func (t *term) touch() {
	if t.idle == 0 {
		return
	}
	t.mu.Lock()
	t.touched = time.Now()
	t.mu.Unlock()
}

func (t *term) lulled() {
	t.mu.Lock()
	rest := t.idle - time.Since(t.touched)
	over := rest <= 0 && !t.stopped
	if rest > 0 && !t.stopped {
		t.lull.Reset(rest)
	}
	t.mu.Unlock()
	if over {
		t.end("nothing was said for " + t.idle.String())
	}
}

// stop gives the limits up.
func (t *term) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for _, timer := range []*time.Timer{t.old, t.lull} {
		if timer != nil {
			timer.Stop()
		}
	}
}
