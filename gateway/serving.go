package gateway

import (
	"cmp"
	"context"
	"net"
	"net/http"

	"gatecrew/gateway/http1"
	"gatecrew/gateway/listen"
)

// servers are those of all listeners: net/http's and, where plain requests have a
// reader of their own, that.
type servers struct {
	secure *http.Server  // what comes with TLS
	http   *http.Server  // what comes without
	plain  *http1.Server // before it; nil when net/http reads everything
	conns  *listen.Conns
}

// newServers makes the servers of the listeners, whose places are bounded from then on.
func (g *Gateway) newServers(listeners []*listener) *servers {
	l := &g.cfg.Limits
	s := &servers{secure: g.newServer(), http: g.newServer(), conns: listen.NewConns(l.MaxConnections, l.WriteTimeout)}
	for _, l := range listeners {
		l.Listener = s.conns.Listener(l.Listener)
	}
	s.secure.ConnState, s.http.ConnState = s.conns.State, s.conns.State
	if g.cfg.HTTP1 == "fast" {
		s.plain = http1.NewServer(http1.Config{Handler: g.handler.Quick, State: s.conns.State, HandedOn: s.conns.HandOn, Log: g.log,
			HeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout, HeaderFields: l.HeaderFields, HeaderBytes: int(l.HeaderBytes)})
		s.http.ConnState = s.state
	}
	return s
}

// state is told of net/http's connections when there is a reader of plain requests,
// too.
func (s *servers) state(nc net.Conn, state http.ConnState) {
	s.conns.State(nc, state)
	if state == http.StateNew {
		s.plain.Arrived(nc)
	}
}

// listener is a socket on which clients connect.
type listener struct {
	net.Listener
	secure bool // they speak TLS
}

// serve hands the connections of l to the servers until they are shut down. The
// error is http.ErrServerClosed then.
func (s *servers) serve(l *listener) error {
	switch {
	case l.secure:
		return s.secure.ServeTLS(l, "", "")
	case s.plain == nil:
		return s.http.Serve(l)
	}
	failed := make(chan error, 2)
	go func() { failed <- s.http.Serve(s.plain.Listener(l)) }()
	go func() { failed <- s.plain.Serve(l) }()
	err := <-failed
	if err == http.ErrServerClosed { // both are being shut down
		err = <-failed
	}
	return err
}

// shutdown ends the serving after the requests in progress. Its error is ctx's, if
// that ends first.
func (s *servers) shutdown(ctx context.Context, listeners []*listener) error {
	s.conns.Stop()
	secure := make(chan error, 1)
	go func() { secure <- s.secure.Shutdown(ctx) }()
	err := s.shutdownPlain(ctx, listeners)
	return cmp.Or(<-secure, err)
}

// shutdownPlain does it for what comes without TLS. The plain requests come first: what
// turns out to be another one goes on to net/http meanwhile.
func (s *servers) shutdownPlain(ctx context.Context, listeners []*listener) error {
	s.http.SetKeepAlivesEnabled(false)
	if s.plain != nil {
		s.plain.Stop()
		for _, l := range listeners {
			if !l.secure {
				l.Close()
			}
		}
		if err := s.plain.Shutdown(ctx); err != nil {
			return err
		}
	}
	return s.http.Shutdown(ctx)
}

// close ends all at once.
func (s *servers) close() {
	if s.plain != nil {
		s.plain.Close()
	}
	s.http.Close()
	s.secure.Close()
}
