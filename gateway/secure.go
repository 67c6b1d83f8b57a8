package gateway

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"gatecrew/gateway/certificate"
	"gatecrew/gateway/config"
	"gatecrew/gateway/site"
)

// secure gives a site what its configuration says about TLS.
func secure(made *site.Site, c *config.Site) error {
	made.RedirectToHTTPS, made.HTTPSPort = c.RedirectToHTTPS, c.HTTPSPort
	if c.HSTS != nil {
		made.HSTS = "max-age=" + strconv.FormatInt(int64(c.HSTS.MaxAge/time.Second), 10)
		if c.HSTS.IncludeSubdomains {
			made.HSTS += "; includeSubDomains"
		}
		if c.HSTS.Preload {
			made.HSTS += "; preload"
		}
	}
	if c.TLS == nil {
		return nil
	}
	o := certificate.Options{ClientCA: c.TLS.ClientCA, ClientOptional: c.TLS.ClientAuth == "optional",
		MinVersion: tls.VersionTLS12, NextProtos: nextProtos}
	if c.TLS.MinVersion == "1.3" {
		o.MinVersion = tls.VersionTLS13
	}
	for _, p := range append([]config.Certificate{c.TLS.Certificate}, c.TLS.More...) {
		o.Pairs = append(o.Pairs, certificate.Pair{Certificate: p.Certificate, Key: p.Key})
	}
	var err error
	made.TLS, err = certificate.Load(o)
	return err
}

// nextProtos are offered by ALPN (RFC 7301), the best first.
var nextProtos = []string{"h2", "http/1.1"}

// keepCertificates keeps those of all sites up to date.
func (g *Gateway) keepCertificates() *certificate.Keeper {
	var sets []*certificate.Set
	for _, s := range g.table.Sites() {
		if s.TLS != nil {
			sets = append(sets, s.TLS)
		}
	}
	return certificate.Keep(sets, g.log)
}

// newServer makes the HTTP server of all listeners.
func (g *Gateway) newServer() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(g.cfg.H2C)
	return &http.Server{
		Handler:           g.handler,
		ReadHeaderTimeout: g.cfg.Limits.HeaderTimeout, // of a TLS handshake, too
		IdleTimeout:       g.cfg.Limits.IdleTimeout,
		MaxHeaderBytes:    int(g.cfg.Limits.HeaderBytes),
		ErrorLog:          newServerLog(g.log),
		Protocols:         &protocols,
		// The frame size is what a client may send before it has seen ours (RFC
		// 9113, section 6.5.2); a larger one only holds up the other streams.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: g.cfg.HTTP2.MaxConcurrentStreams, MaxReadFrameSize: 16 << 10},
		// Without its NextProtos net/http would have no HTTP/2 at all when a
		// listener without TLS happens to be served first.
		TLSConfig: &tls.Config{NextProtos: nextProtos, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return g.table.Certificates(hello.ServerName).Config(), nil
		}},
	}
}

// setHTTPSPort tells the sites which port to redirect to.
func (g *Gateway) setHTTPSPort(listeners []*listener) {
	var ports []int
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok && l.secure {
			ports = append(ports, a.Port)
		}
	}
	if len(ports) == 0 || slices.Contains(ports, 443) {
		ports = []int{443} // a socket that has no port is behind one that has
	}
	for _, s := range g.table.Sites() {
		if s.HTTPSPort == 0 {
			s.HTTPSPort = ports[0]
		}
	}
}
