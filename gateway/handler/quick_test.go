package handler

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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"gatecrew/gateway/http1"
	"gatecrew/gateway/site"
	"gatecrew/gateway/spool"
	"gatecrew/gateway/websocket"
	"gatecrew/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// said is what an application answers, whatever it is asked.
type said struct {
	output []byte
	pieces []int // how much each Read brings; all at once when there are none
	failed bool  // it dies behind its output
	refuse bool  // it can't be asked
}

// application is one that is told what to say.
type application struct {
	next atomic.Pointer[said]
}

func (a *application) Open(_ context.Context, req *protocol.Request) (protocol.Exchange, error) {
	s := a.next.Load()
	if s.refuse {
		return nil, &protocol.Error{Kind: protocol.Overloaded, Unseen: true, Err: errors.New("of a test")}
	}
	return &speaking{said: s, left: s.output}, nil
}

type speaking struct {
	*said
	left  []byte
	reads int
}

func (s *speaking) Read(p []byte) (int, error) {
	size := len(s.left)
	if s.reads < len(s.pieces) {
		size = min(size, s.pieces[s.reads])
	}
	s.reads++
	n := copy(p, s.left[:size])
	s.left = s.left[n:]
	switch {
	case len(s.left) > 0:
		return n, nil
	case s.failed && n == 0:
		return 0, &protocol.Error{Kind: protocol.Died, Err: errors.New("of a test")}
	case s.failed:
		return n, nil
	}
	return n, io.EOF
}

func (s *speaking) Close() error { return nil }

// both has one handler answer plain requests in both ways.
type both struct {
	app        application
	fast, slow *client
}

// client asks on one connection as long as that lasts.
type client struct {
	addr net.Addr
	conn net.Conn
	r    *bufio.Reader
}

