package handler

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"

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
		conn: http.NewResponseController(x.ResponseWriter), silence: h.BodyTimeout, sent: true}
	if how := route.BodiesNow(); how == backend.LiveBodies || how == backend.SizedBodies && r.ContentLength > 0 {
		// The application may answer while it reads.
		live.duplex = live.conn.EnableFullDuplex() == nil
		live.sent = false
		return &body{reader: live.open(), live: live}, nil
	}
	whole, err := h.Spool.Read(r.Context(), live.open(), h.MaxBody, r.ContentLength)
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
func (b *body) rewind() (io.Reader, error) {
	switch {
	case b.whole != nil:
		return b.reader, b.whole.Rewind()
	case b.live != nil:
		return b.live.rewind()
	}
	return b.reader, nil
}

// answered notes that an application has begun to answer, so that no other one
// gets the body.
func (b *body) answered() {
	if b.live != nil {
		b.live.forget()
	}
}

// failure says why a live body could not be read, whatever its application made of
// that; nil when it could.
func (b *body) failure() error {
	if b.live == nil {
		return nil
	}
	return b.live.failure()
}

// close ends what has to do with the body. Nothing may read it any more.
func (b *body) close(x *exchange) {
	if b.whole != nil {
		b.whole.Close()
	}
	if b.live != nil {
		b.live.finish(x)
	}
}
