package test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatecrew/test/harness"
)

// startProtocols serves one site in every protocol: /cgi are the scripts of
// test/apps/cgi, /pool is wsgi_probe.py, /files a folder with a file of 1 MiB.
// more goes before everything.
func startProtocols(t testing.TB, binary, more string) *tlsGateway {
	t.Helper()
	files := t.TempDir()
	data, _ := io.ReadAll(&placed{n: 1 << 20})
	if err := os.WriteFile(filepath.Join(files, "big.bin"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return startTLSWith(t, binary, fmt.Sprintf(`%s
h2c: true
pools:
  probe: {app: "wsgi_probe:app", chdir: %s, python: %s, workers: 2, threads: 2, env: {TEST_DIR: %s}}
sites:
  - tls: {certificate: "%%DIR%%/a.example.pem", key: "%%DIR%%/a.example.key"}
    routes:
      - {path: /cgi, cgi: {dir: %s}}
      - {path: /pool, pool: probe}
      - {path: /files, static: {dir: %s}}
`, more, harness.App(t), harness.Python(t), t.TempDir(), harness.CGIDir(t), files), "a.example")
}

// protocols are clients of each kind, with the scheme that they use.
func (s *tlsGateway) protocols(t testing.TB) map[string]*http.Client {
	unencrypted := s.client(t, false, nil)
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	unencrypted.Transport.(*http.Transport).Protocols = &h2c
	return map[string]*http.Client{"https HTTP/1.1": s.client(t, false, nil), "https HTTP/2.0": s.client(t, true, nil), "http HTTP/2.0": unencrypted}
}

// TestEveryProtocol: what holds for HTTP/1.1 without TLS holds for the others.
func TestEveryProtocol(t *testing.T) {
	t.Parallel()
	s := startProtocols(t, "", "limits: {max_body: 4m}")
	for name, client := range s.protocols(t) {
		scheme, proto, _ := strings.Cut(name, " ")
		base := scheme + "://a.example"
		do := func(t *testing.T, method, path string, body io.Reader, header ...string) (*http.Response, []byte, error) {
			t.Helper()
			req, err := http.NewRequest(method, base+path, body)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i+1 < len(header); i += 2 {
				req.Header.Add(header[i], header[i+1])
			}
			r, err := client.Do(req)
			if err != nil {
				return nil, nil, err
			}
			defer r.Body.Close()
			data, err := io.ReadAll(r.Body)
			return r, data, err
		}
		run := func(what string, f func(*testing.T)) { t.Run(name+" "+what, f) }

		run("variables", func(t *testing.T) {
			r, data, err := do(t, "GET", "/pool/environ/x%2fy?q=1", nil, "Cookie", "a=1", "Cookie", "b=2", "X-Twice", "1", "X-Twice", "2", "Proxy", "evil")
			if err != nil || r.StatusCode != 200 || r.Proto != proto {
				t.Fatal(r, err)
			}
			var got struct{ Environ map[string]any }
			if err := json.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			for variable, want := range map[string]any{"SERVER_PROTOCOL": proto, "HTTP_HOST": "a.example", "HTTP_COOKIE": "a=1; b=2", "HTTP_X_TWICE": "1, 2",
				"wsgi.url_scheme": scheme, "PATH_INFO": "/environ/x/y", "QUERY_STRING": "q=1", "REQUEST_URI": "/pool/environ/x%2fy?q=1", "REQUEST_METHOD": "GET"} {
				if got.Environ[variable] != want {
					t.Errorf("%s is %v, want %v", variable, got.Environ[variable], want)
				}
			}
			if _, has := got.Environ["HTTP_PROXY"]; has {
				t.Error("HTTP_PROXY is set")
			}
		})
		run("bodies", func(t *testing.T) {
			for _, path := range []string{"/pool/echo", "/cgi/echo.py"} {
				for _, body := range []io.Reader{bytes.NewReader(placedPattern), chunked(3 << 20)} {
					length := int64(3 << 20)
					if b, ok := body.(*bytes.Reader); ok {
						length = b.Size()
					}
					_, data, err := do(t, "POST", path, body)
					if err == nil {
						err = checkPlaced(bytes.NewReader(data), length)
					}
					if err != nil {
						t.Errorf("%s: %v", path, err)
					}
				}
			}
		})
		run("too large", func(t *testing.T) {
			for range 2 {
				r, _, err := do(t, "POST", "/pool/digest", &placed{n: 5 << 20})
				// HTTP/1 may close under the client's hands.
				if err == nil && r.StatusCode != 413 || err != nil && proto == "HTTP/2.0" {
					t.Errorf("%v, %v", r, err)
				}
			}
			if proto != "HTTP/2.0" {
				return
			}
			// The other requests on the connection are not disturbed.
			reused := false
			req, _ := http.NewRequest("GET", base+"/pool/token?x=a", nil)
			req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
			r, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if !reused {
				t.Error("the connection was closed by an error of one request")
			}
		})
		run("heads", func(t *testing.T) {
			for _, c := range []struct {
				method, path string
				status       int
				length, body string
			}{
				{"HEAD", "/pool/token?x=abcdef", 200, "6", ""},
				{"HEAD", "/files/big.bin", 200, "1048576", ""},
				{"GET", "/pool/status/204", 204, "", ""},
				{"GET", "/pool/status/304", 304, "", ""},
				{"GET", "/pool/body-anyway?status=204+No+Content", 204, "", ""},
				{"GET", "/pool/status/404", 404, "11", "status 404\n"},
				{"GET", "/pool/long", 200, "10", "llllllllll"},
				{"POST", "/files/big.bin", 405, "*", "*"},
				{"GET", "/nothing", 404, "*", "*"},
				{"GET", "/pool/raise", 500, "*", "*"},
				{"GET", "/cgi/die.py?head=part", 502, "*", "*"},
				{"GET", "/cgi/raw.py?Content-Type:%20text/plain%0aConnection:%20close%0aKeep-Alive:%20timeout=9%0aUpgrade:%20x%0a%0abody", 200, "*", "body"},
			} {
				r, data, err := do(t, c.method, c.path, nil)
				if err != nil {
					t.Errorf("%s %s: %v", c.method, c.path, err)
					continue
				}
				if r.StatusCode != c.status || c.length != "*" && r.Header.Get("Content-Length") != c.length || c.body != "*" && string(data) != c.body {
					t.Errorf("%s %s: %d %q %v", c.method, c.path, r.StatusCode, data, r.Header)
				}
				if r.Header.Get("Connection") != "" && proto == "HTTP/2.0" {
					t.Errorf("%s %s: %v", c.method, c.path, r.Header)
				}
			}
		})
		run("files", func(t *testing.T) {
			_, data, err := do(t, "GET", "/files/big.bin", nil)
			if err == nil {
				err = checkPlaced(bytes.NewReader(data), 1<<20)
			}
			if err != nil {
				t.Error(err)
			}
			r, data, err := do(t, "GET", "/files/big.bin", nil, "Range", "bytes=251-500")
			if err != nil || r.StatusCode != 206 || !bytes.Equal(data, placedPattern[:250]) {
				t.Errorf("range: %v, %v", r, err)
			}
		})
		run("broken off", func(t *testing.T) {
			for _, path := range []string{"/pool/short", "/pool/raise-mid?sent=100000", "/pool/raise-mid?sent=10&length=20", "/pool/die-mid?sent=100000",
				"/cgi/die.py?sent=100000&code=1", "/cgi/die.py?length=100&sent=10"} {
				r, data, err := do(t, "GET", path, nil)
				if err == nil && r.StatusCode == 200 {
					t.Errorf("%s: a clean end after %d bytes", path, len(data))
				}
			}
		})
		run("stream", func(t *testing.T) {
			r, err := client.Get(base + "/pool/stream?n=2&chunk=10&delay=0.4")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if _, err := io.ReadFull(r.Body, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			first := time.Now()
			if _, err := io.ReadFull(r.Body, make([]byte, 10)); err != nil || time.Since(first) < 200*time.Millisecond {
				t.Errorf("the pieces came together, %v apart: %v", time.Since(first), err)
			}
		})
	}

	t.Run("HTTP/1.0 with TLS", func(t *testing.T) {
		// Nothing but the lack of a close_notify tells this end from a good one.
		for path, good := range map[string]bool{"/pool/raise-mid?sent=100000": false, "/pool/stream?n=10&chunk=10000": true} {
			c, err := tls.Dial("tcp", s.secure, &tls.Config{RootCAs: s.authority.Pool, ServerName: "a.example"})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "GET %s HTTP/1.0\r\nHost: a.example\r\n\r\n", path)
			data, err := io.ReadAll(c)
			c.Close()
			if (err == nil) != good {
				t.Errorf("%s: %d bytes, %v", path, len(data), err)
			}
		}
	})
}

// TestStreamThatTakesNothing: a client that opens no flow-control window for a
// stream while its connection is well holds nothing for longer than write_timeout,
// whether the rest of the answer is with the application or with net/http.
func TestStreamThatTakesNothing(t *testing.T) {
	s := startProtocols(t, "", "limits: {write_timeout: 700ms}")
	c := dialH2C(t, s.plain, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	paths := []string{"/pool/stream?n=1000&chunk=10000", "/files/big.bin", "/pool/token?x=abcdefghijklmnopqrstuvwxyz"}
	for i, path := range paths {
		c.request(uint32(2*i+1), path)
	}
	reset := map[uint32]bool{}
	for len(reset) < len(paths) {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%v reset, then %v", reset, err)
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			reset[f.StreamID] = true
		case *http2.DataFrame:
			if f.StreamEnded() {
				t.Errorf("stream %d ended well", f.StreamID)
			}
		}
	}
	// The connection lives, and one that waits long but takes what comes is not cut off.
	if err := errors.Join(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})); err != nil {
		t.Fatal(err)
	}
	c.request(101, "/pool/stream?n=2&chunk=10&delay=1")
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := f.(*http2.RSTStreamFrame); ok && r.StreamID == 101 {
			t.Fatal("a slow application was taken for a slow client")
		}
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			break
		}
	}
}

