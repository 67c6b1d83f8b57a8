package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// environScript prints its environment.
const environScript = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'; env\n"

// tlsGateway serves a configuration whose certificates lie in dir, as NAME.pem
// and NAME.key. %DIR%, %SCRIPT% and %CA% are replaced. The first https:// and
// http:// address are secure and plain.
type tlsGateway struct {
	*harness.Gateway
	dir           string
	authority     *harness.Authority
	secure, plain string // HOST:PORT
}

func startTLS(t testing.TB, config string, names ...string) *tlsGateway {
	t.Helper()
	return startTLSWith(t, "", config, names...)
}

// startTLSWith is startTLS with a binary of choice.
func startTLSWith(t testing.TB, binary, config string, names ...string) *tlsGateway {
	t.Helper()
	s := &tlsGateway{dir: t.TempDir(), authority: harness.NewAuthority(t, "the authority")}
	for _, name := range names {
		s.authority.Issue(name).Write(t, s.dir, name)
	}
	script := filepath.Join(s.dir, "environ.sh")
	if err := os.WriteFile(script, []byte(environScript), 0o755); err != nil {
		t.Fatal(err)
	}
	config = strings.NewReplacer("%DIR%", s.dir, "%SCRIPT%", script, "%CA%", s.authority.File).Replace(config)
	s.Gateway = harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", config), "--bind", "https://127.0.0.1:0", "--bind", "127.0.0.1:0")
	s.Binary = binary
	s.Start()
	ready := regexp.MustCompile(`https://(\S+)/ http://(\S+)/`).FindStringSubmatch(s.Stdout())
	if ready == nil {
		t.Fatalf("ready line: %s", s.Stdout())
	}
	s.secure, s.plain = ready[1], ready[2]
	return s
}

