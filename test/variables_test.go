package test

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// proxySetting are the variables in which HTTP clients look for a proxy.
var proxySetting = regexp.MustCompile(`(?i)^(https?|ftp|all|no)_proxy$`)

// A request's Proxy field must not become the proxy of the application's own
// requests, and the gateway's proxy settings are not the application's
// (CVE-2016-5385 and its like).
func TestClass01Httpoxy(t *testing.T) {
	s := newGate(t, "", "", "")
	const evil = "http://evil.test:3128"
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy"} {
		s.Env = append(s.Env, name+"="+evil)
	}
	s.Start()
	fields := []string{"Proxy: x", "proxy: x", "PROXY: x", "pRoXy:x", "Proxy:\tx", "Proxy_: x", "Http-Proxy: x", "HTTP_PROXY: x",
		"Proxy-Host: x", "Proxy-Connection: x", "Proxy-Authorization: x", "Https-Proxy: x", "All-Proxy: x", "No-Proxy: x"}
	for _, a := range mirrors {
		t.Run(a.name, func(t *testing.T) {
			c := s.client().on(t)
			for _, field := range append(fields, strings.Join(fields, "\r\n")) {
				got := a.see(t, c, a.path, strings.ReplaceAll(field, "x", evil))
				for _, vars := range []map[string]string{got.vars, got.process} {
					for name, value := range vars {
						if proxySetting.MatchString(name) {
							t.Errorf("%q: %s=%s", field, name, value)
						}
					}
				}
			}
		})
	}
	s.healthy()
}

// Two fields whose names differ in "-" and "_" would be one variable, and one
// of them could be forged (CVE-2015-0219).
func TestClass02Underscores(t *testing.T) {
	t.Parallel()
	s := startGate(t, "", "", "")
	forged := []string{"X_Real: evil", "x_real: evil", "X.Real: evil", "X!Real: evil", "X~Real: evil", "X|Real: evil", "X'Real: evil"}
	for _, a := range mirrors {
		t.Run(a.name, func(t *testing.T) {
			c := s.client().on(t)
			for i := range 200 {
				bad := forged[i%len(forged)]
				for _, fields := range [][]string{{"X-Real: good", bad}, {bad, "X-Real: good"}} {
					if got := a.see(t, c, a.path, fields...).vars["HTTP_X_REAL"]; got != "good" {
						t.Fatalf("repetition %d, %q: HTTP_X_REAL = %q", i, fields, got)
					}
				}
			}
			got := a.see(t, c, a.path, append(forged, "Content_Length: 7", "Content_Type: evil", "Transfer_Encoding: evil")...)
			for name, value := range got.vars {
				if strings.Contains(value, "evil") || name == "CONTENT_LENGTH" && value != "" {
					t.Errorf("%s = %q", name, value)
				}
			}
		})
	}
}

