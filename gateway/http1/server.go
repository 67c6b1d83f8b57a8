// Package http1 reads requests of HTTP/1.1 from connections without TLS faster
// than net/http does. It knows plain requests only, see cgi.Plain: at the first
// one that is not, the connection goes on to net/http with all that was read of it,
// and stays there. So net/http remains the reference, and what is accepted here
// is held to it by a differential fuzz test.
//
// A connection has one goroutine, which reads a request, has it answered, and
// reads the next. Nobody watches the client meanwhile until somebody asks
// for it, with Conn.Context: an answer that comes at once needs no watching.
package http1

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Config is what a Server needs; every field is required.
type Config struct {
	// Handler makes the handler of a connection.
	Handler func(*Conn) Handler
	// State is told of a connection's life as http.Server.ConnState is, but of
	// StateActive only once.
	State func(net.Conn, http.ConnState)
	// HandedOn is told of a connection that goes on to net/http.
	HandedOn func(net.Conn)
	// Log gets what went wrong in a handler.
	Log *zap.Logger
	// HeaderTimeout bounds the time from the first byte of a head to its last,
	// that of a connection's first head from its beginning; IdleTimeout is the
	// longest time between two requests. They are looked at a few times a
	// second.
	HeaderTimeout, IdleTimeout time.Duration
	// HeaderFields is how many fields a plain head has at most, HeaderBytes
	// how many bytes. Others are for net/http to judge.
	HeaderFields, HeaderBytes int
}

// Server serves connections until Shutdown. Those that are not for it come out
// of Listener.
type Server struct {
	Config
	handedOn chan net.Conn
	awake    chan struct{} // there is a connection again
	refusing chan struct{} // closed when nothing can be handed on any more
	stopping atomic.Bool
	clock    atomic.Int64 // time since start, as of the last tick
	tick     time.Duration

	mu        sync.Mutex
	closed    bool
	accepting int // Serve calls
	conns     map[*Conn]struct{}
	empty     chan struct{} // closed when neither of them is left; nil until somebody waits
}

// NewServer makes a server. It serves nothing before Serve.
func NewServer(c Config) *Server {
	c.HeaderBytes = min(c.HeaderBytes, maxHead)
	s := &Server{Config: c, handedOn: make(chan net.Conn), awake: make(chan struct{}, 1), refusing: make(chan struct{}), conns: map[*Conn]struct{}{},
		tick: min(max(min(c.HeaderTimeout, c.IdleTimeout)/8, 10*time.Millisecond), maxTick)}
	s.clock.Store(int64(time.Since(start)))
	go s.watchTime()
	return s
}

// Serve accepts connections from l until that fails. After Shutdown or Close its
// error is http.ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	s.accepting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.accepting--
		s.lookIfEmpty()
	}()
	var delay time.Duration
	for {
		nc, err := l.Accept()
		var passing interface{ Temporary() bool } // as net/http has it: out of descriptors
		switch {
		case err == nil:
			delay = 0
			s.begin(nc)
			continue
		case s.stopping.Load():
			return http.ErrServerClosed
		case !errors.As(err, &passing) || !passing.Temporary():
			return err
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.Log.Warn("no connection can be accepted", zap.Error(err), zap.Duration("next_try", delay))
		time.Sleep(delay)
	}
}

// begin serves one connection.
func (s *Server) begin(nc net.Conn) {
	s.mu.Lock()
	if len(s.conns) == 0 { // the clock may have slept
		s.clock.Store(int64(time.Since(start)))
		select {
		case s.awake <- struct{}{}:
		default:
		}
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	if s.closed {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.State(nc, http.StateNew)
	go c.serve()
}

func (s *Server) ended(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.lookIfEmpty()
}

// lookIfEmpty wakes Shutdown if nothing is left. The caller holds mu.
func (s *Server) lookIfEmpty() {
	if len(s.conns) == 0 && s.accepting == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Listener has the connections that go on to net/http. Its Accept ends with
// Close; the address is l's.
func (s *Server) Listener(l net.Listener) net.Listener {
	return &listener{Listener: l, server: s, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	server *Server
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.server.handedOn:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) { // it was closed first to stop
		return err
	}
	return nil
}

// handOn gives a connection to net/http, with what was read of it. It returns when
// that server knows of the connection, so that no Shutdown overlooks it.
func (s *Server) handOn(nc net.Conn, read []byte) {
	s.HandedOn(nc)
	nc, taken := withBegun(nc, read)
	select {
	case s.handedOn <- nc:
		<-taken
	case <-s.refusing:
		s.State(nc, http.StateNew) // it has its place again, to be given back
		_ = nc.Close()
		s.State(nc, http.StateClosed)
	}
}

// Arrived is to be called with http.StateNew of each connection of the server
// that serves Listener.
func (s *Server) Arrived(nc net.Conn) {
	if b, ok := nc.(interface{ arrived() }); ok {
		b.arrived()
	}
}

// Stop ends the connections: those that are idle at once, the others after the
// request that they are at. The listeners are to be closed after it, by whoever
// opened them.
func (s *Server) Stop() {
	if !s.stopping.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.dismiss()
	}
}

// Shutdown stops, and waits for the end of all connections and of Serve, whose
// listener is closed by now. Its error is ctx's when that ends first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Stop()
	empty := make(chan struct{})
	s.mu.Lock()
	s.empty = empty
	s.lookIfEmpty()
	s.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends all connections at once.
func (s *Server) Close() {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.refusing)
	}
	for c := range s.conns {
		_ = c.nc.Close()
		c.ctx.cancel() // nobody watches any more
	}
}

// maxTick is how far apart the looks at all connections are. It bounds how late
// it is noticed that a client has gone whose request has just begun.
const maxTick = 50 * time.Millisecond

// watchTime closes the connections that are late, and has the clients watched
// that somebody wants to know about. Looking at all of them now and then costs
// less than deadlines and a watcher for each request.
func (s *Server) watchTime() {
	ticker := time.NewTicker(s.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.refusing:
			return
		}
		now := time.Since(start)
		s.clock.Store(int64(now))
		s.mu.Lock()
		for c := range s.conns {
			c.expire(now)
			c.watch.ticked(c.nc, c.ctx.cancel)
		}
		left := len(s.conns)
		s.mu.Unlock()
		if left > 0 {
			continue
		}
		ticker.Stop() // a gateway that nobody uses sleeps
		select {
		case <-s.awake:
			s.clock.Store(int64(time.Since(start)))
			ticker.Reset(s.tick)
		case <-s.refusing:
			return
		}
	}
}

// start is what moments are counted from, so that one is a number.
var start = time.Now()
