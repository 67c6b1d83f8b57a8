package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/listen"
	"gatecrew/protocol/cgi"
	"gatecrew/protocol/nonblock"
)

// Handler answers the plain requests of one connection, one after another.
type Handler interface {
	// Answer answers p with one Write of a whole response, or with Respond.
	// body is the request's body, nil when there is none. It returns false when
	// it has not answered yet: then it calls Conn.Answered later, from any
	// goroutine. Neither p's Fields nor body may be used once p is answered.
	Answer(p *cgi.Plain, body []byte) bool
	// Resume goes on where Answer or whatever it has begun could not without
	// waiting: see Conn.Answered.
	Resume(p *cgi.Plain, body []byte)
}

const (
	// readSize is how much is read at once while nothing is known of what
	// comes: most heads, and what a connection that is idle costs.
	readSize = 4 << 10
	// MaxBody is the longest body in bytes that is read here. It fits into one
	// record of FastCGI, and travels with its request.
	MaxBody = 32 << 10
	// bodyPatience is how long the rest of a body may be in coming. A longer
	// silence is net/http's and the handler's to judge.
	bodyPatience = time.Second
)

// Conn is a client's connection. Its exported methods are for its Handler,
// during Answer.
type Conn struct {
	server  *Server
	nc      net.Conn
	socket  *nonblock.Socket // nc's; nil when nc is of another kind
	counted *listen.UnixConn // nc, if that is one
	remote  string           // its client, as http.Request.RemoteAddr has it
	handler Handler
	request cgi.Plain

	buf        []byte // what was read, and not yet answered, is buf[start:end]
	start, end int
	waits      waits
	active     bool // there has been a request
	closing    bool // no request follows; the client is to be told by the end of the connection
	broken     bool // what the client has got is not whole

	ctx   watchedContext
	watch watch
	next  atomic.Bool   // there is more in buf than the request that is answered
	turn  atomic.Int32  // whose turn it is while Answer goes on by itself
	back  chan struct{} // it is serve's again, which waits for that
}

// The values of Conn.turn.
const (
	elsewhere int32 = iota // Answered is due
	lent                   // and serve waits for it
	answered               // the next request's
	resumed                // Handler.Resume is due
)

func newConn(s *Server, nc net.Conn) *Conn {
	c := &Conn{server: s, nc: nc, buf: make([]byte, readSize), socket: nonblock.New(nc), back: make(chan struct{}, 1)}
	if c.counted, _ = nc.(*listen.UnixConn); c.counted != nil {
		c.socket = nonblock.New(c.counted.UnixConn)
	}
	c.request.Local = cgi.LocalEndpoint(nc.LocalAddr())
	if addr := nc.RemoteAddr(); addr != nil {
		c.remote = addr.String()
	}
	c.request.Remote = cgi.RemoteEndpoint(c.remote)
	c.request.Fields = make([]cgi.Field, 0, 16)
	c.waits.until(fresh, s.deadline(s.HeaderTimeout))
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), http.LocalAddrContextKey, nc.LocalAddr()))
	c.ctx = watchedContext{ctx, cancel, c}
	c.handler = s.Handler(c)
	return c
}

// serve is the life of the connection.
func (c *Conn) serve() {
	defer c.server.ended(c)
	if c.serveRequests() {
		c.server.handOn(c.nc, c.buf[c.start:c.end:c.end])
	} else {
		if c.closing && !c.broken {
			c.linger()
		}
		_ = c.nc.Close()
		c.server.State(c.nc, http.StateClosed)
	}
	c.ctx.cancel()
}

// serveRequests answers requests until there are no more. other is true when the
// next one, with which buf begins, is not plain.
func (c *Conn) serveRequests() (other bool) {
	for !c.closing && !c.broken {
		n, v := c.readHead()
		if v == more || !c.waits.end() {
			return false
		}
		if v != plain {
			return true
		}
		var content []byte
		if c.request.HasLength {
			var ok bool
			if content, ok = c.readBody(n, c.request.ContentLength); !ok {
				return true
			}
		}
		if !c.active {
			c.active = true
			c.server.State(c.nc, http.StateActive)
		}
		if apart := c.start + n + len(content) - c.end; apart > 0 { // of the body, which was not read into buf
			n -= apart
		}
		c.answer(content, c.end-c.start-n-len(content))
		if c.start += n + len(content); c.start == c.end {
			c.start, c.end = 0, 0
		}
		if c.server.stopping.Load() {
			_ = c.nc.SetReadDeadline(time.Time{}) // see Answered
			// What the client has sent by now is answered, and that answer says
			// that it is the last one.
			c.closing = c.closing || c.start == c.end
		}
	}
	return false
}

