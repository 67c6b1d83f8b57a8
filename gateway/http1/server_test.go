package http1

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
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
}

type serversConfig struct {
	network, addr       string                                        // a TCP port when they are ""
	handler             http.Handler                                  // answers all
	answer              func(c *Conn, p *cgi.Plain, body []byte) bool // before it; false leaves it to handler
	headerTimeout, idle time.Duration
	places              int
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
	a.conn.Respond(body, a.config.handler.ServeHTTP)
}

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
			if state == http.StateNew {
				s.plain.Arrived(nc)
			}
		}}
	s.plain = NewServer(Config{Handler: func(conn *Conn) Handler { return &answerer{conn, &c} }, State: s.conns.State, HandedOn: s.conns.HandOn,
		Log: c.log, HeaderTimeout: c.headerTimeout, IdleTimeout: c.idle, HeaderFields: 100, HeaderBytes: 16 << 10})
	go func() { s.done <- s.http.Serve(s.plain.Listener(s.l)) }()
	go func() { s.done <- s.plain.Serve(s.l) }()
	t.Cleanup(s.close)
	return s
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
	s.l.Close()
	s.plain.Close()
	s.http.Close()
	<-s.done
	<-s.done
	s.conns.Close()
}
