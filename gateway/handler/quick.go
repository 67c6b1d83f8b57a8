package handler

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"time"

	"gatecrew/gateway/accesslog"
	"gatecrew/gateway/backend"
	"gatecrew/gateway/http1"
	"gatecrew/gateway/site"
	"gatecrew/gateway/static"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// quick answers the plain requests of one connection, see gateway/http1. It takes
// the same steps as Handler.serve and Handler.ask, for what nearly all requests
// are: one for a small file, or for an application in FastCGI, whose answer comes whole. Between the
// bytes of the client and those of the application is neither an http.Request nor a
// header map. Whatever else a request turns out to be goes to Handler.goOn, with
// what has begun of it.
type quick struct {
	h    *Handler
	conn *http1.Conn

	// The site of the last request: most connections ask for one.
	table      *site.Table
	host       string
	site       *site.Site
	serverName string

	request     protocol.Request
	pairs       []byte
	body        bytes.Reader
	diagnostics diagnostics
	begun       begun
	answer      answer
	out         []byte
}

// keptOut is the size in bytes up to which a connection keeps what it has needed
// for its answers.
const keptOut = 4 << 10

// Quick makes the handler of a connection.
func (h *Handler) Quick(c *http1.Conn) http1.Handler { return &quick{h: h, conn: c} }

// begun is a request of which an application has been asked.
type begun struct {
	at          time.Time
	id          string
	queue       time.Duration
	diagnostics *diagnostics
	answer      *answer // nil after take, and when err is set
	err         error   // why the application could not be asked
}

// take returns how the first try went: neither answer nor error means that there was
// none. There is none in a nil begun.
func (b *begun) take() (a *answer, err error) {
	if b == nil {
		return nil, nil
	}
	a, err = b.answer, b.err
	b.answer, b.err = nil, nil
	return a, err
}

// close ends what nobody has taken.
func (b *begun) close() {
	if a, _ := b.take(); a != nil {
		a.Close()
	}
}

// Answer implements http1.Handler.
func (q *quick) Answer(p *cgi.Plain, body []byte) {
	if first, answered := q.ask(p, body); !answered {
		q.conn.Respond(body, func(w http.ResponseWriter, r *http.Request) { q.h.goOn(w, r, first) })
	}
}

// ask answers p, if that can be done here. Otherwise first is what has been done, nil
// when that is nothing.
func (q *quick) ask(p *cgi.Plain, body []byte) (first *begun, answered bool) {
	h := q.h
	here, serverName := q.lookUp(p.Host)
	path, err := p.Clean()
	if err != nil || here.RedirectToHTTPS || int64(len(body)) > h.MaxBody {
		return nil, false
	}
	route := here.Route(path)
	if route == nil || !route.Quick {
		return nil, false
	}
	target, err := route.Locate(path, p.Path)
	switch {
	case err == site.ErrStatic:
		return nil, q.file(p, route, path)
	case err != nil || p.Method == http.MethodHead:
		return nil, false
	}
	target.ServerName = serverName
	at, id := time.Now(), requestID()
	q.pairs = cgi.AppendPairs(q.pairs[:0], p, &target, id)
	if len(q.pairs) > math.MaxUint16 { // more than Request.Pairs may have
		return nil, false
	}
	q.diagnostics.reset(h.diagnostics)
	q.request = protocol.Request{Role: protocol.Responder, Pairs: q.pairs, Stderr: &q.diagnostics,
		Label: protocol.Label{ID: id, Method: p.Method, Target: p.Target}}
	if len(body) > 0 {
		q.body.Reset(body)
		q.request.Stdin = &q.body
	}
	ex, err := route.Backend.Open(q.conn.Context(), &q.request)
	q.begun = begun{at: at, id: id, queue: time.Since(at), diagnostics: &q.diagnostics, err: err}
	if err != nil {
		return &q.begun, false
	}
	a := &q.answer
	*a = answer{Exchange: ex, begun: newPiece()}
	q.begun.answer = a
	if a.read(a.begun.fill) != io.EOF || a.file != nil || len(a.trailers) > 0 {
		return &q.begun, false
	}
	response, found, ok := cgi.AppendAnswer(q.out[:0], a.begun.bytes(), http1.Date(at))
	if !ok {
		return &q.begun, false
	}
	upstream := ""
	if answerer, ok := ex.(backend.Answerer); ok {
		upstream = answerer.Answerer()
	}
	a.Close()
	sent := found.Body
	if n, err := q.conn.Write(response); err != nil {
		sent = max(0, n-(len(response)-found.Body))
	}
	if q.out = response; cap(response) > 2*keptOut {
		q.out = nil
	}
	q.diagnostics.from(origin{id, route.Name, upstream})
	q.diagnostics.flush()
	if h.Access != nil {
		h.Access.Write(&accesslog.Entry{Time: at, Duration: time.Since(at), RemoteAddr: p.Remote.Host,
			Method: p.Method, URI: p.Target, Proto: "HTTP/1.1", Status: found.Status, Bytes: int64(sent),
			Referer: p.Get("Referer"), UserAgent: p.Get("User-Agent"), Host: p.Host,
			RequestID: id, Route: route.Name, Upstream: upstream, Queue: q.begun.queue})
	}
	q.request, q.begun, q.answer = protocol.Request{}, begun{}, answer{}
	return nil, true
}

// file answers with a small file from memory.
func (q *quick) file(p *cgi.Plain, route *site.Route, path string) bool {
	var given static.Conditions
	for i := range p.Fields {
		given.Add(p.Fields[i].Name, p.Fields[i].Value)
	}
	hot, ok := route.Files.Hot(p.Method, route.Below(path), &given)
	if !ok {
		return false
	}
	at := time.Now()
	b := append(q.out[:0], "HTTP/1.1 200 OK\r\n"...)
	if hot.Status == http.StatusNotModified {
		b = append(q.out[:0], "HTTP/1.1 304 Not Modified\r\n"...)
	}
	b = append(b, hot.Fields...)
	b = append(b, http1.Date(at)...)
	b = append(b, "\r\n"...)
	head := len(b)
	var n int
	if len(hot.Body) <= keptOut {
		b = append(b, hot.Body...)
		n, _ = q.conn.Write(b)
	} else {
		n, _ = q.conn.Write(b, hot.Body)
	}
	if q.out = b; cap(b) > 2*keptOut {
		q.out = nil
	}
	if q.h.Access != nil {
		q.h.Access.Write(&accesslog.Entry{Time: at, Duration: time.Since(at), RemoteAddr: p.Remote.Host,
			Method: p.Method, URI: p.Target, Proto: "HTTP/1.1", Status: hot.Status, Bytes: int64(max(0, n-head)),
			Referer: p.Get("Referer"), UserAgent: p.Get("User-Agent"), Host: p.Host, RequestID: requestID(), Route: route.Name})
	}
	return true
}

// lookUp finds the site of a Host.
func (q *quick) lookUp(host string) (*site.Site, string) {
	if table := q.h.table.Load(); table != q.table || host != q.host {
		q.table, q.host = table, host
		q.site, q.serverName = table.Site(host)
	}
	return q.site, q.serverName
}
