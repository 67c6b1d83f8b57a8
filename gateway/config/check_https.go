package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// scheme completes and checks what an address speaks.
func (c *checker) scheme(at string, e *Endpoint) {
	if e.Scheme == "" {
		e.Scheme = "http"
	}
	if e.Scheme == "https" && !slices.ContainsFunc(c.cfg.Sites, func(s *Site) bool { return s != nil && s.TLS != nil }) {
		c.fault(at, "no site has a certificate for it", "write tls: {certificate: FILE, key: FILE} in a site")
	}
}

func (c *checker) secure() bool {
	return slices.ContainsFunc(c.cfg.Listen, func(e Endpoint) bool { return e.Scheme == "https" })
}

// https checks and completes what a site says about TLS.
func (c *checker) https(at string, s *Site) {
	if s.TLS != nil {
		c.tls(at+".tls", s.TLS)
	}
	if s.HSTS != nil {
		c.hsts(at+".hsts", s.HSTS)
	}
	if s.HTTPSPort > 65535 {
		c.fault(at+".https_port", "a port is a number from 1 to 65535", "")
	}
	switch {
	case !s.RedirectToHTTPS:
	case len(s.Hosts) == 0:
		// The Host field of whoever asks must not choose where others are sent.
		c.fault(at+".redirect_to_https", "the site has no hosts, so there is no name to redirect to", "write hosts: with its names")
	case !c.secure():
		c.fault(at+".redirect_to_https", "no address in listen speaks TLS", "write one as in https://:443; behind a proxy that speaks TLS, let the proxy redirect")
	}
}

func (c *checker) hsts(at string, h *HSTS) {
	if !c.written(at + ".max_age") {
		c.fault(at, "max_age is missing", "write how long browsers shall remember, as in max_age: 8760h")
	}
	if h.Preload && (!h.IncludeSubdomains || h.MaxAge < 365*24*time.Hour) {
		c.fault(at+".preload", "browsers want include_subdomains and a max_age of a year with it", "write include_subdomains: true and max_age: 8760h")
	}
}

func (c *checker) tls(at string, t *TLS) {
	c.certificate(at, &t.Certificate)
	for i := range t.More {
		c.certificate(fmt.Sprintf("%s.more[%d]", at, i), &t.More[i])
	}
	c.oneOf(at+".min_version", t.MinVersion, "1.2", "1.3")
	c.oneOf(at+".client_auth", t.ClientAuth, "require", "optional")
	if t.ClientCA == "" {
		if c.written(at + ".client_auth") {
			c.fault(at+".client_auth", "it needs client_ca", "write client_ca: with the certificates that clients' are issued by")
		}
		t.ClientAuth = ""
		return
	}
	t.ClientCA = c.abs(t.ClientCA)
	if data, ok := c.pem(at+".client_ca", t.ClientCA); ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		c.fault(at+".client_ca", t.ClientCA+" has no certificate in PEM", "")
	}
}

// certificate checks that a pair can be used, as far as it can be told without
// a client.
func (c *checker) certificate(at string, p *Certificate) {
	if p.Certificate == "" {
		c.fault(at, "the certificate is missing", "write certificate: with a file in PEM")
		return
	}
	p.Certificate = c.abs(p.Certificate)
	if p.Key == "" {
		p.Key = p.Certificate
	}
	p.Key = c.abs(p.Key)
	cert, ok := c.pem(at+".certificate", p.Certificate)
	if !ok {
		return
	}
	key := cert
	if p.Key != p.Certificate {
		if key, ok = c.pem(at+".key", p.Key); !ok {
			return
		}
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		hint := ""
		if strings.Contains(string(key), "ENCRYPTED") {
			hint = "the key has a passphrase; write it without one, as openssl pkey does"
		}
		c.fault(at, fmt.Sprintf("%s and %s can't be used: %s", p.Certificate, p.Key, strings.TrimPrefix(err.Error(), "tls: ")), hint)
	}
}

func (c *checker) pem(at, file string) ([]byte, bool) {
	data, err := os.ReadFile(file)
	switch {
	case os.IsNotExist(err):
		c.fault(at, "there is no file "+file, c.relativeHint(file))
	case err != nil:
		c.fault(at, "the file can't be read: "+err.Error(), "")
	}
	return data, err == nil
}
