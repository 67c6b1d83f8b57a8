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
	// response head and between two pieces of the body; 0 means no limit.
	// A worker that was silent for longer is replaced.
	Timeout time.Duration
	// BufferRequests and ReplayIdempotent are the pool's settings of these
	// names, for the routes that lead here.
	BufferRequests, ReplayIdempotent bool
}

// Attach makes a worker's connection a session of the pool. Its return is the
// worker's readiness: the worker answers the negotiation when its application
// has been imported.
func Attach(ctx context.Context, conn *fcgi.Conn) (procpool.Session, error) {
	values, err := conn.Negotiate(ctx)
	if err != nil {
		return nil, fmt.Errorf("the worker did not say that it is ready: %w", err)
	}
	if values.Flow < 1 || !values.Multiplex {
		return nil, fmt.Errorf("the worker does not speak the gateway's extension (GATECREW_FLOW=%d)", values.Flow)
	}
	return conn, nil
}

// Open implements Backend.
func (l *Local) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	lease, err := l.Pool.Lease(ctx, l.Priority)
	if err != nil {
		return nil, admission(err)
	}
	x := &localExchange{lease: lease, patience: l.Timeout}
	stream, err := lease.Session().(*fcgi.Conn).Open(req, x.ended)
	if err != nil {
		return nil, err
	}
	x.begin(ctx, stream, l.Timeout, x.silent)
	return x, nil
}

// localExchange holds the worker's slot until the worker itself has ended the
// request. A client that goes away frees its own resources at once, but a
// synchronous application can't be interrupted: its slot stays taken.
type localExchange struct {
	watch
	lease    *procpool.Lease
	patience time.Duration

	mu    sync.Mutex
	done  bool
	alarm *time.Timer
}

// ended runs when the worker can't be working on the request any more.
func (x *localExchange) ended() {
	x.mu.Lock()
	x.done = true
	if x.alarm != nil {
		x.alarm.Stop()
	}
	x.mu.Unlock()
	x.lease.Release()
}

// silent runs when the worker was silent for too long.
func (x *localExchange) silent() {
	x.lease.Condemn(fmt.Sprintf("no answer for %s", x.patience))
}

// Close tells a worker that is still at it that nobody waits any more, and
// replaces it when that doesn't help within the pool's timeout.
func (x *localExchange) Close() error {
	err := x.watch.Close()
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.done && x.alarm == nil && x.patience > 0 {
		x.alarm = time.AfterFunc(x.patience, func() {
			x.lease.Condemn(fmt.Sprintf("still busy %s after its client had gone", x.patience))
		})
	}
	return err
}

// Answerer implements the interface of that name.
func (x *localExchange) Answerer() string { return x.lease.Worker().Name }
