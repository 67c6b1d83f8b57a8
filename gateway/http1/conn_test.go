package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gatecrew/gateway/listen"
	"gatecrew/protocol/cgi"
)

const patience = time.Minute // of a test, with what must happen

func dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// wantAnswer reads one response and compares its body.
func wantAnswer(t testing.TB, r *bufio.Reader, body string) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	got, err := io.ReadAll(response.Body)
	if err != nil || string(got) != body {
		t.Fatalf("status %d, body %q, %v; want %q", response.StatusCode, got, err, body)
	}
	return response
}

// wantEnd expects the end of the connection, and nothing before it.
func wantEnd(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q, %v; want the end of the connection", b, err)
	}
}

// echo answers with what it was asked.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "%s %s %d %s %v", r.Method, r.RequestURI, r.ContentLength, body, err)
})

// direct answers with one Write, as most requests are.
func direct(c *Conn, p *cgi.Plain, body []byte) bool {
	text := p.Method + " " + p.Target + " " + string(body)
	_, _ = c.Write(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
	return true
}

// answeredElsewhere has another goroutine answer, as an application's does.
func answeredElsewhere(c *Conn, p *cgi.Plain, body []byte) bool {
	text := p.Method + " " + p.Target + " " + string(body)
	go answerNow(c, text)
	return false
}

// answerNow answers as far as the client takes it at once, and leaves the rest to
// Resume.
func answerNow(c *Conn, text string) {
	b := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	n, err := c.TryWrite(b)
	whole := n == len(b) && err == nil
	if !whole {
		unsentOf.Store(c, b[n:])
	}
	c.Answered(whole)
}

// unixSocket is a path for one, which is short enough.
func unixSocket(t testing.TB) string {
	dir, err := os.MkdirTemp("", "http1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestPipelined(t *testing.T) {
	for name, answer := range map[string]func(*Conn, *cgi.Plain, []byte) bool{"direct": direct, "elsewhere": answeredElsewhere} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+" "+network, func(t *testing.T) {
				config := serversConfig{handler: echo, answer: answer}
				if network == "unix" {
					config.network, config.addr = "unix", unixSocket(t)
				}
				s := startServers(t, config)
				var stream, want bytes.Buffer
				for i := range 200 {
					body := strings.Repeat("b", i*37%5000)
					fmt.Fprintf(&stream, "POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n", i, len(body), body)
					text := fmt.Sprintf("POST /%d %s", i, body)
					fmt.Fprintf(&want, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nGET /x ", len(text), text)
				}
				for _, size := range []int{1 << 20, 4096, 1000, 77} {
					c := dial(t, s.addr)
					go func() {
						for b := range slices.Chunk(stream.Bytes(), size) {
							if _, err := c.Write(b); err != nil {
								return
							}
						}
					}()
					got := make([]byte, want.Len())
					if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want.Bytes()) {
						t.Fatalf("in pieces of %d: %d bytes, %v", size, n, err)
					}
					c.Close()
				}
			})
		}
	}
}

// TestWritten: with what is written to a Unix socket it is told whether its client
// stands still, however it is written.
func TestWritten(t *testing.T) {
	sent, long := make(chan int, 1), make([]byte, 1<<20)
	s := startServers(t, serversConfig{network: "unix", addr: unixSocket(t), answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
		before := c.counted.Written()
		for _, parts := range [][][]byte{{long}, {long[:5], long[:7]}, {long, long}} {
			if _, err := c.Write(parts...); err != nil {
				t.Error(err)
			}
		}
		sent <- int(c.counted.Written() - before)
		return true
	}})
	c := dial(t, s.addr)
	send(t, c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := io.CopyN(io.Discard, c, 3<<20+12); err != nil {
		t.Fatal(err)
	}
	if n := <-sent; n != 3<<20+12 {
		t.Errorf("%d bytes were counted, not %d", n, 3<<20+12)
	}
}