// guard runs a handler. One that panics, as it does to have its response broken off,
// ends the connection and nothing else.
func (c *Conn) guard(answer func()) {
	defer func() {
		failure := recover()
		if failure == nil {
			return
		}
		c.broken = true
		if failure != http.ErrAbortHandler {
			stack := make([]byte, 64<<10)
			stack = stack[:runtime.Stack(stack, false)]
			c.server.Log.Error("panic while a request was served", zap.Any("panic", failure), zap.ByteString("stack", stack))
		}
	}()
	answer()
}

// answer has the request answered. Behind it in buf are rest bytes that its client
// has sent already, and what it sends meanwhile.
func (c *Conn) answer(content []byte, rest int) {
	c.turn.Store(elsewhere)
	c.watch.interest.Store(false)
	c.watch.begin()
	c.next.Store(rest > 0)
	done := true
	c.guard(func() { done = c.handler.Answer(&c.request, content) })
	c.takeEarly()
	if done || c.await() {
		return
	}
	c.watch.begin()
	c.guard(func() { c.handler.Resume(&c.request, content) })
	c.takeEarly()
}

// takeEarly ends the watching over the client, and takes what that has brought.
func (c *Conn) takeEarly() {
	if early := c.watch.end(c.nc); len(early) > 0 {
		c.next.Store(true)
		c.buf = append(c.buf[:c.end], early...)
		c.end = len(c.buf)
		c.buf = c.buf[:cap(c.buf)]
	}
}

// await waits for Answered, and for the client's next request, whichever comes
// first. So who answers need not wake anybody: what comes next is either that
// request or the end of the client. Where that request is there already, or a part of
// it, the client is watched in the other way. It returns false when Resume is due.
func (c *Conn) await() (done bool) {
	if c.next.Load() || c.end == len(c.buf) || c.server.stopping.Load() {
		c.watch.begin()
		c.watch.want()
		defer c.takeEarly()
	} else if c.turn.Load() == elsewhere {
		read, err := c.read(c.buf[c.end:])
		c.end += read
		c.next.Store(read > 0)
		if read == 0 && err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			if errors.Is(err, io.EOF) {
				c.closing = true // it may still wait for its answer
			} else {
				c.broken = true
			}
			if c.turn.Load() == answered {
				return true
			}
			c.ctx.cancel()
		}
	}
	if c.turn.CompareAndSwap(elsewhere, lent) || c.turn.Load() == resumed {
		<-c.back
	}
	if c.turn.Load() == answered {
		return true
	}
	_ = c.nc.SetReadDeadline(time.Time{})
	return false
}

// Answered ends what Answer has left to others, with a whole response that was
// sent by TryWrite, or without one: then Handler.Resume is called.
func (c *Conn) Answered(whole bool) {
	if !whole {
		c.turn.Swap(resumed)
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // serve may read, or be about to
		c.back <- struct{}{}
		return
	}
	if c.next.Load() {
		c.waits.until(head, c.server.deadline(c.server.HeaderTimeout))
	} else {
		c.waits.until(idle, c.server.deadline(c.server.IdleTimeout))
	}
	if c.server.stopping.Load() {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // serve is to end the connection
	}
	if c.turn.Swap(answered) == lent {
		c.back <- struct{}{}
	}
}

// TryWrite writes what of p the client takes at once, and returns how much that is. It
// doesn't wait.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	if c.socket == nil {
		return 0, nil
	}
	n, err = c.socket.Write(p)
	c.count(n)
	return n, err
}

// count counts what was written beside nc's Write.
func (c *Conn) count(n int) {
	if c.counted != nil {
		c.counted.Wrote(n)
	}
}

// read reads from the client, once.
func (c *Conn) read(p []byte) (n int, err error) {
	if c.socket == nil {
		return c.nc.Read(p)
	}
	return c.socket.Read(p)
}

