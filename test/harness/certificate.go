package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates for a test.
type Authority struct {
	Pool *x509.CertPool // it alone
	File string         // its certificate, in PEM

	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes one with a name of its own.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{t: t, key: key, Pool: x509.NewCertPool(), File: filepath.Join(t.TempDir(), "ca.pem")}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.Pool.AddCert(a.cert)
	if err := os.WriteFile(a.File, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// IssuedCertificate is a certificate and its key.
type IssuedCertificate struct {
	Cert, Key []byte // in PEM
	TLS       tls.Certificate
}

// IssueRSA is Issue with an RSA key.
func (a *Authority) IssueRSA(names ...string) *IssuedCertificate {
	a.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.issue(key, time.Hour, names)
}

// Issue makes a certificate with an ECDSA key for servers and clients, for an
// hour. The first name is its common name.
func (a *Authority) Issue(names ...string) *IssuedCertificate {
	a.t.Helper()
	return a.IssueFor(time.Hour, names...)
}

// IssueFor is Issue for another time than an hour; it began an hour ago.
func (a *Authority) IssueFor(valid time.Duration, names ...string) *IssuedCertificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.issue(key, valid, names)
}

func (a *Authority) issue(key crypto.Signer, valid time.Duration, names []string) *IssuedCertificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(valid), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	i := &IssuedCertificate{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})}
	if i.TLS, err = tls.X509KeyPair(i.Cert, i.Key); err != nil {
		a.t.Fatal(err)
	}
	return i
}

// Write writes NAME.pem and NAME.key into a folder.
func (i *IssuedCertificate) Write(t testing.TB, dir, name string) {
	t.Helper()
	for file, data := range map[string][]byte{name + ".key": i.Key, name + ".pem": i.Cert} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
