package listen

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Conns bounds what the clients of an http.Server can hold: how many
// connections are open, and how long a client may take no byte of a response.
//
// It leaves the connections as they are instead of wrapping them, so that
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
	taken uint64
	since time.Time
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

// Listener makes Accept wait for a place. The server must call State.
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
		taken, pending, ok := taken(conn)
		switch {
		case !ok:
		case !pending || taken != before.taken:
			c.conns[conn] = progress{taken, now}
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

// taken asks the kernel for a number that changes when the client takes a
// byte, and whether there are bytes that it has not taken.
func taken(conn net.Conn) (number uint64, pending, ok bool) {
	var raw interface{ Control(func(uintptr)) error }
	var err error
	conn = beneath(conn)
	switch s := conn.(type) {
	case *net.TCPConn:
		raw, err = s.SyscallConn()
	case *net.UnixConn:
		raw, err = s.SyscallConn()
	default:
		return 0, false, false
	}
	if err != nil {
		return 0, false, false
	}
	_, isTCP := conn.(*net.TCPConn)
	var failed error
	err = raw.Control(func(fd uintptr) {
		if isTCP {
			var info *unix.TCPInfo
			if info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); failed == nil {
				number, pending = info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
			}
			return
		}
		// A Unix socket counts nothing, but what is left in it changes.
		var left int
		if left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); failed == nil {
			number, pending = uint64(left), left > 0
		}
	})
	return number, pending, err == nil && failed == nil
}

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
	}
	return conn, err
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
