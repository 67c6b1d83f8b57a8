package test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// raw has an application answer with text as it is, head and all: the script
// raw.py, which is told by its query, and the foreign application, which is
// sent it.
var raw = []struct {
	name string
	ask  func(c *rawClient, text string) harness.Response
}{
	{"CGI", func(c *rawClient, text string) harness.Response {
		return c.get("/cgi/raw.py?" + strings.ReplaceAll(url.QueryEscape(text), "+", "%20"))
	}},
	{"libfcgi", func(c *rawClient, text string) harness.Response { return c.send(post("/fcgi/raw", text)) }},
}

// post is a request with a body.
func post(target, body string, fields ...string) string {
	return rawRequest("POST", target, append(fields, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

// inStep demands that the client's connection carries the next answer.
func (c *rawClient) inStep(token string) {
	c.t.Helper()
	if r := c.get("/pool/token?x=" + token); r.Status != http.StatusOK || r.Body != token {
		c.t.Fatalf("the next request is answered %d %q", r.Status, r.Body)
	}
}

// A head that isn't one is never half understood: the answer is a 502 that
// shows nothing of it, with a line in the log that says why.
func TestClass28MalformedHeads(t *testing.T) {
	t.Parallel()
	harness.EachReader(t, testMalformedHeads)
}

func testMalformedHeads(t *testing.T) {
	s := startGate(t, "", "", "")
	c := s.client()
	var table map[string]int
	if err := json.Unmarshal([]byte(c.get("/cgi/malformed.py?list").Body), &table); err != nil {
		t.Fatal(err)
	}
	malformed := 0
	for name, want := range table {
		if want == http.StatusBadGateway {
			malformed++
		}
		judge := func(kind string, r harness.Response) {
			if r.Status != want || want == http.StatusOK && name != "status-only" && r.Body != "body" {
				t.Errorf("%s, %s: %d %.200q, want %d", kind, name, r.Status, r.Body, want)
			}
			if want != http.StatusOK && (!strings.Contains(r.Body, "could not be understood") || len(r.Header["X-A"]) > 0) {
				t.Errorf("%s, %s: the answer shows %q %q", kind, name, r.Header, r.Body)
			}
		}
		judge("CGI", c.get("/cgi/malformed.py?"+name))
		if want != http.StatusOK {
			s.LogLine(`"uri": "/cgi/malformed.py?` + name + `"`)
		}
		cmd := exec.Command(filepath.Join(s.cgi, "malformed.py"))
		cmd.Env = append(os.Environ(), "QUERY_STRING="+name)
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		judge("libfcgi", raw[1].ask(c, string(text)))
	}
	if malformed < 40 {
		t.Errorf("only %d malformed heads were tried", malformed)
	}
	// Our own workers make the head themselves: what can't become one is a
	// failure of the application.
	for _, path := range []string{"/no-start", "/text-body", "/header-injection?status=abc", "/header-injection?status=99%20Low", "/header-injection?status=100%20Continue",
		"/header-injection?status=2000%20High", "/header-injection?status=", "/header-injection?n=", "/header-injection?n=X%20A", "/header-injection?n=X:A", "/header-injection?n=X%E9"} {
		if r := c.get("/pool" + path); r.Status != http.StatusInternalServerError || strings.Contains(r.Body, "Traceback") {
			t.Errorf("/pool%s: %d %q", path, r.Status, r.Body)
		}
	}
	s.healthy()
}

// What an application echoes in a field can't end the field, the head, or the
// response.
func TestClass29ResponseSplitting(t *testing.T) { harness.EachReader(t, testResponseSplitting) }

func testResponseSplitting(t *testing.T) {
	s := newGate(t, "", "", "")
	writeScript(t, filepath.Join(s.php, "inject.php"), "<?php header('X-Echo: ' . $_GET['v']); echo 'body';", 0o644)
	writeScript(t, filepath.Join(s.php, "folder\r\nSet-Cookie: evil=1", "x.php"), "", 0o644)
	s.Start()
	const second = "HTTP/1.1%20200%20OK%0d%0aContent-Length:%204%0d%0a%0d%0aevil"
	values := []string{"a%0d%0aSet-Cookie:%20evil=1", "a%0aSet-Cookie:%20evil=1", "a%0dSet-Cookie:%20evil=1", "a%00", "a%00%0d%0aSet-Cookie:%20evil=1",
		"a%0d%0d%0aSet-Cookie:%20evil=1", "a%0d%0a%20Set-Cookie:%20evil=1", "%0d%0a%0d%0a" + second, "%0a%0a" + second, "%0d%0aContent-Length:%200%0d%0a%0d%0a" + second,
		"%0d%0aTransfer-Encoding:%20chunked%0d%0a%0d%0a0%0d%0a%0d%0a" + second, "%0d%0aStatus:%20204%0d%0a%0d%0a" + second, "%0d%0aConnection:%20close",
		"%c4%8d%c4%8aSet-Cookie:%20evil=1", "a%0bb", "a%0cb", "a%1bb", "a%7fb"}
	c := s.client()
	for _, v := range values {
		// Where the gateway's own worker or PHP builds the head, a value is a
		// value: with a control character it is refused by them.
		for _, path := range []string{"/pool/header-injection?v=", "/pool/header-injection?n=X-A:", "/pool/header-injection?status=200%20", "/php/inject.php?v="} {
			if strings.HasPrefix(path, "/php") && !strings.Contains(v, "%0a") && !strings.Contains(v, "%0d") {
				continue // PHP looks for line ends and NUL alone; the gateway below for the rest
			}
			r := c.get(path + v)
			if r.Header.Get("Set-Cookie") != "" || strings.Contains(r.Body, "evil") {
				t.Errorf("%s%s: %d %q %q", path, v, r.Status, r.Header, r.Body)
			}
			if strings.HasPrefix(path, "/pool") && r.Status != http.StatusInternalServerError && !strings.HasPrefix(v, "%c4") {
				t.Errorf("%s%s: status %d", path, v, r.Status)
			}
			c.inStep("after")
		}
		// A script writes its head itself, and a line end is the end of a field
		// there, whoever meant it. What it writes stays one response, and a
		// character that is no line end for a script but might be for a client
		// is refused.
		r := c.get("/cgi/inject.py?v=" + v)
		bad := strings.Contains(v, "%00") || strings.Contains(strings.ReplaceAll(v, "%0d%0a", ""), "%0d") || strings.Contains(v, "%0d%0a%20") ||
			strings.Contains(v, "%0b") || strings.Contains(v, "%0c") || strings.Contains(v, "%1b") || strings.Contains(v, "%7f")
		if (r.Status == http.StatusBadGateway) != bad || bad && len(r.Header["Set-Cookie"]) > 0 {
			t.Errorf("/cgi/inject.py?v=%s: %d %q %q", v, r.Status, r.Header, r.Body)
		}
		c.inStep("after")
	}
	for _, path := range []string{"/php/folder%0d%0aSet-Cookie:%20evil=1", "/php/folder%0D%0ASet-Cookie:%20evil=1?a=%0d%0ab"} {
		r := c.get(path)
		if r.Status != http.StatusMovedPermanently || len(r.Header["Set-Cookie"]) > 0 || !strings.Contains(r.Header.Get("Location"), "%0") {
			t.Errorf("%s: %d %q", path, r.Status, r.Header)
		}
	}
	s.healthy()
}

// The fields about the connection are the gateway's: an application's have no
// effect, and the body is what it wrote.
func TestClass30ConnectionFields(t *testing.T) { harness.EachReader(t, testConnectionFields) }

func testConnectionFields(t *testing.T) {
	s := newGate(t, "", "", "")
	writeScript(t, filepath.Join(s.php, "fields.php"), `<?php foreach (explode("\n", file_get_contents("php://input")) as $f) if ($f != "") header($f, false); echo "body\n";`, 0o644)
	s.Start()
	c := s.client()
	sets := []string{
		"Connection: close\n", "Connection: X-Secret\n", "Connection: keep-alive, X-Secret\nKeep-Alive: timeout=99\n", "Transfer-Encoding: chunked\n",
		"Transfer-Encoding: gzip, chunked\n", "Transfer-Encoding: chunked\nContent-Length: 5\n", "Upgrade: probe\nConnection: upgrade\n", "Trailer: X-Late\n",
		"Proxy-Connection: close\n", "TE: trailers\n", "connection: close\ntransfer-encoding: identity\n",
	}
	demand := func(what string, r harness.Response) {
		t.Helper()
		if r.Status != http.StatusOK || r.Body != "body\n" || r.Header.Get("X-Secret") != "kept" {
			t.Errorf("%s: %d %q %q", what, r.Status, r.Header, r.Body)
		}
		for _, name := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Trailer", "Proxy-Connection", "Te"} {
			if values := r.Header[name]; len(values) > 0 {
				t.Errorf("%s: %s: %q", what, name, values)
			}
		}
		if c.conn == nil {
			t.Errorf("%s: the connection was closed", what)
		}
		c.inStep("after")
	}
	for _, fields := range sets {
		for _, app := range raw {
			demand(app.name+" "+fields, app.ask(c, "Content-Type: text/plain\nX-Secret: kept\n"+fields+"\nbody\n"))
		}
		demand("php-fpm "+fields, c.send(post("/php/fields.php", "X-Secret: kept\n"+fields)))
	}
	// PEP 3333 forbids an application to set them: it learns of its mistake.
	r := c.get("/pool/hop-by-hop")
	if r.Status != http.StatusInternalServerError || len(r.Header["Upgrade"])+len(r.Header["Keep-Alive"])+len(r.Header["Connection"]) > 0 {
		t.Errorf("pool: %d %q %q", r.Status, r.Header, r.Body)
	}
	c.inStep("after")
	// A body that looks like a coding is a body.
	const coded = "5\r\nbody\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
	for _, app := range raw {
		if r := app.ask(c, "Content-Type: text/plain\nTransfer-Encoding: chunked\n\n"+coded); r.Body != coded {
			t.Errorf("%s: body %q", app.name, r.Body)
		}
		c.inStep("after")
	}
	s.healthy()
}

// A Location that is a path of this site is answered by that path, ten times
// at most (RFC 3875, section 6.2.2).
func TestClass31LocalRedirects(t *testing.T) { harness.EachReader(t, testLocalRedirects) }

func testLocalRedirects(t *testing.T) {
	s := newGate(t, "", "", "")
	e := newExecutions(t, s)
	writeScript(t, filepath.Join(s.cgi, "loop"), "#!/bin/sh\necho >>'"+s.dir+"/marks'\nprintf 'Location: %s?%s\\n\\n' \"$SCRIPT_NAME\" \"$QUERY_STRING\"\n", 0o755)
	s.Start()
	c := s.client()
	before := e.count(t, c)
	if r := c.get("/cgi/loop?a=b"); r.Status != http.StatusInternalServerError || len(r.Header["Location"]) > 0 {
		t.Errorf("a circle: %d %q", r.Status, r.Header)
	}
	if runs := e.count(t, c) - before - 1; runs != 11 {
		t.Errorf("a circle: the script ran %d times, want once and ten times more", runs)
	}
	if r := c.get("/cgi/redirect-loop.sh"); r.Status != http.StatusInternalServerError {
		t.Errorf("a circle: status %d", r.Status)
	}
	for _, m := range mirrors {
		for _, request := range []string{
			rawRequest("GET", "/cgi/local-redirect.sh?"+m.path+"/a%20b?c=d%20e", "X-A: kept"),
			post("/cgi/local-redirect.sh?"+m.path+"/a%20b?c=d%20e", "a body", "X-A: kept", "Content-Type: text/x"),
			post("/fcgi/raw", "Location: "+m.path+"/a%20b?c=d%20e\n\n", "X-A: kept", "Content-Type: text/x"),
		} {
			r := c.send(request)
			got, err := m.read(r.Body)
			if err != nil || r.Status != http.StatusOK {
				t.Errorf("%s: %d %.200q: %v", m.name, r.Status, r.Body, err)
				continue
			}
			differ(t, m.name, got.vars, map[string]string{"REQUEST_METHOD": "GET", "PATH_INFO": got.vars["PATH_INFO"][:max(0, len(got.vars["PATH_INFO"])-4)] + "/a b",
				"QUERY_STRING": "c=d%20e", "CONTENT_LENGTH": "", "CONTENT_TYPE": "", "HTTP_X_A": "kept"})
			c.inStep("after")
		}
	}
	for _, tt := range []struct {
		location string
		status   int
	}{
		{"/cgi/nothing-there", 404}, {"/php/info.php", 200}, {"/cgi/redirect-loop.sh", 500}, {"/cgi/malformed.py?no-colon", 502},
		// What no client could ask for is the application's mistake.
		{"/../../etc/passwd", 502}, {"/cgi/%2e%2e/%2e%2e/etc/passwd", 502}, {"/cgi/%00", 502}, {"/cgi/%zz", 502}, {"/cgi/a%2f..%2fenv", 502},
		// No local ones: the client is sent there.
		{"http://other.test/", 302}, {"relative", 302}, {"/a b", 302}, {"/a#b", 302},
	} {
		for _, app := range raw {
			r := app.ask(c, "Location: "+tt.location+"\n\n")
			if r.Status != tt.status || (r.Header.Get("Location") == tt.location) != (tt.status == 302) {
				t.Errorf("%s, Location %s: %d %q, want %d", app.name, tt.location, r.Status, r.Header, tt.status)
			}
			c.inStep("after")
		}
	}
	if r := c.send(rawRequest("HEAD", "/cgi/local-redirect.sh?/pool/environ")); r.Status != http.StatusOK || r.Body != "" {
		t.Errorf("HEAD: %d %q", r.Status, r.Body)
	}
	c.inStep("after")
	s.healthy()
}

// A script with non-parsed headers writes a status line; what follows is
// framed like every other response.
func TestClass31NPHScripts(t *testing.T) {
	s := newGate(t, "", "", "")
	if err := os.Link(filepath.Join(s.cgi, "raw.py"), filepath.Join(s.cgi, "nph-raw.py")); err != nil {
		t.Fatal(err)
	}
	s.Start()
	c := s.client()
	r := c.get("/cgi/nph-hello.sh/info")
	if r.Status != 203 || r.Header.Get("X-Nph") != "yes" || !strings.HasPrefix(r.Body, "Hello from ") || c.conn == nil {
		t.Errorf("%d %q %q", r.Status, r.Header, r.Body)
	}
	c.inStep("after")
	if answer := s.Raw("GET /cgi/nph-hello.sh HTTP/1.0\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.0 203 ") || !strings.Contains(answer, "\r\n\r\nHello from ") {
		t.Errorf("HTTP/1.0: %q", answer)
	}
	for _, tt := range []struct {
		text   string
		status int
	}{
		{"HTTP/1.0 404 Not Here\n\nbody", 404}, {"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody", 200}, {"HTTP/1.1 302 Found\nLocation: /pool/environ\n\nbody", 302},
		{"HTTP/1.1 200 OK\nStatus: 404\n\nbody", 200}, {"HTTP/1.1 200 OK\nContent-Length: 4\n\nbodyHTTP/1.1 200 OK\r\n\r\n", 200},
		{"Content-Type: text/plain\n\nbody", 502}, {"HTTP/2 200 OK\n\nbody", 502}, {"HTTP/1.1 abc\n\nbody", 502}, {"HTTP/1.1 99 Low\n\nbody", 502},
		{"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\nbody", 502}, {"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4\r\nbody\r\n0\r\n\r\n", 502},
		{"HTTP/1.1 200 O\rK\n\nbody", 502}, {"HTTP/1.1 200 OK\nno colon\n\nbody", 502}, {"HTTP/1.1 200 OK", 502}, {"", 502}, {"body", 502},
	} {
		r := c.get("/cgi/nph-raw.py?" + strings.ReplaceAll(url.QueryEscape(tt.text), "+", "%20"))
		if r.Status != tt.status || tt.status != 502 && r.Body != "body" {
			t.Errorf("%q: %d %q, want %d", tt.text, r.Status, r.Body, tt.status)
		}
		c.inStep("after")
	}
	s.healthy()
}