// nextSize is how many bytes there must be of a next request for net/http to begin
// with it. A connection that ends before has been idle.
const nextSize = 4

// readHead reads until there is a head, or its beginning and the end of the
// connection, which is not plain; more says that there won't be one.
func (c *Conn) readHead() (n int, v verdict) {
	idling, waiting := c.active, false
	for {
		if idling && c.end-c.start >= nextSize {
			idling = false
			if c.request.Method == http.MethodPost {
				c.skipLineEnds()
			}
		}
		switch {
		case idling:
			if !c.waits.until(idle, c.server.deadline(c.server.IdleTimeout)) || c.server.stopping.Load() {
				return 0, more // Stop may have looked just before
			}
		case c.end > c.start:
			n, v = parse(c.buf[c.start:c.end], &c.request, c.server.HeaderFields)
			if v == plain && n > c.server.HeaderBytes {
				v = other
			}
			if v != more {
				return n, v
			}
			fallthrough
		default:
			if !waiting && c.active && !c.waits.until(head, c.server.deadline(c.server.HeaderTimeout)) {
				return 0, more
			}
			waiting = true
		}
		c.makeRoom()
		read, err := c.read(c.buf[c.end:])
		if c.end += read; read == 0 && err != nil {
			if c.end > c.start && !idling {
				return 0, other
			}
			return 0, more
		}
	}
}

// makeRoom has room behind what was read.
func (c *Conn) makeRoom() {
	switch {
	case c.end < len(c.buf):
	case c.start > 0:
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	default:
		c.buf = append(c.buf, make([]byte, maxHead)...)
	}
}

// readBody returns the body behind a head of n bytes. false leaves it, with what
// has come of it in buf, to net/http.
func (c *Conn) readBody(n, length int) (content []byte, ok bool) {
	if length > MaxBody {
		return nil, false
	}
	have := c.buf[c.start+n : c.end]
	if len(have) >= length {
		return have[:length:length], true
	}
	content = append(make([]byte, 0, length), have...)
	_ = c.nc.SetReadDeadline(time.Now().Add(bodyPatience)) // an error is Read's too
	read, err := io.ReadFull(c.nc, content[len(content):length])
	_ = c.nc.SetReadDeadline(time.Time{})
	content = content[:len(content)+read]
	if err != nil {
		c.buf = slices.Concat(c.buf[:c.end], content[len(have):])
		c.end = len(c.buf)
		return nil, false
	}
	return content, true
}

// skipLineEnds skips those which some clients send behind the body of a POST, as
// net/http does.
func (c *Conn) skipLineEnds() {
	for range nextSize {
		if c.start == c.end || c.buf[c.start] != '\r' && c.buf[c.start] != '\n' {
			return
		}
		c.start++
	}
}

// linger waits, for a moment, until the client has got all and hangs up. A
// connection that is closed while the client still sends is reset, and what was
// under way to it is lost (RFC 9112, section 9.6).
func (c *Conn) linger() {
	if half, ok := c.nc.(halfCloser); ok && half.CloseWrite() == nil {
		_ = c.nc.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // net/http's time
		_, _ = io.Copy(io.Discard, c.nc)
	}
}

// Write sends a response, in one piece or several, and returns how many bytes of
// it were sent. An error ends the connection.
func (c *Conn) Write(p ...[]byte) (n int, err error) {
	if len(p) == 1 {
		n, err = c.TryWrite(p[0])
		if n < len(p[0]) && err == nil {
			var rest int
			rest, err = c.nc.Write(p[0][n:])
			n += rest
		}
	} else {
		var all int64
		parts := net.Buffers(p)
		all, err = parts.WriteTo(c.nc)
		n = int(all)
		c.count(n)
	}
	if err != nil {
		c.broken = true
	}
	return n, err
}

// Last reports whether the connection ends behind the request that is answered
// because the server stops. Respond tells the client.
func (c *Conn) Last() bool { return c.server.stopping.Load() }

// Context ends when the client goes away while a request is answered, and with
// the connection.
func (c *Conn) Context() context.Context { return &c.ctx }

