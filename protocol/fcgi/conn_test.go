package fcgi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gatecrew/protocol"
)

func TestAnswersAreDemultiplexedByID(t *testing.T) {
	c, p := negotiated(t, Options{}, "4", "1000")
	a, b := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	p.send(typeStdout, 2, []byte("for b, "))
	p.send(typeStdout, 1, []byte("for a, "))
	p.send(typeStdout, 2, []byte("and b"))
	p.end(2, 0, 0)
	p.send(typeStdout, 1, []byte("and a"))
	p.end(1, 0, 0)
	mustRead(t, a, "for a, and a", 0)
	mustRead(t, b, "for b, and b", 0)
}

func TestApplicationDyingInItsAnswerIsNoEnd(t *testing.T) {
	c, p := foreign(t, Options{})
	ended, done := once()
	s := mustOpen(t, c, get(nil), ended)
	p.request(1)
	p.send(typeStdout, 1, []byte("Status: 200\r\n\r\nhalf an ans"))
	p.nc.Close()
	mustRead(t, s, "Status: 200\r\n\r\nhalf an ans", protocol.Died)
	mustClose(t, "ended", done)
}

func TestEmptyStdoutIsNoEnd(t *testing.T) {
	c, p := foreign(t, Options{})
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.send(typeStdout, 1, []byte("all"))
	p.send(typeStdout, 1, nil)
	p.nc.Close()
	mustRead(t, s, "all", protocol.Died)
}

// A worker of ours tells how long it has worked; of anybody else these bytes say nothing.
func TestWorked(t *testing.T) {
	end := []byte{0, 0, 0, 0, 0, 1, 2, 3}
	for _, test := range []struct {
		name string
		make func() (*Conn, *peer)
		want time.Duration
	}{
		{"negotiated", func() (*Conn, *peer) { return negotiated(t, Options{}, "1", "1000") }, 0x010203 * time.Microsecond},
		{"foreign", func() (*Conn, *peer) { return foreign(t, Options{}) }, 0},
	} {
		c, p := test.make()
		told := make(chan time.Duration, 1)
		s := mustOpen(t, c, get(nil), func(worked time.Duration) { told <- worked })
		p.request(1)
		p.send(typeEndRequest, 1, end)
		if worked := <-told; worked != test.want {
			t.Errorf("%s: worked %v, want %v", test.name, worked, test.want)
		}
		mustRead(t, s, "", 0)
	}
}

// An application that answers a large upload without reading it: the answer
// arrives, nobody waits for the body, and the slot is free.
func TestEarlyAnswerToLargeUpload(t *testing.T) {
	t.Run("foreign", func(t *testing.T) {
		c, p := foreign(t, Options{})
		ended, done := once()
		s := mustOpen(t, c, get(endless{}), ended)
		p.expect(typeBeginRequest, 1)
		p.send(typeStdout, 1, []byte("413"))
		p.end(1, 0, 0)
		mustRead(t, s, "413", 0)
		mustClose(t, "ended", done)
		mustClose(t, "a connection with half a body on it", c.Done())
		s.Close()
	})
	t.Run("negotiated", func(t *testing.T) {
		c, p := negotiated(t, Options{}, "1", "100000")
		ended, done := once()
		s := mustOpen(t, c, get(endless{}), ended)
		p.expect(typeBeginRequest, 1)
		p.send(typeStdout, 1, []byte("413"))
		p.end(1, 0, 0)
		mustRead(t, s, "413", 0)
		mustClose(t, "ended", done)
		s.Close()
		mustOpen(t, c, get(nil), nil) // the connection lives
	})
	t.Run("and hangs up", func(t *testing.T) {
		c, p := foreign(t, Options{})
		s := mustOpen(t, c, get(endless{}), nil)
		p.expect(typeBeginRequest, 1)
		p.nc.Write(append(raw(typeStdout, 1, bytes.Repeat([]byte("x"), 50000)), raw(typeEndRequest, 1, make([]byte, 8))...))
		p.nc.Close()
		mustRead(t, s, strings.Repeat("x", 50000), 0)
	})
}

