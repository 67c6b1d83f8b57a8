package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// The reference is a server of net/http, with a connection in memory. What is read
// here must be to the letter what it reads of the same bytes.

var soak = os.Getenv("SOAK") == "1"

// memoryConn is a client that has sent all that it will send. It takes whatever is
// sent to it.
type memoryConn struct {
	net.Conn // for what nobody calls
	pieces   *rand.Rand
	mu       sync.Mutex
	input    []byte
	output   bytes.Buffer
	once     sync.Once
	closed   chan struct{}
	asked    *readByReference
}

var (
	localAddr  = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
	remoteAddr = &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 40000}
)

// newMemoryConn sends input in pieces, unless that is 0 at once.
func newMemoryConn(input []byte, pieces uint64) *memoryConn {
	c := &memoryConn{input: input, closed: make(chan struct{})}
	if pieces > 0 {
		c.pieces = rand.New(rand.NewPCG(pieces, 1))
	}
	return c
}

func (c *memoryConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.input) == 0 {
		return 0, io.EOF
	}
	size := len(p)
	if c.pieces != nil {
		size = min(size, 1+c.pieces.IntN(1<<(1+c.pieces.IntN(10))))
	}
	n := copy(p[:size], c.input)
	c.input = c.input[n:]
	return n, nil
}

func (c *memoryConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.output.Write(p)
}

func (c *memoryConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr              { return localAddr }
func (c *memoryConn) RemoteAddr() net.Addr             { return remoteAddr }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// readByReference is what a server of net/http has made of a stream.
type readByReference struct {
	whole    int // so many requests are read with their bodies; the next one is left alone
	requests []*http.Request
	bodies   [][]byte
	rest     []byte // behind the head of the request that was left alone
	output   string // the responses
}

type connKey struct{}

// reference is a server of net/http.
type reference struct {
	server *http.Server
	conns  chan net.Conn
}

func newReference(t testing.TB) *reference {
	r := &reference{conns: make(chan net.Conn)}
	r.server = &http.Server{Handler: http.HandlerFunc(r.serve), ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		}}
	go r.server.Serve(r)
	t.Cleanup(func() {
		close(r.conns)
		r.server.Close()
	})
	return r
}