// TestBytewise: heads and bodies that come byte by byte are plain ones.
func TestBytewise(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo, answer: direct})
	c := dial(t, s.addr)
	r := bufio.NewReader(c)
	for range 2 {
		for _, b := range "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" {
			send(t, c, string(b))
		}
		wantAnswer(t, r, "POST /slow hello")
	}
	if n := s.handedOn.Load(); n != 0 {
		t.Errorf("%d connections were handed on", n)
	}
}

// TestEnds ends a connection behind each byte of a stream. What comes back must be
// what net/http sends.
func TestEnds(t *testing.T) {
	both := serveBoth(t, echo)
	stream := "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nPOST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /d HTTP/1.0\r\n\r\n"
	ask := func(addr net.Addr, stream string) string {
		c := dial(t, addr)
		defer c.Close()
		send(t, c, stream)
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("behind %q: %v", stream, err)
		}
		return sentDate.ReplaceAllString(string(b), "")
	}
	for i := range len(stream) + 1 {
		fast, slow := ask(both.fast, stream[:i]), ask(both.slow, stream[:i])
		if !sameFields(fast, slow) {
			t.Errorf("behind %q: %q, want %q", stream[:i], fast, slow)
		}
	}
}

// TestHalfClosed: a client that sends nothing more still has its answer, also when
// that comes after its end was seen, and ends the connection.
func TestHalfClosed(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo, answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
		go func() {
			<-c.Context().Done() // as an application is waited for
			if p.Target == "/resume" {
				c.Answered(false)
				return
			}
			answerNow(c, "whole")
		}()
		return false
	}})
	for target, want := range map[string]string{"/resume": "GET /resume 0  <nil>", "/whole": "whole"} {
		c := dial(t, s.addr)
		send(t, c, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		wantAnswer(t, r, want)
		if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
			t.Errorf("%s: behind the answer: %q, %v", target, rest, err)
		}
	}
}

// sameFields compares responses whose fields may be in another order.
func sameFields(a, b string) bool {
	lines := func(s string) []string { return slices.Sorted(slices.Values(strings.Split(s, "\r\n"))) }
	return slices.Equal(lines(a), lines(b))
}

// TestHandedOn: what is not plain is net/http's, with all that was read of it, and
// so is what follows.
func TestHandedOn(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		config := serversConfig{handler: echo, answer: direct}
		if network == "unix" {
			config.network, config.addr = "unix", unixSocket(t)
		}
		s := startServers(t, config)
		c := dial(t, s.addr)
		r := bufio.NewReader(c)
		send(t, c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
		wantAnswer(t, r, "GET /1 ")
		send(t, c, "POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		wantAnswer(t, r, "POST /2 -1 abc <nil>")
		send(t, c, "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
		wantAnswer(t, r, "GET /3 0  <nil>")
		if n := s.handedOn.Load(); n != 1 {
			t.Errorf("%s: %d connections were handed on, want 1", network, n)
		}
	}
}

// TestBodyThatDoesNotCome is net/http's to wait for, and the handler's.
func TestBodyThatDoesNotCome(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo, answer: direct})
	c := dial(t, s.addr)
	send(t, c, "POST /late HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe")
	eventually(t, "the connection is handed on", func() bool { return s.handedOn.Load() == 1 })
	send(t, c, "llo")
	wantAnswer(t, bufio.NewReader(c), "POST /late 5 hello <nil>")
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestKeptMethods(t *testing.T) {
	for _, nc := range []net.Conn{&net.TCPConn{}, &listen.UnixConn{}} {
		begun, _ := withBegun(nc, nil)
		if _, ok := begun.(halfCloser); !ok {
			t.Errorf("%T: net/http could not half-close it", nc)
		}
	}
	if _, ok := any(&begunTCP{}).(io.ReaderFrom); !ok {
		t.Error("net/http has no sendfile with a connection that was handed on")
	}
}

// TestBegunWriteTo: io.Copy asks a connection for WriteTo.
func TestBegunWriteTo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr())
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	send(t, client, "socket")
	client.Close()
	begun, _ := withBegun(nc, []byte("read, "))
	var b bytes.Buffer
	if _, err := io.Copy(&b, begun); err != nil || b.String() != "read, socket" {
		t.Errorf("copied %q, %v", b.String(), err)
	}
}

