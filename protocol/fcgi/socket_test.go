package fcgi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"gatecrew/protocol"
)

// async is a connection as to a worker with an event loop.
func async(t testing.TB, o Options, window string) (*Conn, *peer) {
	t.Helper()
	return negotiated(t, o, "100", window, "GATECREW_ASYNC", "1")
}

func (p *peer) begun(count uint32) {
	p.t.Helper()
	p.send(typeBegun, 0, binary.BigEndian.AppendUint32(nil, count))
}

// handshake reads the opening of a socket, whose input stays open.
func (p *peer) handshake(id uint16) {
	p.t.Helper()
	if b := p.expect(typeBeginRequest, id); len(b) == 8 && b[1] != byte(protocol.WebSocket) {
		p.t.Errorf("role %d", b[1])
	}
	for len(p.expect(typeParams, id)) > 0 {
	}
}

func socketRequest() *protocol.Request {
	req := get(nil)
	req.Role = protocol.WebSocket
	return req
}

func message(kind protocol.MessageKind, content string) []byte {
	return append(protocol.AppendMessage(nil, kind, len(content)), content...)
}

var _ protocol.Socket = (*Stream)(nil)

func TestSocketCarriesMessages(t *testing.T) {
	c, p := async(t, Options{}, "1000")
	s := mustOpen(t, c, socketRequest(), nil)
	p.handshake(1)
	p.send(typeStdout, 1, []byte("Status: 101\r\n\r\n"))
	s.Wait()
	b := make([]byte, 100)
	if n, err := s.Read(b); err != nil || string(b[:n]) != "Status: 101\r\n\r\n" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	for _, part := range [][]byte{message(protocol.Text, "hello"), message(protocol.Binary, "ab")[:6], []byte("b")} {
		if n, err := s.Write(part); n != len(part) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
		if got := p.expect(typeStdin, 1); !bytes.Equal(got, part) {
			t.Errorf("the worker got %q, want %q", got, part)
		}
	}
	p.send(typeStdout, 1, protocol.AppendClose(nil, 4000, "bye"))
	p.end(1, 0, 0)
	mustRead(t, s, string(protocol.AppendClose(nil, 4000, "bye")), 0)
	if _, err := s.Write([]byte{1}); !errors.Is(err, errEnded) {
		t.Errorf("Write after the end: %v", err)
	}
}

// A write waits for credit; more of it, the end of the request and Close wake it.
func TestSocketWaitsForCredit(t *testing.T) {
	for name, wake := range map[string]func(p *peer, s *Stream){
		"credit":          func(p *peer, s *Stream) { p.send(typeCredit, 1, []byte{0, 0, 0, 9}) },
		"end":             func(p *peer, s *Stream) { p.end(1, 0, 0) },
		"close":           func(p *peer, s *Stream) { s.Close() },
		"death":           func(p *peer, s *Stream) { p.nc.Close() },
		"a close message": func(p *peer, s *Stream) { s.WriteClose(1001, "") },
	} {
		t.Run(name, func(t *testing.T) {
			c, p := async(t, Options{}, "10")
			s := mustOpen(t, c, socketRequest(), nil)
			p.handshake(1)
			type result struct {
				n   int
				err error
			}
			written := make(chan result, 1)
			if name == "a close message" { // between two messages
				if _, err := s.Write(message(protocol.Text, "12345")); err != nil {
					t.Fatal(err)
				}
				go func() {
					n, err := s.Write(message(protocol.Text, "1234"))
					written <- result{n + 10, err}
				}()
			} else {
				go func() {
					n, err := s.Write(message(protocol.Text, "12345678901234"))
					written <- result{n, err}
				}()
			}
			if got := p.expect(typeStdin, 1); len(got) != 10 {
				t.Errorf("%d bytes with a credit of 10", len(got))
			}
			select {
			case r := <-written:
				t.Fatalf("Write did not wait: %+v", r)
			case <-time.After(10 * time.Millisecond):
			}
			wake(p, s)
			select {
			case r := <-written:
				if name == "credit" && (r.n != 19 || r.err != nil) || name != "credit" && (r.n != 10 || r.err == nil) {
					t.Errorf("Write: %+v", r)
				}
			case <-time.After(patience):
				t.Fatal("Write still waits")
			}
		})
	}
}

