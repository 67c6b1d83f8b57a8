// Package certificate holds the certificates of sites: it reads them from
// files, again when those change, and says when they expire.
package certificate

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Pair names the files of a certificate, with those that lead to its root, and
// of its private key. Both are in PEM and may be the same file.
type Pair struct{ Certificate, Key string }

// Options are what a Set is made of.
type Options struct {
	// Pairs is at least one.
	Pairs []Pair
	// ClientCA is a file of certificates in PEM that clients' certificates
	// have to be issued by; "" asks clients for none.
	ClientCA string
	// ClientOptional serves clients without a certificate too.
	ClientOptional bool
	// MinVersion is the oldest version of TLS, as in crypto/tls.
	MinVersion uint16
	// NextProtos are what is offered by ALPN (RFC 7301), the best first.
	NextProtos []string
}

// Set is the certificates and all else that a TLS handshake for a site needs.
// It may be used while it is loaded again.
type Set struct {
	opts    Options
	current atomic.Pointer[loaded]
}

// loaded is what a Set's files have said.
type loaded struct {
	config  *tls.Config
	digest  [sha256.Size]byte // of all files
	clients string
	leaves  []*x509.Certificate // by the order of Options.Pairs
}

// Load reads the files of a set. The error names the file and what is wrong
// with it.
func Load(o Options) (*Set, error) {
	s := &Set{opts: o}
	l, err := s.read()
	if err != nil {
		return nil, err
	}
	s.current.Store(l)
	return s, nil
}

// Config is for the next handshake; it must not be changed.
func (s *Set) Config() *tls.Config { return s.current.Load().config }

// Clients identifies who may connect: two sets with the same value ask for the
// same client certificates. "" asks for none.
func (s *Set) Clients() string { return s.current.Load().clients }

// Reload reads the files again, and reports whether they say something new. An
// error leaves in use what there was.
func (s *Set) Reload() (changed bool, err error) {
	l, err := s.read()
	if err != nil || l.digest == s.current.Load().digest {
		return false, err
	}
	s.current.Store(l)
	return true, nil
}

// Files are the paths of all files that the set is read from.
func (s *Set) Files() []string {
	var files []string
	for _, p := range s.opts.Pairs {
		files = append(files, p.Certificate, p.Key)
	}
	if s.opts.ClientCA != "" {
		files = append(files, s.opts.ClientCA)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Expiry is the time in which a certificate of a set is valid.
type Expiry struct {
	File     string
	From, At time.Time
}

// Expires lists the certificates, in the order in which they were configured.
func (s *Set) Expires() []Expiry {
	out := make([]Expiry, len(s.opts.Pairs))
	for i, leaf := range s.current.Load().leaves {
		out[i] = Expiry{s.opts.Pairs[i].Certificate, leaf.NotBefore, leaf.NotAfter}
	}
	return out
}

type due int

const (
	later due = iota
	soon
	expired
)

// due tells whether a certificate should have been renewed by now. Certbot and
// its like renew when a third of the time is left; a sixth is late for them, and
// a month is time enough for people.
func (e Expiry) due(now time.Time) due {
	switch left := e.At.Sub(now); {
	case left <= 0:
		return expired
	case left < min(e.At.Sub(e.From)/6, 30*24*time.Hour):
		return soon
	}
	return later
}

func (s *Set) read() (*loaded, error) {
	sum := sha256.New()
	l := &loaded{config: &tls.Config{MinVersion: s.opts.MinVersion, NextProtos: s.opts.NextProtos, CipherSuites: suites}}
	for _, p := range s.opts.Pairs {
		cert, err := os.ReadFile(p.Certificate)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		key, err := os.ReadFile(p.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate: key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("certificate: %s with the key %s: %s", p.Certificate, p.Key, strings.TrimPrefix(err.Error(), "tls: "))
		}
		fmt.Fprintf(sum, "%d %d\n%s%s", len(cert), len(key), cert, key)
		l.leaves = append(l.leaves, pair.Leaf)
		l.config.Certificates = append(l.config.Certificates, pair)
	}
	// A client gets the first one that it can use: elliptic curves cost the
	// gateway a fraction of what RSA does.
	slices.SortStableFunc(l.config.Certificates, func(a, b tls.Certificate) int { return cost(a) - cost(b) })
	if s.opts.ClientCA != "" {
		if err := s.readClientCA(l); err != nil {
			return nil, err
		}
		sum.Write([]byte(l.clients))
	}
	bindTickets(l.config, l.clients)
	sum.Sum(l.digest[:0])
	return l, nil
}

// suites are those of TLS 1.2 with forward secrecy and authenticated encryption,
// which is what RFC 9325, section 4.2, recommends; TLS 1.3 has no others.
var suites = func() (ids []uint16) {
	for _, s := range tls.CipherSuites() {
		if strings.HasPrefix(s.Name, "TLS_ECDHE_") && (strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_CHACHA20_")) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}()

func cost(c tls.Certificate) int {
	switch c.PrivateKey.(type) {
	case *ecdsa.PrivateKey, ed25519.PrivateKey:
		return 0
	}
	return 1
}

func (s *Set) readClientCA(l *loaded) error {
	data, err := os.ReadFile(s.opts.ClientCA)
	if err != nil {
		return fmt.Errorf("certificate: authorities for clients: %w", err)
	}
	l.config.ClientCAs = x509.NewCertPool()
	if !l.config.ClientCAs.AppendCertsFromPEM(data) {
		return fmt.Errorf("certificate: authorities for clients: %s: %w", s.opts.ClientCA, errors.New("no certificate in PEM"))
	}
	l.config.ClientAuth = tls.RequireAndVerifyClientCert
	if s.opts.ClientOptional {
		l.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	digest := sha256.Sum256(data)
	l.clients = fmt.Sprintf("%d %s", l.config.ClientAuth, hex.EncodeToString(digest[:]))
	return nil
}

// tickets has the keys of all session tickets. crypto/tls makes a new one each
// day and forgets each after a week.
var tickets = &tls.Config{}

// bindTickets makes sessions resumable only where the same client certificates
// are asked for: the check of a certificate is not repeated for a resumed session,
// so one that was good enough for a site must not open another one, nor outlive
// the authorities that vouched for it.
func bindTickets(c *tls.Config, clients string) {
	mark := "gatecrew clients " + clients
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(mark))
		return tickets.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := tickets.DecryptTicket(identity, cs)
		if ss == nil || err != nil || !slices.ContainsFunc(ss.Extra, func(e []byte) bool { return string(e) == mark }) {
			return nil, nil // a full handshake follows
		}
		return ss, nil
	}
}