// Both sides have more to say than the socket holds.
func TestFullDuplex(t *testing.T) {
	c, p := negotiated(t, Options{Window: 1 << 30}, "1", "1000000000")
	const size = 8 << 20
	s := mustOpen(t, c, get(io.LimitReader(endless{}, size)), nil)
	part := make([]byte, 60000)
	for sent := 0; sent < size; sent += len(part) {
		p.send(typeStdout, 1, part)
	}
	if n := len(p.request(1)); n != size {
		t.Errorf("application got %d bytes, want %d", n, size)
	}
	p.end(1, 0, 0)
	if n, err := io.Copy(io.Discard, s); err != nil || n < size {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestAbort(t *testing.T) {
	t.Run("negotiated", func(t *testing.T) {
		c, p := negotiated(t, Options{Window: 1000}, "2", "1000")
		ended, done := once()
		s := mustOpen(t, c, get(nil), ended)
		p.request(1)
		other := mustOpen(t, c, get(nil), nil)
		p.request(2)
		p.send(typeStdout, 1, []byte("begin"))
		io.ReadFull(s, make([]byte, 5))
		s.Close()
		p.expect(typeAbortRequest, 1)
		if _, err := c.Open(get(nil), nil); protocol.KindOf(err) != protocol.Overloaded || !unseen(err) {
			t.Errorf("id of an aborted request was given away before its end: %v", err)
		}
		// What still arrives is discarded, to the window's last byte.
		p.send(typeStdout, 1, make([]byte, 995))
		p.send(typeStderr, 1, []byte("late"))
		select {
		case <-done:
			t.Error("ended before END_REQUEST")
		default:
		}
		p.end(1, 1, 0)
		mustClose(t, "ended", done)
		p.send(typeStdout, 1, []byte("later than END_REQUEST"))
		p.end(1, 0, 0)
		p.send(typeCredit, 1, []byte{0, 0, 0, 1})
		p.send(typeStdout, 2, []byte("all this has been read"))
		p.end(2, 0, 0)
		mustRead(t, other, "all this has been read", 0)

		c.w.mu.Lock()
		free := len(c.free)
		c.w.mu.Unlock()
		if free != 2 {
			t.Errorf("%d ids are free after two END_REQUEST for one id and one for the other", free)
		}
		next := mustOpen(t, c, get(nil), nil)
		p.request(next.id)
		p.send(typeStdout, next.id, []byte("next"))
		p.end(next.id, 0, 0)
		mustRead(t, next, "next", 0)
	})
	t.Run("foreign", func(t *testing.T) {
		c, p := foreign(t, Options{})
		ended, done := once()
		s := mustOpen(t, c, get(nil), ended)
		p.request(1)
		s.Close()
		mustClose(t, "ended", done)
		mustClose(t, "Done", c.Done())
		if r, err := p.read(); err == nil {
			t.Errorf("foreign application was sent record type %d", r.typ)
		}
	})
	t.Run("in the body", func(t *testing.T) {
		c, p := negotiated(t, Options{}, "1", "10")
		s := mustOpen(t, c, get(endless{}), nil)
		p.expect(typeBeginRequest, 1)
		p.expect(typeParams, 1)
		p.expect(typeParams, 1)
		p.expect(typeStdin, 1)
		s.Close()
		p.expect(typeAbortRequest, 1)
		c.Close()
		if r, err := p.read(); err == nil {
			t.Errorf("record of type %d after the abort", r.typ)
		}
	})
}

func TestEndRequestStatus(t *testing.T) {
	for _, test := range []struct {
		name       string
		negotiated bool
		app        uint32
		status     byte
		stdout     string
		kind       protocol.Kind
		unseen     bool
	}{
		{"complete", true, 0, 0, "ok", 0, false},
		{"worker failed after its head", true, 1, 0, "ok", protocol.Died, false},
		{"foreign exit status", false, 7, 0, "ok", 0, false},
		{"can't multiplex", false, 0, 1, "", protocol.Overloaded, true},
		{"overloaded", false, 0, 2, "", protocol.Overloaded, true},
		{"given back by a worker", true, 0, 2, "", protocol.Returned, true},
		{"overloaded after output", false, 0, 2, "x", protocol.Overloaded, false},
		{"unknown role", false, 0, 3, "", protocol.Malformed, false},
		{"status nobody knows", true, 0, 200, "", protocol.Malformed, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, p := foreign(t, Options{})
			if test.negotiated {
				c, p = negotiated(t, Options{}, "1", "10")
			}
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			if test.stdout != "" {
				p.send(typeStdout, 1, []byte(test.stdout))
			}
			p.end(1, test.app, test.status)
			got, err := io.ReadAll(s)
			if string(got) != test.stdout || protocol.KindOf(err) != test.kind || unseen(err) != test.unseen {
				t.Errorf("read %q, %v (unseen %v)", got, err, unseen(err))
			}
			if s.AppStatus() != test.app {
				t.Errorf("AppStatus is %d", s.AppStatus())
			}
			mustOpen(t, c, get(nil), nil) // the connection is still good
		})
	}
}

func TestOneEmptyStdinRecord(t *testing.T) {
	bodies := map[string]func() io.Reader{
		"none":               func() io.Reader { return nil },
		"empty in memory":    func() io.Reader { return strings.NewReader("") },
		"in memory":          func() io.Reader { return strings.NewReader("body") },
		"empty stream":       func() io.Reader { return io.MultiReader() },
		"stream":             func() io.Reader { return io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")) },
		"data with its end":  func() io.Reader { return iotest.DataErrReader(io.MultiReader(strings.NewReader("body"))) },
		"byte by byte":       func() io.Reader { return iotest.OneByteReader(io.MultiReader(strings.NewReader("body"))) },
		"longer than window": func() io.Reader { return strings.NewReader(strings.Repeat("0123456789", 20)) },
	}
	for name, body := range bodies {
		for _, kind := range []string{"foreign", "negotiated"} {
			t.Run(name+" "+kind, func(t *testing.T) {
				c, p := foreign(t, Options{})
				if kind == "negotiated" {
					c, p = negotiated(t, Options{}, "1", "200")
				}
				var want []byte
				if b := body(); b != nil {
					want, _ = io.ReadAll(b)
				}
				for range 2 { // the second would see what the first left on the wire
					s := mustOpen(t, c, get(body()), nil)
					if got := p.request(1); !bytes.Equal(got, want) {
						t.Errorf("body %q, want %q", got, want)
					}
					p.end(1, 0, 0)
					mustRead(t, s, "", 0)
				}
			})
		}
	}
}

func TestWriteTimeout(t *testing.T) {
	c, _ := foreign(t, Options{WriteTimeout: 30 * time.Millisecond})
	s := mustOpen(t, c, get(endless{}), nil)
	mustRead(t, s, "", protocol.TimedOut)
	mustClose(t, "Done", c.Done())
}

func TestIdleConnectionIsFoundDead(t *testing.T) {
	c, p := foreign(t, Options{})
	p.nc.Close()
	mustClose(t, "Done", c.Done())
	if c.Err() == nil {
		t.Error("Err is nil")
	}
	called := false
	_, err := c.Open(get(nil), func(time.Duration) { called = true })
	if protocol.KindOf(err) != protocol.Unavailable || !unseen(err) || !called {
		t.Errorf("Open: %v, unseen %v, ended called %v", err, unseen(err), called)
	}
}

// A peer that stopped reading without hanging up is noticed by the write
// alone; nothing of the request left, so that it may be replayed.
func TestOpenOnHalfDeadConnectionIsUnseen(t *testing.T) {
	c, p := foreign(t, Options{})
	if err := p.nc.(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	ended, done := once()
	body := strings.NewReader(strings.Repeat("x", chunkSize+1))
	_, err := c.Open(get(body), ended)
	if protocol.KindOf(err) != protocol.Unavailable || !unseen(err) {
		t.Errorf("Open: %v, unseen %v", err, unseen(err))
	}
	if body.Len() != chunkSize+1 {
		t.Error("body was read")
	}
	mustClose(t, "ended", done)
	mustClose(t, "Done", c.Done())
}

func TestOpenRefusals(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(c *Conn)
		body    io.Reader
		kind    protocol.Kind
	}{
		{"ids used up", func(c *Conn) { c.Open(get(nil), nil) }, nil, protocol.Overloaded},
		{"closed", func(c *Conn) { c.Close() }, nil, protocol.Unavailable},
		{"closing", func(c *Conn) { c.CloseWrite() }, nil, protocol.Unavailable},
		{"body lies about its length", func(*Conn) {}, liar{strings.NewReader("x")}, protocol.ClientGone},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := foreign(t, Options{})
			test.prepare(c)
			calls := 0
			s, err := c.Open(get(test.body), func(time.Duration) { calls++ })
			if s != nil || protocol.KindOf(err) != test.kind || !unseen(err) || calls != 1 {
				t.Errorf("Open: %v, %v; unseen %v; ended called %d times", s, err, unseen(err), calls)
			}
		})
	}
}

