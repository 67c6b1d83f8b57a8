package fcgi

import (
	"fmt"
	"sync/atomic"
	"time"
)

// eventLoop is how far a worker with an event loop has looked at what it was
// sent (PROTOCOL.md, section 8). It is written under the connection's lock;
// whoever asks takes none.
type eventLoop struct {
	async atomic.Bool
	// sent and begun count BEGIN_REQUEST records, modulo 2^32: those sent and
	// those that the worker has looked at.
	sent, begun atomic.Uint32
	since       atomic.Int64           // ns after epoch: since when the difference has stood still
	told        atomic.Pointer[func()] // OnBegun's
	owes        atomic.Pointer[func()] // OnOwed's
}

// epoch is what moments are counted from, so that one is a number.
var epoch = time.Now()

// Async reports whether the worker runs all its requests in one event loop.
// It means something after Negotiate.
func (c *Conn) Async() bool { return c.loop.async.Load() }

// Owed is how many requests have been sent that a worker with an event loop has
// not looked at, and since when it has looked at none: the zero time when it
// owes nothing. A worker without an event loop owes nothing.
func (c *Conn) Owed() (n int, since time.Time) {
	if n = int(c.loop.sent.Load() - c.loop.begun.Load()); n == 0 {
		return 0, time.Time{}
	}
	return n, epoch.Add(time.Duration(c.loop.since.Load()))
}

// OnBegun has f called each time after the worker has looked at requests. It is
// called from the goroutine that reads the connection, so it must not block.
// A second f takes the place of the first.
func (c *Conn) OnBegun(f func()) { c.loop.told.Store(&f) }

// OnOwed has f called each time when the worker begins to owe. It is called under
// the connection's lock, so it must wait for nothing. A second f takes the place
// of the first.
func (c *Conn) OnOwed(f func()) { c.loop.owes.Store(&f) }

// sending counts a request that is about to be sent. The caller holds w.mu.
func (l *eventLoop) sending() {
	if !l.async.Load() {
		return
	}
	if l.sent.Load() != l.begun.Load() {
		l.sent.Add(1)
		return
	}
	l.since.Store(int64(time.Since(epoch)))
	l.sent.Add(1)
	if owes := l.owes.Load(); owes != nil {
		(*owes)()
	}
}

// begun takes GATECREW_BEGUN of a worker with an event loop.
func (c *Conn) begun(p []byte) error {
	count := parseBegun(p)
	c.w.mu.Lock()
	last, sent := c.loop.begun.Load(), c.loop.sent.Load()
	if count-last > sent-last { // modulo 2^32
		c.w.mu.Unlock()
		return violation{fmt.Errorf("fcgi: begun: %d requests after %d, and %d were sent", count, last, sent)}
	}
	// In this order: who sees the new count must not see the old time.
	c.loop.since.Store(int64(time.Since(epoch)))
	c.loop.begun.Store(count)
	c.w.mu.Unlock()
	if told := c.loop.told.Load(); told != nil {
		(*told)()
	}
	return nil
}
