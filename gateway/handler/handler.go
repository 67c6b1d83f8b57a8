// Package handler is the one path of a request through the gateway:
//
//	check → site → route → script → body → params → application → response
//
// [Handler.serve] and [Handler.ask] below read from top to bottom in that
// order; each step is one call into the package that knows it.
package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatecrew/gateway/accesslog"
	"gatecrew/gateway/backend"
	"gatecrew/gateway/site"
	"gatecrew/gateway/spool"
	"gatecrew/gateway/websocket"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// Config is what a Handler needs; every field is required but Access and Released.
type Config struct {
	Log *zap.Logger
	// Access gets an entry for each request; nil writes none.
	Access *accesslog.Log
	// Spool holds the request bodies that must be whole before they are
	// handed on.
	Spool *spool.Store
	// MaxBody is the largest request body in bytes.
	MaxBody int64
	// BodyTimeout is the longest silence while a request body is read.
	BodyTimeout time.Duration
	// WriteTimeout is how long the client of an HTTP/2 stream may take nothing
	// of a response. With HTTP/1 that is the business of listen.Conns.
	WriteTimeout time.Duration
	// HeaderFields is how many fields a request head may have.
	HeaderFields int
	// Sockets carries WebSocket connections.
	Sockets *websocket.Hub
	// Released is told of each connection that was taken over from net/http,
	// once it is closed. It may be nil.
	Released func(net.Conn)
}

// Handler answers requests. Its site table may be replaced at any time; a
// request in progress keeps the table it began with.
type Handler struct {
	Config
	table       atomic.Pointer[site.Table]
	diagnostics *diagnosticsLog
	// refusals has the lines on requests that a queue refused: a few a second,
	// so that an overload is not made worse by what is written about it.
	refusals *zap.Logger
}

// New makes a Handler for a table of sites.
func New(c Config, table *site.Table) *Handler {
	h := &Handler{Config: c, diagnostics: newDiagnosticsLog(c.Log)}
	h.refusals = c.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, maxRefusals, 0)
	}))
	h.table.Store(table)
	return h
}

// maxRefusals is how many refused requests are logged in a second.
const maxRefusals = 5

// Close ends what the handler runs in the background, after the last request.
func (h *Handler) Close() { h.diagnostics.close() }

// maxLocalRedirects is how many local redirects (RFC 3875, section 6.2.2) one
// request may take.
const maxLocalRedirects = 10

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.goOn(w, r, nil) }

// goOn answers a request that has begun already, or not if begun is nil.
func (h *Handler) goOn(w http.ResponseWriter, r *http.Request, begun *begun) {
	x := newExchange(h, w, r, begun)
	defer x.finish()
	defer begun.close()
	if err := h.serve(x, r, begun); err != nil {
		x.fail(err)
	}
}

// serve answers one request, or says why it can't be answered.
func (h *Handler) serve(x *exchange, r *http.Request, begun *begun) error {
	if err := cgi.CheckRequest(r); err != nil {
		return err
	}
	if fields(r.Header) > h.HeaderFields {
		return errTooManyFields
	}
	table := h.table.Load()
	here, serverName := table.Site(r.Host)
	if r.TLS == nil && here.RedirectToHTTPS {
		return redirectToHTTPS(x, r, serverName, here.HTTPSPort)
	}
	if r.TLS != nil {
		if table.Misdirected(r.TLS.ServerName, r.Host) {
			return errMisdirected
		}
		x.hsts = here.HSTS
	}
	for redirects := 0; ; redirects++ {
		path, err := cgi.CleanPath(r.URL.EscapedPath())
		if err != nil {
			return err
		}
		route := here.Route(path)
		if route == nil {
			return errNoRoute
		}
		x.at(route.Name, "")
		target, err := route.Locate(path, r.URL.EscapedPath())
		switch {
		case errors.Is(err, site.ErrStatic):
			return route.Files.Serve(x, r, route.Below(path))
		case errors.Is(err, cgi.ErrDirectory):
			return redirectToSlash(x, r)
		case err != nil:
			return err
		}
		target.ServerName = serverName
		if route.TakesWebSockets() && websocket.Asked(r) {
			return h.socket(x, r, route, &target)
		}
		if r.Method == http.MethodConnect {
			return errNoConnect
		}
		if route.OnlySockets {
			return errOnlySockets
		}
		local, err := h.ask(x, r, route, &target, begun)
		if err != nil || local == "" {
			return err
		}
		if redirects == maxLocalRedirects {
			return errRedirectLoop
		}
		if r, err = redirected(r, local); err != nil {
			return err
		}
	}
}

