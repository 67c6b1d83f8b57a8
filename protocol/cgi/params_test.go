package cgi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatecrew/protocol"
)

func TestParamsOfPlainRequest(t *testing.T) {
	addr := plainServer(t, Target{
		ScriptName: "/cgi-bin/env", ScriptFilename: "/srv/cgi/env", DocumentRoot: "/srv/www/", Software: "gatecrew/1.2",
	})
	status, got := raw(t, addr, "POST /a%20b/./c?x=1&y=%32 HTTP/1.1\r\nHost: www.example:8080\r\n"+
		"Content-Type: text/plain\r\nContent-Length: 3\r\nUser-Agent: me\r\nX-Real-Ip: 1\r\nX-Unknown-Field-9: 2\r\n\r\nabc")
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	host, port, _ := net.SplitHostPort(addr.String())
	wantVars(t, got, map[string]string{
		"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "gatecrew/1.2", "SERVER_PROTOCOL": "HTTP/1.1",
		"REQUEST_METHOD": "POST", "REQUEST_URI": "/a%20b/./c?x=1&y=%32", "QUERY_STRING": "x=1&y=%32",
		"SCRIPT_NAME": "/cgi-bin/env", "PATH_INFO": "/a b/c", "PATH_TRANSLATED": "/srv/www/a b/c",
		"SCRIPT_FILENAME": "/srv/cgi/env", "DOCUMENT_ROOT": "/srv/www/", "DOCUMENT_URI": "/cgi-bin/env/a b/c",
		"SERVER_NAME": host, "SERVER_PORT": port, "SERVER_ADDR": host, "REMOTE_ADDR": host, "REMOTE_HOST": host,
		"REQUEST_SCHEME": "http", "REDIRECT_STATUS": "200", "CONTENT_LENGTH": "3", "CONTENT_TYPE": "text/plain",
		"HTTP_HOST": "www.example:8080", "HTTP_USER_AGENT": "me", "HTTP_X_REAL_IP": "1", "HTTP_X_UNKNOWN_FIELD_9": "2",
	})
	if n, err := strconv.Atoi(got["REMOTE_PORT"]); err != nil || n <= 0 {
		t.Errorf("REMOTE_PORT = %q", got["REMOTE_PORT"])
	}
	wantUnset(t, got, "HTTPS", "SSL_PROTOCOL", "AUTH_TYPE", "REMOTE_USER", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE")
}

func TestParamsAlwaysSet(t *testing.T) {
	_, got := raw(t, plainServer(t, Target{}), "GET / HTTP/1.0\r\n\r\n")
	wantVars(t, got, map[string]string{
		"QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/", "SERVER_SOFTWARE": "gatecrew", "SERVER_PROTOCOL": "HTTP/1.0",
	})
	wantUnset(t, got, "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST", "PATH_TRANSLATED", "DOCUMENT_ROOT", "SCRIPT_FILENAME")

	r := httptest.NewRequest("GET", "/x", nil)
	params := AppendParams(nil, r, &Target{ScriptName: "/x", DocumentRoot: "/srv"})
	if v, ok := get(params, "PATH_INFO"); !ok || v != "" {
		t.Errorf("PATH_INFO = %q, %v; want it set and empty", v, ok)
	}
	if _, ok := get(params, "PATH_TRANSLATED"); ok {
		t.Error("PATH_TRANSLATED is set without PATH_INFO")
	}
}

// Whoever compares what two requests were told finds no differences of chance.
func TestHeaderFieldsInOrder(t *testing.T) {
	r := httptest.NewRequest("GET", "/x", nil)
	var want []string
	for i := range 40 {
		name := fmt.Sprintf("X-%02d", i)
		r.Header.Set(name, "v")
		want = append(want, "HTTP_X_"+name[2:])
	}
	var got []string
	for _, p := range AppendParams(nil, r, &Target{}) {
		if strings.HasPrefix(p.Name, "HTTP_X_") {
			got = append(got, p.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRequestURI(t *testing.T) {
	addr := plainServer(t, Target{})
	for target, want := range map[string]string{
		"/a/../b?q":             "/a/../b?q",
		"//a":                   "//a",
		"http://h/a%2Fb?x":      "/a%2Fb?x",
		"http://h":              "/",
		"http://h?q=/":          "/?q=/",
		"http://h/x?u=http://y": "/x?u=http://y",
	} {
		status, got := raw(t, addr, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if status != 200 || got["REQUEST_URI"] != want {
			t.Errorf("%s: status %d, REQUEST_URI %q, want %q", target, status, got["REQUEST_URI"], want)
		}
	}
	made := httptest.NewRequest("GET", "/a%20b?c", nil)
	made.RequestURI = "" // as in a request that follows a local redirect
	if v, _ := get(AppendParams(nil, made, &Target{}), "REQUEST_URI"); v != "/a%20b?c" {
		t.Errorf("made request: REQUEST_URI = %q", v)
	}
}

func TestContentLength(t *testing.T) {
	addr := plainServer(t, Target{})
	for _, c := range []struct{ name, request, want string }{
		{"bodyless GET", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "unset"},
		{"zero length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "0"},
		{"GET with a body", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab", "2"},
		{"unknown length", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "unset"},
	} {
		_, got := raw(t, addr, c.request)
		v, ok := got["CONTENT_LENGTH"]
		if !ok {
			v = "unset"
		}
		if v != c.want {
			t.Errorf("%s: CONTENT_LENGTH %s, want %s", c.name, v, c.want)
		}
		wantUnset(t, got, "HTTP_TRANSFER_ENCODING")
	}
	spooled := httptest.NewRequest("POST", "/", strings.NewReader("x"))
	spooled.TransferEncoding = []string{"chunked"}
	spooled.ContentLength = 0
	if v, _ := get(AppendParams(nil, spooled, &Target{}), "CONTENT_LENGTH"); v != "0" {
		t.Errorf("empty chunked body, spooled: CONTENT_LENGTH = %q", v)
	}
}

func TestParamsOfUnixSocket(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: ln, Config: &http.Server{Handler: gate(Target{})}}
	srv.Start()
	t.Cleanup(srv.Close)
	_, got := raw(t, ln.Addr(), "GET / HTTP/1.1\r\nHost: evil\r\n\r\n")
	wantVars(t, got, map[string]string{
		"SERVER_NAME": "localhost", "SERVER_PORT": "80", "REMOTE_ADDR": "", "REMOTE_HOST": "", "HTTP_HOST": "evil",
	})
	wantUnset(t, got, "SERVER_ADDR", "REMOTE_PORT")
}

func TestParamsOfAddresses(t *testing.T) {
	for _, c := range []struct{ local, remote, name, addr, port, client, clientPort string }{
		{"[2001:db8::1]:8443", "[2001:db8::2]:9", "[2001:db8::1]", "2001:db8::1", "8443", "2001:db8::2", "9"},
		{"[fe80::1%eth0]:80", "[fe80::2%eth0]:9", "[fe80::1]", "fe80::1", "80", "fe80::2", "9"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.2:9", "192.0.2.1", "192.0.2.1", "80", "192.0.2.2", "9"},
		{"192.0.2.1:80", "192.0.2.2", "192.0.2.1", "192.0.2.1", "80", "192.0.2.2", ""}, // set from a proxy's field
		{"192.0.2.1:80", "someone", "192.0.2.1", "192.0.2.1", "80", "", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		local, err := net.ResolveTCPAddr("tcp", c.local)
		if err != nil {
			local = &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "eth0"}
		}
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(local)))
		params := AppendParams(nil, r, &Target{})
		for name, want := range map[string]string{
			"SERVER_NAME": c.name, "SERVER_ADDR": c.addr, "SERVER_PORT": c.port, "REMOTE_ADDR": c.client, "REMOTE_PORT": c.clientPort,
		} {
			if v, _ := get(params, name); v != want {
				t.Errorf("%s ← %s: %s = %q, want %q", c.local, c.remote, name, v, want)
			}
		}
	}
}

func TestExtraReplacesComputed(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-A", "client")
	before := []protocol.Param{{Name: "SERVER_NAME", Value: "not touched"}}
	params := AppendParams(before, r, &Target{Extra: []protocol.Param{
		{Name: "SERVER_NAME", Value: "site"}, {Name: "HTTP_X_A", Value: "site"}, {Name: "APP_ENV", Value: "production"},
	}})
	if params[0] != before[0] {
		t.Error("what was in dst changed")
	}
	seen := make(map[string]string)
	for _, p := range params[1:] {
		if _, twice := seen[p.Name]; twice {
			t.Errorf("%s is set twice", p.Name)
		}
		seen[p.Name] = p.Value
	}
	wantVars(t, seen, map[string]string{"SERVER_NAME": "site", "HTTP_X_A": "site", "APP_ENV": "production"})
}

func TestParamsOfTLS(t *testing.T) {
	srv, client := h2Server(t, Target{}, nil)
	resp, err := client.Get(srv.URL + "/x")
	if err != nil {
		t.Fatal(err)
	}
	got := readVars(t, resp)
	wantVars(t, got, map[string]string{
		"HTTPS": "on", "REQUEST_SCHEME": "https", "SERVER_PROTOCOL": "HTTP/2.0", "SSL_PROTOCOL": "TLSv1.3", "PATH_INFO": "/x",
		"SSL_SESSION_RESUMED": "Initial", "SSL_CLIENT_VERIFY": "NONE",
	})
	if !strings.HasPrefix(got["SSL_CIPHER"], "TLS_") { // OpenSSL keeps the IANA names in TLS 1.3
		t.Errorf("SSL_CIPHER = %q", got["SSL_CIPHER"])
	}
	wantUnset(t, got, "SSL_TLS_SNI", "SSL_CLIENT_CERT", "CONTENT_LENGTH") // httptest's address has no name
}

// TestHeaderCannotFakeTLS: no field reaches a variable about the connection.
func TestHeaderCannotFakeTLS(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	for _, name := range []string{"HTTPS", "Https", "SSL_CLIENT_VERIFY", "Ssl-Client-Verify", "SSL_CLIENT_S_DN", "Ssl-Tls-Sni", "Ssl-Client-Cert", "Request-Scheme"} {
		r.Header[name] = []string{"forged"}
	}
	for _, p := range AppendParams(nil, r, &Target{}) {
		if p.Value == "forged" && !strings.HasPrefix(p.Name, "HTTP_") {
			t.Errorf("a header field set %s", p.Name)
		}
		if strings.HasPrefix(p.Name, "SSL_") || p.Name == "HTTPS" {
			t.Errorf("%s=%s without TLS", p.Name, p.Value)
		}
	}
}

// TestServerNameIsChecked: a client can write any bytes into a handshake.
func TestServerNameIsChecked(t *testing.T) {
	for name, want := range map[string]bool{"example.org": true, "": false, "a\x00b": false, "a\nb": false, "a b": false} {
		got := appendTLS(nil, &tls.ConnectionState{ServerName: name})
		if has := slices.ContainsFunc(got, func(p protocol.Param) bool { return p.Name == "SSL_TLS_SNI" && p.Value == name }); has != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// TestOpenSSLCiphers: every suite that crypto/tls can negotiate has OpenSSL's name.
func TestOpenSSLCiphers(t *testing.T) {
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		name := tlsCipher(suite.ID)
		tls13 := suite.SupportedVersions[0] == tls.VersionTLS13
		if strings.HasPrefix(name, "TLS_") != tls13 {
			t.Errorf("%s: name %s", suite.Name, name)
		}
	}
	for version, want := range map[uint16]string{
		tls.VersionTLS10: "TLSv1", tls.VersionTLS11: "TLSv1.1", tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3",
	} {
		if got := tlsVersion(version); got != want {
			t.Errorf("version %#x: %s, want %s", version, got, want)
		}
	}
}

func TestClientCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), Subject: pkix.Name{CommonName: "alice", Organization: []string{"Example"},
			OrganizationalUnit: []string{"one", "two\x00\n"}, ExtraNames: []pkix.AttributeTypeAndValue{
				{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a\nb"}}},
		DNSNames: []string{"a.example", "b.example"}, EmailAddresses: []string{"alice@example.org"},
		NotBefore: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	vouched := x509.NewCertPool()
	vouched.AddCert(cert)

	for _, c := range []struct {
		name   string
		config *tls.Config
		verify string
		dn     bool
	}{
		{"vouched for", &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: vouched}, "SUCCESS", true},
		{"anyone's", &tls.Config{ClientAuth: tls.RequestClientCert}, "GENEROUS", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, client := h2Server(t, Target{}, c.config)
			client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
			resp, err := client.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			got := readVars(t, resp)
			wantVars(t, got, map[string]string{"SSL_CLIENT_VERIFY": c.verify})
			if !strings.HasPrefix(got["SSL_CLIENT_CERT"], "-----BEGIN CERTIFICATE-----") {
				t.Errorf("SSL_CLIENT_CERT = %q", got["SSL_CLIENT_CERT"])
			}
			if c.dn {
				wantVars(t, got, map[string]string{
					"SSL_CLIENT_S_DN_CN": "alice", "SSL_CLIENT_S_DN_O": "Example", "SSL_CLIENT_S_DN_OU": "one", "SSL_CLIENT_I_DN_CN": "alice",
					"SSL_CLIENT_S_DN_Email": "a?b", "SSL_CLIENT_M_SERIAL": "ABC", "SSL_CLIENT_M_VERSION": "3", "SSL_CLIENT_V_START": "Jan  2 03:04:05 2020 GMT",
					"SSL_CLIENT_SAN_DNS_0": "a.example", "SSL_CLIENT_SAN_DNS_1": "b.example", "SSL_CLIENT_SAN_Email_0": "alice@example.org",
					"SSL_CLIENT_FINGERPRINT_SHA256": fmt.Sprintf("%x", sha256.Sum256(der)),
				})
				if dn := got["SSL_CLIENT_S_DN"]; !strings.Contains(dn, "CN=alice,OU=one+OU=two") || strings.ContainsAny(dn, "\x00\n") {
					t.Errorf("SSL_CLIENT_S_DN = %q", dn)
				}
			} else {
				wantUnset(t, got, "SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN", "SSL_CLIENT_M_SERIAL")
			}
		})
	}
}

// fullRequest has every variable that AppendParams can set.
func fullRequest() (*http.Request, *Target) {
	r := httptest.NewRequest("POST", "/a", strings.NewReader("x"))
	r.Header.Set("Content-Type", "text/plain")
	r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "n"}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8000})))
	return r, &Target{
		ScriptName: "/a", PathInfo: "/b", ScriptFilename: "/srv/a", DocumentRoot: "/srv", ServerName: "n", AuthType: "Basic", RemoteUser: "u",
	}
}

func TestAppendParamsGrowsOnce(t *testing.T) {
	r, target := fullRequest()
	if n := len(AppendParams(nil, r, target)); n != baseParams {
		t.Errorf("%d variables, baseParams says %d", n, baseParams)
	}
}

func browserRequest() *http.Request {
	r, _ := fullRequest()
	r.TLS = nil
	for name, value := range map[string]string{
		"Accept": "text/html,*/*;q=0.8", "Accept-Encoding": "gzip, deflate, br, zstd", "Accept-Language": "en-US,en;q=0.5",
		"Connection": "keep-alive", "Cookie": "session=0123456789abcdef", "Referer": "https://www.example/", "Sec-Fetch-Dest": "document",
		"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Upgrade-Insecure-Requests": "1", "User-Agent": "Mozilla/5.0",
	} {
		r.Header.Set(name, value)
	}
	return r
}

// TestAppendParamsAllocations: three strings (the socket's address, the
// length, the document's URI) and nothing for each header field.
func TestAppendParamsAllocations(t *testing.T) {
	r := browserRequest()
	r.ContentLength = 12345
	target := &Target{ScriptName: "/app", PathInfo: "/page"}
	dst := make([]protocol.Param, 0, 64)
	if n := testing.AllocsPerRun(100, func() { AppendParams(dst, r, target) }); n > 3 {
		t.Errorf("%v allocations, want at most 3", n)
	}
}

func BenchmarkAppendParams(b *testing.B) {
	r := browserRequest()
	target := &Target{ScriptName: "", PathInfo: "/page", ServerName: "www.example"}
	dst := make([]protocol.Param, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		AppendParams(dst, r, target)
	}
}
