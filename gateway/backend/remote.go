package backend

import (
	"context"
	"net"
	"slices"
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
// is idle, so connections are given back to the application, by closing them,
// while a newer one seems to wait for a process.
type Remote struct {
	network, address string
	dialTimeout      time.Duration
	timeout          time.Duration
	idleTimeout      time.Duration
	limit            *procpool.Limiter

	mu       sync.Mutex
	idle     []idleConn  // the most recently used one last
	expiry   *time.Timer // will run expire; nil when that isn't due
	starving int         // new connections that seem to have no process yet
	closed   bool
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

// hungry is how long the first answer on a new connection may take before other
// connections are given back for it. An application with a free process has
// most often answered by then; giving back at once would make every request
// under load dial, since each dial would cost a kept connection.
const hungry = 10 * time.Millisecond

// Open implements Backend.
func (r *Remote) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	if err := r.limit.Acquire(ctx); err != nil {
		return nil, admission(err)
	}
	for {
		conn, kept, err := r.connect(ctx, req.Label.Method)
		if err != nil {
			r.limit.Release()
			return nil, err
		}
		x := &remoteExchange{remote: r, conn: conn}
		if !kept {
			x.hunger = time.AfterFunc(hungry, x.starves)
		}
		stream, err := conn.Open(req, x.ended)
		if err == nil {
			x.live, _ = req.Stdin.(protocol.Live)
			x.begin(ctx, stream, r.timeout)
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

// connect takes an idle connection, else dials: the youngest, so that the
// others can idle away, but for a request that can't be replayed the oldest,
// which is the surest not to be on its way to be closed.
func (r *Remote) connect(ctx context.Context, method string) (conn *fcgi.Conn, kept bool, err error) {
	replayable := Idempotent(method)
	for {
		i, ok := r.pop(replayable)
		if !ok {
			break
		}
		select {
		case <-i.conn.Done():
			continue
		default:
		}
		if !replayable && time.Since(i.since) < settle {
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

func (r *Remote) pop(youngest bool) (idleConn, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) == 0 {
		return idleConn{}, false
	}
	at := 0
	if youngest {
		at = len(r.idle) - 1
	}
	i := r.idle[at]
	r.idle = slices.Delete(r.idle, at, at+1)
	return i, true
}

// keep puts a connection back, or closes it where it would be in the way.
func (r *Remote) keep(conn *fcgi.Conn) {
	r.mu.Lock()
	useful := !r.closed && r.starving == 0
	select {
	case <-conn.Done():
		useful = false
	default:
	}
	if useful {
		r.idle = append(r.idle, idleConn{conn, time.Now()})
		r.watchIdle(r.idleTimeout)
	}
	r.mu.Unlock()
	if !useful {
		conn.Close()
	}
}

// watchIdle has expire run after d, unless it will run anyway. The caller holds
// the lock. There is one timer, whatever the traffic.
func (r *Remote) watchIdle(d time.Duration) {
	if r.expiry == nil {
		r.expiry = time.AfterFunc(d, r.expire)
	}
}

// expire closes the connections that were idle for too long.
func (r *Remote) expire() {
	r.mu.Lock()
	now := time.Now()
	r.expiry = nil
	var stale []*fcgi.Conn
	for len(r.idle) > 0 && now.Sub(r.idle[0].since) >= r.idleTimeout {
		stale = append(stale, r.idle[0].conn)
		r.idle = r.idle[1:]
	}
	if len(r.idle) > 0 {
		r.watchIdle(r.idleTimeout - now.Sub(r.idle[0].since))
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
	watch
	remote *Remote
	conn   *fcgi.Conn
	hunger *time.Timer // runs starves; nil on a kept connection

	// Guarded by the remote's lock.
	starving bool // counted as such
	sated    bool // fed was called
}

// starves runs when a new connection has waited for long: the idle ones may be
// what it waits for.
func (x *remoteExchange) starves() {
	r := x.remote
	r.mu.Lock()
	if x.sated {
		r.mu.Unlock()
		return
	}
	x.starving = true
	r.starving++
	idle := r.idle
	r.idle = nil
	r.mu.Unlock()
	for _, i := range idle {
		i.conn.Close()
	}
}

// fed runs when the connection is known to have a process behind it, or to
// need none any more.
func (x *remoteExchange) fed() {
	if x.hunger == nil {
		return
	}
	r := x.remote
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.sated {
		return
	}
	x.sated = true
	x.hunger.Stop()
	if x.starving {
		r.starving--
	}
}

func (x *remoteExchange) Read(p []byte) (int, error) {
	n, err := x.watch.Read(p)
	if n > 0 {
		x.fed()
	}
	return n, err
}

// ended runs when the connection is free or dead.
func (x *remoteExchange) ended(time.Duration) {
	x.fed()
	x.remote.keep(x.conn)
	x.remote.limit.Release()
}

// Answerer implements the interface of that name.
func (x *remoteExchange) Answerer() string { return x.remote.address }
