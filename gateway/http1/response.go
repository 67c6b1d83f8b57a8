package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gatecrew/protocol/cgi"
)

// pendingSize is how many bytes of a body wait for others before they are sent. A
// response that ends within them gets a Content-Length.
const pendingSize = 4 << 10

// response is the http.ResponseWriter of one plain request. It does what that of
// net/http does, but that it
//
//   - doesn't guess a Content-Type;
//   - gives a body of up to pendingSize a Content-Length, where net/http has that
//     for half of it, and the answer to a HEAD that of all that was written;
//   - knows no trailers but those of http.TrailerPrefix, no Transfer-Encoding but
//     its own, and can't be hijacked;
//   - never sends more than a Content-Length says, with ReadFrom neither.
type response struct {
	conn    *Conn
	request *http.Request
	header  http.Header

	status    int    // 0 before WriteHeader
	head      []byte // encoded without its framing, until it is sent
	pending   []byte // of the body, until it is sent
	length    int64  // the Content-Length, -1 when there is none
	written   int64  // bytes of body that were taken
	dated     bool   // there is a Date
	trailers  bool   // there will be fields behind the body
	committed bool   // how the body is framed is settled, and head is empty
	chunked   bool
}

var responses = sync.Pool{New: func() any {
	return &response{header: http.Header{}, head: make([]byte, 0, 1<<10), pending: make([]byte, 0, pendingSize)}
}}

// Respond has serve answer the request, with its body, as net/http would.
func (c *Conn) Respond(body []byte, serve func(http.ResponseWriter, *http.Request)) {
	r, err := newRequest(c.Context(), &c.request, body, c.remote)
	if err != nil { // it is no target to net/http
		c.broken = true
		return
	}
	w := responses.Get().(*response)
	w.conn, w.request, w.length = c, r, -1
	serve(w, r)
	if w.finish() != nil {
		c.broken = true
	}
	clear(w.header)
	*w = response{header: w.header, head: w.head[:0], pending: w.pending[:0]}
	responses.Put(w)
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %d", status))
	}
	interim := status < 200 && status != http.StatusSwitchingProtocols // RFC 9110, section 15.2
	if w.status = status; interim {
		w.status = 0
	}
	b := w.head[:0]
	b = cgi.AppendStatusLine(b, status)
	if interim {
		b = w.appendFields(b, false)
		_, _ = w.conn.Write(append(b, "\r\n"...))
		w.head = b[:0]
		return
	}
	w.head = w.appendFields(b, true)
}

// appendFields appends the header; with final it is noted what that says about
// the response.
func (w *response) appendFields(b []byte, final bool) []byte {
	var room [24]string
	names := room[:0]
	for name := range w.header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values := w.header[name]
		switch name {
		case "Content-Length":
			if !final || w.status == http.StatusNotModified || !bodyAllowed(w.status) {
				continue
			}
			n, err := strconv.ParseInt(w.header.Get(name), 10, 64)
			if err != nil || n < 0 {
				continue
			}
			w.length = n
		case "Content-Type":
			if w.status == http.StatusNotModified {
				continue
			}
		case "Transfer-Encoding":
			continue
		case "Date":
			w.dated = w.dated || final
		case "Connection":
			switch {
			case !final:
			case w.conn.Last():
				continue
			case len(values) > 0 && values[0] == "close":
				w.conn.closing = true
			}
		}
		if strings.HasPrefix(name, http.TrailerPrefix) {
			w.trailers = w.trailers || final
			continue
		}
		b = appendField(b, name, values)
	}
	if final && w.conn.Last() {
		w.conn.closing = true
		b = append(b, "Connection: close\r\n"...)
	}
	return b
}

// appendField appends a field as net/http does: no name and no value can begin
// another one.
func appendField(b []byte, name string, values []string) []byte {
	for i := 0; i < len(name); i++ {
		if nameBytes[name[i]] == 0 {
			return b
		}
	}
	for _, value := range values {
		if strings.ContainsAny(value, "\r\n") {
			value = lineEnds.Replace(value)
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, trim(value)...)
		b = append(b, "\r\n"...)
	}
	return b
}

var lineEnds = strings.NewReplacer("\n", " ", "\r", " ")

