package handler

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"gatecrew/gateway/site"
	"gatecrew/protocol"
)

// respond sends an application's answer to the client, or returns the path of
// a local redirect.
//
// The rules that HTTP leaves to the server stand here and nowhere else: which
// answers have no body, when a piece is flushed, and that a body which is not
// what its head promised breaks the response off.
func (h *Handler) respond(x *exchange, r *http.Request, route *site.Route, a *answer) (local string, err error) {
	if a.head.LocalRedirect != "" {
		return a.head.LocalRedirect, nil
	}
	header, status := x.Header(), a.head.Status
	field, file, named := route.Sendfile.Take(a.head.Header)
	// A 206 comes from an application that has looked at Range itself and leaves
	// the rest to the server; any other status has a body of its own, or none.
	if named && (status == http.StatusOK || status == http.StatusPartialContent) {
		return "", h.respondNamed(x, r, route, a, field, file)
	}
	for name, values := range a.head.Header {
		header[name] = values
	}
	if status == http.StatusNoContent || status == http.StatusNotModified || r.Method == http.MethodHead {
		return "", h.respondEmpty(x, status, a)
	}
	length := int64(-1)
	switch v := header.Get("Content-Length"); {
	case len(a.trailers) > 0 && x.request.ProtoAtLeast(1, 1):
		delete(header, "Content-Length") // HTTP/1 has trailers for chunks alone
	case v != "":
		length, _ = strconv.ParseInt(v, 10, 64) // ParseHead has checked it
	case a.err == io.EOF:
		// The whole answer came at once: its length is known after all.
		length = int64(len(a.begun.bytes()))
		if a.file != nil {
			length += a.file.Length
		}
		header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	if _, typed := header["Content-Type"]; !typed {
		header["Content-Type"] = nil // what the application didn't say the gateway doesn't guess
	}
	x.WriteHeader(status)
	if err := h.copyBody(x, a, length); err != nil {
		return "", err
	}
	if len(a.trailers) > 0 {
		// Otherwise net/http gives a short body a Content-Length after all.
		_ = http.NewResponseController(x).Flush()
	}
	for _, t := range a.trailers {
		header[http.TrailerPrefix+t.Name] = append(header[http.TrailerPrefix+t.Name], t.Value)
	}
	return "", nil
}

// copyBody copies the rest of the answer, which has length bytes or, with -1,
// ends where the application ends it.
//
// No piece waits for the next one (PEP 3333, "Buffering and Streaming"; ASGI,
// "Response Body"). A head waits for the body that it promises, unless the body
// may be long in coming.
func (h *Handler) copyBody(x *exchange, a *answer, length int64) error {
	var sent int64
	rc := http.NewResponseController(x)
	for err := a.err; ; err = a.read(a.begun.refill) {
		piece := a.begun.bytes()
		if length >= 0 && int64(len(piece)) > length-sent {
			h.tooLong(x, length)
			piece, err = piece[:length-sent], io.EOF
		}
		if len(piece) > 0 {
			n, writeErr := x.Write(piece)
			sent += int64(n)
			if writeErr != nil {
				return &protocol.Error{Kind: protocol.ClientGone, Err: writeErr}
			}
		}
		if err == io.EOF && a.file != nil && sent != length {
			n, fileErr := h.copyFile(x, a.file, length, sent)
			sent += n
			if fileErr != nil {
				return fileErr
			}
		}
		switch {
		case err == io.EOF && sent < length:
			return &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("the answer has %d bytes, its Content-Length says %d", sent, length)}
		case err == io.EOF:
			return nil
		case err != nil && sent == length && protocol.KindOf(err) != protocol.ClientGone:
			h.failedLate(x, err)
			return nil
		case err != nil:
			return err
		}
		if len(piece) > 0 || length < 0 || eventStream(x.Header()) {
			if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return &protocol.Error{Kind: protocol.ClientGone, Err: err}
			}
		}
	}
}

// copyFile sends the file that follows the first sent bytes of an answer of
// length bytes, which is -1 when it is not known. On plain HTTP/1 the kernel
// copies it, with sendfile(2).
func (h *Handler) copyFile(x *exchange, file *protocol.File, length, sent int64) (int64, error) {
	want := file.Length
	if length >= 0 && want > length-sent {
		h.tooLong(x, length)
		want = length - sent
	}
	if _, err := file.Seek(file.Offset, io.SeekStart); err != nil {
		return 0, &protocol.Error{Kind: protocol.Died, Err: err}
	}
	n, err := x.ReadFrom(&io.LimitedReader{R: file.File, N: want})
	switch reading := (*fs.PathError)(nil); {
	case errors.As(err, &reading):
		return n, &protocol.Error{Kind: protocol.Died, Err: err}
	case err != nil:
		return n, &protocol.Error{Kind: protocol.ClientGone, Err: err}
	case n < want:
		return n, &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("the file became shorter: %d bytes of %d could be sent", n, want)}
	}
	return n, nil
}

