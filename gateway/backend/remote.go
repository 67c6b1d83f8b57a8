package backend

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/fcgi"
)

// Remote is a FastCGI application that somebody else runs: php-fpm, flup, a
// Go program. It is spoken to with one request at a time per kept connection.
//
// A kept connection occupies one of the application's processes even while it
// is idle, so a connection is given back to the application, by closing it,
// as soon as a newer one may be waiting for a process.
type Remote struct {
	network, address string
	dialTimeout      time.Duration
	timeout          time.Duration
	idleTimeout      time.Duration
	limit            *procpool.Limiter

	mu      sync.Mutex
	idle    []idleConn // the most recently used one last
	waiting int        // connections that have not been answered on yet
	closed  bool
}

type idleConn struct {
	conn  *fcgi.Conn
	since time.Time
}

// RemoteConfig describes a Remote.
type RemoteConfig struct {
	Network, Address string        // "unix" and a path, or "tcp" and host:port
	DialTimeout      time.Duration // 0 means 5 s
	Timeout          time.Duration // longest silence of the application; 0 means no limit
	IdleTimeout      time.Duration // how long an idle connection is kept; 0 means 5 s
	Limit            *procpool.Limiter
}

// NewRemote makes a Remote; nothing is dialled yet.
func NewRemote(c RemoteConfig) *Remote {
	r := &Remote{network: c.Network, address: c.Address, dialTimeout: c.DialTimeout, timeout: c.Timeout,
		idleTimeout: c.IdleTimeout, limit: c.Limit}
	if r.dialTimeout == 0 {
		r.dialTimeout = 5 * time.Second
	}
	if r.idleTimeout == 0 {
		r.idleTimeout = 5 * time.Second
	}
	return r
}

// settle is how old an idle connection must be before a request that can't be
// replayed is trusted to it. An application that closes a connection after
// its last request does so at once; an older connection would be known dead.
const settle = 20 * time.Millisecond

// Open implements Backend.
func (r *Remote) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	if err := r.limit.Acquire(ctx); err != nil {
		return nil, admission(err)
	}
	for {
		conn, kept, err := r.connect(ctx, req.Get("REQUEST_METHOD"))
		if err != nil {
			r.limit.Release()
			return nil, err
		}
		x := &remoteExchange{remote: r, conn: conn, kept: kept}
		if !kept {
			r.expect(+1)
		}
		x.Stream, err = conn.Open(ctx, req, x.ended)
		if err == nil {
			x.watch = newWatch(x.Stream, r.timeout, nil)
			return x, nil
		}
		if !kept || !unseen(err) {
			return nil, err // ended has given back the place
		}
		if err := r.limit.Acquire(ctx); err != nil {
			return nil, admission(err)
		}
	}
}

// connect takes the youngest idle connection, else dials.
func (r *Remote) connect(ctx context.Context, method string) (conn *fcgi.Conn, kept bool, err error) {
	for {
		i, ok := r.pop()
		if !ok {
			break
		}
		select {
		case <-i.conn.Done():
			continue
		default:
		}
		if !Idempotent(method) && time.Since(i.since) < settle {
			i.conn.Close()
			break
		}
		return i.conn, true, nil
	}
	dialer := net.Dialer{Timeout: r.dialTimeout}
	c, err := dialer.DialContext(ctx, r.network, r.address)
	if err != nil {
		kind := protocol.Unavailable
		if ctx.Err() != nil {
			kind = protocol.ClientGone
		}
		return nil, false, &protocol.Error{Kind: kind, Unseen: true, Err: err}
	}
	return fcgi.NewConn(c, fcgi.Options{}), false, nil
}

// Idempotent reports whether a request with this method may be sent twice
// (RFC 9110, section 9.2.2).
func Idempotent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func (r *Remote) pop() (idleConn, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.idle)
	if n == 0 {
		return idleConn{}, false
	}
	i := r.idle[n-1]
	r.idle = r.idle[:n-1]
	return i, true
}

// expect counts the connections on which the first answer is still awaited.
func (r *Remote) expect(d int) {
	r.mu.Lock()
	r.waiting += d
	r.mu.Unlock()
}

// keep puts a connection back, or closes it where it would be in the way.
func (r *Remote) keep(conn *fcgi.Conn) {
	now := time.Now()
	r.mu.Lock()
	var stale []*fcgi.Conn
	for len(r.idle) > 0 && now.Sub(r.idle[0].since) > r.idleTimeout {
		stale = append(stale, r.idle[0].conn)
		r.idle = r.idle[1:]
	}
	select {
	case <-conn.Done():
	default:
		if r.closed || r.waiting > 0 {
			stale = append(stale, conn)
		} else {
			if len(r.idle) == 0 {
				time.AfterFunc(r.idleTimeout, r.expire)
			}
			r.idle = append(r.idle, idleConn{conn, now})
		}
	}
	r.mu.Unlock()
	for _, c := range stale {
		c.Close()
	}
}

// expire closes the connections that were idle for too long.
func (r *Remote) expire() {
	now := time.Now()
	r.mu.Lock()
	var stale []*fcgi.Conn
	for len(r.idle) > 0 && now.Sub(r.idle[0].since) >= r.idleTimeout {
		stale = append(stale, r.idle[0].conn)
		r.idle = r.idle[1:]
	}
	if len(r.idle) > 0 {
		time.AfterFunc(r.idleTimeout-now.Sub(r.idle[0].since), r.expire)
	}
	r.mu.Unlock()
	for _, c := range stale {
		c.Close()
	}
}

// Close closes the idle connections, and the others when their request ends.
func (r *Remote) Close() error {
	r.mu.Lock()
	idle := r.idle
	r.idle, r.closed = nil, true
	r.mu.Unlock()
	for _, i := range idle {
		i.conn.Close()
	}
	return nil
}

// remoteExchange is one request at a foreign application.
type remoteExchange struct {
	*watch
	Stream *fcgi.Stream
	remote *Remote
	conn   *fcgi.Conn
	kept   bool // the connection had answered a request before
	first  sync.Once
}

// answered runs when the connection is known to have a process behind it.
func (x *remoteExchange) answered() {
	if !x.kept {
		x.first.Do(func() { x.remote.expect(-1) })
	}
}

func (x *remoteExchange) Read(p []byte) (int, error) {
	n, err := x.watch.Read(p)
	if n > 0 {
		x.answered()
	}
	return n, err
}

// ended runs when the connection is free or dead.
func (x *remoteExchange) ended() {
	x.answered()
	x.remote.keep(x.conn)
	x.remote.limit.Release()
}

// Answerer implements the interface of that name.
func (x *remoteExchange) Answerer() string { return fmt.Sprintf("fcgi/%s", x.remote.address) }
