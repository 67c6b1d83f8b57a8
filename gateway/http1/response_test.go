package http1

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The response writer is held to net/http's by handlers that do things at random.

// act is one step of a handler; it returns false to end it.
type act struct {
	name string
	do   func(w http.ResponseWriter) bool
}

func step(format string, args ...any) func(func(http.ResponseWriter)) act {
	return func(do func(http.ResponseWriter)) act {
		return act{fmt.Sprintf(format, args...), func(w http.ResponseWriter) bool { do(w); return true }}
	}
}

// program is a handler.
type program struct {
	method string
	acts   []act
	aborts bool // what it has written before may have been sent, or not
}

func (p *program) String() string {
	var b strings.Builder
	b.WriteString(p.method)
	for _, a := range p.acts {
		b.WriteString("; " + a.name)
	}
	return b.String()
}

func (p *program) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header()["Content-Type"] = nil // it is not guessed
	for _, a := range p.acts {
		if !a.do(w) {
			return
		}
	}
}

// pattern is n bytes in which no piece is like another one.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = strconv.AppendInt(b, int64(i), 36)
	}
	return b[:n]
}

func (g generator) size() int {
	return pick(g, []int{0, 1, 5, 100, 2047, 2048, 2049, 4095, 4096, 4097, 9000, 40000, 100000, g.IntN(6000)})
}

// program makes one of those that this gateway's handler could be.
func (g generator) program(file *os.File) *program {
	p := &program{method: pick(g, []string{"GET", "GET", "GET", "POST", "HEAD"})}
	add := func(a act) { p.acts = append(p.acts, a) }
	set := func(name string, values ...string) {
		add(step("%s=%q", name, values)(func(w http.ResponseWriter) { w.Header()[name] = values }))
	}
	status := pick(g, []int{200, 200, 200, 201, 204, 205, 304, 302, 404, 500, 299, 999})
	for range g.IntN(4) {
		set(pick(g, []string{"X-A", "Etag", "Set-Cookie", "Server", "Content-Type", "Date", "Cache-Control", "X Bad", "X:Bad", "x-lower"}),
			pick(g, [][]string{{"a"}, {"a", "b"}, {""}, nil, {"a\r\nb: c"}, {" a "}, {"\xe4"}, {"Sat, 01 Nov 2025 10:00:00 GMT"}})...)
	}
	if g.IntN(8) == 0 {
		set("Connection", pick(g, []string{"close", "Close", "keep-alive"}))
	}
	if g.IntN(6) == 0 {
		set("Link", "</a.css>; rel=preload")
		add(step("103")(func(w http.ResponseWriter) { w.WriteHeader(103) }))
	}
	total := g.size()
	kinds := 5
	switch length := ""; g.IntN(6) {
	case 0:
		set("Content-Length", strconv.Itoa(total))
	case 1:
		length = strconv.Itoa(max(0, total+g.IntN(7)-3))
		fallthrough
	case 2:
		if p.method != http.MethodHead { // to which net/http answers with what is no number, too
			length = cmp.Or(length, pick(g, []string{"x", "-1", "+5", " 5", "005", "0"}))
		}
		set("Content-Length", cmp.Or(length, "5"))
		kinds = 3 // net/http sends more than that with ReadFrom
	}
	trailer := g.IntN(8) == 0
	if trailer && g.IntN(2) == 0 {
		set(http.TrailerPrefix+"X-Early", "t")
	}
	if g.IntN(2) == 0 {
		add(step("%d", status)(func(w http.ResponseWriter) { w.WriteHeader(status) }))
		if g.IntN(4) == 0 {
			add(step("%d", 500)(func(w http.ResponseWriter) { w.WriteHeader(500) }))
		}
		set("X-Late", "is not sent")
	}
	body := pattern(total)
	for len(body) > 0 {
		n := min(len(body), 1+g.size())
		piece := body[:n]
		switch g.IntN(kinds) {
		case 3:
			add(step("read %d", n)(func(w http.ResponseWriter) {
				if _, err := io.Copy(w, &io.LimitedReader{R: bytes.NewReader(piece), N: int64(n)}); err != nil {
					return
				}
			}))
		case 4:
			add(step("file %d", n)(func(w http.ResponseWriter) {
				_, _ = file.Seek(0, io.SeekStart)
				_, _ = w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: file, N: int64(n)})
			}))
		default:
			add(step("write %d", n)(func(w http.ResponseWriter) { _, _ = w.Write(piece) }))
		}
		body = body[n:]
		if g.IntN(4) == 0 {
			add(step("flush")(func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }))
		}
		if g.IntN(30) == 0 {
			p.aborts = true
			add(step("abort")(func(http.ResponseWriter) { panic(http.ErrAbortHandler) }))
		}
		if g.IntN(30) == 0 {
			p.aborts = true
			add(step("panic")(func(http.ResponseWriter) { panic("of a test") }))
		}
	}
	if trailer {
		add(step("flush")(func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }))
		set(http.TrailerPrefix+"X-Sum", "1", "2\r\nX: y")
	}
	return p
}

