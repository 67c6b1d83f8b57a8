package cgi

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestClass06NUL: NUL in a path, written or escaped.
func TestClass06NUL(t *testing.T) {
	addr := plainServer(t, Target{})
	for _, target := range []string{"/a%00b", "/%00", "/a.php%00.jpg", "/a/%00/../b", "/a\x00b"} {
		if status, _ := raw(t, addr, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n"); status != 400 {
			t.Errorf("%q: status %d, want 400", target, status)
		}
	}
	// Where the path is not what the target says, after a rewrite.
	r := httptest.NewRequest("GET", "/", nil)
	r.URL.Path = "/a\x00b"
	if got := statusOf(t, CheckRequest(r)); got != 400 {
		t.Errorf("in the decoded path: status %d, want 400", got)
	}
	// In a query it stays escaped.
	if status, got := raw(t, addr, "GET /?a=%00 HTTP/1.1\r\nHost: h\r\n\r\n"); status != 200 || got["QUERY_STRING"] != "a=%00" {
		t.Errorf("in a query: status %d, %q", status, got["QUERY_STRING"])
	}
	srv, client := h2Server(t, Target{}, nil)
	resp, err := client.Get(srv.URL + "/a%00b")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("over HTTP/2: status %d, want 400", resp.StatusCode)
	}
}

// TestClass09ControlInTarget: every byte that RFC 9112 does not allow in a
// request-target, in its path and in its query.
func TestClass09ControlInTarget(t *testing.T) {
	addr := plainServer(t, Target{})
	for c := 0; c < 256; c++ {
		bad := c <= ' ' || c >= 0x7f || c == '#'
		for _, target := range []string{"/a" + string([]byte{byte(c)}) + "b", "/?a" + string([]byte{byte(c)}) + "b"} {
			if c == '%' {
				continue // begins an escape
			}
			status, _ := raw(t, addr, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n")
			if bad != (status == 400) {
				t.Errorf("byte %#02x in %q: status %d", c, target, status)
			}
			// And where an HTTP parser would have let it through.
			r := httptest.NewRequest("GET", "/", nil)
			r.RequestURI = target
			if got := statusOf(t, CheckRequest(r)); bad != (got == 400) {
				t.Errorf("byte %#02x in %q: CheckRequest says %d", c, target, got)
			}
		}
	}
}

// TestClass10Spoofing: what says where a request comes from and goes to is not
// the client's to choose.
func TestClass10Spoofing(t *testing.T) {
	addr := plainServer(t, Target{ServerName: "site.example"})
	port := addr.String()[strings.LastIndexByte(addr.String(), ':')+1:]
	status, got := raw(t, addr, "GET https://evil:443/p HTTP/1.1\r\nHost: other\r\nServer-Name: evil\r\nServer-Port: 1\r\nHttps: on\r\n"+
		"Remote-Addr: 8.8.8.8\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\nRequest-Uri: /evil\r\nScript-Filename: /etc/passwd\r\n\r\n")
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	wantVars(t, got, map[string]string{
		"SERVER_NAME": "site.example", "SERVER_PORT": port, "REMOTE_ADDR": "127.0.0.1", "REQUEST_SCHEME": "http", "REQUEST_URI": "/p",
		"HTTP_HOST": "evil:443", "HTTP_X_FORWARDED_FOR": "8.8.8.8",
	})
	wantUnset(t, got, "HTTPS", "SCRIPT_FILENAME")
	_, got = raw(t, plainServer(t, Target{}), "GET / HTTP/1.1\r\nHost: evil\r\n\r\n")
	wantVars(t, got, map[string]string{"SERVER_NAME": "127.0.0.1", "HTTP_HOST": "evil"})
}

func TestClass10Host(t *testing.T) {
	for host, ok := range map[string]bool{
		"": true, "a": true, "A.b-c_d.0": true, "a.": true, "a:80": true, "a:": true, "a:0": true, "a:65535": true, "1.2.3.4:1": true,
		"[::1]": true, "[::1]:80": true, "[2001:db8::1]:65535": true, "xn--bcher-kva.example": true,
		"a@b": false, "a:99999": false, "a:65536": false, "a:000080": false, "a b": false, " a": false, "a:8 0": false, "a\tb": false,
		"a\x00": false, "a\r\nb": false, "a/b": false, "a?b": false, "a#b": false, "a\\b": false, "a,b": false, "a;b": false, "a'b": false,
		"<a>": false, "a%41": false, "bücher": false, ".": false, "..": false, ".a": false, "a..b": false, ":80": false, "a:b": false,
		"a:-1": false, "a:+1": false, "::1": false, "[::1": false, "[::1]80": false, "[::1]:x": false, "[1.2.3.4]": false, "[a]": false,
		"[]": false, "[fe80::1%eth0]": false, "a:1:2": false, strings.Repeat("a", 262): false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		if got := statusOf(t, CheckRequest(r)); ok != (got == 0) || !ok && got != 400 {
			t.Errorf("%q: status %d, want ok %v", host, got, ok)
		}
	}
}

func TestCheckRequestTarget(t *testing.T) {
	addr := plainServer(t, Target{})
	for request, want := range map[string]int{
		"GET http://h HTTP/1.1\r\nHost: h":              200,
		"GET http://u:p@h/ HTTP/1.1\r\nHost: h":         400,
		"GET http:///a HTTP/1.1\r\nHost: h":             400,
		"CONNECT h:443 HTTP/1.1\r\nHost: h:443":         400,
		"GET x:y HTTP/1.1\r\nHost: h":                   400,
		"GET * HTTP/1.1\r\nHost: h":                     400,
		"GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: h": 400,
		"GET / HTTP/1.1\r\nHost: a@b":                   400,
	} {
		if status, _ := raw(t, addr, request+"\r\n\r\n"); status != want {
			t.Errorf("%q: status %d, want %d", request, status, want)
		}
	}
}

// TestClass05NewlineInPath: CVE-2019-11043. A line end in a path is a
// character like others, the path is not cut at it.
func TestClass05NewlineInPath(t *testing.T) {
	dir, rv := tree(t)
	for _, end := range []string{"%0a", "%0d", "%0d%0a", "%0A"} {
		escaped := "/index.php/PHP" + end + "info.php"
		want, err := url.PathUnescape(escaped)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := CleanPath(escaped); err != nil || got != want {
			t.Errorf("CleanPath(%s) = %q, %v", escaped, got, err)
		}
		s, err := rv.Resolve(escaped)
		if err != nil || s.Name+s.PathInfo != want || s.Filename != dir+"/index.php" {
			t.Errorf("Resolve(%s) = %+v, %v", escaped, s, err)
		}
		if s, err := rv.Resolve("/index.php" + end); err == nil {
			t.Errorf("a script's name with a line end behind it found %s", s.Filename)
		}
	}
}
