package harness

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Response is a whole answer, body included.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Client is an HTTP client that does what it is told: no redirects followed,
// no compression asked for, no proxy.
var Client = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Get asks for a path and reads the whole answer. A broken answer fails the test.
func (g *Gateway) Get(path string) Response {
	g.t.Helper()
	return g.Do(http.MethodGet, path, nil)
}

// Do sends a request, its header fields given as name, value, name, value.
func (g *Gateway) Do(method, path string, body io.Reader, header ...string) Response {
	g.t.Helper()
	r, err := g.Try(method, path, body, header...)
	if err != nil {
		g.t.Fatalf("harness: %v%s", err, g.transcript())
	}
	return r
}

// Try is Do for answers that may break. What was read of a broken body is in
// the response beside the error.
func (g *Gateway) Try(method, path string, body io.Reader, header ...string) (Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, g.URL+path, body)
	if err != nil {
		return Response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := Client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return Response{Status: resp.StatusCode, Header: resp.Header, Body: string(data)}, err
}

// Dial opens a connection to the gateway that ends with the test and on which
// nothing blocks longer than a minute.
func (g *Gateway) Dial() net.Conn {
	g.t.Helper()
	c, err := net.DialTimeout("tcp", g.Addr, 5*time.Second)
	if err != nil {
		g.t.Fatalf("harness: %v", err)
	}
	g.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// Raw sends bytes as they are and returns all that came back until the
// gateway closed the connection; let the last request say "Connection: close".
// A connection that is reset ends the answer like one that is closed.
func (g *Gateway) Raw(request string) string {
	g.t.Helper()
	c := g.Dial()
	// An early answer may close the connection before all of it was sent.
	_, _ = io.Copy(c, strings.NewReader(request))
	data, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		g.t.Fatalf("harness: the gateway kept the connection open; so far it sent %q", data)
	}
	return string(data)
}

// FreePort is a loopback TCP port that nobody listens on at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Eventually waits until cond holds, and fails the test when it does not
// within d.
func Eventually(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("harness: not within %v: %s", d, what)
		}
	}
}