// both serve one handler: at fast with the reader of plain requests, at slow with
// net/http alone.
type both struct{ fast, slow net.Addr }

// serveBoth serves plain requests with Respond, and all others with net/http.
func serveBoth(t testing.TB, handler http.Handler) both {
	slow, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(slow)
	t.Cleanup(func() { server.Close() })
	f := startServers(t, serversConfig{handler: handler})
	return both{f.addr, slow.Addr()}
}

// received is a response, in what is to be the same from both.
type received struct {
	interim int // how many came before it
	status  int
	header  http.Header // but for its framing and its Date
	body    []byte
	broken  bool // it did not end as it said, or there was none
	trailer http.Header
}

// exchange sends a request for path, and another one behind it, and returns both
// responses.
func exchange(t testing.TB, addr net.Addr, method, path string) [2]received {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: h\r\n\r\nGET /end HTTP/1.1\r\nHost: h\r\n\r\n", method, path)
	r := bufio.NewReader(c)
	return [2]received{receive(r, method), receive(r, "GET")}
}

func receive(r *bufio.Reader, method string) (got received) {
	request := &http.Request{Method: method}
	for {
		response, err := http.ReadResponse(r, request)
		if err != nil {
			got.broken = true
			return got
		}
		if response.StatusCode < 200 {
			got.interim++
			continue
		}
		got.status, got.header = response.StatusCode, response.Header
		if got.body, err = io.ReadAll(response.Body); err != nil {
			got.broken = true
		}
		got.trailer = response.Trailer
		break
	}
	delete(got.header, "Content-Length")
	if date := got.header.Get("Date"); !strings.HasPrefix(date, "Sat, 01 Nov") && date != "a" {
		_, got.header = got.header["Date"], maps.Clone(got.header)
		if len(got.header["Date"]) > 0 {
			got.header["Date"] = []string{"now"}
		}
	}
	return got
}

const oneBroken = "one is broken off"

func (a *received) differs(b *received) string {
	switch {
	case a.broken != b.broken:
		return oneBroken
	case a.broken && a.status != 0 && b.status != 0 && !bytes.HasPrefix(a.body, b.body) && !bytes.HasPrefix(b.body, a.body):
		return "bodies"
	case a.broken: // how much had been sent by then depends on buffers
		return ""
	case a.interim != b.interim:
		return "interim responses"
	case a.status != b.status:
		return "status"
	case !maps.EqualFunc(a.header, b.header, slices.Equal):
		return "header"
	case !bytes.Equal(a.body, b.body):
		return "body"
	case !maps.EqualFunc(a.trailer, b.trailer, slices.Equal):
		return "trailers"
	}
	return ""
}

func (r received) String() string {
	return fmt.Sprintf("%d before, status %d, %q, %d bytes, broken %v, %q", r.interim, r.status, r.header, len(r.body), r.broken, r.trailer)
}

// TestResponses has random handlers answer at both.
func TestResponses(t *testing.T) {
	count := 1500
	if soak {
		count = 100_000
	}
	first, count := number("FIRST", 0), number("INPUTS", count)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, pattern(100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[program]
	b := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			current.Load().ServeHTTP(w, r)
		}
	}))
	for i := first; i < first+count; i++ {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p := newGenerator(uint64(i)).program(file)
		current.Store(p)
		fast, slow := exchange(t, b.fast, p.method, "/"), exchange(t, b.slow, p.method, "/")
		file.Close()
		for j := range fast {
			if what := fast[j].differs(&slow[j]); what != "" && !(p.aborts && what == oneBroken) {
				t.Errorf("FIRST=%d INPUTS=1: response %d, %s:\nfast %v\nslow %v\nhandler %v", i, j+1, what, fast[j], slow[j], p)
			}
		}
		if t.Failed() && i > first+200 {
			break
		}
	}
}