func (r *reference) Accept() (net.Conn, error) {
	if c, ok := <-r.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (r *reference) Close() error   { return nil }
func (r *reference) Addr() net.Addr { return localAddr }

const referenceAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

func (r *reference) serve(w http.ResponseWriter, req *http.Request) {
	conn := req.Context().Value(connKey{}).(*memoryConn)
	a := conn.asked
	a.requests = append(a.requests, req)
	if len(a.requests) <= a.whole {
		body, _ := io.ReadAll(req.Body)
		a.bodies = append(a.bodies, body)
		w.Header()["Date"] = nil
		w.Header()["Content-Length"] = []string{"0"}
		return
	}
	_, b, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	buffered, _ := b.Reader.Peek(b.Reader.Buffered())
	a.rest = append(bytes.Clone(buffered), conn.input...)
	conn.Close()
}

var sentDate = regexp.MustCompile(`Date: [^\r]*\r\n`)

// read has net/http read a stream.
func (r *reference) read(stream []byte, whole int) *readByReference {
	c := newMemoryConn(stream, 0)
	c.asked = &readByReference{whole: whole}
	r.conns <- c
	<-c.closed
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked.output = c.output.String()
	if strings.Contains(c.asked.output, "Date: ") {
		c.asked.output = sentDate.ReplaceAllString(c.asked.output, "")
	}
	return c.asked
}

// taken is one request that was read here.
type taken struct {
	plain   cgi.Plain
	body    []byte
	pairs   []byte
	request *http.Request
	err     error // Clean's
}

// reader has a stream read here.
type reader struct {
	server *Server
	taken  []taken
	target cgi.Target
}

func newReader(t testing.TB) *reader {
	r := &reader{target: cgi.Target{ScriptName: "/app", PathInfo: "/info", DocumentRoot: "/srv", ScriptFilename: "/srv/app", ServerName: "www.example",
		Software: "gatecrew/1", PassAuthorization: true, Extra: []protocol.Param{{Name: "HTTP_X", Value: "site"}, {Name: "SITE", Value: "1"}, {Name: "QUERY_STRING", Value: "fixed"}}}}
	r.server = NewServer(Config{Handler: func(*Conn) Handler { return r }, State: func(net.Conn, http.ConnState) {}, HandedOn: func(net.Conn) {},
		Log: zap.NewNop(), HeaderTimeout: time.Hour, IdleTimeout: time.Hour, HeaderFields: 100, HeaderBytes: 1 << 20})
	t.Cleanup(r.server.Close)
	return r
}

// Answer implements Handler.
func (r *reader) Answer(p *cgi.Plain, body []byte) bool {
	t := taken{plain: *p, body: bytes.Clone(body)}
	t.plain.Fields = slices.Clone(p.Fields)
	_, t.err = p.Clean()
	t.pairs = cgi.AppendPairs(nil, p, &r.target, "the id")
	t.request, _ = newRequest(context.WithValue(context.Background(), http.LocalAddrContextKey, net.Addr(localAddr)), p, t.body, remoteAddr.String())
	r.taken = append(r.taken, t)
	return true
}

// Resume implements Handler.
func (r *reader) Resume(*cgi.Plain, []byte) { panic("nothing was left to others") }

// check compares what is read here of a stream with what net/http reads. It returns
// how many requests were read here.
func (r *reader) check(with *reference, stream []byte, pieces uint64) (n int, err error) {
	r.taken = r.taken[:0]
	mc := newMemoryConn(stream, pieces)
	c := newConn(r.server, mc)
	other := c.serveRequests()
	left := slices.Concat(c.buf[c.start:c.end], mc.input)
	if !bytes.HasSuffix(stream, left) {
		return 0, fmt.Errorf("what is handed on is no end of the stream: %q", left)
	}
	if n = len(r.taken); n == 0 {
		if !other && len(stream) > 0 {
			return 0, fmt.Errorf("nothing was read, and nothing handed on")
		}
		return 0, nil
	}
	all := with.read(stream, n)
	if len(all.bodies) < n {
		return n, fmt.Errorf("net/http reads %d requests and says %q", len(all.bodies), all.output)
	}
	for i := range r.taken {
		if err := r.taken[i].equals(all.requests[i], all.bodies[i], &r.target); err != nil {
			return n, fmt.Errorf("request %d: %w", i+1, err)
		}
	}
	output, ok := strings.CutPrefix(all.output, strings.Repeat(referenceAnswer, n))
	if !ok {
		return n, fmt.Errorf("net/http answers otherwise: %q", all.output)
	}
	next := &readByReference{}
	if other {
		next = with.read(left, 0)
	}
	if len(all.requests) != n+len(next.requests) {
		return n, fmt.Errorf("net/http reads %d requests of the whole, %d of %q", len(all.requests), len(next.requests), left)
	}
	if len(next.requests) > 0 {
		if a, b := all.requests[n], next.requests[0]; !same(a, b) {
			return n, fmt.Errorf("net/http reads\n%s of the whole, and\n%s of what is handed on", headOf(a), headOf(b))
		}
	}
	if output != next.output || !bytes.Equal(all.rest, next.rest) {
		return n, fmt.Errorf("net/http answers %q and has left %q of the whole, but %q and %q of what is handed on", output, all.rest, next.output, next.rest)
	}
	return n, nil
}

// same compares what net/http has read of two heads.
func same(a, b *http.Request) bool {
	return a.Method == b.Method && a.RequestURI == b.RequestURI && a.Proto == b.Proto && a.Host == b.Host && a.ContentLength == b.ContentLength &&
		a.Close == b.Close && slices.Equal(a.TransferEncoding, b.TransferEncoding) && maps.EqualFunc(a.Header, b.Header, slices.Equal)
}

func headOf(r *http.Request) string {
	return fmt.Sprintf("%s %q %s %q %q %d %q %v %#v %s", r.Method, r.RequestURI, r.Proto, r.Host, r.Header, r.ContentLength, r.TransferEncoding, r.Close, r.URL, r.RemoteAddr)
}

// equals compares a request, and what an application is told of it.
func (t *taken) equals(want *http.Request, body []byte, target *cgi.Target) error {
	if !bytes.Equal(t.body, body) {
		return fmt.Errorf("body %q, want %q", t.body, body)
	}
	got := t.request
	if got == nil {
		return errors.New("no http.Request can be made of it")
	}
	if !same(got, want) || !reflect.DeepEqual(got.URL, want.URL) || got.RemoteAddr != want.RemoteAddr || got.ProtoMajor != 1 || got.ProtoMinor != 1 {
		return fmt.Errorf("request\n%s, want\n%s", headOf(got), headOf(want))
	}
	if b, err := io.ReadAll(got.Body); err != nil || !bytes.Equal(b, body) || (got.Body == http.NoBody) != (want.Body == http.NoBody) {
		return fmt.Errorf("the request's body is %q, %v; want %q", b, err, body)
	}
	err := cgi.CheckRequest(want)
	if err == nil {
		_, err = cgi.CleanPath(want.URL.EscapedPath())
	}
	if (err == nil) != (t.err == nil) {
		return fmt.Errorf("Clean says %v, want %v", t.err, err)
	}
	if err != nil {
		return nil
	}
	if want.URL.EscapedPath() != t.plain.Path {
		return fmt.Errorf("path %q, want %q", t.plain.Path, want.URL.EscapedPath())
	}
	params := map[string]string{"UNIQUE_ID": "the id"}
	for _, p := range cgi.AppendParams(nil, want, target) {
		params[p.Name] = p.Value
	}
	pairs := map[string]string{}
	twice := ""
	if err := protocol.EachPair(t.pairs, func(name, value []byte) {
		if _, ok := pairs[string(name)]; ok {
			twice = string(name)
		}
		pairs[string(name)] = string(value)
	}); err != nil {
		return err
	}
	if twice != "" || !maps.Equal(params, pairs) {
		return fmt.Errorf("variables\n%q, want\n%q; given twice: %q", pairs, params, twice)
	}
	return nil
}

// silent is a client that has sent a part of what it will send.
type silent struct {
	bytes.Reader
	asked bool // for more
}

func (s *silent) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.asked = s.asked || err != nil
	return n, err
}

