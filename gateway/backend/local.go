package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/fcgi"
)

// Local is an application in a pool of the gateway's own workers.
type Local struct {
	Pool *procpool.Pool
	// Priority is the class of the requests that come this way. Each route
	// has a Local of its own.
	Priority procpool.Priority
	// Timeout is the longest silence of a worker, from the request to the
	// response head and, unless it has an event loop, between two pieces of
	// the body; 0 means no limit. A request whose worker was silent for
	// longer is interrupted, and when that doesn't help the worker is
	// replaced.
	Timeout time.Duration
	// InterruptTimeout is how long an interrupted request may take to end; 0
	// means that none is interrupted.
	InterruptTimeout time.Duration
	// SlowTimeout is the silence after which Slow describes a request.
	SlowTimeout time.Duration
	// Slow is the pool's; nil means that no request is described.
	Slow *Slow
	// Interface is what the pool's application turned out to be. Required.
	Interface *Interface
	// Buffering and ReplayIdempotent are the pool's settings, for the routes
	// that lead here.
	Buffering        Buffering
	ReplayIdempotent bool
}

// Attach makes a worker's connection a session of the pool. Its return is the
// worker's readiness: the worker answers the negotiation when its application
// has been imported.
//
// The second result is the interface of the application.
func Attach(ctx context.Context, conn *fcgi.Conn) (procpool.Session, string, error) {
	values, err := conn.Negotiate(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("the worker did not say that it is ready: %w", err)
	}
	if values.Flow < 1 || !values.Multiplex {
		return nil, "", fmt.Errorf("the worker does not speak the gateway's extension (GATECREW_FLOW=%d)", values.Flow)
	}
	if values.Async {
		return conn, ASGI, nil
	}
	return conn, WSGI, nil
}

// Open implements Backend. A request with the role WebSocket gets a
// protocol.Socket from a worker with an event loop; for any other one it is a plain request.
func (l *Local) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	priority := l.Priority
	if req.Returned {
		priority = procpool.Returned
	}
	lease, err := l.Pool.Lease(ctx, priority)
	if err != nil {
		return nil, admission(err)
	}
	conn := lease.Session().(*fcgi.Conn)
	async := conn.Async()
	if req.Role == protocol.WebSocket && !async {
		plain := *req
		plain.Role = protocol.Responder
		req = &plain
	}
	x := &localExchange{local: l, lease: lease, label: req.Label}
	stream, err := conn.Open(req, x.ended)
	if err != nil {
		return nil, err
	}
	x.owner, x.headOnly = x, async
	if l.Slow != nil {
		x.worry = l.SlowTimeout
	}
	x.live, _ = req.Stdin.(protocol.Live)
	x.begin(ctx, stream, l.Timeout)
	if req.Role == protocol.WebSocket {
		return &localSocket{x, stream}, nil
	}
	return x, nil
}

// localSocket is the exchange of a WebSocket connection. Silence between its
// messages is nobody's fault: who reads it waits first.
type localSocket struct {
	*localExchange
	stream *fcgi.Stream
}

// Write implements protocol.Socket.
func (x *localSocket) Write(p []byte) (int, error) { return x.stream.Write(p) }

// WriteClose implements protocol.Socket.
func (x *localSocket) WriteClose(code uint16, reason string) { x.stream.WriteClose(code, reason) }

// Wait implements protocol.Socket.
func (x *localSocket) Wait() { x.stream.Wait() }

// localExchange holds the worker's slot until the worker itself has ended the
// request. A client that goes away frees its own resources at once, but the
// application works on: its slot stays taken.
type localExchange struct {
	watch
	local *Local
	lease *procpool.Lease
	label protocol.Label

	described sync.Once

	mu      sync.Mutex
	done    bool
	givenUp bool
	alarm   *time.Timer
}

// ended runs when the worker can't be working on the request any more.
func (x *localExchange) ended(worked time.Duration) {
	x.mu.Lock()
	x.done = true
	if x.alarm != nil {
		x.alarm.Stop()
	}
	x.mu.Unlock()
	x.lease.ReleaseAfter(worked)
}

// Close tells a worker that is still at it that nobody waits any more, and
// gives the request up when that doesn't help within the pool's timeout.
func (x *localExchange) Close() error {
	err := x.watch.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	if patience := x.local.Timeout; !x.done && !x.givenUp && x.alarm == nil && patience > 0 {
		x.alarm = time.AfterFunc(patience, func() {
			x.giveUp(fmt.Sprintf("still busy %s after its client had gone", patience))
		})
	}
	return err
}

// OnDrain implements Drainer.
func (x *localExchange) OnDrain(f func()) { x.lease.OnDrain(f) }

// Answerer implements the interface of that name.
func (x *localExchange) Answerer() string { return x.lease.Worker().Name }