func (h *Handler) failedLate(x *exchange, err error) {
	h.Log.Warn("the application failed after its whole answer", zap.String("request", x.entry.RequestID),
		zap.String("route", x.entry.Route), zap.String("upstream", x.entry.Upstream), zap.Error(err))
}

func (h *Handler) tooLong(x *exchange, length int64) {
	h.Log.Warn("the answer is longer than its Content-Length, the rest is cut off", zap.String("request", x.entry.RequestID),
		zap.String("route", x.entry.Route), zap.Int64("content_length", length))
}

// maxDiscarded is how much of a body that has no place in the response is read
// to let the application end in peace.
const maxDiscarded = 1 << 20

// respondEmpty sends a response that has no body by its nature, whatever the
// application sent (RFC 9110, sections 6.4.1 and 9.3.2).
func (h *Handler) respondEmpty(x *exchange, status int, a *answer) error {
	if status == http.StatusNoContent {
		x.Header().Del("Content-Length")
	}
	x.WriteHeader(status)
	if err := a.discard(); err != io.EOF {
		return err
	}
	return nil
}

// respondNamed sends the file that the application names in place of a body.
func (h *Handler) respondNamed(x *exchange, r *http.Request, route *site.Route, a *answer, field, file string) error {
	switch err := a.discard(); {
	case err == nil || err == io.EOF:
	case protocol.KindOf(err) == protocol.ClientGone:
		return err
	default: // it has said what to send
		h.failedLate(x, err)
	}
	header := x.Header()
	for name, values := range a.head.Header {
		if name != "Content-Length" && name != "Content-Range" { // of the body that it is not
			header[name] = values
		}
	}
	err := route.Sendfile.Serve(x, r, field, file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		h.Log.Warn("the file that the application names can't be sent", zap.String("request", x.entry.RequestID),
			zap.String("route", route.Name), zap.String("field", field), zap.String("value", file), zap.Error(err))
	}
	return err
}

// discard reads what has no place in the response, up to a limit.
func (a *answer) discard() error {
	for n := 0; a.err == nil && n < maxDiscarded; n += len(a.begun.bytes()) {
		a.read(a.begun.refill)
	}
	return a.err
}

// eventStream reports whether the client waits for each event.
func eventStream(h http.Header) bool {
	const kind = "text/event-stream"
	v := h.Get("Content-Type")
	return len(v) >= len(kind) && strings.EqualFold(v[:len(kind)], kind)
}

// piece is a buffer that an answer is read into.
type piece struct {
	buf        []byte
	start, end int
}

// pieceSize is how much of an answer is copied at a time, and largePiece how much
// once the application has proved to be that far ahead of its client.
const (
	pieceSize  = 32 << 10
	largePiece = 128 << 10
)

var (
	pieces      = sync.Pool{New: func() any { return &piece{buf: make([]byte, pieceSize)} }}
	largePieces = sync.Pool{New: func() any { return &piece{buf: make([]byte, largePiece)} }}
)

func newPiece() *piece {
	p := pieces.Get().(*piece)
	p.start, p.end = 0, 0
	return p
}

func (p *piece) free() {
	switch len(p.buf) {
	case pieceSize:
		pieces.Put(p)
	case largePiece:
		largePieces.Put(p)
	}
}

func (p *piece) bytes() []byte { return p.buf[p.start:p.end] }

func (p *piece) skip(n int) { p.start += n }

// fill reads once, behind what is there.
func (p *piece) fill(r io.Reader) error {
	if p.end == len(p.buf) && p.start > 0 { // behind heads of interim responses
		p.start, p.end = 0, copy(p.buf, p.bytes())
	}
	if p.end == len(p.buf) {
		p.buf = append(p.buf, make([]byte, len(p.buf))...)
	}
	n, err := r.Read(p.buf[p.end:])
	p.end += n
	return err
}

// refill reads once, over what was there.
func (p *piece) refill(r io.Reader) error {
	if p.end == pieceSize && len(p.buf) == pieceSize {
		large := largePieces.Get().(*piece)
		p.buf, large.buf = large.buf, p.buf
		large.free()
	}
	n, err := r.Read(p.buf)
	p.start, p.end = 0, n
	return err
}