type liar struct{ io.Reader }

func (liar) Len() int { return 10 }

func TestEndedComesBeforeTheAnswerIsRead(t *testing.T) {
	c, p := foreign(t, Options{})
	ended, done := once()
	first := mustOpen(t, c, get(nil), ended)
	p.request(1)
	p.send(typeStdout, 1, []byte("first"))
	p.end(1, 0, 0)
	mustClose(t, "ended", done)
	second := mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.send(typeStdout, 1, []byte("second"))
	p.end(1, 0, 0)
	mustRead(t, second, "second", 0)
	mustRead(t, first, "first", 0)
}

// ended is where the owner of the slot gives it to the next in line.
func TestOpenFromEnded(t *testing.T) {
	c, p := negotiated(t, Options{}, "1", "10")
	next := make(chan *Stream, 1)
	first := mustOpen(t, c, get(nil), func(time.Duration) {
		s, err := c.Open(get(nil), nil)
		if err != nil {
			t.Error(err)
		}
		next <- s
	})
	p.request(1)
	p.end(1, 0, 0)
	mustRead(t, first, "", 0)
	p.request(1)
	p.end(1, 0, 0)
	mustRead(t, <-next, "", 0)
}

func TestReadIsInterrupted(t *testing.T) {
	t.Run("by Close", func(t *testing.T) {
		c, p := negotiated(t, Options{}, "1", "10")
		s := mustOpen(t, c, get(nil), nil)
		p.request(1)
		time.AfterFunc(10*time.Millisecond, func() { s.Close() })
		mustRead(t, s, "", protocol.ClientGone)
	})
	t.Run("by Conn.Close", func(t *testing.T) {
		c, _ := foreign(t, Options{})
		s := mustOpen(t, c, get(nil), nil)
		time.AfterFunc(10*time.Millisecond, func() { c.Close() })
		mustRead(t, s, "", protocol.Died)
	})
	t.Run("by a body that fails", func(t *testing.T) {
		c, _ := foreign(t, Options{})
		cause := errors.New("too large")
		s := mustOpen(t, c, get(iotest.ErrReader(cause)), nil)
		_, err := s.Read(make([]byte, 1))
		if protocol.KindOf(err) != protocol.ClientGone || !errors.Is(err, cause) {
			t.Errorf("Read: %v", err)
		}
	})
	t.Run("by a body that never gets on", func(t *testing.T) {
		c, _ := foreign(t, Options{})
		s := mustOpen(t, c, get(idleReader{}), nil)
		_, err := s.Read(make([]byte, 1))
		if !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("Read: %v", err)
		}
	})
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