// bodyAllowed reports whether a response with a status may have a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// bodiless reports whether the response has no body whatever is written (RFC
// 9110, section 6.4.1).
func (w *response) bodiless() bool {
	return w.request.Method == http.MethodHead || !bodyAllowed(w.status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.conn.broken {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.request.Method == http.MethodHead {
		return len(p), nil
	}
	if len(w.pending)+len(p) <= pendingSize {
		w.pending = append(w.pending, p...)
		return len(p), nil
	}
	return len(p), w.send(p, false)
}

// commit settles how the body is framed. whole says that all of it is in pending.
func (w *response) commit(whole bool) {
	if w.committed {
		return
	}
	w.committed = true
	switch {
	case w.length >= 0:
	case w.bodiless():
		if whole && w.written > 0 && !w.trailers { // the body of a HEAD, which is not sent
			w.head = appendLength(w.head, w.written)
		}
	case whole && !w.trailers:
		w.head = appendLength(w.head, w.written)
	default:
		w.chunked = true
		w.head = append(w.head, "Transfer-Encoding: chunked\r\n"...)
	}
	if !w.dated {
		w.head = append(w.head, Date(time.Now())...)
	}
	w.head = append(w.head, "\r\n"...)
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// send sends what is there, and p behind it.
func (w *response) send(p []byte, whole bool) error {
	w.commit(whole)
	if w.conn.broken {
		return net.ErrClosed
	}
	out := make(net.Buffers, 0, 5)
	if size := len(w.pending) + len(p); w.chunked && size > 0 {
		w.head = strconv.AppendInt(w.head, int64(size), 16)
		w.head = append(w.head, "\r\n"...)
	}
	for _, part := range [...][]byte{w.head, w.pending, p} {
		if len(part) > 0 {
			out = append(out, part)
		}
	}
	if w.chunked && len(w.pending)+len(p) > 0 {
		out = append(out, crlf)
	}
	var err error
	if len(out) > 0 {
		_, err = w.conn.Write(out...)
	}
	w.head, w.pending = w.head[:0], w.pending[:0]
	return err
}

var crlf = []byte("\r\n")

// FlushError is for http.ResponseController.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.send(nil, false)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// ReadFrom has the kernel copy a file, where it can.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	direct, ok := w.conn.nc.(io.ReaderFrom)
	if !ok || w.length < 0 || w.bodiless() {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	// It looks for a file behind one LimitedReader, and not behind two.
	rest := &io.LimitedReader{R: src, N: w.length - w.written}
	if limited, ok := src.(*io.LimitedReader); ok {
		rest.R, rest.N = limited.R, min(rest.N, limited.N)
	}
	if _, file := rest.R.(*os.File); file && rest.N > 0 && len(w.pending) == 0 && !w.conn.broken {
		w.commit(false)
		w.head = w.head[:copy(w.head, w.head[sendMore(w.conn.nc, w.head):])]
	}
	if err := w.send(nil, false); err != nil {
		return 0, err
	}
	n, err = direct.ReadFrom(rest)
	w.written += n
	if err != nil {
		var network *net.OpError
		if errors.As(err, &network) {
			w.conn.broken = true
		}
	}
	return n, err
}

// sendMore sends a head, or a part of it, in one packet with the first bytes that
// are sent behind it, and returns how much was sent. What was not, and errors, are
// those of the next write.
func sendMore(nc net.Conn, head []byte) (sent int) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || len(head) == 0 {
		return 0
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.SendmsgN(int(fd), head, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL); err == nil {
			sent = n
		}
	})
	return sent
}

// SetReadDeadline, SetWriteDeadline and EnableFullDuplex are for
// http.ResponseController. The body is there already, and how long a client may
// take nothing is the business of listen.Conns.
func (w *response) SetReadDeadline(time.Time) error  { return nil }
func (w *response) SetWriteDeadline(time.Time) error { return nil }
func (w *response) EnableFullDuplex() error          { return nil }

// finish ends the response.
func (w *response) finish() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.length >= 0 && w.written != w.length && !w.bodiless() {
		w.conn.closing = true // the client must not take what it has for the whole
	}
	if err := w.send(nil, true); err != nil || !w.chunked {
		return err
	}
	b := append(w.head[:0], "0\r\n"...)
	for name, values := range w.header {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			b = appendField(b, trailer, values)
		}
	}
	w.head = append(b, "\r\n"...)
	_, err := w.conn.Write(w.head)
	return err
}
