// Package fcgi is the gateway's side of FastCGI 1.0 and of gatecrew's
// extension to it: PROTOCOL.md, beside this file, says what travels on the
// wire.
//
// It has three layers. Records and name-value pairs (record.go, pairs.go) are
// encoded and decoded without I/O. A Stream is one request: it knows no
// socket. A Conn owns the socket: one goroutine reads it and hands the
// records to the streams (dispatch.go), and whoever has something to send
// joins the writer (writer.go).
//
// A Conn begins as the connection to a foreign application (php-fpm, flup,
// libfcgi, Go): one request at a time, no question asked. Negotiate makes it
// the connection to a worker of our own, with many requests at once and a
// credit window for each in both directions.
package fcgi

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"gatecrew/protocol"
)

const (
	defaultWindow       = 128 << 10
	defaultBulkWindow   = 512 << 10
	defaultWriteTimeout = 30 * time.Second
)

// Options of a connection. The zero value has the default of each.
type Options struct {
	// Window is how many bytes of STDOUT are buffered per request, 131072
	// when it is 0, at most 2147483647. A negotiated peer is told, and
	// breaks the protocol when it sends more. From a foreign one no more is
	// read until Stream.Read has made room.
	Window int
	// BulkWindow is what the window of a negotiated peer's request becomes
	// while its answer is read as quickly as it comes: 524288 when it and
	// Window are 0, and never less than Window.
	BulkWindow int
	// WriteTimeout is how long a write may make no progress, because the
	// peer doesn't read and the socket's buffer is full; then the connection
	// is closed and its requests fail as TimedOut. 30 s when it is 0.
	WriteTimeout time.Duration
}

// Conn is a connection to an application. Its methods may be called from any
// goroutine.
type Conn struct {
	nc     net.Conn
	window int // of a request's STDOUT, at first
	bulk   int // and at last
	w      writer
	loop   eventLoop
	done   chan struct{}
	full   chan struct{} // closed when no further request can be opened
	reader reader

	// Guarded by w.mu; flow changes before the first request only.
	flow       bool      // negotiated: many requests, credit both ways
	peerWindow int       // bytes of STDIN per request; with flow
	capacity   int       // requests at once
	ahead      int       // requests that may wait in the application beside them
	streams    []*Stream // by id - 1; nil is a free id
	free       []uint16  // ids that were used before
	open       int       // streams that are not nil
	asked      bool      // Negotiate was called
	answer     chan Values
	closing    bool            // CloseWrite was called
	writeErr   error           // nothing can be sent any more
	failure    *protocol.Error // the connection is dead; Unseen is false
}

// errEarlyEnd is the end of a connection whose foreign application answered
// before it had the whole body: what it would make of the rest, and of the
// next request behind it, nobody knows.
var errEarlyEnd = errors.New("fcgi: request ended before its body was sent")

// NewConn makes nc the connection to a foreign application and starts to read
// from it, so that an application which hangs up is noticed while the
// connection is idle.
func NewConn(nc net.Conn, o Options) *Conn {
	if o.Window <= 0 {
		o.Window = defaultWindow
		if o.BulkWindow <= 0 {
			o.BulkWindow = defaultBulkWindow
		}
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = defaultWriteTimeout
	}
	c := &Conn{nc: nc, window: min(o.Window, maxWindow), bulk: min(max(o.Window, o.BulkWindow), maxWindow), capacity: 1, done: make(chan struct{}), full: make(chan struct{})}
	c.w.init(nc, o.WriteTimeout, c.writeFailed)
	go c.readLoop()
	return c
}

// Capacity is how many requests may be open at once.
func (c *Conn) Capacity() int {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.capacity
}

// Ahead is how many requests more may be open, which the application can't
// start before others have ended.
func (c *Conn) Ahead() int {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.ahead
}

// Done is closed when the connection is dead, whoever closed it.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Refusing is closed when no further request can be opened: because nothing can
// be sent any more, or after CloseWrite. Done follows when what the application
// has still to say has been read.
func (c *Conn) Refusing() <-chan struct{} { return c.full }

// refuseLocked closes Refusing. The caller holds w.mu.
func (c *Conn) refuseLocked() {
	select {
	case <-c.full:
	default:
		close(c.full)
	}
}

