// Package protocol is the seam between the gateway and whatever runs an
// application: a Request goes in, an Exchange comes out, and every failure is
// an *Error that says whose fault it was and whether the application can have
// acted on the request.
//
// The packages below it speak one protocol each: cgi (RFC 3875, one process
// per request), fcgi (FastCGI 1.0 over a kept connection) and stdio (the
// messages of a WebSocket over the pipes of one process). None of them knows
// how processes are started or how HTTP is served.
package protocol

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Role is what an application is asked to do with a request, with the numbers
// of the FastCGI 1.0 specification, section 6.1. The zero value is invalid.
type Role uint16

const (
	Responder  Role = 1 // make a response; what RFC 3875 calls a CGI script
	Authorizer Role = 2 // decide whether a request is allowed
	Filter     Role = 3 // transform a file

	// WebSocket is gatecrew's own: take the opening handshake of a WebSocket
	// connection and, after a head with status 101, exchange messages
	// (fcgi/PROTOCOL.md, section 8). Its Exchange is a Socket.
	WebSocket Role = 128
)

// Param is one meta-variable (RFC 3875, section 4.1): an environment variable
// for CGI, a name-value pair of FCGI_PARAMS for FastCGI.
type Param struct{ Name, Value string }

// Request is what an application is given.
type Request struct {
	// Role is what the application shall do; Responder for nearly everyone.
	Role Role
	// Params are the meta-variables, each name at most once, in no order
	// that means anything.
	Params []Param
	// Pairs are the meta-variables as name-value pairs of FastCGI, see
	// AppendPair, of 65535 bytes at most. With them Params is empty, and only
	// FastCGI understands the request. They are not read after Open.
	Pairs []byte
	// Label names the request in logs.
	Label Label
	// Stdin is the request body; nil means that there is none. It is read
	// from one goroutine at a time, and never after Exchange.Close returned,
	// unless it is Live.
	Stdin io.Reader
	// Stderr receives the application's diagnostics as they arrive, in
	// pieces of any size, from one goroutine at a time. Nil discards them.
	// A Write must not block: it stands on the connection's read path.
	Stderr io.Writer
	// OnDemand leaves Stdin unread until the application asks for it, where
	// the protocol can tell: its client waits to be told to continue.
	OnDemand bool
	// Returned is true when an application has given the request back before,
	// see Returned below: it has waited for its turn already.
	Returned bool
}

// Label is what logs call a request: its UNIQUE_ID, its method, which is that of the
// parameters, and its target.
type Label struct{ ID, Method, Target string }

// Live is implemented by a Request.Stdin that a client sends at its own pace. A
// Read of it may outlast the exchange, which doesn't wait for the client then.
type Live interface {
	io.Reader
	// Detach ends the exchange's part in it: Reads fail from then on, also
	// those in progress, and what these bring is another exchange's.
	Detach()
	// Waits reports whether a Read waits for the client.
	Waits() bool
}

// Get returns the value of a meta-variable, "" when it is absent.
func (r *Request) Get(name string) string {
	for i := range r.Params {
		if r.Params[i].Name == name {
			return r.Params[i].Value
		}
	}
	return ""
}

// Exchange is one request in progress.
type Exchange interface {
	// Read reads the application's standard output: a CGI response head and
	// its body (RFC 3875, section 6). io.EOF means that the application
	// itself ended its answer. Every other error is an *Error and means that
	// the answer is incomplete, whatever was read before it.
	Read(p []byte) (n int, err error)

	// Close gives up what is left of the exchange. An application that has
	// not ended its answer is told so (FCGI_ABORT_REQUEST, a signal to its
	// process group). Close does not wait for the application, returns after
	// the last read of Request.Stdin unless that is Live, and may be called
	// more than once.
	Close() error
}

// Extended is implemented by exchanges whose application can say more than a
// head and a body. What it said is known when Read has returned io.EOF.
type Extended interface {
	// File is what follows the bytes that were read, nil when nothing does.
	// The caller closes it.
	File() *File
	// Trailers are fields behind the body, in the application's order.
	Trailers() []Param
}

// Notifier is implemented by exchanges whose reader need not wait.
type Notifier interface {
	// Notify has f called once, as soon as Read would not wait, by a goroutine
	// that others wait for: f must not block. It returns false, and f is never
	// called, when Read would not wait now. Until f is called nobody may Read.
	Notify(f func()) bool
}

// File is a part of an open file.
type File struct {
	*os.File
	Offset, Length int64
}

// Socket is the exchange of a request with the role WebSocket. Read and Write
// carry messages, see AppendMessage, once Read has returned a head with
// status 101.
type Socket interface {
	Exchange
	// Write sends whole messages or parts of them, in order. It waits for the
	// application to make room; its error means that the request has ended.
	// One goroutine writes at a time.
	Write(p []byte) (int, error)
	// WriteClose tells the application that the connection is closed, if that
	// can be said between two messages; Close is due after it.
	WriteClose(code uint16, reason string)
	// Wait waits until Read would not: a connection that is silent then holds
	// no buffer.
	Wait()
}

// Kind says what went wrong; the gateway turns it into a status.
type Kind uint8

const (
	Unavailable Kind = iota + 1 // no application could be reached
	Overloaded                  // the application, or the queue before it, is full
	Died                        // the application ended before its answer did
	Malformed                   // the application broke the protocol
	TimedOut                    // the application took too long
	ClientGone                  // the request's own context ended, or its body could not be read
	Returned                    // the application gave the request back without having started it
	Refused                     // the request can't be expressed in this protocol (too large, NUL in a value)
	Down                        // the application does not start
)

var kindNames = [...]string{
	Unavailable: "application unavailable", Overloaded: "application overloaded", Died: "application died",
	Malformed: "malformed answer", TimedOut: "application timed out", ClientGone: "client went away", Returned: "request given back", Refused: "request refused",
	Down: "application down",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is the failure of one exchange.
type Error struct {
	Kind Kind
	// Unseen is true when no byte of the request can have reached
	// application code, so that it may be given to another worker whatever
	// its method. When in doubt it is false.
	Unseen bool
	// Behind is true when the worker died while the request stood behind another
	// one, or a connection that was kept ended without any answer: where Unseen
	// is false then, that is for want of knowledge.
	Behind bool
	// RetryAfter is when another try makes sense, 0 when that is not known.
	RetryAfter time.Duration
	// Err is the cause, for the log. It never goes to the client.
	Err error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Kind.String()
	}
	return e.Kind.String() + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the Kind of the first *Error in err's chain, 0 when there is
// none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}
