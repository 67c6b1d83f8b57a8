package handler

import (
	"crypto/rand"
	"encoding/base32"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/accesslog"
	"gatecrew/gateway/listen"
	"gatecrew/protocol"
)

// exchange is one request on its way through the gateway: the response writer
// that counts, the entry for the access log, the application's diagnostics.
type exchange struct {
	http.ResponseWriter
	handler     *Handler
	request     *http.Request
	entry       accesslog.Entry
	diagnostics *diagnostics
	wroteHeader bool
	stall       *stall // nil with HTTP/1
	detached    bool   // it goes on after the handler, see detach
	hsts        string // the site's Strict-Transport-Security, "" is none
}

// newExchange makes the exchange of a request; begun is nil for one that has not
// begun.
func newExchange(h *Handler, w http.ResponseWriter, r *http.Request, begun *begun) *exchange {
	x := &exchange{ResponseWriter: w, handler: h, request: r}
	if begun != nil {
		x.entry.Time, x.entry.RequestID, x.entry.Queue, x.diagnostics = begun.at, begun.id, begun.queue, begun.diagnostics
	} else {
		x.entry.Time, x.entry.RequestID, x.diagnostics = time.Now(), requestID(), &diagnostics{log: h.diagnostics}
	}
	if http2(r) {
		x.stall = &stall{conn: http.NewResponseController(w), patience: h.WriteTimeout}
	}
	return x
}

// requestIDs are unique in one process by their number and, very nearly, in
// the world by their prefix.
var (
	requestPrefix = func() string {
		var b [5]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		return base32.HexEncoding.EncodeToString(b[:]) + "-"
	}()
	requestNumber atomic.Uint64
)

func requestID() string {
	var b [32]byte
	return string(strconv.AppendUint(append(b[:0], requestPrefix...), requestNumber.Add(1), 36))
}

// at notes how far the request has come, for the logs.
func (x *exchange) at(route, upstream string) {
	x.entry.Route, x.entry.Upstream = route, upstream
	x.diagnostics.from(origin{x.entry.RequestID, route, upstream})
}

// Unwrap lets http.ResponseController find the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if !x.wroteHeader && status >= 200 {
		x.wroteHeader = true
		x.entry.Status = status
		if x.hsts != "" {
			if h := x.Header(); h["Strict-Transport-Security"] == nil {
				h["Strict-Transport-Security"] = []string{x.hsts}
			}
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	if !x.wroteHeader {
		x.WriteHeader(http.StatusOK)
	}
	x.stall.begin()
	n, err := x.ResponseWriter.Write(p)
	x.stall.end()
	x.entry.Bytes += int64(n)
	return n, err
}

// FlushError is for http.ResponseController.
func (x *exchange) FlushError() error {
	x.stall.begin()
	defer x.stall.end()
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// ReadFrom keeps sendfile(2) within reach of the static files.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	if x.stall != nil { // there is no sendfile with HTTP/2
		return io.Copy(struct{ io.Writer }{x}, src)
	}
	if !x.wroteHeader {
		x.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(x.ResponseWriter, src)
	x.entry.Bytes += n
	return n, err
}

// finish ends the exchange, also when its response is aborted, and writes its entry
// to the access log.
func (x *exchange) finish() {
	if x.detached {
		return
	}
	if x.entry.Bytes > 0 {
		x.stall.last()
	}
	x.describe()
	x.record()
}

// describe fills what the entry has from the request.
func (x *exchange) describe() {
	r, e := x.request, &x.entry
	e.RemoteAddr, _, _ = net.SplitHostPort(r.RemoteAddr)
	e.Method, e.URI, e.Proto, e.Host = r.Method, r.RequestURI, r.Proto, r.Host
	e.Referer, e.UserAgent = r.Referer(), r.UserAgent()
}

// record writes the entry.
func (x *exchange) record() {
	x.diagnostics.flush()
	x.entry.Duration = time.Since(x.entry.Time)
	if x.handler.Access != nil {
		x.handler.Access.Write(&x.entry)
	}
}

// detach keeps of the exchange only what its end will need, for one that lasts
// longer than its handler.
func (x *exchange) detach() {
	x.describe()
	x.detached, x.request, x.ResponseWriter = true, nil, nil
}

// released says that a connection which was taken over from net/http is closed.
func (h *Handler) released(conn net.Conn) {
	if conn != nil && h.Released != nil {
		h.Released(conn)
	}
}

// fail answers a request that could not be served, or breaks off its response
// when that has begun: a client must never take a part for the whole.
func (x *exchange) fail(err error) {
	f := failureOf(err)
	if x.wroteHeader {
		x.logFailure(f, "response broken off")
		x.breakOff()
	}
	if f.status == statusClientGone {
		x.entry.Status = f.status
		x.logFailure(f, "client went away")
		panic(http.ErrAbortHandler)
	}
	x.logFailure(f, "request failed")
	f.write(x, x.request, x.entry.RequestID)
}

// breakOff ends a response that has begun so that its client sees that it is
// not whole: a chunked one without its last chunk, any other one short of its
// length. An HTTP/1.0 response without a length ends with its connection (RFC
// 1945, section 7.2.2), and nothing but a reset tells a broken end from a good
// one. A Unix socket knows no reset.
func (x *exchange) breakOff() {
	if !x.request.ProtoAtLeast(1, 1) {
		if conn, _, err := http.NewResponseController(x.ResponseWriter).Hijack(); err == nil {
			listen.Reset(conn)
			x.handler.released(conn)
		}
	}
	panic(http.ErrAbortHandler)
}

// http2 reports whether a request is one of several on its connection.
func http2(r *http.Request) bool { return r.ProtoMajor >= 2 }

func (x *exchange) logFailure(f *failure, what string) {
	level, log := zap.DebugLevel, x.handler.Log
	switch kind := protocol.KindOf(f.cause); {
	case f.status == statusClientGone:
	case kind == protocol.Overloaded || kind == protocol.Down:
		level, log, what = zap.WarnLevel, x.handler.refusals, "request refused"
	case f.status >= 500:
		level = zap.ErrorLevel
	}
	if check := log.Check(level, what); check != nil {
		check.Write(zap.String("request", x.entry.RequestID), zap.String("method", x.request.Method),
			zap.String("uri", x.request.RequestURI), zap.String("route", x.entry.Route),
			zap.String("upstream", x.entry.Upstream), zap.Int("status", f.status), zap.Error(f.cause))
	}
}