// A close message may exceed the credit, but not stand inside of another one.
func TestSocketClose(t *testing.T) {
	t.Run("beyond the credit", func(t *testing.T) {
		c, p := async(t, Options{}, "9")
		s := mustOpen(t, c, socketRequest(), nil)
		p.handshake(1)
		if _, err := s.Write(message(protocol.Text, "1234")); err != nil {
			t.Fatal(err)
		}
		p.expect(typeStdin, 1)
		s.WriteClose(1012, "restart")
		s.WriteClose(1001, "")
		if got, want := p.expect(typeStdin, 1), protocol.AppendClose(nil, 1012, "restart"); !bytes.Equal(got, want) {
			t.Errorf("the worker got %q, want %q", got, want)
		}
		if _, err := s.Write(message(protocol.Text, "")); err == nil {
			t.Error("a message behind the close message")
		}
		s.Close()
		p.expect(typeAbortRequest, 1)
	})
	t.Run("inside of a message", func(t *testing.T) {
		c, p := async(t, Options{}, "100")
		s := mustOpen(t, c, socketRequest(), nil)
		p.handshake(1)
		for i, cut := range []int{3, 5, 7} {
			m := message(protocol.Text, "1234")
			if i > 0 {
				m = m[[]int{0, 3, 5}[i]:]
				cut -= []int{0, 3, 5}[i]
			}
			if _, err := s.Write(m[:cut]); err != nil {
				t.Fatal(err)
			}
			p.expect(typeStdin, 1)
			s.WriteClose(1001, "")
		}
		s.Close()
		p.expect(typeAbortRequest, 1)
	})
}

func TestSocketNeedsAnEventLoop(t *testing.T) {
	c, _ := negotiated(t, Options{}, "4", "1000")
	if _, err := c.Open(socketRequest(), nil); protocol.KindOf(err) != protocol.Refused || !unseen(err) {
		t.Errorf("Open: %v", err)
	}
	s := mustOpen(t, c, get(nil), nil)
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("Write on a request that is no socket")
	}
}

// The body of a client that waits to be told to continue is not read before the
// application asks for it.
func TestBodyOnDemand(t *testing.T) {
	open := func(t *testing.T) (*peer, *Stream, *blockingBody) {
		c, p := negotiated(t, Options{}, "4", "1000")
		body := newBlockingBody(nil)
		req := get(body)
		req.OnDemand = true
		s := mustOpen(t, c, req, nil)
		p.expect(typeBeginRequest, 1)
		for len(p.expect(typeParams, 1)) > 0 {
		}
		select {
		case <-body.reading:
			t.Fatal("the body is read before anyone asked for it")
		case <-time.After(10 * time.Millisecond):
		}
		return p, s, body
	}
	t.Run("asked for", func(t *testing.T) {
		p, s, body := open(t)
		p.send(typeCredit, 1, []byte{0, 0, 0, 1})
		mustClose(t, "the body is read", body.reading)
		close(body.release)
		s.Close()
	})
	t.Run("not asked for", func(t *testing.T) {
		p, s, body := open(t)
		p.send(typeStdout, 1, []byte("417"))
		p.end(1, 0, 0)
		mustRead(t, s, "417", 0)
		s.Close()
		select {
		case <-body.reading:
			t.Error("the body was read after the end of the request")
		default:
		}
	})
}

