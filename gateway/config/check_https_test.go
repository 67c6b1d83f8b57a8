package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair makes a certificate that only a test would take, cert.pem and key.pem.
func writePair(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func loadIn(t *testing.T, dir, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(dir, "gatecrew.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

func TestFaultsOfTLS(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir)
	other := t.TempDir()
	writePair(t, other)
	if err := os.Mkdir(filepath.Join(dir, "pub"), 0o755); err != nil {
		t.Fatal(err)
	}
	const routes = "    routes: [{path: /, static: {dir: pub}}]\n"
	for text, want := range map[string]string{
		"listen: ['https://:1']\nsites:\n  -" + routes[3:]:                                          "1:10: listen[0]: no site has a certificate for it",
		"listen: ['https://unix:/x']\nsites:\n  -" + routes[3:]:                                     `"https://unix:/x" is not an address (write https://HOST:PORT, https+unix:PATH or https+fd://N)`,
		"sites:\n  - tls: {certificate: none.pem}\n" + routes:                                       "2:24: sites[0].tls.certificate: there is no file " + dir + "/none.pem",
		"sites:\n  - tls: {certificate: cert.pem}\n" + routes:                                       "can't be used: found a certificate rather than a key",
		"sites:\n  - tls: {certificate: cert.pem, key: " + other + "/key.pem}\n" + routes:           "2:5: sites[0].tls: " + dir + "/cert.pem and " + other + "/key.pem can't be used: private key does not match public key",
		"sites:\n  - tls: {certificate: cert.pem, key: key.pem, more: [{key: key.pem}]}\n" + routes: "sites[0].tls.more[0]: the certificate is missing",
		"sites:\n  - tls: {certificate: cert.pem, key: key.pem, client_auth: optional}\n" + routes:  "client_auth: it needs client_ca",
		"sites:\n  - tls: {certificate: cert.pem, key: key.pem, client_ca: key.pem}\n" + routes:     "key.pem has no certificate in PEM",
		"sites:\n  - tls: {certificate: cert.pem, key: key.pem, min_version: 1.1}\n" + routes:       `min_version: "1.1" is not known (write 1.2, 1.3)`,
		"sites:\n  - hsts: {}\n" + routes:                                                           "2:5: sites[0].hsts: max_age is missing",
		"sites:\n  - hsts: {max_age: 1h, include_subdomains: true, preload: true}\n" + routes:       "preload: browsers want include_subdomains and a max_age of a year",
		"sites:\n  - redirect_to_https: true\n" + routes:                                            "the site has no hosts",
		"sites:\n  - hosts: [a]\n    redirect_to_https: true\n" + routes:                            "no address in listen speaks TLS",
		"http2: {max_concurrent_streams: 0}\nsites:\n  -" + routes[3:]:                              "the value must be more than 0",
	} {
		cfg, err := loadIn(t, dir, text)
		var faults Faults
		if !errors.As(err, &faults) || cfg != nil || len(faults) != 1 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}

// TestTLSIsPrintedAsItIsRead: what check --print writes is the same configuration.
func TestTLSIsPrintedAsItIsRead(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "pub"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadIn(t, dir, `
listen: ["https://:8443", "https+unix:x.sock", "https+fd://3", "http://127.0.0.1:80", "[::1]:81"]
sites:
  - hosts: [a.example]
    tls: {certificate: cert.pem, key: key.pem, client_ca: cert.pem, more: [{certificate: cert.pem, key: key.pem}]}
    hsts: {max_age: 8760h, include_subdomains: true}
    redirect_to_https: true
    routes: [{path: /, static: {dir: pub}}]
  - tls: {certificate: cert.pem, key: key.pem, min_version: 1.3}
    routes: [{path: /, static: {dir: pub}}]
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"https://:8443", "https+unix:" + dir + "/x.sock", "https+fd://3", "127.0.0.1:80", "[::1]:81"} {
		if got := cfg.Listen[i].String(); got != want || (cfg.Listen[i].Scheme == "https") != strings.HasPrefix(want, "https") {
			t.Errorf("listen[%d] is %q, %s", i, got, cfg.Listen[i].Scheme)
		}
	}
	if got := cfg.Sites[0].TLS; got.ClientAuth != "require" || got.MinVersion != "1.2" || got.Key != dir+"/key.pem" || got.More[0].Certificate != dir+"/cert.pem" {
		t.Errorf("%+v", got)
	}
	first, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadIn(t, dir, string(first))
	if err != nil {
		t.Fatalf("%v in\n%s", err, first)
	}
	second, _ := again.YAML()
	if strings.ReplaceAll(string(first), " # default", "") != strings.ReplaceAll(string(second), " # default", "") {
		t.Errorf("first\n%s\nthen\n%s", first, second)
	}
}