func TestTimeouts(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo, answer: direct, headerTimeout: 200 * time.Millisecond, idle: 200 * time.Millisecond})
	for name, sent := range map[string]string{"fresh": "", "half a head": "GET / HTTP/1.1\r\nHo", "idle": "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"half a second head": "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n"} {
		c := dial(t, s.addr)
		send(t, c, sent)
		r := bufio.NewReader(c)
		if strings.Contains(sent, "\r\n\r\n") {
			wantAnswer(t, r, "GET / ")
		}
		if _, err := r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v, want the end of the connection", name, err)
		}
	}
	if n := s.handedOn.Load(); n != 0 {
		t.Errorf("%d connections were handed on", n)
	}
}

// TestClockAfterSleep: where nobody has been for an hour, the next one has as much
// time as anybody.
func TestClockAfterSleep(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo, answer: direct})
	eventually(t, "the clock sleeps", func() bool {
		before := s.plain.clock.Load()
		time.Sleep(3 * s.plain.tick)
		return s.plain.clock.Load() == before
	})
	s.plain.clock.Store(int64(time.Since(start) - time.Hour))
	dial(t, s.addr)
	eventually(t, "it is accepted", s.accepted)
	s.plain.mu.Lock()
	defer s.plain.mu.Unlock()
	for c := range s.plain.conns {
		if left := time.Duration(c.waits.state.Load()>>phaseBits) - time.Since(start); left < s.plain.HeaderTimeout-time.Second {
			t.Errorf("it has %v for its head", left)
		}
	}
}

// TestStopSeesWhoBecomesIdle: a connection that Stop has seen at work ends when it
// becomes idle, however short the time between.
func TestStopSeesWhoBecomesIdle(t *testing.T) {
	r := newReader(t)
	nc, client := net.Pipe()
	defer client.Close()
	defer nc.Close()
	c := newConn(r.server, nc)
	c.active = true
	c.waits.end()
	r.server.Stop() // it looks, sees nobody idle, and
	done := make(chan verdict, 1)
	go func() {
		_, v := c.readHead() // a moment later somebody is
		done <- v
	}()
	select {
	case v := <-done:
		if v != more {
			t.Errorf("verdict %d", v)
		}
	case <-time.After(patience):
		t.Error("it waits for the next request")
	}
}