func TestBegun(t *testing.T) {
	c, p := async(t, Options{}, "1000")
	told := make(chan struct{}, 10)
	c.OnBegun(func() { told <- struct{}{} })
	if n, since := c.Owed(); n != 0 || !since.IsZero() {
		t.Errorf("owed at first: %d since %v", n, since)
	}
	before := time.Now()
	a, b := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	between := time.Now()
	if n, since := c.Owed(); n != 2 || since.Before(before) || since.After(between) {
		t.Errorf("owed for two requests: %d since %v", n, since)
	}
	p.request(1)
	p.request(2)
	p.begun(1)
	<-told
	if n, since := c.Owed(); n != 1 || since.Before(between) {
		t.Errorf("owed after it looked at one: %d since %v", n, since)
	}
	p.begun(1) // it turned again
	<-told
	p.begun(2)
	<-told
	if n, since := c.Owed(); n != 0 || !since.IsZero() {
		t.Errorf("owed after it looked at both: %d since %v", n, since)
	}
	p.end(1, 0, 0)
	p.end(2, 0, 0)
	mustRead(t, a, "", 0)
	mustRead(t, b, "", 0)
}

// What stands in PROTOCOL.md, section 7.
func TestBegunViolations(t *testing.T) {
	for name, test := range map[string]struct {
		counts []uint32
		raw    []byte
		id     uint16
		fails  bool
	}{
		"as sent":                {counts: []uint32{1}},
		"ahead of what was sent": {counts: []uint32{2}, fails: true},
		"backwards":              {counts: []uint32{1, 0}, fails: true},
		"negative":               {counts: []uint32{1<<32 - 1}, fails: true},
		"too short":              {raw: []byte{0, 0, 1}, fails: true},
		"empty":                  {raw: []byte{}, fails: true},
		"too long":               {raw: make([]byte, 5), fails: true},
		"of a request":           {raw: make([]byte, 5), id: 1},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := async(t, Options{}, "1000")
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			for _, n := range test.counts {
				p.begun(n)
			}
			if test.raw != nil {
				p.send(typeBegun, test.id, test.raw)
			}
			kind := protocol.Malformed
			if !test.fails {
				kind = 0
				p.end(1, 0, 0)
			}
			mustRead(t, s, "", kind)
		})
	}
	t.Run("from a worker without an event loop", func(t *testing.T) {
		c, p := negotiated(t, Options{}, "4", "1000")
		s := mustOpen(t, c, get(nil), nil)
		p.request(1)
		p.begun(77)
		p.send(typeBegun, 0, make([]byte, 65535))
		p.end(1, 0, 0)
		mustRead(t, s, "", 0)
	})
}

// The count wraps around after 2^32 requests.
func TestBegunWrapsAround(t *testing.T) {
	c, p := async(t, Options{}, "1000")
	c.w.mu.Lock()
	c.loop.sent.Store(1<<32 - 1)
	c.loop.begun.Store(1<<32 - 1)
	c.w.mu.Unlock()
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	if n, _ := c.Owed(); n != 1 {
		t.Errorf("%d owed", n)
	}
	p.begun(0)
	p.end(1, 0, 0)
	mustRead(t, s, "", 0)
	if n, _ := c.Owed(); n != 0 {
		t.Errorf("%d owed after all", n)
	}
}

func FuzzBoundary(f *testing.F) {
	f.Add(message(protocol.Text, "hello"), byte(3))
	f.Add(append(message(protocol.Binary, ""), message(protocol.Close, "")...), byte(7))
	f.Fuzz(func(t *testing.T, b []byte, piece byte) {
		var whole, parts boundary
		whole.advance(b)
		for rest := b; len(rest) > 0; {
			n := min(int(piece)%8+1, len(rest))
			parts.advance(rest[:n])
			rest = rest[n:]
		}
		// The plain way to find out.
		between := true
		for rest := bytes.NewReader(b); rest.Len() > 0 && between; {
			var head [protocol.MessageHeader]byte
			if _, err := io.ReadFull(rest, head[:]); err != nil {
				between = false
				break
			}
			n, _ := io.CopyN(io.Discard, rest, int64(binary.BigEndian.Uint32(head[1:])))
			between = n == int64(binary.BigEndian.Uint32(head[1:]))
		}
		if whole != parts && whole.between() || whole.between() != between || parts.between() != between {
			t.Errorf("%x: %+v, in pieces %+v, want between %v", b, whole, parts, between)
		}
	})
}
