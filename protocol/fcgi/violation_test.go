package fcgi

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"gatecrew/protocol"
)

// Every row of PROTOCOL.md, section 7. One request, id 1, is open; then the
// application sends something.
func TestViolations(t *testing.T) {
	const (
		fails = iota // the connection is closed, the request fails as Malformed
		lives        // nothing happens
		dies         // the connection is closed, the request fails as Died
	)
	ok := func(records ...[]byte) []byte { return bytes.Join(records, nil) }
	header := func(typ recordType, id uint16) []byte { return raw(typ, id, nil) }
	badVersion := header(typeStdout, 1)
	badVersion[0] = 2
	end := make([]byte, 8)
	for _, test := range []struct {
		name                string
		send                []byte
		foreign, negotiated int
	}{
		{"version", badVersion, fails, fails},
		{"unknown type on id 0", raw(99, 0, []byte("x")), lives, lives},
		{"unknown type on the open id", raw(200, 1, []byte("x")), lives, lives},
		{"unknown type, longest content and padding", longestUnknown(), lives, lives},
		{"a type of the gateway's", raw(typeBeginRequest, 1, make([]byte, 8)), lives, lives},
		{"unknown-type answer", raw(11, 0, make([]byte, 8)), lives, lives},
		{"values nobody asked for", raw(typeGetValuesResult, 0, values("FCGI_MAX_REQS", "9")), lives, lives},
		{"values on a request", raw(typeGetValuesResult, 1, nil), lives, lives},
		{"values of 4097 bytes", raw(typeGetValuesResult, 0, make([]byte, 4097)), fails, fails},
		{"stdout, id not open", raw(typeStdout, 2, []byte("x")), fails, lives},
		{"stdout, id 0", raw(typeStdout, 0, []byte("x")), fails, lives},
		{"stdout, id 65535", raw(typeStdout, 65535, []byte("x")), fails, lives},
		{"empty stdout, id not open", header(typeStdout, 2), fails, lives},
		{"stderr, id not open", raw(typeStderr, 2, []byte("x")), fails, lives},
		{"end, id not open", raw(typeEndRequest, 2, end), fails, lives},
		{"credit, id not open", raw(typeCredit, 2, []byte{0, 0, 0, 1}), fails, lives},
		{"unknown type, id not open", raw(200, 2, nil), fails, lives},
		{"end of 7 bytes", raw(typeEndRequest, 1, end[:7]), fails, fails},
		{"end of 9 bytes", raw(typeEndRequest, 1, make([]byte, 9)), fails, fails},
		{"end of no bytes", header(typeEndRequest, 1), fails, fails},
		{"credit of 3 bytes", raw(typeCredit, 1, end[:3]), lives, fails},
		{"credit of 5 bytes", raw(typeCredit, 1, end[:5]), lives, fails},
		{"credit of 65535 bytes", raw(typeCredit, 1, make([]byte, 65535)), lives, fails},
		{"file of 65535 bytes", raw(typeFile, 1, make([]byte, 65535)), lives, fails},
		{"trailers of 65535 bytes", raw(typeTrailers, 1, make([]byte, 65535)), lives, fails},
		{"trailers of 32769 bytes", raw(typeTrailers, 1, make([]byte, 32769)), lives, fails},
		{"file without a descriptor", raw(typeFile, 1, make([]byte, 16)), lives, fails},
		{"file of 15 bytes", raw(typeFile, 1, make([]byte, 15)), lives, fails},
		{"file, id not open", raw(typeFile, 2, make([]byte, 16)), fails, fails},
		{"trailers, id not open", raw(typeTrailers, 2, []byte("A: 1")), fails, lives},
		{"trailers twice", ok(header(typeTrailers, 1), header(typeTrailers, 1)), lives, fails},
		{"credit of 0", raw(typeCredit, 1, end[:4]), lives, fails},
		{"credit above 2147483647", raw(typeCredit, 1, []byte{0x80, 0, 0, 0}), lives, fails},
		{"window above 2147483647", raw(typeCredit, 1, []byte{0x7f, 0xff, 0xff, 0xff}), lives, fails},
		{"stdout after its end", ok(header(typeStdout, 1), raw(typeStdout, 1, []byte("x"))), fails, fails},
		{"stdout ended twice", ok(header(typeStdout, 1), header(typeStdout, 1)), fails, fails},
		{"empty stderr, then stderr", ok(header(typeStderr, 1), raw(typeStderr, 1, []byte("x"))), lives, lives},
		{"hangs up", nil, dies, dies},
		{"hangs up in a header", header(typeStdout, 1)[:5], dies, dies},
		{"hangs up in the end", raw(typeEndRequest, 1, end)[:12], dies, dies},
	} {
		check := func(t *testing.T, c *Conn, p *peer, want int) {
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			if _, err := p.nc.Write(test.send); err != nil {
				t.Fatal(err)
			}
			switch want {
			case lives:
				p.end(1, 0, 0)
				mustRead(t, s, "", 0)
			case fails:
				mustRead(t, s, "", protocol.Malformed)
				mustClose(t, "Done", c.Done())
			case dies:
				p.nc.Close()
				mustRead(t, s, "", protocol.Died)
				mustClose(t, "Done", c.Done())
			}
		}
		t.Run(test.name+", foreign", func(t *testing.T) {
			c, p := foreign(t, Options{})
			check(t, c, p, test.foreign)
		})
		t.Run(test.name+", negotiated", func(t *testing.T) {
			c, p := negotiated(t, Options{}, "1", "10")
			check(t, c, p, test.negotiated)
		})
	}
}