// ask has the route's application answer. The result is not "" when the
// application wants another path of the gateway to answer in its place.
func (h *Handler) ask(x *exchange, r *http.Request, route *site.Route, target *cgi.Target, begun *begun) (local string, err error) {
	body, err := h.body(x, r, route)
	if err != nil {
		return "", err
	}
	defer body.close(x)
	req := h.request(x, r, target)
	req.Stdin, req.OnDemand = body.reader, body.live != nil && expectsContinue(r)
	answer, err := h.answer(r.Context(), x, route, req, body, begun)
	if err != nil {
		return "", cmp.Or(body.failure(), err)
	}
	body.answered()
	local, err = h.respond(x, r, route, answer)
	answer.Close()
	return local, err
}

// request is what an application is asked, yet without a body.
func (h *Handler) request(x *exchange, r *http.Request, target *cgi.Target) *protocol.Request {
	req := &protocol.Request{Role: protocol.Responder, Params: cgi.AppendParams(nil, r, target), Stderr: x.diagnostics}
	req.Label = protocol.Label{ID: req.Get("UNIQUE_ID"), Method: r.Method, Target: r.RequestURI}
	if req.Label.ID == "" { // Apache's name; a site may set its own
		req.Label.ID = x.entry.RequestID
		req.Params = append(req.Params, protocol.Param{Name: "UNIQUE_ID", Value: req.Label.ID})
	}
	return req
}

// answer gives the request to an application, and to another one where that is
// allowed, until there is a response head. body is the request's; begun, if it is
// not nil, the first try.
func (h *Handler) answer(ctx context.Context, x *exchange, route *site.Route, req *protocol.Request, body *body, begun *begun) (*answer, error) {
	var tries tries
	for {
		answer, err := begun.take()
		if answer == nil && err == nil {
			answer, err = h.open(ctx, x, route, req)
		}
		if err == nil {
			if err = h.readHead(x, route, req, answer); err == nil {
				return answer, nil
			}
			answer.Close()
		}
		if ctx.Err() != nil || !tries.another(err, req.Label.Method, route) {
			return nil, err
		}
		again, bad := body.rewind()
		if bad != nil {
			return nil, err
		}
		req.Stdin = again
		level := zap.InfoLevel
		if tries.returned > 0 {
			level = zap.DebugLevel // nothing has gone wrong
			req.Returned = true
		}
		if check := h.Log.Check(level, "request is given to another worker"); check != nil {
			check.Write(zap.String("request", x.entry.RequestID),
				zap.String("route", route.Name), zap.Error(err))
		}
		x.at(route.Name, "")
	}
}

// answer is an exchange whose response head has been read.
type answer struct {
	protocol.Exchange
	head  *cgi.Head
	begun *piece // what came after the head in the same Read
	err   error  // what that Read ended with, nil when more may come

	// With io.EOF it is known what else there is.
	file     *protocol.File
	trailers []protocol.Param
}

// read reads once more, with fill or refill.
func (a *answer) read(into func(io.Reader) error) error {
	a.err = into(a.Exchange)
	if x, ok := a.Exchange.(protocol.Extended); ok && a.err == io.EOF {
		a.file, a.trailers = x.File(), x.Trailers()
	}
	return a.err
}

// Close ends the exchange.
func (a *answer) Close() {
	a.Exchange.Close()
	if a.file != nil {
		_ = a.file.Close()
	}
	a.begun.free()
}

// open hands the request to an application.
func (h *Handler) open(ctx context.Context, x *exchange, route *site.Route, req *protocol.Request) (*answer, error) {
	asked := time.Now()
	ex, err := route.Backend.Open(ctx, req)
	x.entry.Queue += time.Since(asked)
	if err != nil {
		return nil, err
	}
	return &answer{Exchange: ex, begun: newPiece()}, nil
}