// Err tells why the connection is dead; nil before Done is closed.
func (c *Conn) Err() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.failure == nil {
		return nil
	}
	return c.failure.Err
}

// Open sends a request and returns its exchange. It doesn't wait for the
// socket, and never for the application.
//
// A body in memory (one with a Len method) of up to 32 KiB is read before
// Open returns; any other one by a goroutine, from then on until it ends, the
// application ends the request, or Close. Bodies are sent as they are: a
// CONTENT_LENGTH is the caller's to set.
//
// ended, unless nil, is called exactly once, also when Open fails: as soon as
// the application can no longer be working on the request, which is when
// END_REQUEST has come or the connection is dead. The slot that the request
// had in the application is free then, though the rest of the answer may
// still be read. It is called from the goroutine that finds out (the one that
// reads the connection, or one in Open, Stream.Close, Conn.Close or another
// request's Open), so it must not block; it may call Open. It is told how long
// the application has worked on the request, by its own clock; 0 when that is not known.
//
// It watches over no deadline and no client: whoever has one calls Close, which
// tells the application.
//
// Open's error is an *protocol.Error with Unseen set; no byte of the request
// has left, but Stdin may have been read if it was in memory. Its kind is
// Refused when the parameters can't be encoded, Overloaded when Capacity is
// used up, ClientGone when the body can't be read, and Unavailable when the connection is dead or CloseWrite was called.
func (c *Conn) Open(req *protocol.Request, ended func(worked time.Duration)) (*Stream, error) {
	s := &Stream{conn: c, send: c, stderr: req.Stderr, ended: ended, socket: req.Role == protocol.WebSocket,
		held: mayBeHeld(req.Label.Method)}
	s.wake.L, s.granted.L = &s.mu, &c.w.mu
	if err := c.start(s, req); err != nil {
		err.Unseen = true
		if ended != nil {
			ended(0)
		}
		return nil, err
	}
	c.w.flush()

	c.w.mu.Lock()
	dead := c.writeErr
	if c.failure != nil {
		dead = c.failure.Err
	}
	unseen := s.start >= c.w.sent
	pump, onDemand := req.Stdin != nil && !s.stdinDone && !s.stdinEnded && !s.socket, req.OnDemand && s.flow
	c.w.mu.Unlock()
	if dead != nil && unseen { // ended was called by whoever found out
		return nil, &protocol.Error{Kind: protocol.Unavailable, Unseen: true, Err: dead}
	}
	if pump {
		s.pumped = make(chan struct{})
		s.live, _ = req.Stdin.(protocol.Live)
		go s.pump(req.Stdin, onDemand)
	}
	return s, nil
}

// start takes an id for s and queues what there is to send at once.
func (c *Conn) start(s *Stream, req *protocol.Request) *protocol.Error {
	size, err := paramsSize(req.Params)
	if err == nil && len(req.Pairs) > maxContent {
		err = fmt.Errorf("fcgi: encoded parameters: %d bytes, at most %d are taken", len(req.Pairs), maxContent)
	}
	if err == nil && s.socket && !c.Async() {
		err = errors.New("fcgi: the worker takes no WebSockets")
	}
	if err != nil {
		return &protocol.Error{Kind: protocol.Refused, Err: err}
	}
	var body []byte
	whole := req.Stdin == nil && !s.socket
	if req.Stdin != nil && !s.socket && !req.OnDemand {
		chunk := chunkPool.Get().(*[chunkSize]byte)
		defer chunkPool.Put(chunk)
		if body, whole, err = readMemory(req.Stdin, chunk[:c.memoryLimit()]); err != nil {
			return bodyError(err)
		}
	}

	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if err := c.addLocked(s); err != nil {
		return err
	}
	c.loop.sending()
	s.start = c.w.position()
	b := appendBegin(c.w.pending, s.id, uint16(req.Role))
	if req.Pairs != nil {
		b = appendStream(b, typeParams, s.id, req.Pairs)
		b = appendHeader(b, typeParams, s.id, 0)
	} else {
		b = appendParams(b, s.id, req.Params, size)
	}
	if whole {
		b = appendStream(b, typeStdin, s.id, body)
		b = appendHeader(b, typeStdin, s.id, 0)
		s.credit -= len(body)
		s.stdinDone = true
	}
	c.w.pending = b
	return nil
}

