// Package backend joins the two halves that do not know each other: the
// protocols (protocol/cgi, protocol/fcgi) and the processes (procpool). A
// Backend is an application as the handler sees it: a request goes in, an
// exchange comes out.
package backend

import (
	"context"
	"errors"
	"syscall"

	"gatecrew/procpool"
	"gatecrew/protocol"
)

// Backend gives requests to one application.
type Backend interface {
	// Open waits for a place at the application and hands it the request.
	// Every error is a *protocol.Error; after one the request's Stdin is not
	// read any more. ctx covers the whole exchange, not only Open: when it
	// ends the exchange is closed, and reading it fails with ClientGone.
	Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error)
}

// Answerer is implemented by exchanges that can tell the access log who
// answers: "web/3" for worker 3 of pool web, an address, a process id.
type Answerer interface{ Answerer() string }

// Waiter is implemented by exchanges that want to know when the head of the
// answer has been read: the silence of an application with an event loop has a
// limit until then.
type Waiter interface{ Answered() }

// Drainer is implemented by exchanges whose application may have to end before
// they do.
type Drainer interface {
	// OnDrain has f called once when the application begins to end; at once
	// when it does already. It may be called among thousands of others, so
	// it must not wait for long.
	OnDrain(f func())
}

// admission turns the errors of waiting for a place into the gateway's.
func admission(err error) error {
	e := &protocol.Error{Kind: protocol.Unavailable, Err: err}
	var refused *procpool.QueueError
	var down *procpool.DownError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = protocol.ClientGone
	case errors.As(err, &refused):
		e.Kind, e.RetryAfter = protocol.Overloaded, refused.RetryAfter
	case errors.As(err, &down):
		e.Kind, e.RetryAfter = protocol.Down, down.RetryAfter
	case errors.Is(err, procpool.ErrClosed):
		e.Kind = protocol.Overloaded
	case errors.Is(err, syscall.E2BIG):
		e.Kind = protocol.Refused // the kernel's limit depends on the stack's
	}
	return e
}

// unseen reports whether the request that failed can't have reached an
// application.
func unseen(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e) && e.Unseen
}
