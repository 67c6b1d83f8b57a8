package gateway

import (
	"context"
	"net"
	"net/http"

	"gatecrew/gateway/http1"
	"gatecrew/gateway/listen"
)

// servers are those of all listeners: net/http's and, where plain requests have a
// reader of their own, that.
type servers struct {
	http  *http.Server
	plain *http1.Server // nil when net/http reads everything
	conns *listen.Conns
}

func (g *Gateway) newServers() *servers {
	l := &g.cfg.Limits
	s := &servers{http: g.newServer(), conns: listen.NewConns(l.MaxConnections, l.WriteTimeout)}
	s.http.ConnState = s.conns.State
	if g.cfg.HTTP1 == "fast" {
		s.plain = http1.NewServer(http1.Config{Handler: g.handler.Quick, State: s.conns.State, HandedOn: s.conns.HandOn, Log: g.log,
			HeaderTimeout: l.HeaderTimeout, IdleTimeout: l.IdleTimeout, HeaderFields: l.HeaderFields, HeaderBytes: int(l.HeaderBytes)})
	}
	return s
}

// listener is a socket on which clients connect.
type listener struct {
	net.Listener
	secure bool // they speak TLS
}

// serve hands the connections of l to the servers until they are shut down. The
// error is http.ErrServerClosed then.
func (s *servers) serve(l *listener) error {
	bounded := s.conns.Listener(l.Listener)
	switch {
	case l.secure:
		return s.http.ServeTLS(bounded, "", "")
	case s.plain == nil:
		return s.http.Serve(bounded)
	}
	failed := make(chan error, 2)
	go func() { failed <- s.http.Serve(s.plain.Listener(bounded)) }()
	go func() { failed <- s.plain.Serve(bounded) }()
	err := <-failed
	if err == http.ErrServerClosed { // both are being shut down
		err = <-failed
	}
	return err
}

// shutdown ends the serving after the requests in progress. Its error is ctx's, if
// that ends first. The plain requests come first: what turns out to be
// another one goes on to net/http meanwhile.
func (s *servers) shutdown(ctx context.Context, listeners []*listener) error {
	s.conns.Stop()
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
}
