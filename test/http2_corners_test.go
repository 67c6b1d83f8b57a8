package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatecrew/test/harness"
)

// heldConn holds back its second write, which ends a client's handshake of TLS 1.3.
type heldConn struct {
	net.Conn
	writes  int
	held    chan<- struct{}
	release <-chan struct{}
}

func (c *heldConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		c.held <- struct{}{}
		<-c.release
	}
	return c.Conn.Write(p)
}

// TestShutdownDuringHandshake: a connection whose handshake ends after the gateway
// was told to stop holds up its end no longer than any other without a request.
func TestShutdownDuringHandshake(t *testing.T) {
	s := startTLS(t, "graceful_timeout: 60s\n"+threeSites, "a.example", "*.b.example")
	held, release := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for _, proto := range []string{"h2", "http/1.1"} {
		raw, err := net.Dial("tcp", s.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		clients.Go(func() {
			c := tls.Client(&heldConn{Conn: raw, held: held, release: release}, &tls.Config{RootCAs: s.authority.Pool, ServerName: "a.example", NextProtos: []string{proto}})
			if err := c.Handshake(); err != nil {
				return // it may be closed already
			}
			if proto == "h2" {
				_, _ = io.WriteString(c, http2.ClientPreface)
				_ = http2.NewFramer(c, c).WriteSettings()
			}
			_, _ = io.Copy(io.Discard, c)
		})
		<-held
	}
	s.Signal(syscall.SIGTERM)
	began := time.Now()
	time.Sleep(200 * time.Millisecond) // within which such a connection is not yet taken for a quiet one
	close(release)
	if !s.Wait(20 * time.Second) {
		t.Fatal("it does not end")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	clients.Wait()
}

// TestLimitsOfHTTP2: the limits of connections and of heads are those of every
// protocol.
func TestLimitsOfHTTP2(t *testing.T) {
	log := t.TempDir() + "/access.log"
	s := startProtocols(t, "", fmt.Sprintf("limits: {max_connections: 4, header_bytes: 8k, header_fields: 20, max_body: 1m}\nlog: {access: %q}", log))
	// The four places: a connection to the other address, and that address itself,
	// which has one while it waits for the next; and two connections with many
	// requests on each. One more waits.
	secure := s.client(t, true, nil)
	if resp, err := secure.Get("https://a.example/pool/token?x=a"); err != nil {
		t.Fatal(err)
	} else {
		resp.Body.Close()
	}
	first, second := dialH2C(t, s.plain), dialH2C(t, s.plain)
	for _, c := range []*h2conn{first, second} {
		for id := uint32(1); id < 40; id += 2 {
			if err := c.request(id, "/pool/token?x=a"); err != nil {
				t.Fatal(err)
			}
		}
		for ended := 0; ended < 20; {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
				ended++
			}
		}
	}
	third := dialH2C(t, s.plain)
	if err := third.request(1, "/pool/token?x=a"); err != nil {
		t.Fatal(err)
	}
	_ = third.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if f, err := third.ReadFrame(); err == nil {
		t.Fatalf("a third connection is served: %v", f)
	}
	_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
	first.Close()
	second.Close()
	for {
		f, err := http2.NewFramer(third, third).ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			break
		}
	}
	third.Close()
	secure.CloseIdleConnections()

	for name, client := range s.protocols(t) {
		scheme, proto, _ := strings.Cut(name, " ")
		client.Transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Second
		for what, header := range map[string]http.Header{
			"bytes":  {"X-Long": slices.Repeat([]string{strings.Repeat("x", 3000)}, 6)},
			"fields": {"X-Many": strings.Split(strings.Repeat("x", 30), "")},
		} {
			req, err := http.NewRequest("GET", scheme+"://a.example/pool/token?x=a", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = header
			r, err := client.Do(req)
			if err != nil && proto == "HTTP/2.0" && strings.Contains(err.Error(), "advertised limit") {
				continue // the client has been told the limit early enough to keep it
			}
			if err != nil {
				t.Fatalf("%s, many %s: %v", name, what, err)
			}
			r.Body.Close()
			if r.StatusCode != 431 || r.Proto != proto {
				t.Errorf("%s, many %s: %s %d", name, what, r.Proto, r.StatusCode)
			}
		}
		// A client that waits to be told to go on has not sent what is too large.
		for length, want := range map[int64]int{2 << 20: 413, 1000: 200} {
			body := &placed{n: length}
			req, err := http.NewRequest("POST", scheme+"://a.example/pool/echo", body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			req.Header.Set("Expect", "100-continue")
			r, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s, %d bytes with Expect: %v", name, length, err)
			}
			n, err := io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode != want || err != nil || want == 200 && n != length {
				t.Errorf("%s, %d bytes with Expect: %d, %d bytes, %v", name, length, r.StatusCode, n, err)
			}
		}
		client.CloseIdleConnections()
	}
	harness.Eventually(t, 10*time.Second, "access log with each protocol", func() bool {
		text, _ := os.ReadFile(log)
		return strings.Contains(string(text), `"GET /pool/token?x=a HTTP/2.0" 431`) && strings.Contains(string(text), `"POST /pool/echo HTTP/2.0" 413`) &&
			strings.Contains(string(text), `"POST /pool/echo HTTP/1.1" 200`)
	})
}

// TestRedirectOfWebSockets: an opening handshake without TLS goes the way of every
// request, and nobody is asked.
func TestRedirectOfWebSockets(t *testing.T) {
	s := startTLS(t, `
sites:
  - hosts: [a.example]
    tls: {certificate: "%DIR%/a.example.pem", key: "%DIR%/a.example.key"}
    redirect_to_https: true
    hsts: {max_age: 60}
    routes: [{path: /, socket: {command: [cat]}}]
`, "a.example")
	c, err := net.Dial("tcp", s.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.secure)
	if r.StatusCode != 301 || r.Header.Get("Location") != "https://a.example:"+port+"/x" || r.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
}
