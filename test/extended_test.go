package test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// answersSite serves asgi_answers.py: /wsgi is its WSGI application, /passed
// its ASGI one behind which another server heeds X-Sendfile.
type answersSite struct {
	*tlsGateway
	file, sum string
	size      int64
}

func startAnswers(t *testing.T, size int64) *answersSite {
	t.Helper()
	dir := t.TempDir()
	s := &answersSite{file: filepath.Join(dir, "file"), size: size, sum: noiseSum(t, size)}
	writeNoise(t, s.file, size)
	s.tlsGateway = startTLS(t, fmt.Sprintf(`
h2c: true
log: {access: "off"}
pools:
  asgi: {app: "asgi_answers:app", chdir: %[1]s, python: %[2]s, workers: 1, env: {FILE: %[3]q}}
  wsgi: {app: "asgi_answers:wsgi", chdir: %[1]s, python: %[2]s, workers: 1, threads: 4, env: {FILE: %[3]q}}
sites:
  - tls: {certificate: "%%DIR%%/a.example.pem", key: "%%DIR%%/a.example.key"}
    routes:
      - {path: /, pool: asgi, sendfile: {roots: [%[4]q]}}
      - {path: /passed, pool: asgi, sendfile: {pass: true}}
      - {path: /wsgi, pool: wsgi}
`, harness.App(t), harness.Python(t), s.file, dir), "a.example")
	return s
}

// everyClient is protocols, and HTTP/1.1 without TLS.
func (s *answersSite) everyClient(t *testing.T) map[string]*http.Client {
	clients := s.protocols(t)
	clients["http HTTP/1.1"] = s.client(t, false, nil)
	return clients
}

func (s *answersSite) ask(t *testing.T, name string, client *http.Client, method, path string, header ...string) *http.Response {
	t.Helper()
	scheme, proto, _ := strings.Cut(name, " ")
	req, err := http.NewRequest(method, scheme+"://a.example"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	r, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", name, path, err)
	}
	t.Cleanup(func() { r.Body.Close() })
	if r.Proto != proto || r.StatusCode != 200 {
		t.Fatalf("%s %s: %s %d", name, path, r.Proto, r.StatusCode)
	}
	return r
}

// Files, trailers and early hints are the same in every protocol.
func TestExtendedAnswers(t *testing.T) {
	s := startAnswers(t, int64(scaled(3<<20, 300<<20)))
	clients := s.everyClient(t)
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		client := clients[name]
		h2 := strings.HasSuffix(name, "2.0")
		ask := func(method, path string, header ...string) *http.Response {
			t.Helper()
			return s.ask(t, name, client, method, path, header...)
		}
		for _, path := range []string{"/file", "/named", "/wsgi"} {
			r := ask("GET", path)
			hash := sha256.New()
			n, err := io.Copy(hash, r.Body)
			if sum := fmt.Sprintf("%x", hash.Sum(nil)); err != nil || n != s.size || sum != s.sum || r.ContentLength != s.size || r.Header.Get("X-Sendfile") != "" {
				t.Errorf("%s %s: %d bytes of %d, %v, sum %s, %v", name, path, n, s.size, err, sum, r.Header)
			}
			if r := ask("HEAD", path); r.ContentLength != s.size {
				t.Errorf("%s HEAD %s: %v", name, path, r.Header)
			}
		}
		r := ask("GET", "/passed/named")
		if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 || r.Header.Get("X-Sendfile") != s.file {
			t.Errorf("%s, for a server before the gateway: %d bytes, %v, %v", name, len(body), err, r.Header)
		}

		r = ask("GET", "/behind", "TE", "trailers")
		body, err := io.ReadAll(r.Body)
		if text, ok := strings.CutPrefix(string(body), "before "); err != nil || !ok || fmt.Sprintf("%x", sha256.Sum256([]byte(text))) != s.sum || r.Trailer.Get("X-Sum") != "behind" {
			t.Errorf("%s: a file behind a body: %d bytes, %v, trailers %v", name, len(body), err, r.Trailer)
		}
		for _, query := range []string{"", "?length=7", "?pause=0.05", "?pause=0.05&length=7"} {
			r := ask("GET", "/trailers"+query, "TE", "trailers")
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != "one two" || len(r.Trailer) != 1 || r.Trailer.Get("X-Sum") != "1234" || r.Header.Get("Content-Type") != "text/x-answer" {
				t.Errorf("%s trailers%s: %q, %v, %v, trailers %v", name, query, body, err, r.Header, r.Trailer)
			}
			if h2 {
				continue
			}
			r = ask("GET", "/trailers"+query) // a client that takes none
			if body, err := io.ReadAll(r.Body); err != nil || string(body) != "one two" || len(r.Trailer) != 0 || strings.Contains(query, "length") && r.ContentLength != 7 {
				t.Errorf("%s no trailers%s: %q, %v, %v, trailers %v", name, query, body, err, r.Header, r.Trailer)
			}
		}
		s.hints(t, name, client)
	}
	if strings.Contains(s.Stderr(), "incomplete") || strings.Contains(s.Stderr(), "Content-Length") {
		t.Errorf("the log complains: %s", s.Stderr())
	}
}