// h2conn is a bare HTTP/2 connection.
type h2conn struct {
	net.Conn
	*http2.Framer
	t    testing.TB
	head bytes.Buffer
	enc  *hpack.Encoder
}

func dialH2C(t testing.TB, addr string, settings ...http2.Setting) *h2conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &h2conn{Conn: conn, Framer: http2.NewFramer(conn, conn), t: t}
	c.enc = hpack.NewEncoder(&c.head)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// block is the header block of a GET.
func (c *h2conn) block(path string) []byte {
	c.head.Reset()
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a.example"}, {Name: ":path", Value: path}} {
		_ = c.enc.WriteField(f) // into memory
	}
	return c.head.Bytes()
}

func (c *h2conn) request(stream uint32, path string) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block(path), EndStream: true, EndHeaders: true})
}

// TestHTTP2Attacks: whatever one client does with frames, the gateway's memory
// stays bounded, and others are served.
func TestHTTP2Attacks(t *testing.T) {
	s := startProtocols(t, harness.BuildPlain(t), "log: {access: \"off\"}")
	const enough = 64 << 20 // bytes from one client are more than any connection needs
	span := scaled(400*time.Millisecond, time.Minute)

	for _, attack := range []struct {
		name string
		run  func(t *testing.T, until time.Time) error // nil when the gateway put up with it
	}{
		// CVE-2023-44487: requests that are reset at once.
		{"rapid reset", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			go io.Copy(io.Discard, c.Conn)
			for id := uint32(1); time.Now().Before(until); id += 2 {
				if err := errors.Join(c.request(id, "/pool/sleep?s=0.02"), c.WriteRSTStream(id, http2.ErrCodeCancel)); err != nil {
					return err
				}
			}
			return nil
		}},
		// CVE-2025-8671: the same, but it is the server that is made to reset.
		{"made you reset", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			go io.Copy(io.Discard, c.Conn)
			for id := uint32(1); time.Now().Before(until); id += 2 {
				if err := errors.Join(c.request(id, "/pool/sleep?s=0.02"), c.WriteWindowUpdate(id, 1<<31-1)); err != nil {
					return err
				}
			}
			return nil
		}},
		// CVE-2023-45288: a header block without an end.
		{"CONTINUATION flood", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			go io.Copy(io.Discard, c.Conn)
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("/pool/token?x=a")}); err != nil {
				return err
			}
			c.head.Reset()
			_ = c.enc.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 12000), Sensitive: true})
			for n := 0; n < enough; n += c.head.Len() {
				if err := c.WriteContinuation(1, false, c.head.Bytes()); err != nil {
					return err
				}
			}
			return errors.New("none, although the header block has 64 MiB")
		}},
		// CVE-2019-9512 and 9515: answers that are asked for and not taken.
		{"PING flood", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			for time.Now().Before(until) {
				if err := c.WritePing(false, [8]byte{1}); err != nil {
					return err
				}
			}
			return nil
		}},
		{"SETTINGS flood", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			for time.Now().Before(until) {
				if err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}); err != nil {
					return err
				}
			}
			return nil
		}},
		// CVE-2019-9518: frames with nothing in them.
		{"empty frames", func(t *testing.T, until time.Time) error {
			c := dialH2C(t, s.plain)
			go io.Copy(io.Discard, c.Conn)
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block("/pool/echo"), EndHeaders: true}); err != nil {
				return err
			}
			for time.Now().Before(until) {
				if err := c.WriteData(1, false, nil); err != nil {
					return err
				}
			}
			return nil
		}},
		// One large field, then a byte for each repetition.
		{"header bomb", func(t *testing.T, until time.Time) error {
			for time.Now().Before(until) {
				c := dialH2C(t, s.plain)
				block := bytes.Clone(c.block("/pool/token?x=a"))
				c.head.Reset()
				_ = c.enc.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 3500)})
				block = append(block, c.head.Bytes()...)
				block = append(block, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // the newest of the dynamic table, RFC 7541, section 6.1
				if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}); err != nil {
					return err
				}
				for answered := false; !answered; {
					f, err := c.ReadFrame()
					if err != nil {
						return err
					}
					if h, ok := f.(*http2.HeadersFrame); ok {
						fields, err := hpack.NewDecoder(4096, nil).DecodeFull(h.HeaderBlockFragment())
						if err != nil || fields[0].Value != "431" {
							t.Errorf("answered %v, %v", fields, err)
						}
						answered = true
					}
				}
				c.Close()
			}
			return nil
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			before, peak := harness.MemoryOf(s.PID).RSS, int64(0)
			until := time.Now().Add(span)
			ended := make(chan error, 4)
			for range cap(ended) {
				go func() { ended <- attack.run(t, until) }()
			}
			var slowest time.Duration
			client := s.client(t, true, nil)
			for running := cap(ended); running > 0; {
				asked := time.Now()
				if r, body := fetch(t, client, "https://a.example/pool/token?x=other"); r.StatusCode != 200 || body != "other" {
					t.Errorf("another client is answered %d %q", r.StatusCode, body)
				}
				slowest, peak = max(slowest, time.Since(asked)), max(peak, harness.MemoryOf(s.PID).RSS)
				select {
				case err := <-ended:
					running--
					if err != nil && strings.HasPrefix(err.Error(), "none") {
						t.Error(err)
					}
				default:
				}
			}
			t.Logf("slowest answer to another client %v, memory +%d KiB", slowest, (peak-before)>>10)
			if slowest > 3*time.Second {
				t.Errorf("another client waited %v", slowest)
			}
			if peak-before > 96<<20 {
				t.Errorf("the gateway grew by %d MiB", (peak-before)>>20)
			}
			// No worker stays with a request that was reset.
			harness.Eventually(t, 5*time.Second, "all workers free", func() bool {
				asked := time.Now()
				for range 8 {
					fetch(t, client, "https://a.example/pool/token?x=a")
				}
				return time.Since(asked) < time.Second
			})
		})
	}
}

// TestShutdownOfHTTP2: a request in progress ends, the client is told with GOAWAY
// to go, and idle connections don't hold up the end.
func TestShutdownOfHTTP2(t *testing.T) {
	s := startProtocols(t, "", "")
	idle := dialH2C(t, s.plain)
	busy := dialH2C(t, s.plain)
	if err := busy.request(1, "/pool/sleep?s=1.2"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // the request is with its worker
	began := time.Now()
	s.Signal(syscall.SIGTERM)
	for c, want := range map[*h2conn]string{idle: "GOAWAY", busy: "GOAWAY slept\n"} {
		var got []string
		for {
			f, err := c.ReadFrame()
			if err != nil {
				break
			}
			switch f := f.(type) {
			case *http2.GoAwayFrame:
				if f.ErrCode == http2.ErrCodeNo {
					got = append(got, "GOAWAY")
				}
			case *http2.DataFrame:
				if len(f.Data()) > 0 {
					got = append(got, string(f.Data()))
				}
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !s.Wait(10*time.Second) || time.Since(began) > 5*time.Second {
		t.Errorf("the end took %v", time.Since(began))
	}
}