func newBoth(t testing.TB) *both {
	b := &both{}
	sites := []*site.Site{{Routes: []*site.Route{{Name: "app", Backend: &b.app, Quick: true}}}}
	sockets := websocket.NewHub(time.Minute, 1<<20)
	h := New(Config{Log: zap.NewNop(), Spool: spool.NewStore(spool.Config{Dir: t.TempDir(), Memory: 1 << 20}), MaxBody: 1 << 20, BodyTimeout: time.Minute,
		WriteTimeout: time.Minute, HeaderFields: 100, Sockets: sockets}, site.NewTable(sites))
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	slow := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	fast := http1.NewServer(http1.Config{Handler: h.Quick, State: func(net.Conn, http.ConnState) {}, HandedOn: func(net.Conn) { t.Error("a request is not plain") },
		Log: zap.NewNop(), HeaderTimeout: time.Minute, IdleTimeout: time.Minute, HeaderFields: 100, HeaderBytes: 8 << 10})
	slowListener, fastListener := listen(), listen()
	b.slow, b.fast = &client{addr: slowListener.Addr()}, &client{addr: fastListener.Addr()}
	done := make(chan error, 2)
	go func() { done <- slow.Serve(slowListener) }()
	go func() { done <- fast.Serve(fastListener) }()
	t.Cleanup(func() {
		b.slow.close()
		b.fast.close()
		fastListener.Close()
		fast.Close()
		slow.Close()
		<-done
		<-done
		sockets.Stop()
		h.Close()
	})
	return b
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// got is a response, without what differs by chance.
type got struct {
	status int
	header http.Header
	body   string
	broken bool
	closed bool
}

var requestLine = regexp.MustCompile(`Request \S+\n`)

func (c *client) ask(method string) (g got) {
	if c.conn == nil {
		var err error
		if c.conn, err = net.Dial("tcp", c.addr.String()); err != nil {
			panic(err)
		}
		c.r = bufio.NewReader(c.conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(2 * time.Minute))
	fmt.Fprintf(c.conn, "%s /a HTTP/1.1\r\nHost: h\r\n\r\n", method)
	request := &http.Request{Method: method}
	for g.status < 200 {
		response, err := http.ReadResponse(c.r, request)
		if err != nil {
			c.close()
			return got{broken: true}
		}
		body, err := io.ReadAll(response.Body)
		g = got{status: response.StatusCode, header: response.Header, body: requestLine.ReplaceAllString(string(body), ""), broken: err != nil, closed: response.Close}
	}
	if g.closed || g.broken {
		c.close()
	}
	delete(g.header, "X-Request-Id")
	if g.header.Get("Content-Type") == "text/plain; charset=utf-8" && g.status >= 500 {
		delete(g.header, "Content-Length") // the number of a request is in the text
	}
	if date, err := http.ParseTime(g.header.Get("Date")); err == nil && time.Since(date) < time.Minute {
		g.header["Date"] = []string{"now"}
	}
	return g
}

// check has an application say something to both.
func (b *both) check(method string, s *said) error {
	b.app.next.Store(s)
	fast, slow := b.fast.ask(method), b.slow.ask(method)
	if fast.broken && slow.broken && (fast.status == slow.status || fast.status == 0 || slow.status == 0) {
		return nil // how much was sent by then depends on buffers
	}
	if fast.status != slow.status || fast.broken != slow.broken || fast.closed != slow.closed || fast.body != slow.body || !maps.EqualFunc(fast.header, slow.header, slices.Equal) {
		return fmt.Errorf("%s of %q (pieces %v, failed %v):\nfast %+v\nslow %+v", method, s.output, s.pieces, s.failed, fast, slow)
	}
	return nil
}

// outputs are what applications say.
var outputs = []string{
	"Content-Type: text/plain\r\n\r\nhello", "Content-Type: text/html\n\n<p>", "Status: 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\ngone",
	"Status: 200\nContent-Type: a/b\nContent-Length: 3\n\nabc", "Status: 302 Found\r\nLocation: http://x/\r\n\r\n", "Location: /local\r\n\r\n", "Location: \n\n",
	"Status: 204\r\n\r\n", "Status: 304\r\nETag: \"a\"\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\n", "Status: 103\r\nLink: </a>\r\n\r\nContent-Type: a/b\r\n\r\nx",
	"Set-Cookie: a=b\r\nset-cookie: c=d\r\nX-A: 1\r\nX-a: 2\r\nContent-Type: a/b\r\n\r\nx", "Content-Type: a/b\r\nContent-Length: 5\r\n\r\nabc", "Content-Type: a/b\r\nContent-Length: 1\r\n\r\nabc",
	"Connection: close\r\nKeep-Alive: x\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\nTrailer: X\r\nTe: x\r\nContent-Type: a/b\r\n\r\nx", "Date: Sat, 01 Nov 2025 10:00:00 GMT\r\nServer: s\r\n\r\nx",
	"X-Sendfile: /etc/passwd\r\n\r\n", "Status: 099\n\n", "Status: 299 Own\n\nx", "Status: 999\n\nx", "Status: 205\n\nx", "Status: 101\n\n", "Status: 404\nStatus: 404\n\n", "HTTP/1.1 200 OK\r\n\r\n",
	"Content-Encoding: gzip\r\n\r\n\x1f\x8b", "A:b\r\n\r\n", "A:\n\n", "A: \xe4\n\nx", "no head", "", "\n\n", "Content-Type: a/b\r\nContent-Type: a/b\r\n\r\nx", "Content-Type: a/b\r\nContent-Type: c/d\r\n\r\nx",
	"Content-Length: 03\n\nabc", "Content-Length: +3\n\nabc", "Content-Length:\n\nabc", "Content-Length: 3\nContent-Length: 3\n\nabc", "content-length: 3\r\ncontent-type: a/b\r\n\r\nabc", "DATE: x\n\n",
}

var parts = []string{"Status: ", "Content-Length: 3\r\n", "Content-Type: ", "\r\n\r\n", "\n\n", "\n", "\r", "\r\n", ":", " ", "\t", "\x00", "X: y\r\n", "Status: 500\n", "Connection: close\r\n", "Location: /\r\n", "Date: \r\n", "Trailer:X: y\r\n", "\xff", "Set-Cookie: a\n"}

// speech makes what an application says.
func speech(g *rand.Rand) (method string, s *said) {
	b := []byte(outputs[g.IntN(len(outputs))])
	for range g.IntN(4) {
		at := g.IntN(len(b) + 1)
		switch g.IntN(6) {
		case 0:
			b = slices.Insert(b, at, []byte(parts[g.IntN(len(parts))])...)
		case 1:
			b = slices.Insert(b, at, byte(g.IntN(256)))
		case 2:
			b = slices.Delete(b, at, min(len(b), at+1+g.IntN(3)))
		case 3:
			if at < len(b) {
				b[at] ^= 1 << g.IntN(8)
			}
		case 4:
			b = append([]byte(parts[g.IntN(len(parts))]), b...)
		case 5:
			b = append(b, bytes.Repeat([]byte("0123456789"), g.IntN(1000))...)
		}
	}
	s = &said{output: b, failed: g.IntN(12) == 0, refuse: g.IntN(50) == 0}
	if g.IntN(4) == 0 {
		for range 1 + g.IntN(5) {
			s.pieces = append(s.pieces, 1+g.IntN(1+len(b)))
		}
	}
	return []string{"GET", "GET", "GET", "POST", "HEAD"}[g.IntN(5)], s
}

// TestQuick: whatever an application says, both ways make the same response of it.
// SOAK=1 makes it a million.
func TestQuick(t *testing.T) {
	first, count := 0, 4000
	if os.Getenv("SOAK") == "1" {
		count = 1_000_000
	}
	if n, err := strconv.Atoi(os.Getenv("INPUTS")); err == nil {
		count = n
	}
	if n, err := strconv.Atoi(os.Getenv("FIRST")); err == nil {
		first = n
	}
	b := newBoth(t)
	for _, output := range outputs {
		for _, method := range []string{"GET", "HEAD", "POST"} {
			if err := b.check(method, &said{output: []byte(output)}); err != nil {
				t.Error(err)
			}
		}
	}
	for i := first; i < first+count; i++ {
		method, s := speech(rand.New(rand.NewPCG(uint64(i), 2)))
		if err := b.check(method, s); err != nil {
			t.Fatalf("FIRST=%d INPUTS=1: %v", i, err)
		}
	}
}

// FuzzQuick does the same with what the fuzzer finds.
func FuzzQuick(f *testing.F) {
	for _, output := range outputs {
		f.Add([]byte(output), uint16(0))
		f.Add([]byte(strings.ReplaceAll(output, "\r\n", "\n")), uint16(5))
	}
	b := newBoth(f)
	f.Fuzz(func(t *testing.T, output []byte, cut uint16) {
		s := &said{output: output}
		if cut > 0 {
			s.pieces = []int{int(cut)}
		}
		if err := b.check("GET", s); err != nil {
			t.Fatal(err)
		}
	})
}