func TestShutdown(t *testing.T) {
	began, release := make(chan string, 10), make(chan struct{})
	wait := func(c *Conn, p *cgi.Plain, body []byte) bool {
		if p.Target == "/wait" {
			began <- p.Target
			<-release
		}
		return direct(c, p, body)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- r.RequestURI
		<-release
		echo(w, r)
	})
	s := startServers(t, serversConfig{handler: handler, answer: wait})
	idle, busy, chunked := dial(t, s.addr), dial(t, s.addr), dial(t, s.addr)
	fromIdle, fromBusy, fromChunked := bufio.NewReader(idle), bufio.NewReader(busy), bufio.NewReader(chunked)
	send(t, idle, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	wantAnswer(t, fromIdle, "GET /1 ")
	send(t, busy, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	send(t, chunked, "POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	<-began
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() { done <- s.shutdown(ctx) }()
	wantEnd(t, fromIdle)
	select {
	case err := <-done:
		t.Fatalf("shut down while requests are in progress: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	wantAnswer(t, fromBusy, "GET /wait ")
	wantEnd(t, fromBusy)
	if response := wantAnswer(t, fromChunked, "POST /chunked -1  <nil>"); !response.Close {
		t.Error("net/http's last answer does not say so")
	}
	wantEnd(t, fromChunked)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShutdownTellsLast: what comes while the server stops is answered, and told that
// it is the last.
func TestShutdownTellsLast(t *testing.T) {
	s := startServers(t, serversConfig{handler: echo})
	fresh := dial(t, s.addr)
	eventually(t, "it is accepted", s.accepted)
	s.plain.Stop()
	send(t, fresh, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	r := bufio.NewReader(fresh)
	if response := wantAnswer(t, r, "GET /1 0  <nil>"); !response.Close {
		t.Error("the last answer does not say so")
	}
	wantEnd(t, r)
}

func TestCloseEndsAll(t *testing.T) {
	began := make(chan struct{}, 2)
	s := startServers(t, serversConfig{handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
	})})
	fresh, busy := dial(t, s.addr), dial(t, s.addr)
	send(t, busy, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	s.plain.Close()
	wantEnd(t, fresh)
	_, _ = io.ReadAll(busy) // whatever it says by its end, it ends
	ctx, cancel = context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.plain.Shutdown(ctx); err != nil {
		t.Errorf("connections are left: %v", err)
	}
}

// TestStopBetweenTwo stops while a request stands read behind one that has just been
// answered.
func TestStopBetweenTwo(t *testing.T) {
	for range 50 {
		stop := make(chan func(), 1)
		s := startServers(t, serversConfig{handler: echo, answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
			if p.Target != "/1" {
				return direct(c, p, body)
			}
			go func() {
				answerNow(c, "1")
				(<-stop)()
			}()
			return false
		}})
		stop <- s.plain.Stop
		c := dial(t, s.addr)
		send(t, c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
		r := bufio.NewReader(c)
		wantAnswer(t, r, "1")
		wantAnswer(t, r, "GET /2 ")
	}
}

// TestStopLosesNothing has clients ask as fast as they can while the server stops.
// Each request whose handler has run must have got its whole answer; and a client sees
// whole answers or, before any byte of one, the end of the connection.
func TestStopLosesNothing(t *testing.T) {
	rounds := 15
	if soak {
		rounds = 1000
	}
	for round := range rounds {
		var handled, whole [4]atomic.Int64 // by kinds of clients
		total := func(n *[4]atomic.Int64) int64 { return n[0].Load() + n[1].Load() + n[2].Load() + n[3].Load() }
		count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handled[r.RequestURI[1]-'0'].Add(1)
			echo(w, r)
		})
		config := serversConfig{handler: count}
		switch round % 3 {
		case 1:
			config.answer = func(c *Conn, p *cgi.Plain, body []byte) bool {
				handled[p.Target[1]-'0'].Add(1)
				return direct(c, p, body)
			}
		case 2:
			config.answer = func(c *Conn, p *cgi.Plain, body []byte) bool {
				handled[p.Target[1]-'0'].Add(1)
				return answeredElsewhere(c, p, body)
			}
		}
		s := startServers(t, config)
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() {
				head := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h\r\n", i%4)
				switch i % 4 {
				case 1:
					head = "GET /1 HTTP/1.1\r\nHost: h\r\nPragma: x\r\n" // net/http's
				case 2:
					head += "Connection: close\r\n"
				}
				for asked := 0; ; asked++ {
					c, err := net.Dial("tcp", s.addr.String())
					if err != nil {
						return
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					r := bufio.NewReader(c)
					for {
						if _, err := io.WriteString(c, head+"\r\n"); err != nil {
							break
						}
						if _, err := r.Peek(1); err != nil {
							if errors.Is(err, os.ErrDeadlineExceeded) {
								t.Errorf("round %d: no answer and no end of the connection", round)
							}
							break
						}
						response, err := http.ReadResponse(r, nil)
						if err == nil {
							_, err = io.ReadAll(response.Body)
						}
						if err != nil {
							t.Errorf("round %d: a part of an answer: %v", round, err)
							break
						}
						whole[i%4].Add(1)
						// net/http alone may close a connection that was idle when its next
						// request has been read, so it gets one on each.
						if response.Close || i%4 == 3 || i%4 == 1 {
							break
						}
					}
					c.Close()
				}
			})
		}
		eventually(t, "requests are answered", func() bool { return total(&whole) > int64(20+round*7) })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := s.shutdown(ctx); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		cancel()
		clients.Wait()
		for kind := range handled {
			if h, w := handled[kind].Load(), whole[kind].Load(); h != w {
				t.Errorf("round %d: %d requests of kind %d were handled, %d answers came", round, h, kind, w)
			}
		}
		s.close()
	}
}

// TestClientGone: whoever answers is told.
func TestClientGone(t *testing.T) {
	gone := make(chan string, 10)
	began := make(chan struct{}, 10)
	s := startServers(t, serversConfig{handler: echo, answer: func(c *Conn, p *cgi.Plain, _ []byte) bool {
		switch target := p.Target; target {
		case "/next":
			return direct(c, p, nil)
		case "/direct": // as one waits for a worker
			began <- struct{}{}
			<-c.Context().Done()
			gone <- target
			return true
		case "/elsewhere", "/pipelined": // as an application is waited for
			began <- struct{}{}
			go func() {
				<-c.Context().Done()
				gone <- target
				c.Answered(false)
			}()
			return false
		default:
			c.Respond(nil, func(w http.ResponseWriter, r *http.Request) {
				began <- struct{}{}
				<-r.Context().Done()
				gone <- target
			})
			return true
		}
	}})
	for _, target := range []string{"/direct", "/elsewhere", "/pipelined", "/respond"} {
		c := dial(t, s.addr)
		request := "GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n"
		if target == "/pipelined" {
			request += "GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
		}
		send(t, c, request)
		<-began
		c.Close()
		select {
		case got := <-gone:
			if got != target {
				t.Errorf("%s is told in place of %s", got, target)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nobody is told that the client has gone", target)
		}
	}
}

// TestEarlyRequest: a client that is watched may send its next request meanwhile.
func TestEarlyRequest(t *testing.T) {
	watching, release := make(chan *Conn, 1), make(chan struct{})
	s := startServers(t, serversConfig{handler: echo, answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
		if p.Target == "/1" {
			c.Context().Done()
			watching <- c
			<-release
			if err := c.Context().Err(); err != nil {
				t.Errorf("the client has gone, it is said: %v", err)
			}
		}
		return direct(c, p, body)
	}})
	client := dial(t, s.addr)
	send(t, client, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
	c := <-watching
	eventually(t, "it is watched", func() bool { return c.watch.stage.Load() == watched })
	send(t, client, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n")
	eventually(t, "a byte has been read", func() bool {
		c.watch.mu.Lock()
		defer c.watch.mu.Unlock()
		return len(c.watch.early) > 0
	})
	close(release)
	r := bufio.NewReader(client)
	for _, target := range []string{"/1", "/2", "/3"} {
		wantAnswer(t, r, "GET "+target+" ")
	}
}

// TestResumedWhileWatched: the deadline that wakes a connection is no client that
// has gone.
func TestResumedWhileWatched(t *testing.T) {
	s := startServers(t, serversConfig{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.Context().Err(); err != nil {
			t.Errorf("the client has gone, it is said: %v", err)
		}
		echo(w, r)
	}), answer: func(c *Conn, p *cgi.Plain, _ []byte) bool {
		c.Context().Done()
		eventually(t, "it is watched", func() bool { return c.watch.stage.Load() == watched })
		c.Answered(false)
		c.watch.mu.Lock()
		ended := c.watch.ended
		c.watch.mu.Unlock()
		<-ended
		return false
	}})
	c := dial(t, s.addr)
	r := bufio.NewReader(c)
	for range 3 {
		send(t, c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
		wantAnswer(t, r, "GET /1 0  <nil>")
	}
}

// TestPanics end their connection, are logged, and harm nobody else.
func TestPanics(t *testing.T) {
	core, logged := observer.New(zap.ErrorLevel)
	s := startServers(t, serversConfig{log: zap.New(core), handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("in Respond") }),
		answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
			switch p.Target {
			case "/panic":
				panic("in Answer")
			case "/abort":
				panic(http.ErrAbortHandler)
			case "/respond":
				c.Respond(body, func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(w, "not sent")
					panic("in Respond")
				})
				return true
			case "/resume":
				go c.Answered(false)
				return false
			}
			return direct(c, p, body)
		}})
	for _, target := range []string{"/panic", "/abort", "/respond", "/resume"} {
		c := dial(t, s.addr)
		r := bufio.NewReader(c)
		send(t, c, "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
		wantAnswer(t, r, "GET /1 ")
		send(t, c, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n")
		wantEnd(t, r)
	}
	if n := logged.Len(); n != 3 {
		t.Errorf("%d panics were logged, want 3: %v", n, logged.All())
	}
}

// TestClientReadsNothing: whoever writes to a client that has gone gets an error.
func TestClientReadsNothing(t *testing.T) {
	failed := make(chan error, 10)
	big := make([]byte, 1<<20)
	s := startServers(t, serversConfig{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 1000 {
			if _, err := w.Write(big); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}), answer: func(c *Conn, p *cgi.Plain, _ []byte) bool {
		switch p.Target {
		case "/write":
			for range 1000 {
				if _, err := c.Write(big, big); err != nil {
					failed <- err
					return true
				}
			}
			failed <- nil
			return true
		}
		go c.Answered(false)
		return false
	}})
	for _, target := range []string{"/write", "/resume"} {
		c := dial(t, s.addr)
		send(t, c, "GET "+target+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		select {
		case err := <-failed:
			if err == nil {
				t.Errorf("%s: a gigabyte was sent to nobody", target)
			}
		case <-time.After(patience):
			t.Fatalf("%s: it still writes", target)
		}
	}
}

// TestPlacesComeBack: after connections of all kinds there is as much room as before.
func TestPlacesComeBack(t *testing.T) {
	const places = 4
	count := 300
	if soak {
		count = 30_000
	}
	s := startServers(t, serversConfig{places: places, releasing: true, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hijack":
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				c.Close()
			}
		case "/panic":
			panic(http.ErrAbortHandler)
		}
		echo(w, r)
	}), answer: func(c *Conn, p *cgi.Plain, body []byte) bool {
		switch p.Target {
		case "/direct":
			return direct(c, p, body)
		case "/elsewhere":
			return answeredElsewhere(c, p, body)
		case "/resume":
			go c.Answered(false)
			return false
		}
		c.Respond(body, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic(http.ErrAbortHandler)
			}
			echo(w, r)
		})
		return true
	}})
	streams := []string{"", "G", "\x16\x03\x01", "GET /direct HTTP/1.1\r\nHost: h\r\n\r\n", "GET /elsewhere HTTP/1.1\r\nHost: h\r\n\r\n", "GET /resume HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n", "GET /respond HTTP/1.1\r\nHost: h\r\n\r\n", "GET /panic HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
		"POST /respond HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc", "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /hijack HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"}
	for i := range count {
		c := dial(t, s.addr)
		send(t, c, streams[i%len(streams)])
		switch i % 3 {
		case 0:
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.ReadAll(c)
		case 1:
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
	}
	var clients []net.Conn
	for range places { // all at once
		c := dial(t, s.addr)
		send(t, c, "GET /direct HTTP/1.1\r\nHost: h\r\n\r\n")
		wantAnswer(t, bufio.NewReader(c), "GET /direct ")
		clients = append(clients, c)
	}
	for _, c := range clients {
		c.Close()
	}
}

// TestAllocations: a head costs the string that its parts are of.
func TestAllocations(t *testing.T) {
	head := []byte(clients[3])
	p := cgi.Plain{Fields: make([]cgi.Field, 0, 32)}
	if n := testing.AllocsPerRun(1000, func() {
		if _, v := parse(head, &p, 100); v != plain {
			t.Fatal("it is not plain")
		}
	}); n > 1 {
		t.Errorf("a head costs %v allocations, want 1", n)
	}
}
