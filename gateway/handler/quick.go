package handler

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"time"

	"go.uber.org/zap"

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

	// The request that an application has been asked for. What reads its answer is
	// the goroutine that it comes with, see Conn.Answered.
	plain    *cgi.Plain
	route    *site.Route
	begun    begun
	answer   answer
	notified func() // readSafely
	panicked bool   // read has
	found    cgi.Answer
	upstream string
	out      []byte
	unsent   []byte // of the response; nil when there is none yet
}

// keptOut is the size in bytes up to which a connection keeps what it has needed
// for its answers.
const keptOut = 4 << 10

// Quick makes the handler of a connection.
func (h *Handler) Quick(c *http1.Conn) http1.Handler {
	q := &quick{h: h, conn: c}
	q.notified = q.readSafely
	return q
}

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
func (q *quick) Answer(p *cgi.Plain, body []byte) (done bool) {
	step := q.ask(p, body)
	if step == goesOn {
		q.goOn(body, nil)
	}
	return step != later
}

// Resume implements http1.Handler.
func (q *quick) Resume(_ *cgi.Plain, body []byte) {
	if q.panicked {
		q.panicked = false
		panic(http.ErrAbortHandler)
	}
	if q.unsent == nil {
		q.goOn(body, &q.begun)
		return
	}
	n, _ := q.conn.Write(q.unsent)
	q.unsent = q.unsent[n:]
	q.finish()
}

func (q *quick) goOn(body []byte, first *begun) {
	q.conn.Respond(body, func(w http.ResponseWriter, r *http.Request) { q.h.goOn(w, r, first) })
}

// step is how far ask has come.
type step uint8

const (
	goesOn step = iota // nothing has been done: the request is for goOn
	later              // an application has been asked, and Conn.Answered is due
	done               // the request is answered
)

// ask answers p, or has an application do so, if that can be done here.
func (q *quick) ask(p *cgi.Plain, body []byte) step {
	h := q.h
	here, serverName := q.lookUp(p.Host)
	path, err := p.Clean()
	if err != nil || here.RedirectToHTTPS || int64(len(body)) > h.MaxBody || q.conn.Last() {
		return goesOn
	}
	route := here.Route(path)
	if route == nil || !route.Quick {
		return goesOn
	}
	target, err := route.Locate(path, p.Path)
	switch {
	case err == site.ErrStatic:
		return q.file(p, route, path)
	case err != nil || p.Method == http.MethodHead:
		return goesOn
	}
	target.ServerName = serverName
	at, id := time.Now(), requestID()
	q.pairs = cgi.AppendPairs(q.pairs[:0], p, &target, id)
	if len(q.pairs) > math.MaxUint16 { // more than Request.Pairs may have
		return goesOn
	}
	q.diagnostics.reset(h.diagnostics)
	q.request = protocol.Request{Role: protocol.Responder, Pairs: q.pairs, Stderr: &q.diagnostics,
		Label: protocol.Label{ID: id, Method: p.Method, Target: p.Target}}
	if len(body) > 0 {
		q.body.Reset(body)
		q.request.Stdin = &q.body
	}
	ex, err := route.Backend.Open(q.conn.Context(), &q.request)
	q.plain, q.route = p, route
	q.begun = begun{at: at, id: id, queue: time.Since(at), diagnostics: &q.diagnostics, err: err}
	if err == nil {
		q.answer = answer{Exchange: ex, begun: newPiece()}
		q.begun.answer = &q.answer
		if n, ok := ex.(protocol.Notifier); ok && n.Notify(q.notified) {
			return later
		}
	}
	q.read()
	return later
}

// readSafely is read for a goroutine that others depend on. A panic there ends this
// connection and no other.
func (q *quick) readSafely() {
	defer func() {
		if failure := recover(); failure != nil {
			q.h.Log.Error("panic while an answer was read", zap.Any("panic", failure), zap.Stack("stack"))
			q.panicked = true
			q.conn.Answered(false)
		}
	}()
	q.read()
}

// read reads an answer that has come, and sends it if it is whole and needs nothing
// but its bytes. It waits for nothing.
func (q *quick) read() {
	a := q.begun.answer
	if a == nil || a.read(a.begun.fill) != io.EOF || a.file != nil || len(a.trailers) > 0 || q.conn.Last() {
		q.conn.Answered(false)
		return
	}
	response, found, ok := cgi.AppendAnswer(q.out[:0], a.begun.bytes(), http1.Date(q.begun.at))
	if !ok {
		q.conn.Answered(false)
		return
	}
	if answerer, ok := a.Exchange.(backend.Answerer); ok {
		q.upstream = answerer.Answerer()
	}
	a.Close()
	if q.out = response; cap(response) > 2*keptOut {
		q.out = nil
	}
	q.found = found
	// An error is Write's as well, in Resume.
	if n, err := q.conn.TryWrite(response); n < len(response) || err != nil {
		q.unsent = response[n:]
		q.conn.Answered(false)
		return
	}
	q.finish()
	q.conn.Answered(true)
}

// finish ends a request that is answered, all but q.unsent.
func (q *quick) finish() {
	h, p := q.h, q.plain
	q.diagnostics.from(origin{q.begun.id, q.route.Name, q.upstream})
	q.diagnostics.flush()
	if h.Access != nil {
		q.log(&accesslog.Entry{Time: q.begun.at, Status: q.found.Status, Bytes: int64(max(0, q.found.Body-len(q.unsent))),
			RequestID: q.begun.id, Route: q.route.Name, Upstream: q.upstream, Queue: q.begun.queue}, p)
	}
	q.request, q.begun, q.answer = protocol.Request{}, begun{}, answer{}
	q.plain, q.route, q.upstream, q.unsent = nil, nil, "", nil
}

// log writes an entry to the access log.
func (q *quick) log(e *accesslog.Entry, p *cgi.Plain) {
	e.Duration = time.Since(e.Time)
	e.RemoteAddr, e.Method, e.URI, e.Proto, e.Host = p.Remote.Host, p.Method, p.Target, "HTTP/1.1", p.Host
	e.Referer, e.UserAgent = p.Get("Referer"), p.Get("User-Agent")
	q.h.Access.Write(e)
}

// file answers with a small file from memory.
func (q *quick) file(p *cgi.Plain, route *site.Route, path string) step {
	var given static.Conditions
	for i := range p.Fields {
		given.Add(p.Fields[i].Name, p.Fields[i].Value)
	}
	hot, ok := route.Files.Hot(p.Method, route.Below(path), &given)
	if !ok {
		return goesOn
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
		q.log(&accesslog.Entry{Time: at, Status: hot.Status, Bytes: int64(max(0, n-head)), RequestID: requestID(), Route: route.Name}, p)
	}
	return done
}

// lookUp finds the site of a Host.
func (q *quick) lookUp(host string) (*site.Site, string) {
	if table := q.h.table.Load(); table != q.table || host != q.host {
		q.table, q.host = table, host
		q.site, q.serverName = table.Site(host)
	}
	return q.site, q.serverName
}
