package http1

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"gatecrew/gateway/listen"
	"gatecrew/protocol/cgi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// servers are both servers of one listener, put together as the gateway does it.
type servers struct {
	addr  net.Addr
	plain *Server
	http  *http.Server
	conns *listen.Conns
	l     net.Listener
	done  chan error // what both Serve calls returned
	once  sync.Once

	handedOn atomic.Int64
}

type serversConfig struct {
	network, addr       string                                        // a TCP port when they are ""
	handler             http.Handler                                  // answers all
	answer              func(c *Conn, p *cgi.Plain, body []byte) bool // before it; false leaves it to handler
	headerTimeout, idle time.Duration
	places              int
	releasing           bool // a connection that was taken over gives its place back at once
	log                 *zap.Logger
}

type answerer struct {
	conn   *Conn
	config *serversConfig
}

func (a *answerer) Answer(p *cgi.Plain, body []byte) bool {
	if a.config.answer == nil {
		a.conn.Respond(body, a.config.handler.ServeHTTP)
		return true
	}
	return a.config.answer(a.conn, p, body)
}

func (a *answerer) Resume(_ *cgi.Plain, body []byte) {
	if unsent, ok := unsentOf.LoadAndDelete(a.conn); ok {
		_, _ = a.conn.Write(unsent.([]byte))
		return
	}
	a.conn.Respond(body, a.config.handler.ServeHTTP)
}

// unsentOf has what Resume is to send on connections, in place of what the handler says.
var unsentOf sync.Map

func startServers(t testing.TB, c serversConfig) *servers {
	t.Helper()
	if c.network == "" {
		c.network, c.addr = "tcp", "127.0.0.1:0"
	}
	if c.headerTimeout == 0 {
		c.headerTimeout = time.Minute
	}
	if c.idle == 0 {
		c.idle = time.Minute
	}
	if c.places == 0 {
		c.places = 1000
	}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	raw, err := net.Listen(c.network, c.addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &servers{addr: raw.Addr(), conns: listen.NewConns(c.places, time.Minute), done: make(chan error, 2)}
	s.l = s.conns.Listener(raw)
	s.http = &http.Server{Handler: c.handler, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: c.headerTimeout, IdleTimeout: c.idle,
		ConnState: func(nc net.Conn, state http.ConnState) {
			s.conns.State(nc, state)
			switch {
			case state == http.StateNew:
				s.plain.Arrived(nc)
			case state == http.StateHijacked && c.releasing:
				s.conns.Release(nc) // in place of whoever has taken it over
			}
		}}
	s.plain = NewServer(Config{Handler: func(conn *Conn) Handler { return &answerer{conn, &c} }, State: s.conns.State, HandedOn: func(nc net.Conn) {
		s.handedOn.Add(1)
		s.conns.HandOn(nc)
	},
		Log: c.log, HeaderTimeout: c.headerTimeout, IdleTimeout: c.idle, HeaderFields: 100, HeaderBytes: 16 << 10})
	go func() { s.done <- s.http.Serve(s.plain.Listener(s.l)) }()
	go func() { s.done <- s.plain.Serve(s.l) }()
	t.Cleanup(s.close)
	return s
}

// accepted reports whether there is one connection.
func (s *servers) accepted() bool {
	s.plain.mu.Lock()
	defer s.plain.mu.Unlock()
	return len(s.plain.conns) == 1
}

// shutdown is the gateway's.
func (s *servers) shutdown(ctx context.Context) error {
	s.conns.Stop()
	s.http.SetKeepAlivesEnabled(false)
	s.plain.Stop()
	s.l.Close()
	if err := s.plain.Shutdown(ctx); err != nil {
		return err
	}
	return s.http.Shutdown(ctx)
}

func (s *servers) close() {
	s.once.Do(func() {
		s.l.Close()
		s.plain.Close()
		s.http.Close()
		<-s.done
		<-s.done
		s.conns.Close()
	})
}
