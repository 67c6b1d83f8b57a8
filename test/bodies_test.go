package test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gatecrew/test/harness"
)

// bodySum is what the fixtures say of a body that they read.
type bodySum struct {
	Bytes  int64   `json:"bytes"`
	SHA256 string  `json:"sha256"`
	Length *string `json:"content_length"`
}

func sumOf(body io.Reader) bodySum {
	h := sha256.New()
	n, _ := io.Copy(h, body) // neither side of it fails
	return bodySum{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}
}

// sums are the pages that read a body and tell what it was.
var sums = []struct {
	name, path string
	get        func(body string) (bodySum, error)
}{
	{"CGI", "/cgi/sum.py", plainSum},
	{"pool", "/pool/digest", plainSum},
	{"php-fpm", "/php/index.php", func(body string) (bodySum, error) {
		var page struct {
			Server map[string]any `json:"server"`
			Body   bodySum        `json:"body"`
		}
		err := json.Unmarshal([]byte(body), &page)
		if length, ok := page.Server["CONTENT_LENGTH"].(string); ok {
			page.Body.Length = &length
		}
		return page.Body, err
	}},
}

func plainSum(body string) (s bodySum, err error) {
	err = json.Unmarshal([]byte(body), &s)
	return s, err
}

// A body that comes in chunks reaches every application whole and with its true
// length, and the gateway's memory does not grow with it.
func TestClass18ChunkedRequestBodies(t *testing.T) {
	t.Parallel()
	harness.EachReader(t, testChunkedRequestBodies)
}

func testChunkedRequestBodies(t *testing.T) {
	s := startRig(t, rigOptions{plain: true})
	for _, app := range sums {
		t.Run(app.name, func(t *testing.T) {
			for _, n := range []int64{0, 1, 65535, 65536, 1 << 20, 9<<20 + 1} {
				r := s.Do("POST", app.path, chunked(n), "Content-Type", "application/octet-stream")
				got, err := app.get(r.Body)
				if err != nil || r.Status != 200 {
					t.Fatalf("%d bytes: status %d, %v: %.200q", n, r.Status, err, r.Body)
				}
				if want := sumOf(&placed{n: n}); got.Bytes != n || got.SHA256 != want.SHA256 {
					t.Errorf("%d bytes: the application read %d, sum %s, want %s", n, got.Bytes, got.SHA256, want.SHA256)
				}
				// An empty body may have the length 0 or none (RFC 3875, section 4.1.2).
				if length := got.Length; length == nil || *length != fmt.Sprint(n) {
					if n > 0 || length != nil && *length != "" {
						t.Errorf("%d bytes: CONTENT_LENGTH %v", n, deref(length))
					}
				}
			}
		})
	}
	t.Run("memory", func(t *testing.T) {
		size := scaled[int64](256<<20, 1<<30)
		before := harness.MemoryOf(s.PID).Peak
		for _, app := range sums[:2] { // PHP has its own limit
			r := s.send(t, "POST", app.path, chunked(size))
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := app.get(string(body))
			if err != nil || got.Bytes != size {
				t.Fatalf("%s: %d of %d bytes, %v", app.name, got.Bytes, size, err)
			}
		}
		if after := harness.MemoryOf(s.PID).Peak; after > before+16<<20 {
			t.Errorf("the gateway grew from %d to %d MiB for uploads of %d MiB", before>>20, after>>20, size>>20)
		}
	})
}

func deref(s *string) string {
	if s == nil {
		return "unset"
	}
	return *s
}

// Requests without a body end their FCGI_STDIN too, by exactly one empty record:
// the peer takes anything else for a fault, and an application that waits for
// it would hang.

func TestClass19EmptyBodiesEndStdin(t *testing.T) {
	t.Parallel()
	s := startRig(t, rigOptions{})
	n := scaled(1600, 25_000)
	for _, path := range []string{"/cgi/echo.sh", "/pool/echo", "/php/echo.php", "/peer/echo"} {
		n := n
		if strings.HasPrefix(path, "/cgi") {
			n = n / 10 // a process each
		}
		t.Run(path, func(t *testing.T) {
			failed := inParallel(16, n, func(i int) error {
				method := []string{"POST", "PUT"}[i%2]
				var body io.Reader = http.NoBody // Content-Length: 0
				if i%4 >= 2 {
					body = chunked(0)
				}
				r, err := s.Try(method, path, body)
				if err != nil || r.Status != 200 || r.Body != "" {
					return fmt.Errorf("%s: %d %q, %v", method, r.Status, r.Body, err)
				}
				return nil
			})
			failed.report(t, n)
		})
	}
	if got := s.Peer.Requests.Load(); got != int64(n) {
		t.Errorf("the peer saw %d whole requests, want %d", got, n)
	}
}

