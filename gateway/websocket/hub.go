package websocket

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Status codes of a close frame (RFC 6455, section 7.4.1, and the IANA registry
// of WebSocket close codes).
const (
	codeNormal         = 1000
	codeGoingAway      = 1001
	codeProtocolError  = 1002
	codeNoStatus       = 1005 // never sent
	codeAbnormal       = 1006 // never sent
	codeInvalidData    = 1007
	codeTooLarge       = 1009
	codeInternalError  = 1011
	codeServiceRestart = 1012
)

const goingAway = "the server stops" // the reason of codeGoingAway

// closeTimeout is how long a client may take to answer a close frame, and to
// take what is sent before it.
const closeTimeout = 5 * time.Second

// Hub has all WebSocket connections of a gateway. One goroutine of its own
// looks after all of them: it pings, and ends those whose client has gone or
// takes nothing.
type Hub struct {
	// writeTimeout is how long a client may take for one frame, of at most
	// 64 KiB.
	writeTimeout time.Duration

	// clock is the time of the last round, in ns since began, never 0.
	clock atomic.Int64

	mu       sync.Mutex
	ring     Conn // its next is the oldest
	open     int
	stopping bool
	gone     chan struct{} // closed when the last one has gone after Stop
	interval time.Duration // between two rounds
	afoot    bool
	began    time.Time
}

// NewHub makes a Hub without connections. writeTimeout is more than zero.
func NewHub(writeTimeout time.Duration) *Hub {
	h := &Hub{writeTimeout: writeTimeout, gone: make(chan struct{}), interval: time.Second, began: time.Now()}
	h.ring.next, h.ring.previous = &h.ring, &h.ring
	h.clock.Store(1)
	return h
}

// add takes a connection in; false when the hub is stopping.
func (h *Hub) add(c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return false
	}
	h.open++
	c.lastPing = h.clock.Load()
	last := h.ring.previous
	c.previous, c.next = last, &h.ring
	last.next, h.ring.previous = c, c
	for _, d := range []time.Duration{c.options.PingInterval, c.options.PingTimeout, h.writeTimeout} {
		if d > 0 { // an eighth is how late something may be noticed
			h.interval = max(min(h.interval, d/8), time.Millisecond)
		}
	}
	if !h.afoot {
		h.afoot = true
		h.clock.Store(max(1, int64(time.Since(h.began))))
		c.lastPing = h.clock.Load()
		go h.walk()
	}
	return true
}

func (h *Hub) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.previous.next, c.next.previous = c.next, c.previous
	c.previous, c.next = nil, nil
	if h.open--; h.open == 0 && h.stopping {
		close(h.gone)
	}
}

// walk makes rounds until there is no connection.
func (h *Hub) walk() {
	for {
		h.mu.Lock()
		h.afoot = h.open > 0
		afoot, interval := h.afoot, h.interval
		h.mu.Unlock()
		if !afoot {
			return
		}
		time.Sleep(interval)
		h.round(max(1, int64(time.Since(h.began))))
	}
}

// round looks at each connection once. Whatever may wait for a client runs in
// a goroutine of its own.
func (h *Hub) round(now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock.Store(now)
	for c := h.ring.next; c != &h.ring; c = c.next {
		since := func(then int64) time.Duration { return time.Duration(now - then) }
		if w := c.writing.Load(); w != 0 && since(w) > h.writeTimeout {
			go c.abandon("it takes nothing")
			continue
		}
		interval, timeout := c.options.PingInterval, c.options.PingTimeout
		switch {
		case interval == 0:
		case c.stalled.Load():
			// It is the application that keeps the client's answer from being
			// read. That the client has gone is seen by the ping alone, when it
			// can't be sent.
			if c.pinged = false; since(c.lastPing) >= interval {
				c.lastPing = now
				go c.ping()
			}
		case timeout > 0 && c.pinged && c.heard.Load() < c.lastPing:
			if since(c.lastPing) >= timeout {
				go c.expire()
			}
		case since(c.lastPing) >= interval:
			c.lastPing, c.pinged = now, true
			go c.ping()
		}
	}
}

// all are the connections at this moment.
func (h *Hub) all() []*Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conns := make([]*Conn, 0, h.open)
	for c := h.ring.next; c != &h.ring; c = c.next {
		conns = append(conns, c)
	}
	return conns
}

// Stop closes all connections with 1001, going away, and lets no other in.
func (h *Hub) Stop() {
	h.mu.Lock()
	again := h.stopping
	h.stopping = true
	if h.open == 0 && !again {
		close(h.gone)
	}
	h.mu.Unlock()
	for _, c := range h.all() {
		go c.Shut(codeGoingAway, goingAway)
	}
}

// Wait waits, after Stop, until the last connection has gone. When ctx ends the
// others are cut off; the result is how many.
func (h *Hub) Wait(ctx context.Context) (cut int) {
	select {
	case <-h.gone:
		return 0
	case <-ctx.Done():
	}
	conns := h.all()
	for _, c := range conns {
		go c.abandon("the server stops at once")
	}
	<-h.gone
	return len(conns)
}