// deadline is a moment for waits.
func (s *Server) deadline(timeout time.Duration) time.Duration {
	return time.Duration(s.clock.Load()) + s.tick + timeout
}

// phase is what a connection waits for.
type phase int64

const (
	fresh phase = iota + 1 // its first request
	idle                   // the next one
	head                   // the rest of a head
)

// waits says what a connection waits for, and until when; 0 for nothing. Whoever
// closes the connection for being late takes it away with late, so that no
// request is begun on a connection that is closed.
type waits struct{ state atomic.Int64 }

const (
	phaseBits = 2
	late      = -1
)

// until begins to wait, end ends it; false when the connection is closed.
func (w *waits) until(p phase, deadline time.Duration) bool {
	return w.set(int64(deadline)<<phaseBits | int64(p))
}

func (w *waits) end() bool { return w.set(0) }

func (w *waits) set(next int64) bool {
	for {
		now := w.state.Load()
		if now == late {
			return false
		}
		if w.state.CompareAndSwap(now, next) {
			return true
		}
	}
}

// expire closes the connection if it has waited for too long.
func (c *Conn) expire(now time.Duration) {
	if state := c.waits.state.Load(); state > 0 && time.Duration(state>>phaseBits) <= now {
		c.closeLate(state)
	}
}

// dismiss closes the connection if it is idle.
func (c *Conn) dismiss() {
	if state := c.waits.state.Load(); state > 0 && phase(state&(1<<phaseBits-1)) == idle {
		c.closeLate(state)
	}
}

func (c *Conn) closeLate(state int64) {
	if c.waits.state.CompareAndSwap(state, late) {
		_ = c.nc.Close()
	}
}

// watch is the watching over a client while its request is answered. It begins a
// tick or two of the server's clock after somebody has asked for it: by then most
// requests have been answered, and have cost nothing for it.
type watch struct {
	stage atomic.Int32
	// interest is that somebody has asked since the request began, be it while
	// serve itself was reading from the client: it holds until the request ends.
	interest atomic.Bool

	mu    sync.Mutex
	ended chan struct{} // closed when nobody watches any more; nil when nobody began
	early []byte        // what the client has sent meanwhile
}

const (
	unwatched int32 = iota // there is no request
	asked                  // nobody wants to know about its client
	wanted                 // somebody does,
	awaited                // since the last tick
	watched                // a goroutine reads from the client
)

// begin begins to watch, when somebody wants to know or has wanted to since the
// request began.
func (w *watch) begin() {
	w.stage.Store(asked)
	if w.interest.Load() {
		w.stage.CompareAndSwap(asked, wanted)
	}
}

// want has the client watched. It may be called from any goroutine.
func (w *watch) want() {
	w.interest.Store(true)
	w.stage.CompareAndSwap(asked, wanted)
}

// ticked is called by the server's clock.
func (w *watch) ticked(nc net.Conn, gone func()) {
	switch w.stage.Load() {
	case wanted:
		w.stage.CompareAndSwap(wanted, awaited)
	case awaited:
		w.mu.Lock()
		defer w.mu.Unlock()
		ended := make(chan struct{})
		w.ended = ended
		if !w.stage.CompareAndSwap(awaited, watched) {
			w.ended = nil
			return
		}
		go func() {
			defer close(ended)
			var b [1]byte
			n, err := nc.Read(b[:])
			w.mu.Lock()
			defer w.mu.Unlock()
			if n > 0 {
				w.early = append(w.early, b[0]) // the next request: the client is there
			} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && w.stage.Load() == watched {
				gone()
			}
		}()
	}
}

// end ends the watching, and returns what came meanwhile.
func (w *watch) end(nc net.Conn) (early []byte) {
	if w.stage.Swap(unwatched) != watched {
		return nil
	}
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	_ = nc.SetReadDeadline(time.Unix(1, 0))
	<-ended
	_ = nc.SetReadDeadline(time.Time{})
	early = w.early
	w.early, w.ended = nil, nil
	return early
}

// watchedContext begins to watch the client when somebody asks for its Done.
type watchedContext struct {
	context.Context
	cancel context.CancelFunc
	conn   *Conn
}

// Done implements context.Context.
func (w *watchedContext) Done() <-chan struct{} {
	w.conn.watch.want()
	return w.Context.Done()
}
