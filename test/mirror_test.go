package test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// gate is one gateway before an application of every kind, each of which
// tells what it was given:
//
//	/cgi    the scripts of test/apps/cgi, copied to cgi
//	/pool   test/apps/wsgi_probe.py in one worker
//	/fcgi   test/apps/fcgi/responder.pl, a foreign application without scripts
//	/php    php-fpm on the scripts of test/apps/php, copied to php
type gate struct {
	*harness.Gateway
	t        *testing.T
	fpm      *harness.FPM
	dir      string // TEST_DIR of the scripts and the worker
	cgi, php string // the scripts' folders, in one parent
}

const gateConfig = `
log: {access: "off"}
limits: {@LIMITS@}
pools:
  probe: {app: "wsgi_probe:application", chdir: "@APPS@", python: "@PYTHON@", workers: 1, env: {TEST_DIR: "@DIR@"}}
sites:
  - routes:
      - {path: /cgi, cgi: {dir: "@CGI@", env: {TEST_DIR: "@DIR@"}}}
      - {path: /pool, pool: probe}
      - {path: /fcgi, fastcgi: {address: "unix:@PERL@", max_connections: 1}}
      - {path: /php, fastcgi: {address: "unix:@FPM@", root: "@PHP@", max_connections: 2}}
      @ROUTES@
  @SITES@
`

// newGate prepares a gate. limits are the configuration's, in YAML's flow
// style; sites are more of them, routes more of the default site's routes.
func newGate(t *testing.T, limits, routes, sites string) *gate {
	t.Helper()
	s := &gate{t: t, dir: t.TempDir(), cgi: harness.CGIDir(t), fpm: harness.StartFPM(t, 2, 0)}
	s.php = filepath.Join(filepath.Dir(s.cgi), "php")
	if err := os.CopyFS(s.php, os.DirFS(harness.App(t, "php"))); err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer("@LIMITS@", limits, "@ROUTES@", routes, "@SITES@", sites).Replace(gateConfig)
	config = strings.NewReplacer(
		"@PYTHON@", harness.Python(t), "@APPS@", harness.App(t), "@DIR@", s.dir,
		"@CGI@", s.cgi, "@PHP@", s.php, "@FPM@", s.fpm.Socket, "@PERL@", harness.StartResponder(t, 2),
	).Replace(config)
	s.Gateway = harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", config))
	return s
}

func startGate(t *testing.T, limits, routes, sites string) *gate {
	t.Helper()
	s := newGate(t, limits, routes, sites)
	s.Start()
	return s
}

// seen is what an application was given.
type seen struct {
	vars    map[string]string // the request's variables
	process map[string]string // the environment of a process that the gateway started
	argv    []string
}

// application is a page of a gate that answers with what it was given, also at
// every path below it.
type mirror struct {
	name, path string
	read       func(body string) (seen, error)
}

var mirrors = []mirror{
	{"CGI", "/cgi/env", readScript},
	{"pool", "/pool/environ", readProbe},
	{"libfcgi", "/fcgi", readScript},
	{"php-fpm", "/php/index.php", readPHP},
}

// readScript reads what test/apps/cgi/env.* and responder.pl print.
func readScript(body string) (seen, error) {
	var page struct {
		Env  map[string]string
		Argv []string
	}
	err := json.Unmarshal([]byte(body), &page)
	s := seen{vars: map[string]string{}, argv: page.Argv}
	for name, value := range page.Env {
		s.vars[fromLatin1(name)] = fromLatin1(value)
	}
	if page.Argv != nil { // of CGI: the process has no other environment
		s.process = s.vars
	}
	return s, err
}

// readProbe reads /environ of test/apps/wsgi_probe.py.
func readProbe(body string) (seen, error) {
	var page struct {
		Environ map[string]any
		Env     map[string]string
	}
	err := json.Unmarshal([]byte(body), &page)
	s := seen{vars: map[string]string{}, process: page.Env}
	for name, value := range page.Environ {
		if text, ok := value.(string); ok {
			s.vars[fromLatin1(name)] = fromLatin1(text)
		}
	}
	return s, err
}

// readPHP reads test/apps/php/index.php. Strings that are not UTF-8 are shown
// there with U+FFFD in place of what is wrong.
func readPHP(body string) (seen, error) {
	var page struct{ Server map[string]any }
	err := json.Unmarshal([]byte(body), &page)
	s := seen{vars: map[string]string{}}
	for name, value := range page.Server {
		if text, ok := value.(string); ok {
			s.vars[name] = text
		}
	}
	return s, err
}

// fromLatin1 makes bytes of characters of the same number.
func fromLatin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, c := range s {
		b = append(b, byte(c))
	}
	return string(b)
}

// see asks a page, with more header fields given as whole lines, and returns
// what the application was given.
func (a *mirror) see(t *testing.T, c *rawClient, path string, fields ...string) seen {
	t.Helper()
	r := c.get(path, fields...)
	if r.Status != http.StatusOK {
		t.Fatalf("GET %.200s: status %d: %.500s", path, r.Status, r.Body)
	}
	s, err := a.read(r.Body)
	if err != nil || len(s.vars) == 0 {
		t.Fatalf("GET %.200s: no variables: %v: %.500s", path, err, r.Body)
	}
	return s
}

// healthy demands that every application still answers.
func (s *gate) healthy() {
	s.t.Helper()
	c := s.client()
	for _, a := range mirrors {
		if v := a.see(s.t, c, a.path+"/well?a=b").vars; v["PATH_INFO"] != v["DOCUMENT_URI"][len(v["SCRIPT_NAME"]):] || v["QUERY_STRING"] != "a=b" {
			s.t.Errorf("%s: got PATH_INFO %q and QUERY_STRING %q", a.name, v["PATH_INFO"], v["QUERY_STRING"])
		}
	}
}

// rawClient writes requests byte by byte on a kept connection, and opens another
// one when the gateway has closed it.
type rawClient struct {
	t    *testing.T
	s    *gate
	conn net.Conn
	in   *bufio.Reader
}

func (s *gate) client() *rawClient { return &rawClient{t: s.t, s: s} }

// on makes a client that reports to a subtest.
func (c rawClient) on(t *testing.T) *rawClient { c.t = t; return &c }

// get asks for a target, which is sent as it is.
func (c *rawClient) get(target string, fields ...string) harness.Response {
	c.t.Helper()
	return c.send(rawRequest("GET", target, fields...))
}

// rawRequest is a request without a body.
func rawRequest(method, target string, fields ...string) string {
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: gateway.test"}, fields...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// send writes a whole request and reads its response.
func (c *rawClient) send(request string) harness.Response {
	c.t.Helper()
	if c.conn == nil {
		c.conn = c.s.Dial()
		c.in = bufio.NewReader(c.conn)
	}
	go io.Copy(c.conn, strings.NewReader(request)) // an early answer may leave the rest unread
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("%.300q: no response: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%.300q: the response breaks off: %v", request, err)
	}
	if resp.Close {
		c.conn.Close()
		c.conn = nil
	} else if n := c.in.Buffered(); n > 0 {
		left, _ := c.in.Peek(n)
		c.t.Fatalf("%.300q: bytes behind the response: %q", request, left)
	}
	return harness.Response{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
}

// writeScript makes a file with its folders.
func writeScript(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// lineCount is how many lines a file has; none when it is not there.
func lineCount(t *testing.T, path string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// differ says which variables are not what they should be.
func differ(t *testing.T, what string, got map[string]string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %s = %.200q, want %.200q", what, name, got[name], value)
		}
	}
}
