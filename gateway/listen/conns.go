package listen

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conns bounds what the clients of an http.Server can hold: how many
// connections are open, and how long a client may take no byte of a response.
//
// It leaves TCP connections as they are instead of wrapping them, so that
// net/http still finds the *net.TCPConn and with it sendfile(2).
type Conns struct {
	patience time.Duration
	places   chan struct{}
	stop     chan struct{}
	done     chan struct{}

	// quiet are the connections that have sent nothing yet, and since when. It
	// is asked at every request, so it is a map that needs no lock to say no.
	quiet    sync.Map
	stopping atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]progress
}

// progress is how far a connection's client was, and since when.
type progress struct {
	mark
	since time.Time
}

// mark is where a connection stands. It changes when the client takes a byte.
type mark struct {
	taken uint64 // what the client has acknowledged
	wrote uint64 // what was written
	left  int    // what of it lies in the kernel
}

// NewConns allows max connections. patience is the longest time in which a
// client takes no byte of what was sent to it; it is checked four times in
// that time, and at least every ten seconds.
func NewConns(max int, patience time.Duration) *Conns {
	c := &Conns{patience: patience, places: make(chan struct{}, max),
		stop: make(chan struct{}), done: make(chan struct{}), conns: map[net.Conn]progress{}}
	go c.run()
	return c
}

// Listener makes Accept wait for a place. The server must call State. A
// connection of a Unix socket comes as a *UnixConn.
func (c *Conns) Listener(l net.Listener) net.Listener {
	return &boundedListener{Listener: l, conns: c, closed: make(chan struct{})}
}

// State is the ConnState hook of the http.Server.
func (c *Conns) State(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		now := time.Now()
		c.quiet.Store(conn, now)
		c.mu.Lock()
		c.conns[conn] = progress{since: now}
		c.mu.Unlock()
	case http.StateActive:
		c.quiet.Delete(conn)
	case http.StateIdle:
		if c.stopping.Load() {
			c.quiet.Store(conn, time.Now().Add(afterLast))
		}
	case http.StateHijacked:
		c.quiet.Delete(conn) // it keeps its place until Release
	case http.StateClosed:
		c.quiet.Delete(conn)
		c.Release(conn)
	}
}

// Release gives back the place of a connection that is closed. Who takes one
// over from net/http calls it; it is still watched until then.
func (c *Conns) Release(conn net.Conn) {
	c.mu.Lock()
	_, open := c.conns[conn]
	delete(c.conns, conn)
	c.mu.Unlock()
	if open {
		<-c.places
	}
}

// HandOn forgets a connection that another server goes on with, under another
// net.Conn perhaps. It keeps its place, which that server gives back: State must be
// told that it is new.
func (c *Conns) HandOn(conn net.Conn) {
	c.quiet.Delete(conn)
	c.mu.Lock()
	delete(c.conns, conn)
	c.mu.Unlock()
}

// afterLast is how much longer a connection stays open behind its last request
// while the server stops. HTTP/2 itself closes one a second after it has told the
// client to go, so that the client gets the end of what was sent.
const afterLast = 1500 * time.Millisecond

// Stop is to be called before http.Server.Shutdown, which tells the HTTP/2
// connections of that moment to end, but not one whose handshake ends a moment
// later. From here on CloseQuiet looks at those behind their last request, too.
func (c *Conns) Stop() { c.stopping.Store(true) }

// CloseQuiet closes the connections on which no request has come for patience
// since they were opened. http.Server.Shutdown would wait five seconds for
// each of them.
func (c *Conns) CloseQuiet(patience time.Duration) {
	c.quiet.Range(func(conn, since any) bool {
		if time.Since(since.(time.Time)) >= patience {
			_ = beneath(conn.(net.Conn)).Close() // net/http notices and calls State
		}
		return true
	})
}

// Close stops watching; the connections stay as they are.
func (c *Conns) Close() {
	close(c.stop)
	<-c.done
}

func (c *Conns) run() {
	defer close(c.done)
	ticker := time.NewTicker(max(min(c.patience/4, 10*time.Second), time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.check(time.Now())
		case <-c.stop:
			return
		}
	}
}

// check closes the connections that stood still for too long. It asks the
// kernel whether the client has acknowledged a byte: so a slow client is told
// from one that stands still whatever the size of the buffers between them,
// and nothing has to be done for each write.
func (c *Conns) check(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, before := range c.conns {
		mark, pending, ok := markOf(conn)
		switch {
		case !ok:
		case !pending || mark != before.mark:
			c.conns[conn] = progress{mark, now}
		case now.Sub(before.since) >= c.patience:
			Reset(conn) // net/http notices and calls State
		}
	}
}

// Reset ends a connection at once, by a reset where there is one: the client
// must not take what it has for the whole, and the kernel's buffers are freed.
// With TLS no alert is sent, which would say that all is well.
func Reset(conn net.Conn) {
	conn = beneath(conn)
	if t, isTCP := conn.(*net.TCPConn); isTCP {
		_ = t.SetLinger(0) // it may be dead already
	}
	_ = conn.Close()
}

// beneath is the connection that TLS runs on, or whatever else wraps it, or conn
// itself.
func beneath(conn net.Conn) net.Conn {
	for {
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = outer.NetConn()
	}
}

// markOf asks the kernel where a connection stands, and whether there are bytes
// that the client has not taken.
func markOf(conn net.Conn) (m mark, pending, ok bool) {
	conn = beneath(conn)
	s, ok := conn.(syscall.Conn)
	if !ok {
		return m, false, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return m, false, false
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		switch c := conn.(type) {
		case *net.TCPConn:
			var info *unix.TCPInfo
			if info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); failed == nil {
				m.taken, pending = info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
			}
		case *UnixConn:
			// What is left alone could be the same at each look, as much as there
			// is room for, although the client takes a lot between them.
			m.wrote = c.Written()
			m.left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			pending = m.left > 0
		default:
			failed = errors.ErrUnsupported
		}
	})
	return m, pending, err == nil && failed == nil
}

// UnixConn counts what is written to a connection of a Unix socket, which the
// kernel doesn't.
type UnixConn struct {
	*net.UnixConn
	wrote atomic.Uint64
}

func (c *UnixConn) Write(p []byte) (int, error) {
	n, err := c.UnixConn.Write(p)
	c.Wrote(n)
	return n, err
}

// Written is how many bytes were.
func (c *UnixConn) Written() uint64 { return c.wrote.Load() }

// Wrote is told of n bytes that were written in another way than by Write.
func (c *UnixConn) Wrote(n int) { c.wrote.Add(uint64(n)) }

// boundedListener accepts a connection only when there is a place for it.
type boundedListener struct {
	net.Listener
	conns  *Conns
	once   sync.Once
	closed chan struct{}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.conns.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.conns.places
		return nil, err
	}
	if c, ok := conn.(*net.UnixConn); ok {
		conn = &UnixConn{UnixConn: c}
	}
	return conn, nil
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