// failures are what went wrong in many requests.
type failures struct {
	count atomic.Int64
	mu    sync.Mutex
	first []error
}

func (f *failures) report(t testing.TB, of int) {
	t.Helper()
	if n := f.count.Load(); n > 0 {
		t.Errorf("%d of %d failed, among them: %v", n, of, f.first)
	}
}

// inParallel makes n calls, so many at a time.
func inParallel(clients, n int, call func(i int) error) *failures {
	f := new(failures)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := call(i); err != nil {
					f.count.Add(1)
					f.mu.Lock()
					if len(f.first) < 5 {
						f.first = append(f.first, err)
					}
					f.mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return f
}

// "100 Continue" is sent when the body is going to be read, and not before a
// final answer that needs none of it. Neither way hangs.
func TestClass22ExpectContinue(t *testing.T) { harness.EachReader(t, testExpectContinue) }

func testExpectContinue(t *testing.T) {
	s := startRig(t, rigOptions{})
	head := "POST %s HTTP/1.1\r\nHost: x\r\nExpect: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"

	for _, path := range []string{"/cgi/echo.sh", "/pool/echo", "/php/echo.php", "/peer/echo"} {
		c := s.Dial()
		fmt.Fprintf(c, head, path, "100-continue", 5)
		const interim = "HTTP/1.1 100 Continue\r\n\r\n"
		got := make([]byte, len(interim))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != interim {
			t.Errorf("%s: %q, %v", path, got, err)
			continue
		}
		io.WriteString(c, "hello")
		rest, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(rest), "HTTP/1.1 200 ") || !strings.Contains(string(rest), "hello") {
			t.Errorf("%s: %q, %v", path, rest, err)
		}
	}
	for _, tt := range []struct {
		name, path, expect string
		length             int64
		status             string
	}{
		{"too large", "/pool/echo", "100-continue", 3 << 30, "413"},
		{"not found", "/nowhere", "100-continue", 5, "404"},
		{"no such script", "/cgi/nowhere.py", "100-continue", 5, "404"},
		{"unknown expectation", "/pool/echo", "a-pony", 5, "417"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer := s.Raw(fmt.Sprintf(head, tt.path, tt.expect, tt.length))
			if !strings.HasPrefix(answer, "HTTP/1.1 "+tt.status+" ") || strings.Contains(answer, "100 Continue") {
				t.Errorf("%q, want a %s at once", answer, tt.status)
			}
		})
	}
	s.worksEverywhere(t)
}

// A large body and a large answer cross each other without one waiting for the
// other, in both orders: the answer before the body was read, and all along.
func TestClass37FullDuplex(t *testing.T) {
	t.Parallel()
	harness.EachReader(t, testFullDuplex)
}

func testFullDuplex(t *testing.T) {
	size := scaled[int64](10<<20, 100<<20)
	s := startRig(t, rigOptions{
		pool: "\n    buffer_requests: false",
		serve: func(c *peerConn) { // answers while it reads
			r, ok := c.head()
			if !ok {
				return
			}
			c.say(fcgiRecord(fcgiStdout, r.ID, "Content-Type: text/plain\n\n", 0))
			for {
				_, _, content, err := c.record()
				if err != nil || len(content) == 0 {
					break
				}
				c.say(fcgiRecord(fcgiStdout, r.ID, string(content), 0))
			}
			c.say(fcgiEnding(r.ID, 0, 0))
		},
	})
	for _, path := range []string{"/cgi/echo.sh", "/cgi/echo.py", "/cgi/echo.pl", "/cgi/echo", "/pool/echo", "/php/echo.php", "/peer/echo"} {
		for name, body := range map[string]io.Reader{"length": &placed{n: size}, "chunked": chunked(size)} {
			t.Run(path+" "+name, func(t *testing.T) {
				req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+path, body)
				if err != nil {
					t.Fatal(err)
				}
				if name == "length" {
					req.ContentLength = size
				}
				resp, err := harness.Client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				if err := checkPlaced(resp.Body, size); err != nil || resp.StatusCode != 200 {
					t.Errorf("status %d, %v", resp.StatusCode, err)
				}
			})
		}
	}
	t.Run("answer first", func(t *testing.T) {
		resp := s.send(t, "POST", fmt.Sprintf("/cgi/echo.py?first=%d", size), &placed{n: size})
		dots, err := io.ReadAll(io.LimitReader(resp.Body, size))
		if err != nil || int64(len(dots)) != size || strings.Trim(string(dots), ".") != "" {
			t.Fatalf("%d bytes before the body, %v", len(dots), err)
		}
		if err := checkPlaced(resp.Body, size); err != nil {
			t.Error(err)
		}
	})
}