// A field that comes twice is one list, and what must be one value is not two.
func TestClass03DuplicateFields(t *testing.T) {
	s := startGate(t, "", "", "")
	for _, a := range mirrors {
		t.Run(a.name, func(t *testing.T) {
			c := s.client().on(t)
			differ(t, "twice", a.see(t, c, a.path, "Cookie: a=1", "Cookie: b=2; c=3", "X-Forwarded-For: 192.0.2.1", "X-Thing: one",
				"X-Forwarded-For: 192.0.2.2, 192.0.2.3", "x-thing: two", "Accept:", "Accept: text/html").vars, map[string]string{
				"HTTP_COOKIE":          "a=1; b=2; c=3",
				"HTTP_X_FORWARDED_FOR": "192.0.2.1, 192.0.2.2, 192.0.2.3",
				"HTTP_X_THING":         "one, two",
				"HTTP_ACCEPT":          ", text/html",
			})
			for _, fields := range [][]string{
				{"Host: other.test"}, // there is one already
				{"Host: gateway.test"},
				{"Content-Length: 1", "Content-Length: 2"},
				{"Content-Length: 1, 2"},
				{"Content-Length: 0", "Content-Length: 00"},
				{"Content-Type: text/plain", "Content-Type: text/html"},
			} {
				if r := c.get(a.path, fields...); r.Status != http.StatusBadRequest {
					t.Errorf("%q: status %d", fields, r.Status)
				}
			}
			same := a.see(t, c, a.path, "Content-Type: text/plain", "Content-Type: text/plain", "Content-Length: 0", "Content-Length: 0")
			differ(t, "the same twice", same.vars, map[string]string{"CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "0"})
		})
	}
	s.healthy()
}

// Where a request came from and came in is the socket's and the
// configuration's to say, whatever the request says.
func TestClass10Spoofing(t *testing.T) {
	s := startGate(t, "", "", `- {hosts: [one.test], routes: [{path: /cgi, cgi: {dir: "@CGI@"}}]}
  - {hosts: [two.test, "*.two.test"], routes: [{path: /cgi, cgi: {dir: "@CGI@"}}]}`)
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	forged := []string{"Remote-Addr: evil", "Remote-Host: evil", "Remote-User: evil", "Remote-Ident: evil", "Auth-Type: evil",
		"Server-Name: evil", "Server-Port: evil", "Server-Addr: evil", "Https: on", "Request-Uri: /evil", "Script-Name: /evil",
		"Script-Filename: /evil", "Path-Info: /evil", "Path-Translated: /evil", "Document-Root: /evil", "Query-String: evil",
		"Redirect-Status: evil", "Gateway-Interface: evil", "X-Original-Url: /evil", "X-Rewrite-Url: /evil",
		"X-Forwarded-For: 192.0.2.66", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test", "Forwarded: for=192.0.2.66;proto=https",
		"X-Real-Ip: 192.0.2.66"}
	for _, a := range mirrors {
		t.Run(a.name, func(t *testing.T) {
			c := s.client().on(t)
			got := a.see(t, c, a.path+"/info?q", forged...).vars
			differ(t, "forged", got, map[string]string{
				"REMOTE_ADDR": "127.0.0.1", "REMOTE_HOST": "127.0.0.1", "REMOTE_PORT": fmt.Sprint(c.conn.LocalAddr().(*net.TCPAddr).Port),
				"SERVER_NAME": "127.0.0.1", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": port, "REQUEST_SCHEME": "http",
				"REQUEST_URI": a.path + "/info?q", "QUERY_STRING": "q", "HTTP_HOST": "gateway.test", "GATEWAY_INTERFACE": "CGI/1.1",
				"HTTPS": "", "REMOTE_USER": "", "REMOTE_IDENT": "", "AUTH_TYPE": "",
			})
			for name, value := range got {
				if strings.Contains(value, "evil") && !strings.HasPrefix(name, "HTTP_") {
					t.Errorf("%s = %q", name, value)
				}
			}
		})
	}
	t.Run("Host", func(t *testing.T) { spoofedHosts(t, s, port) })
	s.healthy()
}

func spoofedHosts(t *testing.T, s *gate, port string) {
	script := mirrors[0]
	tests := []struct {
		target, host string
		name         string // SERVER_NAME, "" for a request that is refused
		seen         string // HTTP_HOST
	}{
		{script.path, "evil.test", "127.0.0.1", "evil.test"},
		{script.path, "one.test", "one.test", "one.test"},
		{script.path, "ONE.test.:8080", "one.test", "ONE.test.:8080"},
		{script.path, "two.test", "two.test", "two.test"},
		{script.path, "a.b.two.test", "a.b.two.test", "a.b.two.test"},
		{script.path, "[::1]:80", "127.0.0.1", "[::1]:80"},
		{script.path, "", "127.0.0.1", ""},
		// RFC 9112, section 3.2.2: the target's authority counts.
		{"http://one.test" + script.path, "two.test", "one.test", "one.test"},
		{"http://evil.test:81" + script.path, "one.test", "127.0.0.1", "evil.test:81"},
		{script.path, "a@b", "", ""},
		{script.path, "a:99999", "", ""},
		{script.path, "a:80:80", "", ""},
		{script.path, "a:-1", "", ""},
		{script.path, "one.test, two.test", "", ""},
		{script.path, "one.test two.test", "", ""},
		{script.path, "one.test/../two.test", "", ""},
		{script.path, "one.test?x", "", ""},
		{script.path, "one.test#x", "", ""},
		{script.path, "one..test", "", ""},
		{script.path, "one.test%00", "", ""},
		{script.path, "<script>", "", ""},
		{script.path, `one.test"`, "", ""},
		{script.path, "\xefne.test", "", ""},
		{script.path, "[::1", "", ""},
		{script.path, "[one.test]", "", ""},
		{script.path, strings.Repeat("a", 300), "", ""},
		{"http://user:secret@one.test" + script.path, "one.test", "", ""},
		{"http://one.test:99999" + script.path, "one.test", "", ""},
		{"http://" + script.path, "one.test", "", ""},
		{"one.test" + script.path, "one.test", "", ""},
	}
	c := s.client().on(t)
	for _, tt := range tests {
		r := c.send("GET " + tt.target + " HTTP/1.1\r\nHost: " + tt.host + "\r\n\r\n")
		if tt.name == "" {
			if r.Status != http.StatusBadRequest {
				t.Errorf("%s, Host %q: status %d, want 400", tt.target, tt.host, r.Status)
			}
			continue
		}
		got, err := script.read(r.Body)
		if err != nil {
			t.Errorf("%s, Host %q: status %d: %v", tt.target, tt.host, r.Status, err)
			continue
		}
		differ(t, tt.target+", Host "+tt.host, got.vars, map[string]string{
			"SERVER_NAME": tt.name, "HTTP_HOST": tt.seen, "SERVER_PORT": port, "REQUEST_URI": script.path, "SCRIPT_NAME": script.path})
	}
	if r := c.send("GET " + script.path + " HTTP/1.1\r\n\r\n"); r.Status != http.StatusBadRequest {
		t.Errorf("HTTP/1.1 without a Host: status %d, want 400", r.Status)
	}
}

// Passwords reach applications that check them themselves, which Python and
// PHP applications do, and scripts only where the site says so. A user's name
// is never the client's word.
func TestClass15Authorization(t *testing.T) {
	s := startGate(t, "", `
      - {path: /open, cgi: {dir: "@CGI@", pass_authorization: true}}
      - {path: /closed, pool: probe, pass_authorization: false}
      - {path: /shut, fastcgi: {address: "unix:@PERL@", max_connections: 1, pass_authorization: false}}`, "")
	cgi, pool, perl, php := mirrors[0], mirrors[1], mirrors[2], mirrors[3]
	tests := []struct {
		mirror
		path   string
		passed bool
	}{
		{cgi, "/cgi/env", false}, {cgi, "/open/env", true},
		{pool, "/pool/environ", true}, {pool, "/closed/environ", false},
		{perl, "/fcgi", true}, {perl, "/shut", false},
		{php, "/php/index.php", true},
	}
	c := s.client()
	for _, tt := range tests {
		got := tt.see(t, c, tt.path, "Authorization: Basic dXNlcjpzZWNyZXQ=", "Proxy-Authorization: Basic cDpzZWNyZXQ=", "Remote-User: evil").vars
		want := map[string]string{"REMOTE_USER": "", "AUTH_TYPE": "", "HTTP_REMOTE_USER": "evil", "HTTP_AUTHORIZATION": "", "HTTP_PROXY_AUTHORIZATION": ""}
		if tt.passed {
			want["HTTP_AUTHORIZATION"], want["HTTP_PROXY_AUTHORIZATION"] = "Basic dXNlcjpzZWNyZXQ=", "Basic cDpzZWNyZXQ="
		}
		differ(t, tt.path, got, want)
	}
}

// What the gateway itself was given is nobody else's, unless the
// configuration passes it on.
func TestClass16Secrets(t *testing.T) {
	s := newGate(t, "", `- {path: /named, cgi: {dir: "@CGI@", env: {GIVEN: "yes"}, pass_env: [NAMED, "PREFIX_*"]}}`, "")
	s.Env = []string{"SECRET=canary", "NAMED=passed", "PREFIX_A=passed", "LD_PRELOAD=", "PYTHONPATH=/canary", "PERL5LIB=/canary",
		"GATECREW_LOG_LEVEL=info", "NOTIFY_SOCKET=/canary", "LISTEN_FDS_SECRET=canary"}
	s.Start()
	c := s.client()
	for _, a := range []mirror{mirrors[0], mirrors[1], {"named", "/named/env", readScript}} {
		got := a.see(t, c, a.path)
		for name, value := range got.process {
			if strings.Contains(value, "canary") || strings.HasPrefix(name, "LD_") || name == "GATECREW_LOG_LEVEL" {
				t.Errorf("%s: %s=%s", a.name, name, value)
			}
		}
		if got.process["PATH"] == "" {
			t.Errorf("%s: no PATH", a.name)
		}
		named := map[string]string{"NAMED": "", "PREFIX_A": "", "GIVEN": ""}
		if a.name == "named" {
			named = map[string]string{"NAMED": "passed", "PREFIX_A": "passed", "GIVEN": "yes"}
		}
		differ(t, a.name, got.process, named)
	}
}
