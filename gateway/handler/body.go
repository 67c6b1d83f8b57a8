package handler

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"gatecrew/gateway/backend"
	"gatecrew/gateway/site"
	"gatecrew/gateway/spool"
	"gatecrew/protocol"
)

// body is a request body on its way to an application: whole in a spool, or as
// it comes from the client.
type body struct {
	reader io.Reader   // nil when the request has no body
	whole  *spool.Body // nil when it is handed on as it comes
	live   *liveBody   // nil when it is whole
}

// body takes the request's body. Where the route wants it whole, or its length
// is unknown and the application must know it, it is read to the end before an
// application is asked, so that a slow client holds no worker.
func (h *Handler) body(x *exchange, r *http.Request, route *site.Route) (*body, error) {
	if r.ContentLength > h.MaxBody {
		return nil, spool.ErrTooLarge
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &body{}, nil
	}
	live := &liveBody{src: http.MaxBytesReader(x.ResponseWriter, r.Body, h.MaxBody),
		conn: http.NewResponseController(x.ResponseWriter), silence: h.BodyTimeout}
	if how := route.BodiesNow(); how == backend.LiveBodies || how == backend.SizedBodies && r.ContentLength > 0 {
		return &body{reader: live, live: live}, nil
	}
	whole, err := h.Spool.Read(r.Context(), live, h.MaxBody, r.ContentLength)
	if err != nil {
		return nil, bodyFailure(err)
	}
	r.ContentLength = whole.Len()
	return &body{reader: sized{whole}, whole: whole}, nil
}

// sized tells a protocol how long a body is, so that a small one can travel
// with its request.
type sized struct{ *spool.Body }

func (s sized) Len() int { return int(s.Body.Len()) }

// bodyFailure says whose fault it was that a body could not be read.
func bodyFailure(err error) error {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		return spool.ErrTooLarge
	case !errors.Is(err, spool.ErrClient):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &failure{status: http.StatusRequestTimeout, text: "The request body did not arrive in time.", closing: true, cause: err}
	case errors.Is(err, context.Canceled), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), isNetwork(err):
		return &protocol.Error{Kind: protocol.ClientGone, Unseen: true, Err: err}
	}
	return &failure{status: http.StatusBadRequest, text: "The request body is malformed.", closing: true, cause: err}
}

func isNetwork(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

// rewind makes the body whole again for another worker.
func (b *body) rewind() error {
	switch {
	case b.whole != nil:
		return b.whole.Rewind()
	case b.live != nil && b.live.begun:
		return errors.New("a part of the body has been handed on already")
	}
	return nil
}

// interrupt ends a Read of the client's connection that is in progress, so
// that an exchange whose application doesn't want the rest can be closed.
func (b *body) interrupt() {
	if b.live != nil && !b.live.ended {
		b.live.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// Close frees the spooled body.
func (b *body) Close() {
	if b.whole != nil {
		b.whole.Close()
	}
}

// liveBody reads a body from the client with a deadline that moves: what is
// bounded is silence, not the length of an upload.
type liveBody struct {
	src     io.Reader
	conn    *http.ResponseController
	silence time.Duration
	begun   bool
	ended   bool
}

func (l *liveBody) Read(p []byte) (int, error) {
	l.begun = true
	l.conn.SetReadDeadline(time.Now().Add(l.silence))
	n, err := l.src.Read(p)
	if err == io.EOF {
		l.ended = true
		// net/http goes on reading the connection to see the client leave.
		l.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}