// readHead reads the response head of an answer, which its caller closes.
func (h *Handler) readHead(x *exchange, route *site.Route, req *protocol.Request, a *answer) error {
	if answerer, ok := a.Exchange.(backend.Answerer); ok {
		x.at(route.Name, answerer.Answerer())
	}
	parse := cgi.ParseHead
	if route.NPH(req) {
		parse = cgi.ParseNPHHead
	}
	for interim := 0; ; {
		head, n, err := parse(a.begun.bytes(), a.err == io.EOF)
		switch {
		case err != nil:
		case head == nil:
			if err = a.read(a.begun.fill); err == io.EOF {
				err = nil
			}
		case head.Status == http.StatusSwitchingProtocols && req.Role != protocol.WebSocket:
			err = &protocol.Error{Kind: protocol.Malformed, Err: errors.New("status 101 in the answer to a request that is no WebSocket handshake")}
		case head.Status == http.StatusEarlyHints && interim == maxInterim:
			err = &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("more than %d heads with status 103", maxInterim)}
		case head.Status == http.StatusEarlyHints:
			interim++
			x.hint(head.Header)
			a.begun.skip(n)
		default:
			a.head = head
			a.begun.skip(n)
			if w, ok := a.Exchange.(backend.Waiter); ok {
				w.Answered()
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tries counts how often a request was given to a worker in vain.
type tries struct {
	failed, returned int
	first            time.Time // when the request was first given back
}

// Limits of tries. A request that kills its worker must not kill a pool. One
// that workers give back has cost them nothing, but has to end too: it has
// waited as long then as one may wait in a queue, unless configured otherwise.
const (
	maxFailed   = 3
	maxReturned = 10 * time.Second
)

// another decides whether a request that failed before its response head is
// given to one more worker. The rule: always when no application can have seen
// it; when one may have acted on it, only if the method is idempotent and the site
// allows it, and only once unless it is likely that none has.
func (t *tries) another(err error, method string, route *site.Route) bool {
	var e *protocol.Error
	switch {
	case !errors.As(err, &e):
		return false
	case e.Kind == protocol.Returned:
		now := time.Now()
		if t.returned++; t.returned == 1 {
			t.first = now
		}
		return now.Sub(t.first) < maxReturned
	}
	t.failed++
	replayable := route.ReplayIdempotent && backend.Idempotent(method)
	if e.Unseen || e.Behind && replayable {
		return t.failed < maxFailed && e.Kind != protocol.Overloaded && e.Kind != protocol.Refused
	}
	return t.failed == 1 && e.Kind == protocol.Died && replayable
}

// redirected is the request for a local redirect: a GET of another path, as
// if the client had asked for it (RFC 3875, section 6.2.2).
func redirected(r *http.Request, local string) (*http.Request, error) {
	u, err := url.ParseRequestURI(local)
	if err == nil {
		_, err = cgi.CleanPath(u.EscapedPath())
	}
	if err != nil {
		// Not wrapped: a bad path is the application's fault here, not the client's.
		return nil, &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("local redirect: %v", err)}
	}
	next := r.Clone(r.Context())
	next.URL.Path, next.URL.RawPath, next.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
	if r.Method != http.MethodHead {
		next.Method = http.MethodGet
	}
	next.Body, next.ContentLength, next.TransferEncoding = http.NoBody, 0, nil
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Expect"} {
		next.Header.Del(name)
	}
	return next, nil
}

// redirectToSlash sends the client of a folder's path without its last slash to
// the one with it. The reference is relative to the last segment, so that it
// can't lead to another host whatever the path begins with.
func redirectToSlash(w http.ResponseWriter, r *http.Request) error {
	escaped := r.URL.EscapedPath()
	to := "./" + escaped[strings.LastIndexByte(escaped, '/')+1:] + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
	return nil
}

// redirectToHTTPS sends the client to the same address with TLS. name is one that
// the configuration has for the site, so that nobody is sent to where someone
// else's Host field says.
func redirectToHTTPS(w http.ResponseWriter, r *http.Request, name string, port int) error {
	if name == "" { // a name of nobody's, at a site that has none but wildcards
		return errMisdirected
	}
	if port != 443 {
		name = net.JoinHostPort(name, strconv.Itoa(port))
	}
	w.Header().Set("Location", "https://"+name+r.URL.RequestURI())
	w.Header().Set("Content-Length", "0")
	status := http.StatusPermanentRedirect // which keeps method and body
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.WriteHeader(status)
	return nil
}

func fields(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}