// Close returns after the last Read of the body, and not before.
func TestCloseWaitsForTheBody(t *testing.T) {
	c, _ := negotiated(t, Options{}, "1", "10")
	body := newBlockingBody(nil)
	s := mustOpen(t, c, get(body), nil)
	mustClose(t, "a read of the body", body.reading)
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close returned while the body was read")
	case <-time.After(20 * time.Millisecond):
	}
	close(body.release)
	mustClose(t, "Close", closed)
}

func TestStderr(t *testing.T) {
	c, p := negotiated(t, Options{}, "1", "10")
	var log bytes.Buffer
	req := get(nil)
	req.Stderr = &log
	s := mustOpen(t, c, req, nil)
	p.request(1)
	p.send(typeStderr, 1, []byte("one "))
	p.send(typeStdout, 1, []byte("out"))
	p.send(typeStderr, 1, []byte("two"))
	p.send(typeStderr, 1, nil)
	p.end(1, 0, 0)
	mustRead(t, s, "out", 0)
	if log.String() != "one two" {
		t.Errorf("stderr %q", log.String())
	}
}

// Who closed a stream may forget the writer: nothing is written any more.
func TestNoStderrAfterClose(t *testing.T) {
	c, p := negotiated(t, Options{}, "2", "10")
	var log bytes.Buffer
	req := get(nil)
	req.Stderr = &log
	s, other := mustOpen(t, c, req, nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	s.Close()
	p.send(typeStderr, 1, []byte("late"))
	p.end(2, 0, 0)
	mustRead(t, other, "", 0) // so "late" has been read as well
	if log.Len() > 0 {
		t.Errorf("stderr %q after Close", log.String())
	}
}

func TestStderrIsDrainedBeforeStdout(t *testing.T) {
	c, p := negotiated(t, Options{Window: 1}, "1", "10")
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	line := bytes.Repeat([]byte("x"), 65535)
	for range 200 { // 13 MB, far more than any buffer
		p.send(typeStderr, 1, line)
	}
	p.send(typeStdout, 1, []byte("o"))
	p.end(1, 0, 0)
	mustRead(t, s, "o", 0)
}

func TestCloseWrite(t *testing.T) {
	c, p := negotiated(t, Options{Window: 10}, "2", "10")
	s := mustOpen(t, c, get(nil), nil)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The open request still gets its credit.
	p.request(1)
	p.send(typeStdout, 1, make([]byte, 10))
	if _, err := io.ReadFull(s, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	p.expect(typeCredit, 1)
	p.end(1, 0, 0)
	mustRead(t, s, "", 0)
	if r, err := p.read(); err != io.EOF {
		t.Errorf("read type %d, %v; want the end of file", r.typ, err)
	}
	p.nc.Close()
	mustClose(t, "Done", c.Done())
}

func TestCloseWriteOfIdleConnection(t *testing.T) {
	c, p := foreign(t, Options{})
	c.CloseWrite()
	if _, err := p.read(); err != io.EOF {
		t.Errorf("read: %v, want the end of file", err)
	}
	p.nc.Close()
	mustClose(t, "Done", c.Done())
}

// Any net.Conn will do, also one without a descriptor.
func TestPlainNetConn(t *testing.T) {
	gateway, application := net.Pipe()
	c := NewConn(gateway, Options{})
	defer c.Close()
	p := &peer{t, application}
	s := mustOpen(t, c, get(strings.NewReader("in")), nil)
	if body := p.request(1); string(body) != "in" {
		t.Errorf("body %q", body)
	}
	p.send(typeStdout, 1, []byte("out"))
	p.end(1, 0, 0)
	mustRead(t, s, "out", 0)
	c.CloseWrite()
	mustClose(t, "Done", c.Done())
}