// hints asks for an answer that waits until its early hints are there.
func (s *answersSite) hints(t *testing.T, name string, client *http.Client) {
	gate := filepath.Join(t.TempDir(), "gate")
	var links []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		if code != http.StatusEarlyHints || len(header) != 1 {
			t.Errorf("%s: %d %q", name, code, header)
		}
		if links = append(links, header["Link"]...); len(links) == 2 {
			writeScript(t, gate, "", 0o644)
		}
		return nil
	}}
	scheme, _, _ := strings.Cut(name, " ")
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", scheme+"://a.example/hints?gate="+gate, nil)
	r, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "body" || strings.Join(links, " ") != "</a.css>; rel=preload </b.js>" || strings.Join(r.Header["Link"], " ") != "</c>" {
		t.Errorf("%s: hints %q, then %q, %v, %v", name, links, body, err, r.Header)
	}
}

// Files that no buffer holds.
func TestLargeFiles(t *testing.T) {
	const size, piece = 16 << 20, 32 << 10
	s := startAnswers(t, size)
	paths := []string{"/file", "/wsgi", "/named"}
	// On HTTP/1 without TLS that takes far fewer system calls than to copy it
	// piece by piece.
	t.Run("copied by the kernel", func(t *testing.T) {
		client := s.client(t, false, nil)
		for _, path := range paths {
			calls := map[string]int64{}
			for _, scheme := range []string{"http", "https"} {
				before := readCalls(t, s.PID)
				r := s.ask(t, scheme+" HTTP/1.1", client, "GET", path)
				if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 1<<20)); err != nil || n != size {
					t.Fatal(n, err)
				}
				calls[scheme] = readCalls(t, s.PID) - before
			}
			if calls["http"] > size/piece/2 || calls["https"] < size/piece {
				t.Errorf("%s: system calls that read: %v", path, calls)
			}
		}
	})
	// A file that becomes shorter while it is sent breaks the answer off, and
	// nothing else.
	t.Run("shrink", func(t *testing.T) {
		clients := s.everyClient(t)
		for _, name := range slices.Sorted(maps.Keys(clients)) {
			for _, path := range paths {
				r := s.ask(t, name, clients[name], "GET", path)
				if _, err := io.CopyN(io.Discard, r.Body, 1000); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(s.file, size-1<<20); err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r.Body); err == nil || n >= size-1000 {
					t.Errorf("%s %s: a clean end after %d bytes", name, path, n)
				}
				if err := os.Truncate(s.file, size); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.LogLine("the file became shorter")
	})
}

// readCalls is how often a process has read so far, sendfile included.
func readCalls(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "syscr: ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
