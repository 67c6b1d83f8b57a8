package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// soak tells whether the long variants run.
var soak = os.Getenv("SOAK") == "1"

// scaled is the size of a test: small for every change, large for a soak.
func scaled[N ~int | ~int64](small, large N) N {
	if soak {
		return large
	}
	return small
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// rig is one gateway before every kind of application.
type rig struct {
	*harness.Gateway
	FPM  *harness.FPM
	Dir  string // TEST_DIR of the CGI scripts and of the pool
	Peer *peer  // behind /peer
}

// rigOptions are the settings that tests differ in.
type rigOptions struct {
	plain    bool // the binary as users get it, for tests that measure
	limits   string
	log      string
	cgi      string // more settings of the cgi route
	pool     string // of the pool
	children int    // of php-fpm, 4 when it is 0
	// connections to php-fpm, as many as it has children when it is 0
	connections int
	requests    int    // after which a child of php-fpm ends
	php         string // more settings of the route to php-fpm
	peer        string // of the route to the peer
	serve       func(*peerConn)
}

// startRig starts it: /cgi are the scripts of test/apps/cgi, /pool is
// wsgi_probe.py, /php are the pages of test/apps/php, /peer is the test.
func startRig(t testing.TB, o rigOptions) *rig {
	t.Helper()
	if o.children == 0 {
		o.children = 4
	}
	if o.connections == 0 {
		o.connections = o.children
	}
	if o.serve == nil {
		o.serve = serveEcho
	}
	s := &rig{Dir: t.TempDir(), FPM: harness.StartFPM(t, o.children, o.requests), Peer: startPeer(t, o.serve)}
	scripts := harness.CGIDir(t)
	config := fmt.Sprintf(`
log: {level: info%s}
limits: {max_body: 2g%s}
pools:
  probe:
    app: wsgi_probe:app
    chdir: %s
    python: %s
    workers: 2
    threads: 2
    env: {TEST_DIR: %q}%s
sites:
  - routes:
      - path: /cgi
        cgi: {dir: %s, env: {TEST_DIR: %q}%s}
      - path: /pool
        pool: probe
      - path: /php
        fastcgi: {address: "unix:%s", root: %s, max_connections: %d%s}
      - path: /peer
        fastcgi: {address: %q%s}
`, o.log, o.limits, harness.App(t), harness.Python(t), s.Dir, o.pool, scripts, s.Dir, o.cgi,
		s.FPM.Socket, harness.App(t, "php"), o.connections, o.php, s.Peer.Address, o.peer)
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", config))
	if o.plain {
		g.Binary = harness.BuildPlain(t)
	}
	s.Gateway = g.Start()
	// Connections that the client has opened and not used look to a gateway that
	// stops as if a request were on its way.
	t.Cleanup(harness.Client.CloseIdleConnections)
	return s
}

// serveEcho is a well-behaved application: it answers with the body, or with
// the token of the query string when there is none.
func serveEcho(c *peerConn) {
	for {
		r, ok := c.next()
		if !ok {
			return
		}
		body := string(r.Body)
		if body == "" {
			body = r.Params["QUERY_STRING"]
		}
		if !c.say(fcgiPlain(r.ID, body)) {
			return
		}
	}
}

// placed is a body of n bytes that are never all in memory. Each byte depends on
// its place, so that a lost or a doubled piece shows: 251 is prime, and no block
// size is in step with it.
type placed struct{ at, n int64 }

var placedPattern = func() []byte {
	b := make([]byte, 64<<10+251)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}()

func (o *placed) Read(p []byte) (int, error) {
	if o.at == o.n {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), o.n-o.at)]
	n := copy(p, placedPattern[o.at%251:])
	o.at += int64(n)
	return n, nil
}

// checkPlaced reads n placed bytes and demands that nothing follows.
func checkPlaced(r io.Reader, n int64) error {
	buf, want := make([]byte, 64<<10), make([]byte, 64<<10)
	o := placed{n: n}
	for {
		got, err := r.Read(buf)
		if got > 0 {
			if m, _ := io.ReadFull(&o, want[:got]); m < got || !bytes.Equal(buf[:got], want[:got]) {
				return fmt.Errorf("wrong bytes, or too many, before byte %d of %d", o.at, n)
			}
		}
		switch {
		case err == io.EOF && o.at < n:
			return fmt.Errorf("a clean end after %d bytes of %d", o.at, n)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes of %d: %w", o.at, n, err)
		}
	}
}

// send is one request whose answer is read piece by piece.
func (s *rig) send(t testing.TB, method, path string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scaled(time.Minute, 20*time.Minute))
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := harness.Client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// worksEverywhere demands that each application still answers.
func (s *rig) worksEverywhere(t testing.TB) {
	t.Helper()
	for path, want := range map[string]string{
		"/cgi/echo.sh": "", "/pool/token?x=abc": "abc", "/php/status.php": "status\n", "/peer/x?abc": "abc",
	} {
		if r := s.Get(path); r.Status != 200 || r.Body != want {
			t.Errorf("%s afterwards: %d %q", path, r.Status, r.Body)
		}
	}
}

// chunkedOnly hides the length of a body, so that the client sends it chunked.
type chunkedOnly struct{ io.Reader }

func chunked(n int64) io.Reader { return chunkedOnly{&placed{n: n}} }