func longestUnknown() []byte {
	b := raw(100, 1, make([]byte, 65535))
	b[6] = 255
	return append(b, make([]byte, 255)...)
}

func TestMoreStdoutThanGranted(t *testing.T) {
	c, p := negotiated(t, Options{Window: 10}, "2", "10")
	s, neighbour := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	p.send(typeStdout, 1, []byte("0123456789"))
	p.send(typeStdout, 1, []byte("x"))
	mustRead(t, s, "0123456789", protocol.Malformed)
	mustRead(t, neighbour, "", protocol.Malformed)
}

// A record on an idle foreign connection would be read as the next answer.
func TestForeignApplicationSpeaksUnasked(t *testing.T) {
	c, p := foreign(t, Options{})
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.end(1, 0, 0)
	p.end(1, 0, 0)
	mustRead(t, s, "", 0)
	mustClose(t, "Done", c.Done())
}

func TestNegotiate(t *testing.T) {
	full := []string{"FCGI_MAX_CONNS", "1", "FCGI_MAX_REQS", "4", "FCGI_MPXS_CONNS", "1", "GATECREW_FLOW", "1", "GATECREW_WINDOW", "9"}
	with := func(name, value string) []string {
		s := append([]string(nil), full...)
		for i := 0; i < len(s); i += 2 {
			if s[i] == name {
				s[i+1] = value
			}
		}
		return s
	}
	for _, test := range []struct {
		name     string
		answer   []byte
		capacity int
		want     Values
		kind     protocol.Kind
	}{
		{"our worker", values(full...), 4, Values{1, 4, true, 1, 9, 0, false}, 0},
		{"requests ahead", values(append(full, "GATECREW_AHEAD", "15")...), 4, Values{1, 4, true, 1, 9, 15, false}, 0},
		{"an event loop", values(append(full, "GATECREW_ASYNC", "1", "GATECREW_AHEAD", "15")...), 4, Values{1, 4, true, 1, 9, 15, true}, 0},
		{"an event loop that is no flag", values(append(full, "GATECREW_ASYNC", "2")...), 0, Values{}, protocol.Malformed},
		{"unknown names", values(append(full, "X", "y")...), 4, Values{1, 4, true, 1, 9, 0, false}, 0},
		{"nothing", nil, 1, Values{}, 0},
		{"plain FastCGI", values("FCGI_MAX_REQS", "50", "FCGI_MPXS_CONNS", "1"), 1, Values{MaxReqs: 50, Multiplex: true}, 0},
		{"flow 0", values(with("GATECREW_FLOW", "0")...), 1, Values{1, 4, true, 0, 9, 0, false}, 0},
		{"no multiplexing", values(with("FCGI_MPXS_CONNS", "0")...), 1, Values{1, 4, false, 1, 9, 0, false}, 0},
		{"no number of requests", values(with("FCGI_MAX_REQS", "0")...), 1, Values{1, 0, true, 1, 9, 0, false}, 0},
		{"more requests than ids", values(with("FCGI_MAX_REQS", "2000000000")...), 65535, Values{1, 2000000000, true, 1, 9, 0, false}, 0},
		{"a version that was not offered", values(with("GATECREW_FLOW", "2")...), 0, Values{}, protocol.Malformed},
		{"no window", values(with("GATECREW_WINDOW", "0")...), 0, Values{}, protocol.Malformed},
		{"window too large", values(with("GATECREW_WINDOW", "2147483648")...), 0, Values{}, protocol.Malformed},
		{"no number", values(with("FCGI_MAX_REQS", "four")...), 0, Values{}, protocol.Malformed},
		{"negative", values(with("FCGI_MAX_REQS", "-1")...), 0, Values{}, protocol.Malformed},
		{"truncated", []byte{5}, 0, Values{}, protocol.Malformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, p := foreign(t, Options{Window: 131072})
			go func() {
				p.expect(typeGetValues, 0)
				p.send(typeGetValuesResult, 0, test.answer)
			}()
			v, err := c.Negotiate(within(t))
			if protocol.KindOf(err) != test.kind || v != test.want && test.kind == 0 {
				t.Fatalf("Negotiate: %+v, %v; want %+v, kind %v", v, err, test.want, test.kind)
			}
			if test.kind == 0 && c.Capacity() != test.capacity {
				t.Errorf("Capacity is %d, want %d", c.Capacity(), test.capacity)
			}
			if _, err := c.Negotiate(within(t)); err == nil {
				t.Error("second Negotiate succeeded")
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		c, p := foreign(t, Options{})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		if _, err := c.Negotiate(ctx); protocol.KindOf(err) != protocol.TimedOut {
			t.Errorf("Negotiate: %v", err)
		}
		p.expect(typeGetValues, 0)
		p.send(typeGetValuesResult, 0, values(full...))
		s := mustOpen(t, c, get(nil), nil)
		p.request(1)
		p.end(1, 1, 0)
		mustRead(t, s, "", 0)
		if c.Capacity() != 1 {
			t.Error("a late answer was taken")
		}
	})
	t.Run("hangs up", func(t *testing.T) {
		c, p := foreign(t, Options{})
		p.nc.Close()
		if _, err := c.Negotiate(within(t)); protocol.KindOf(err) != protocol.Died {
			t.Errorf("Negotiate: %v", err)
		}
	})
}

func TestCreditIsGrantedAsTheAnswerIsRead(t *testing.T) {
	c, p := negotiated(t, Options{Window: 100}, "1", "10")
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	kept := 0 // read and not granted yet
	for sent, window := 0, 100; sent < 1000; {
		p.send(typeStdout, 1, make([]byte, window))
		sent += window
		for left := window; left > 0; {
			n, err := s.Read(make([]byte, 30))
			if err != nil {
				t.Fatal(err)
			}
			left, window, kept = left-n, window-n, kept+n
			if kept >= 50 {
				if grant := p.expect(typeCredit, 1); !bytes.Equal(grant, []byte{0, 0, 0, byte(kept)}) {
					t.Fatalf("grant %x after %d bytes read", grant, kept)
				}
				window, kept = window+kept, 0
			}
		}
	}
	p.end(1, 0, 0)
	mustRead(t, s, "", 0)
}

// The window grows while half of it is read within bulkTime, and never for who takes
// longer.
func TestWindowGrows(t *testing.T) {
	c, p := negotiated(t, Options{Window: 100, BulkWindow: 350}, "1", "10")
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	for i, step := range []struct {
		since time.Duration // the last grant
		half  int           // of the window
		grant byte
	}{
		{time.Hour, 50, 50}, // the first one
		{time.Hour, 50, 50},
		{0, 50, 150},
		{time.Hour, 100, 100},
		{0, 100, 250},
		{0, 175, 175},
		{time.Hour, 175, 175},
	} {
		s.mu.Lock()
		if i > 0 {
			s.grantedAt = time.Now().Add(-step.since)
			if step.since == 0 {
				s.grantedAt = time.Now().Add(time.Hour) // however slow this machine is
			}
		}
		s.mu.Unlock()
		p.send(typeStdout, 1, make([]byte, step.half))
		if _, err := io.ReadFull(s, make([]byte, step.half)); err != nil {
			t.Fatal(err)
		}
		if grant := p.expect(typeCredit, 1); !bytes.Equal(grant, []byte{0, 0, 0, step.grant}) {
			t.Fatalf("step %d: grant %x, want %d", i, grant, step.grant)
		}
	}
	// All of it may be used, and no more.
	p.send(typeStdout, 1, make([]byte, 350))
	p.send(typeStdout, 1, make([]byte, 1))
	mustClose(t, "Done", c.Done())
	if _, err := io.Copy(io.Discard, s); protocol.KindOf(err) != protocol.Malformed {
		t.Errorf("more than the window allows: %v", err)
	}
}

func TestBodyStaysWithinCredit(t *testing.T) {
	c, p := negotiated(t, Options{}, "2", "100")
	upload := mustOpen(t, c, get(io.LimitReader(endless{}, 1000)), nil)
	p.expect(typeBeginRequest, 1)
	p.expect(typeParams, 1)
	p.expect(typeParams, 1)
	if n := len(p.expect(typeStdin, 1)); n != 100 {
		t.Errorf("%d bytes before a grant", n)
	}
	// Without a grant the next thing on the wire is the other request.
	other := mustOpen(t, c, get(nil), nil)
	p.request(2)
	p.end(2, 0, 0)
	mustRead(t, other, "", 0)
	for got := 100; got < 1000; {
		p.send(typeCredit, 1, []byte{0, 0, 0, 150})
		n := len(p.expect(typeStdin, 1))
		if n != min(150, 1000-got) {
			t.Fatalf("%d bytes for a grant of 150, after %d", n, got)
		}
		got += n
	}
	if n := len(p.expect(typeStdin, 1)); n != 0 {
		t.Errorf("%d bytes after the body", n)
	}
	p.end(1, 0, 0)
	mustRead(t, upload, "", 0)
}

// One reader that never reads stops nobody else on the connection.
func TestSlowReaderStopsNobody(t *testing.T) {
	c, p := negotiated(t, Options{Window: 50000}, "2", "10")
	slow, quick := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	full := bytes.Repeat([]byte("s"), 50000)
	p.send(typeStdout, 1, full)
	for range 100 {
		p.send(typeStdout, 2, []byte("quick"))
	}
	p.end(2, 0, 0)
	mustRead(t, quick, strings.Repeat("quick", 100), 0)
	p.end(1, 0, 0)
	mustRead(t, slow, string(full), 0)
}

// A foreign application knows no credit: what the reader doesn't take stays
// in the socket.
func TestForeignBackpressure(t *testing.T) {
	c, p := foreign(t, Options{Window: 1000})
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	const size = 16 << 20
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for n := 0; n < size; n += 1 << 15 {
			p.send(typeStdout, 1, make([]byte, 1<<15))
		}
		p.end(1, 0, 0)
	}()
	select {
	case <-sent:
		t.Fatal("16 MiB were taken without a reader")
	case <-time.After(50 * time.Millisecond):
	}
	s.mu.Lock()
	held := s.buf.len()
	s.mu.Unlock()
	if held > 1000 {
		t.Errorf("%d bytes are buffered, window 1000", held)
	}
	if n, err := io.Copy(io.Discard, s); n != size || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	mustClose(t, "the sender", sent)
}

func TestForeignReaderThatGoesAway(t *testing.T) {
	c, p := foreign(t, Options{Window: 10})
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.send(typeStdout, 1, make([]byte, 1000))
	io.ReadFull(s, make([]byte, 10))
	s.Close()
	mustClose(t, "Done", c.Done())
}