// checkMore holds that net/http, too, would wait when parse says more.
func checkMore(stream []byte) error {
	var p cgi.Plain
	if _, v := parse(stream, &p, 100); v != more || len(stream) == 0 {
		return nil
	}
	var s silent
	s.Reset(stream)
	if _, err := http.ReadRequest(bufio.NewReaderSize(&s, len(stream)+16)); err == nil || !s.asked {
		return fmt.Errorf("it is waited for more of a head of which net/http has enough, and says: %v", err)
	}
	return nil
}

// TestDifferential reads streams made of the corpus here and there. SOAK=1 makes it
// ten million; INPUTS another number, FIRST where to begin.
func TestDifferential(t *testing.T) {
	first, count := number("FIRST", 0), 30_000
	if soak {
		count = 10_000_000
	}
	count = number("INPUTS", count)
	with, r := newReference(t), newReader(t)
	plain, requests := 0, 0
	for i := first; i < first+count; i++ {
		g := newGenerator(uint64(i))
		stream := g.stream()
		n, err := r.check(with, stream, uint64(g.IntN(3)*(i+1)))
		if err == nil {
			err = checkMore(stream[:g.IntN(len(stream)+1)])
		}
		if err != nil {
			t.Fatalf("FIRST=%d INPUTS=1: %v\nstream: %q", i, err, stream)
		}
		requests += n
		if n > 0 {
			plain++
		}
		if i%100_000 == 99_999 {
			t.Logf("%d streams, %d began with a plain request, %d plain requests", i+1-first, plain, requests)
		}
	}
	if plain < count/4 && count > 1000 {
		t.Errorf("only %d of %d streams began with a plain request", plain, count)
	}
	t.Logf("%d streams, %d began with a plain request, %d plain requests", count, plain, requests)
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestCorpusDifferential has each field line, target, method and version once in an
// otherwise plain request, before another one.
func TestCorpusDifferential(t *testing.T) {
	with, r := newReference(t), newReader(t)
	next := "GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
	var streams []string
	for _, c := range clients {
		streams = append(streams, c, c+next, "\r\n"+c)
	}
	for _, line := range fieldLines {
		streams = append(streams,
			"GET /a HTTP/1.1\r\nHost: h\r\n"+line+"\r\n\r\n"+next, "GET /a HTTP/1.1\r\n"+line+"\r\n\r\n"+next,
			"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"+line+"\r\n\r\nabc"+next,
			"POST /a HTTP/1.1\r\nHost: h\r\n"+line+"\r\nContent-Length: 3\r\n\r\nabc"+next,
			"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"+line+"\r\n\r\n0\r\n\r\n"+next)
	}
	for _, target := range targets {
		streams = append(streams, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n"+next)
	}
	for _, method := range methodWords {
		streams = append(streams, method+" / HTTP/1.1\r\nHost: h\r\n\r\n"+next)
	}
	for _, version := range versionWords {
		streams = append(streams, "GET / "+version+"\r\nHost: h\r\n\r\n"+next)
	}
	for ends := range 8 {
		streams = append(streams, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"+strings.Repeat("\r\n", ends)+next,
			"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"+strings.Repeat("\n", ends)+next, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"+strings.Repeat("\n", ends)+next)
	}
	for _, stream := range streams {
		for pieces := range uint64(5) {
			if _, err := r.check(with, []byte(stream), pieces); err != nil {
				t.Errorf("%v\nstream, in pieces of %d: %q", err, pieces, stream)
				break
			}
		}
		for i := range min(len(stream), 300) {
			if err := checkMore([]byte(stream[:i+1])); err != nil {
				t.Errorf("%v\nstream: %q", err, stream[:i+1])
				break
			}
		}
	}
}

// FuzzDifferential does the same with streams that the fuzzer finds.
func FuzzDifferential(f *testing.F) {
	for _, c := range clients {
		f.Add([]byte(c), uint64(0))
	}
	for seed := range uint64(200) {
		f.Add(newGenerator(seed).stream(), seed%3)
	}
	with, r := newReference(f), newReader(f)
	f.Fuzz(func(t *testing.T, stream []byte, pieces uint64) {
		if _, err := r.check(with, stream, pieces); err != nil {
			t.Fatal(err)
		}
		if err := checkMore(stream); err != nil {
			t.Fatal(err)
		}
	})
}