// addLocked gives s an id and makes it the connection's. The caller holds w.mu.
func (c *Conn) addLocked(s *Stream) *protocol.Error {
	switch {
	case c.failure != nil:
		return &protocol.Error{Kind: protocol.Unavailable, Err: c.failure.Err}
	case c.writeErr != nil:
		return &protocol.Error{Kind: protocol.Unavailable, Err: c.writeErr}
	case c.closing:
		return &protocol.Error{Kind: protocol.Unavailable, Err: errors.New("fcgi: connection is closing")}
	case c.open == c.capacity+c.ahead:
		return &protocol.Error{Kind: protocol.Overloaded, Err: fmt.Errorf("fcgi: all of %d request ids are in use", c.open)}
	}
	if n := len(c.free); n > 0 {
		s.id, c.free, s.again = c.free[n-1], c.free[:n-1], true
		c.streams[s.id-1] = s
	} else {
		c.streams = append(c.streams, s)
		s.id = uint16(len(c.streams))
	}
	c.open++
	s.window, s.credited = c.window, c.window
	s.flow, s.credit = c.flow, c.peerWindow
	return nil
}

// lookupLocked returns the open request with an id, or nil.
func (c *Conn) lookupLocked(id uint16) *Stream {
	if id == 0 || int(id) > len(c.streams) {
		return nil
	}
	return c.streams[id-1]
}

// removeLocked frees the id of s and stops its body. It returns false when
// somebody else did before: who gets true calls ended.
func (c *Conn) removeLocked(s *Stream) bool {
	if c.lookupLocked(s.id) != s {
		return false
	}
	c.streams[s.id-1] = nil
	c.free = append(c.free, s.id)
	c.open--
	c.endStdinLocked(s)
	if c.closing && c.open == 0 && c.failure == nil {
		c.w.finishWritingLocked()
	}
	return true
}

// memoryLimit is how long a body may be that is sent with its request.
func (c *Conn) memoryLimit() int {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.flow {
		return min(chunkSize, c.peerWindow)
	}
	return chunkSize
}

// endStdinLocked has nothing more sent of the input of s, and wakes whoever was
// about to. The caller holds w.mu.
func (c *Conn) endStdinLocked(s *Stream) {
	s.stdinEnded = true
	s.granted.Broadcast()
	if len(c.w.pending) >= maxPending {
		c.w.room.Broadcast()
	}
}

// sendStdin implements sender.
func (c *Conn) sendStdin(s *Stream, content []byte, last bool) (sent int, ok bool) {
	for {
		c.w.mu.Lock()
		for !s.stdinEnded && len(content) > 0 {
			if s.flow && s.credit <= 0 {
				s.granted.Wait()
			} else if len(c.w.pending) >= maxPending {
				c.w.room.Wait()
			} else {
				break
			}
		}
		if s.stdinEnded {
			c.w.mu.Unlock()
			return sent, false
		}
		n := len(content)
		if s.flow {
			n = min(n, s.credit)
			s.credit -= n
		}
		c.w.pending = appendStream(c.w.pending, typeStdin, s.id, content[:n])
		if s.socket {
			s.messages.advance(content[:n])
		}
		sent, content = sent+n, content[n:]
		if last && len(content) == 0 {
			c.w.pending = appendHeader(c.w.pending, typeStdin, s.id, 0)
			s.stdinDone = true
		}
		c.w.mu.Unlock()
		c.w.flush()
		if len(content) == 0 {
			return sent, true
		}
	}
}

// sendClose implements sender.
func (c *Conn) sendClose(s *Stream, message []byte) {
	c.w.mu.Lock()
	if s.stdinEnded || !s.messages.between() {
		c.w.mu.Unlock()
		return
	}
	c.w.pending = appendStream(c.w.pending, typeStdin, s.id, message)
	s.credit -= len(message)
	c.endStdinLocked(s)
	c.w.mu.Unlock()
	c.w.flush()
}

// awaitDemand implements sender.
func (c *Conn) awaitDemand(s *Stream) bool {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for !s.stdinEnded && !s.demanded {
		s.granted.Wait()
	}
	return !s.stdinEnded
}

// grant implements sender.
func (c *Conn) grant(s *Stream, n int) {
	c.w.mu.Lock()
	if c.lookupLocked(s.id) != s {
		c.w.mu.Unlock()
		return
	}
	c.w.pending = appendCredit(c.w.pending, s.id, n)
	c.w.mu.Unlock()
	c.w.flush()
}