// client connects every name to the gateway. With h2 it speaks HTTP/2.
func (s *tlsGateway) client(t testing.TB, h2 bool, change func(*tls.Config)) *http.Client {
	config := &tls.Config{RootCAs: s.authority.Pool}
	if change != nil {
		change(config)
	}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: h2, DisableCompression: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := s.secure
			if strings.HasSuffix(addr, ":80") {
				to = s.plain
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func fetch(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return r, string(body)
}

// handshake makes one, and returns the name of the certificate that came.
func (s *tlsGateway) handshake(config *tls.Config) (string, error) {
	config = config.Clone()
	config.RootCAs = s.authority.Pool
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", s.secure, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

const threeSites = `
sites:
  - hosts: [a.example]
    tls: {certificate: "%DIR%/a.example.pem", key: "%DIR%/a.example.key"}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: ["*.b.example"]
    tls: {certificate: "%DIR%/*.b.example.pem", key: "%DIR%/*.b.example.key"}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: [c.example]
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
`

func TestCertificateByServerName(t *testing.T) {
	s := startTLS(t, threeSites, "a.example", "*.b.example")
	for name, want := range map[string]string{"a.example": "a.example", "x.b.example": "*.b.example", "A.EXAMPLE": "a.example",
		"c.example": "a.example", "unknown.example": "a.example", "": "a.example"} {
		got, err := s.handshake(&tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil || got != want {
			t.Errorf("%q: certificate of %q, %v; want that of %q", name, got, err, want)
		}
	}
	_, body := fetch(t, s.client(t, true, nil), "https://x.b.example/p?q")
	for _, want := range []string{"HTTPS=on\n", "SSL_TLS_SNI=x.b.example\n", "SSL_PROTOCOL=TLSv1.3\n", "SSL_CLIENT_VERIFY=NONE\n",
		"SERVER_PROTOCOL=HTTP/2.0\n", "HTTP_HOST=x.b.example\n", "SERVER_NAME=x.b.example\n", "REQUEST_SCHEME=https\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
}

// TestOldTLSIsRefused: no version before 1.2 and no suite without forward secrecy
// and authenticated encryption.
func TestOldTLSIsRefused(t *testing.T) {
	s := startTLS(t, threeSites+"  - hosts: [d.example]\n    tls: {certificate: \"%DIR%/a.example.pem\", key: \"%DIR%/a.example.key\", min_version: 1.3}\n"+
		"    routes: [{path: /, static: {dir: \"%DIR%\"}}]\n", "a.example", "*.b.example")
	try := func(name string, version uint16, suites ...uint16) error {
		_, err := s.handshake(&tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version, CipherSuites: suites})
		return err
	}
	if err := try("a.example", tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	for what, err := range map[string]error{
		"TLS 1.1":               try("a.example", tls.VersionTLS11),
		"TLS 1.2 where 1.3":     try("d.example", tls.VersionTLS12),
		"no forward secrecy":    try("a.example", tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256),
		"RC4":                   try("a.example", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA),
		"triple DES":            try("a.example", tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA),
		"CBC without an AEAD":   try("a.example", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA),
		"CBC with SHA-256, too": try("a.example", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256),
	} {
		if err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

func TestBestCertificateForEachClient(t *testing.T) {
	dir := t.TempDir()
	a := harness.NewAuthority(t, "the authority")
	a.IssueRSA("rsa", "a.example").Write(t, dir, "rsa")
	a.Issue("ecdsa", "a.example").Write(t, dir, "ecdsa")
	g := harness.Start(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", strings.ReplaceAll(`
sites:
  - hosts: [a.example]
    tls: {certificate: DIR/rsa.pem, key: DIR/rsa.key, more: [{certificate: DIR/ecdsa.pem, key: DIR/ecdsa.key}]}
    routes: [{path: /, static: {dir: DIR}}]
`, "DIR", dir)), "--bind", "https://127.0.0.1:0")
	s := &tlsGateway{Gateway: g, authority: a, secure: g.Addr}
	for want, suites := range map[string][]uint16{
		"ecdsa": nil,
		"rsa":   {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	} {
		got, err := s.handshake(&tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12, CipherSuites: suites})
		if err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

// TestCertificateRotationUnderLoad: whatever way a new pair comes, no handshake
// fails, and a broken pair changes nothing.
func TestCertificateRotationUnderLoad(t *testing.T) {
	s := startTLS(t, threeSites, "a.example", "*.b.example")
	var made atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.handshake(&tls.Config{ServerName: "a.example"}); err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				made.Add(1)
			}
		})
	}
	served := func(name string) func() bool {
		return func() bool {
			got, err := s.handshake(&tls.Config{ServerName: "a.example"})
			return err == nil && got == name
		}
	}
	// Written over, one file after the other.
	for i := range scaled(3, 1000) {
		name := fmt.Sprint("renewed ", i)
		s.authority.Issue(name, "a.example").Write(t, s.dir, "a.example")
		harness.Eventually(t, 10*time.Second, name, served(name))
	}
	// A link that is set to another folder, as Kubernetes does with ..data: first
	// the files become links, then the link is changed at once.
	for i := range 2 {
		folder := filepath.Join(s.dir, fmt.Sprint("..version", i))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("linked ", i)
		s.authority.Issue(name, "a.example").Write(t, folder, "a.example")
		link := filepath.Join(s.dir, "..data")
		if err := errors.Join(os.Symlink(folder, link+"_tmp"), os.Rename(link+"_tmp", link)); err != nil {
			t.Fatal(err)
		}
		for _, ext := range []string{".pem", ".key"} {
			file := filepath.Join(s.dir, "a.example"+ext)
			if i > 0 {
				continue
			}
			if err := errors.Join(os.Symlink("..data/a.example"+ext, file+"_tmp"), os.Rename(file+"_tmp", file)); err != nil {
				t.Fatal(err)
			}
		}
		harness.Eventually(t, 10*time.Second, name, served(name))
	}
	// A pair that doesn't match, and what is no certificate at all.
	pem := filepath.Join(s.dir, "..version1", "a.example.pem")
	if err := os.WriteFile(pem, s.authority.Issue("stranger", "a.example").Cert, 0o600); err != nil {
		t.Fatal(err)
	}
	s.LogLine("a changed certificate can't be used")
	if !strings.Contains(s.Stderr(), "a.example.key: private key does not match public key") {
		t.Errorf("the log does not name file and reason: %s", s.Stderr())
	}
	if !served("linked 1")() {
		t.Error("a broken pair changed what is served")
	}
	// With HUP, too.
	s.authority.Issue("at last", "a.example").Write(t, filepath.Join(s.dir, "..version1"), "a.example")
	s.Signal(syscall.SIGHUP)
	harness.Eventually(t, 10*time.Second, "at last", served("at last"))
	close(stop)
	clients.Wait()
	t.Logf("%d handshakes", made.Load())
}

const clientSites = `
sites:
  - hosts: [open.example]
    tls: {certificate: "%DIR%/open.example.pem", key: "%DIR%/open.example.key"}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: [also.example]
    tls: {certificate: "%DIR%/open.example.pem", key: "%DIR%/open.example.key"}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: [closed.example]
    tls: {certificate: "%DIR%/closed.example.pem", key: "%DIR%/closed.example.key", client_ca: "%CA%"}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: [maybe.example]
    tls: {certificate: "%DIR%/maybe.example.pem", key: "%DIR%/maybe.example.key", client_ca: "%CA%", client_auth: optional}
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
`

func TestClientCertificates(t *testing.T) {
	s := startTLS(t, clientSites, "open.example", "closed.example", "maybe.example")
	alice := s.authority.Issue("alice")
	mallory := harness.NewAuthority(t, "the authority").Issue("mallory") // another one of that name
	with := func(c *harness.IssuedCertificate) func(*tls.Config) {
		return func(config *tls.Config) {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.TLS, nil }
		}
	}
	for _, h2 := range []bool{false, true} {
		for _, c := range []struct {
			site, verify string
			cert         *harness.IssuedCertificate
		}{
			{"closed", "", nil}, {"closed", "SUCCESS", alice}, {"closed", "", mallory},
			{"maybe", "NONE", nil}, {"maybe", "SUCCESS", alice}, {"maybe", "", mallory},
			{"open", "NONE", nil}, {"open", "NONE", alice},
		} {
			var change func(*tls.Config)
			if c.cert != nil {
				change = with(c.cert)
			}
			client := s.client(t, h2, change)
			req, err := http.NewRequest("GET", "https://"+c.site+".example/", nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"Ssl-Client-Verify", "SSL_CLIENT_VERIFY", "Ssl-Client-S-Dn", "SSL_CLIENT_S_DN"} {
				req.Header[name] = []string{"CN=forged"}
			}
			r, err := client.Do(req)
			if c.verify == "" {
				if err == nil {
					r.Body.Close()
					t.Errorf("%s: served", c.site)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, HTTP/2 %v: %v", c.site, h2, err)
				continue
			}
			data, _ := io.ReadAll(r.Body)
			r.Body.Close()
			body := "\n" + string(data)
			if !strings.Contains(body, "\nSSL_CLIENT_VERIFY="+c.verify+"\n") {
				t.Errorf("%s: SSL_CLIENT_VERIFY is not %s in %s", c.site, c.verify, body)
			}
			if strings.Contains(body, "\nSSL_CLIENT_S_DN=CN=alice\n") != (c.verify == "SUCCESS") || strings.Contains(body, "\nSSL_CLIENT_S_DN=CN=forged") {
				t.Errorf("%s: wrong SSL_CLIENT_S_DN in %s", c.site, body)
			}
		}
	}
}

// TestMisdirectedRequest: a connection that was opened without a certificate is
// not a way to a site that asks for one, and neither is a session of another site.
func TestMisdirectedRequest(t *testing.T) {
	s := startTLS(t, clientSites, "open.example", "closed.example", "maybe.example")
	for host, want := range map[string]int{"open.example": 200, "also.example": 200, "unknown.example": 200, "closed.example": 421, "maybe.example": 421} {
		for _, h2 := range []bool{false, true} {
			req, err := http.NewRequest("GET", "https://open.example/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			r, err := s.client(t, h2, nil).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if r.StatusCode != want {
				t.Errorf("%s on a connection to open.example: %d, want %d", host, r.StatusCode, want)
			}
		}
	}

	alice := s.authority.Issue("alice")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cache := &oneSession{}
		resumed := func(name string, cert *harness.IssuedCertificate) (bool, error) {
			config := &tls.Config{RootCAs: s.authority.Pool, ServerName: name, ClientSessionCache: cache, MaxVersion: version, InsecureSkipVerify: true}
			if cert != nil {
				config.Certificates = []tls.Certificate{cert.TLS}
			}
			c, err := tls.Dial("tcp", s.secure, config)
			if err != nil {
				return false, err
			}
			defer c.Close()
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name)
			answer, err := io.ReadAll(c)
			if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				err = fmt.Errorf("answer %.100q", answer)
			}
			return c.ConnectionState().DidResume, err
		}
		if again, err := resumed("maybe.example", alice); err != nil || again {
			t.Fatalf("the first handshake: %v, %v", again, err)
		}
		if again, err := resumed("maybe.example", nil); err != nil || !again {
			t.Errorf("the same site: resumed %v, %v", again, err)
		}
		if again, err := resumed("closed.example", nil); err == nil || again {
			t.Errorf("another site with the session of a client that has a certificate: resumed %v, %v", again, err)
		}
		if again, err := resumed("open.example", nil); err != nil || again {
			t.Errorf("a site without client certificates: resumed %v, %v", again, err)
		}
		if again, err := resumed("also.example", nil); err != nil || !again {
			t.Errorf("one that asks for the same: resumed %v, %v", again, err)
		}
	}
}

// oneSession is a cache that offers its session to every name.
type oneSession struct {
	mu   sync.Mutex
	last *tls.ClientSessionState
}

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last, o.last != nil
}

func (o *oneSession) Put(_ string, cs *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cs != nil {
		o.last = cs
	}
}

func TestRedirectToHTTPSAndHSTS(t *testing.T) {
	s := startTLS(t, `
sites:
  - hosts: [a.example, "*.w.example"]
    tls: {certificate: "%DIR%/a.example.pem", key: "%DIR%/a.example.key"}
    hsts: {max_age: 8760h, include_subdomains: true, preload: true}
    redirect_to_https: true
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
  - hosts: [b.example]
    hsts: {max_age: 60}
    redirect_to_https: true
    https_port: 443
    routes: [{path: /, cgi: {script: "%SCRIPT%"}}]
`, "a.example")
	_, port, _ := net.SplitHostPort(s.secure)
	for _, c := range []struct {
		method, target, host, location string
		status                         int
	}{
		{"GET", "/a%2fb//c?x=%20&y", "a.example", "https://a.example:" + port + "/a%2fb//c?x=%20&y", 301},
		{"HEAD", "/", "A.example:81", "https://a.example:" + port + "/", 301},
		{"POST", "/form", "a.example", "https://a.example:" + port + "/form", 308},
		{"GET", "//evil.example/", "a.example", "https://a.example:" + port + "//evil.example/", 301},
		{"GET", "/", "x.w.example", "https://x.w.example:" + port + "/", 301},
		{"GET", "/", "evil.example", "https://a.example:" + port + "/", 301}, // the site answers, its name is its own
		{"GET", "http://b.example/x", "ignored.example", "https://b.example/x", 301},
		{"PUT", "/x", "b.example", "https://b.example/x", 308},
	} {
		conn, err := net.Dial("tcp", s.plain)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", c.method, c.target, c.host)
		r, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.method})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if r.StatusCode != c.status || r.Header.Get("Location") != c.location || r.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("%s %s of %s: %d, %v; want %d %s", c.method, c.target, c.host, r.StatusCode, r.Header, c.status, c.location)
		}
	}
	c := s.client(t, true, func(config *tls.Config) { config.InsecureSkipVerify = true })
	for url, want := range map[string]string{"https://a.example/": "max-age=31536000; includeSubDomains; preload", "https://b.example/": "max-age=60"} {
		if r, _ := fetch(t, c, url); r.StatusCode != 200 || r.Header.Get("Strict-Transport-Security") != want {
			t.Errorf("%s: %d, %v", url, r.StatusCode, r.Header)
		}
	}
}

// TestBadHandshakes: plain HTTP is answered readably, a client that says nothing
// is cut off in time, and none of it is worth a line in the log.
func TestBadHandshakes(t *testing.T) {
	s := startTLS(t, "limits: {header_timeout: 700ms}\n"+threeSites, "a.example", "*.b.example")
	for _, hello := range []string{"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00", ""} {
		c, err := net.Dial("tcp", s.secure)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, _ = io.WriteString(c, hello)
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		answer, err := io.ReadAll(c)
		c.Close()
		if err != nil && !isReset(err) || time.Since(began) > 10*time.Second {
			t.Errorf("%q: still open after %v: %v", hello, time.Since(began), err)
		}
		if strings.HasPrefix(hello, "GET") != strings.HasPrefix(string(answer), "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.") {
			t.Errorf("%q was answered %q", hello, answer)
		}
	}
	if strings.Contains(s.Stderr(), "handshake") {
		t.Errorf("noise in the log: %s", s.Stderr())
	}
}

func TestExpiryIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	a := harness.NewAuthority(t, "the authority")
	a.IssueFor(-time.Minute, "old.example").Write(t, dir, "old.example")
	a.IssueFor(5*time.Minute, "soon.example").Write(t, dir, "soon.example")
	a.Issue("new.example").Write(t, dir, "new.example")
	config := ""
	for _, name := range []string{"old", "soon", "new"} {
		config += strings.NewReplacer("NAME", name, "DIR", dir).Replace(
			"  - hosts: [NAME.example]\n    tls: {certificate: DIR/NAME.example.pem, key: DIR/NAME.example.key}\n    routes: [{path: /, static: {dir: /var/empty}}]\n")
	}
	g := harness.Start(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", "sites:\n"+strings.ReplaceAll(config, "/var/empty", t.TempDir())), "--bind", "https://127.0.0.1:0")
	g.LogLine("a certificate has expired")
	g.LogLine("a certificate expires soon")
	if strings.Contains(g.Stderr(), "new.example.pem") {
		t.Errorf("a warning of what is new: %s", g.Stderr())
	}
}

// TestTLSByFlags is the one-minute way: two files and run, with curl as a client
// that is not Go's.
func TestTLSByFlags(t *testing.T) {
	dir := t.TempDir()
	a := harness.NewAuthority(t, "the authority")
	a.Issue("localhost").Write(t, dir, "x")
	script := filepath.Join(dir, "environ.sh")
	if err := os.WriteFile(script, []byte(environScript), 0o755); err != nil {
		t.Fatal(err)
	}
	g := harness.Start(t, "run", script, "--certfile", dir+"/x.pem", "--keyfile", dir+"/x.key", "--hsts", "1h", "--h2c",
		"--bind", "127.0.0.1:0", "--bind", "http://127.0.0.1:0", "--access-log", "off")
	ready := regexp.MustCompile(`https://127.0.0.1:(\d+)/ http://127.0.0.1:(\d+)/`).FindStringSubmatch(g.Stdout())
	if ready == nil {
		t.Fatal(g.Stdout())
	}
	curl := func(args ...string) string {
		args = append([]string{"-si", "--max-time", "20", "--cacert", a.File, "--resolve", "localhost:" + ready[1] + ":127.0.0.1"}, args...)
		out, err := exec.Command("curl", args...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	secure, plain := "https://localhost:"+ready[1]+"/x", "http://127.0.0.1:"+ready[2]+"/x"
	for _, c := range []struct{ answer, want, proto string }{
		{curl("--http1.1", secure), "HTTP/1.1 200", "HTTP/1.1"},
		{curl("--http2", secure), "HTTP/2 200", "HTTP/2.0"},
		{curl("--http2-prior-knowledge", plain), "HTTP/2 200", "HTTP/2.0"},
		{curl(plain), "HTTP/1.1 200", "HTTP/1.1"},
		{curl("--http2", plain), "HTTP/1.1 200", "HTTP/1.1"}, // no Upgrade: h2c, which RFC 9113 has dropped
	} {
		if !strings.HasPrefix(c.answer, c.want) || !strings.Contains(c.answer, "SERVER_PROTOCOL="+c.proto+"\n") {
			t.Errorf("want %s, got %s", c.want, c.answer)
		}
		if strings.Contains(c.answer, "HTTPS=on") != strings.Contains(strings.ToLower(c.answer), "strict-transport-security: max-age=3600") {
			t.Errorf("HSTS: %s", c.answer)
		}
	}
}
