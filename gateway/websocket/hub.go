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
	codeTryAgainLater  = 1013
)

// Why connections end with the server.
const (
	goingAway = "the server stops" // the reason of codeGoingAway
	givenUp   = "the server stops at once"
)

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
	// memory is how much clients' messages may still hold together.
	memory atomic.Int64

	// clock is the time of the last round, in ns since began, never 0.
	clock atomic.Int64

	mu       sync.Mutex
	ring     Conn // its next is the oldest
	open     int
	stopping bool
	hurried  bool          // all are cut off, whoever comes is too
	cut      int           // how many were
	gone     chan struct{} // closed when the last one has gone; nil while nobody waits
	interval time.Duration // between two rounds
	afoot    bool
	began    time.Time
}

// NewHub makes a Hub without connections. writeTimeout is more than zero. memory
// is how many bytes all clients' messages may hold together that are not whole,
// or not taken by their applications; a message that needs more closes its
// connection with 1013. What comes in one packet of a few KiB doesn't count.
func NewHub(writeTimeout time.Duration, memory int64) *Hub {
	h := &Hub{writeTimeout: writeTimeout, interval: time.Second, began: time.Now()}
	h.ring.next, h.ring.previous = &h.ring, &h.ring
	h.clock.Store(1)
	h.memory.Store(memory)
	return h
}

// enter counts a connection that is about to be: from before it is taken over
// from net/http, which then no longer waits for it. Leave is due once it has
// gone.
func (h *Hub) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open++
}

func (h *Hub) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open--; h.open == 0 && h.gone != nil {
		close(h.gone)
		h.gone = nil
	}
}

// add takes in a connection that has entered, and ends it if the hub is
// stopping.
func (h *Hub) add(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.ring.previous
	c.previous, c.next = last, &h.ring
	last.next, h.ring.previous = c, c
	for _, d := range []time.Duration{c.options.PingInterval, c.options.PingTimeout, c.options.IdleTimeout, c.options.MaxAge, h.writeTimeout} {
		if d > 0 { // an eighth is how late something may be noticed
			h.interval = max(min(h.interval, d/8), time.Millisecond)
		}
	}
	if !h.afoot {
		h.afoot = true
		h.clock.Store(max(1, int64(time.Since(h.began))))
		go h.walk()
	}
	c.opened = h.clock.Load()
	c.lastPing = c.opened
	c.spoken.Store(c.opened)
	switch {
	case h.hurried:
		h.cut++
		go c.abandon(givenUp)
	case h.stopping:
		go c.Shut(codeGoingAway, goingAway)
	}
}

func (h *Hub) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.previous.next, c.next.previous = c.next, c.previous
	c.previous, c.next = nil, nil
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
		writing := c.writing.Load()
		interval, timeout := c.options.PingInterval, c.options.PingTimeout
		switch {
		case writing != 0 && since(writing) > h.writeTimeout:
			go c.abandon("it takes nothing")
		case c.options.MaxAge > 0 && since(c.opened) >= c.options.MaxAge:
			go c.Shut(codeGoingAway, "it has lasted for "+c.options.MaxAge.String())
		case writing != 0:
			// A ping, and its answer, would wait behind what the client is still
			// to take: a slow one is not a silent one.
			c.lastPing, c.pinged = now, false
		case c.options.IdleTimeout > 0 && since(c.spoken.Load()) >= c.options.IdleTimeout:
			go c.Shut(codeGoingAway, "nothing was said for "+c.options.IdleTimeout.String())
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

// Stop closes all connections with 1001, going away, and those that are still
// to come.
func (h *Hub) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
	for c := h.ring.next; c != &h.ring; c = c.next {
		go c.Shut(codeGoingAway, goingAway)
	}
}

// Wait waits, after Stop and the end of the last handler, until the last
// connection has gone. When ctx ends the others are cut off; the result is how
// many.
func (h *Hub) Wait(ctx context.Context) (cut int) {
	h.mu.Lock()
	if h.open == 0 {
		h.mu.Unlock()
		return 0
	}
	gone := make(chan struct{})
	h.gone = gone
	h.mu.Unlock()
	select {
	case <-gone:
		return 0
	case <-ctx.Done():
	}
	h.mu.Lock()
	h.hurried = true
	for c := h.ring.next; c != &h.ring; c = c.next {
		h.cut++
		go c.abandon(givenUp)
	}
	h.mu.Unlock()
	<-gone
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cut
}