// abort implements sender.
func (c *Conn) abort(s *Stream) {
	c.w.mu.Lock()
	c.endStdinLocked(s)
	switch {
	case c.lookupLocked(s.id) != s:
		c.w.mu.Unlock()
	case s.flow:
		c.w.pending = appendHeader(c.w.pending, typeAbortRequest, s.id, 0)
		c.w.mu.Unlock()
		c.w.flush()
	default:
		c.w.mu.Unlock()
		c.teardown(protocol.Died, errors.New("fcgi: request aborted"))
	}
}

// CloseWrite lets the application finish: there are no new requests, and when
// none is open any more the sending side is shut down (before that, answers
// still need credit). A worker then exits, which closes Done.
func (c *Conn) CloseWrite() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.failure != nil {
		return c.failure.Err
	}
	c.closing = true
	c.refuseLocked()
	if c.open == 0 {
		c.w.finishWritingLocked()
	}
	return nil
}

// Close closes the connection at once. Open requests fail as Died.
func (c *Conn) Close() error {
	c.teardown(protocol.Died, fmt.Errorf("fcgi: %w", net.ErrClosed))
	return nil
}

// writeFailed is told by the writer that the socket takes nothing any more.
// A peer that has hung up may have said something before: what it has sent
// counts, so the connection dies when that has been read.
func (c *Conn) writeFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.teardown(protocol.TimedOut, fmt.Errorf("fcgi: application reads nothing: %w", err))
		return
	}
	err = fmt.Errorf("fcgi: write: %w", err)
	var unsent []*Stream
	c.w.mu.Lock()
	c.writeErr = err
	c.refuseLocked()
	for _, s := range c.streams {
		if s == nil {
			continue
		}
		c.endStdinLocked(s)
		if s.start >= c.w.sent && c.removeLocked(s) {
			unsent = append(unsent, s)
		}
	}
	c.w.room.Broadcast()
	last, flow := c.open == 0, c.flow
	c.w.mu.Unlock()
	for _, s := range unsent {
		s.fail(&protocol.Error{Kind: protocol.Died, Unseen: true, Err: err})
	}
	if last {
		c.teardown(protocol.Died, err)
	} else if flow {
		// The read loop waits for no reader here, so this is about the peer alone.
		_ = c.nc.SetReadDeadline(time.Now().Add(c.w.timeout))
	}
	callEnded(unsent)
}

// teardown closes the connection and ends all requests with one error. Only
// the first call does anything.
func (c *Conn) teardown(kind protocol.Kind, err error) {
	var open []*Stream
	c.w.mu.Lock()
	if c.failure != nil {
		c.w.mu.Unlock()
		return
	}
	c.failure = &protocol.Error{Kind: kind, Err: err}
	c.refuseLocked()
	for _, s := range c.streams {
		if s != nil && c.removeLocked(s) {
			open = append(open, s)
		}
	}
	sent, started := c.w.sent, len(open)
	byPeer := errors.As(err, &hungUp{})
	if c.ahead > 0 && byPeer {
		// A worker starts its requests in the order in which they came, and
		// one that has hung up starts no more.
		started = c.capacity
	}
	c.w.pending = nil
	c.w.mu.Unlock()
	_ = c.nc.Close()
	slices.SortFunc(open, func(a, b *Stream) int { return cmp.Compare(a.start, b.start) })
	for i, s := range open {
		// An application that ends, or ends its connection, behind an answer has
		// most often not seen what was sent to it meanwhile.
		behind := i >= started || byPeer && !s.flow && s.again && s.unanswered()
		s.fail(&protocol.Error{Kind: kind, Unseen: s.start >= sent || i >= started && !s.held, Behind: behind, Err: err})
	}
	close(c.done)
	callEnded(open)
}

// mayBeHeld reports whether a worker may have begun a request with this method while
// it held back the ends of others before (PROTOCOL.md, section 6).
func mayBeHeld(method string) bool {
	return method == "GET" || method == "HEAD" || method == "" // not known
}

func callEnded(streams []*Stream) {
	for _, s := range streams {
		if s.ended != nil {
			s.ended(0)
		}
	}
}
