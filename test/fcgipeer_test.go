package test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Numbers of FastCGI 1.0, written down a second time: a fault in the gateway's
// own codec must not hide in its tests.
const (
	fcgiBegin, fcgiAbort, fcgiEnd, fcgiParams, fcgiStdin = 1, 2, 3, 4, 5
	fcgiStdout, fcgiStderr, fcgiData, fcgiGetValues      = 6, 7, 8, 9

	fcgiComplete, fcgiCantMpx, fcgiOverloaded, fcgiUnknownRole = 0, 1, 2, 3
)

// fcgiRecord is a record as bytes, with so much padding.
func fcgiRecord(typ byte, id uint16, content string, padding int) string {
	h := []byte{1, typ, byte(id >> 8), byte(id), byte(len(content) >> 8), byte(len(content)), byte(padding), 0xa5}
	return string(h) + content + string(make([]byte, padding))
}

// fcgiEnding is END_REQUEST.
func fcgiEnding(id uint16, appStatus uint32, status byte) string {
	return fcgiRecord(fcgiEnd, id, string(append(binary.BigEndian.AppendUint32(nil, appStatus), status, 0, 0, 0)), 0)
}

// fcgiPlain is a whole answer as a well-behaved application gives it.
func fcgiPlain(id uint16, body string) string {
	s := fcgiRecord(fcgiStdout, id, "Content-Type: text/plain\r\n\r\n", 0)
	for len(body) > 0 {
		n := min(len(body), 0xffff)
		s += fcgiRecord(fcgiStdout, id, body[:n], 0)
		body = body[n:]
	}
	return s + fcgiRecord(fcgiStdout, id, "", 0) + fcgiEnding(id, 0, fcgiComplete)
}

// peer is a FastCGI application inside the test, which says exactly the bytes
// that a test wants said, and judges every byte that the gateway sends.
type peer struct {
	Address  string       // as the gateway is told it
	Accepted atomic.Int64 // connections so far
	Requests atomic.Int64 // whole requests so far
	Open     atomic.Int64 // connections at present

	t  testing.TB
	mu sync.Mutex
	// what the gateway did wrong on the wire
	faults []string
}

// peerConn is one of the connections to a peer.
type peerConn struct {
	net.Conn
	in   *bufio.Reader
	peer *peer
}

// peerRequest is one request as it came over the wire.
type peerRequest struct {
	ID     uint16
	Params map[string]string
	Body   []byte
}

// startPeer listens on a Unix socket and hands each connection to serve, which
// closes it by returning. Faults of the gateway on the wire fail the test.
func startPeer(t testing.TB, serve func(*peerConn)) *peer {
	t.Helper()
	// The path of a Unix socket has room for 107 bytes; t.TempDir's may be longer.
	dir, err := os.MkdirTemp("", "peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{Address: "unix:" + path, t: t}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			conns.Store(nc, nil)
			p.Accepted.Add(1)
			p.Open.Add(1)
			serving.Go(func() {
				serve(&peerConn{Conn: nc, in: bufio.NewReaderSize(nc, 64<<10), peer: p})
				nc.Close()
				conns.Delete(nc)
				p.Open.Add(-1)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(nc, _ any) bool { nc.(net.Conn).Close(); return true })
		serving.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, fault := range p.faults {
			t.Errorf("on the wire: %s", fault)
		}
	})
	return p
}

func (p *peer) fault(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.faults) < 20 {
		p.faults = append(p.faults, fmt.Sprintf(format, a...))
	}
}

// record reads one record that the gateway sends.
func (c *peerConn) record() (typ byte, id uint16, content []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(c.in, h[:]); err != nil {
		return 0, 0, nil, err
	}
	if h[0] != 1 {
		c.peer.fault("record of version %d", h[0])
	}
	content = make([]byte, int(h[4])<<8|int(h[5]))
	if _, err = io.ReadFull(c.in, content); err == nil {
		_, err = c.in.Discard(int(h[6]))
	}
	return h[1], binary.BigEndian.Uint16(h[2:]), content, err
}

// head reads a request up to the end of its parameters. ok is false when the
// gateway hung up.
func (c *peerConn) head() (r *peerRequest, ok bool) {
	typ, id, content, err := c.record()
	if err != nil {
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !isReset(err) {
			c.peer.fault("request cut off: %v", err)
		}
		return nil, false
	}
	if typ != fcgiBegin || id == 0 || len(content) != 8 || content[1] != 1 {
		c.peer.fault("record of type %d, id %d, %x where a request begins", typ, id, content)
		return nil, false
	}
	r = &peerRequest{ID: id, Params: map[string]string{}}
	var params []byte
	for {
		typ, got, content, err := c.record()
		if err != nil {
			return nil, false
		}
		if typ != fcgiParams || got != id {
			c.peer.fault("record of type %d, id %d among the parameters of %d", typ, got, id)
			return nil, false
		}
		if len(content) == 0 {
			break
		}
		params = append(params, content...)
	}
	for len(params) > 0 {
		name, rest, ok1 := cutString(params)
		if !ok1 {
			c.peer.fault("parameters cut off: %q", params)
			return nil, false
		}
		r.Params[name[0]] = name[1]
		params = rest
	}
	return r, true
}

// cutString takes one name-value pair off.
func cutString(b []byte) (pair [2]string, rest []byte, ok bool) {
	var n [2]int
	for i := range n {
		switch {
		case len(b) >= 1 && b[0] < 128:
			n[i], b = int(b[0]), b[1:]
		case len(b) >= 4:
			n[i], b = int(binary.BigEndian.Uint32(b)&^(1<<31)), b[4:]
		default:
			return pair, nil, false
		}
	}
	if len(b) < n[0]+n[1] {
		return pair, nil, false
	}
	return [2]string{string(b[:n[0]]), string(b[n[0] : n[0]+n[1]])}, b[n[0]+n[1]:], true
}

// body reads the body of r to its empty record, which must be the only one.
func (c *peerConn) body(r *peerRequest) bool {
	for {
		typ, id, content, err := c.record()
		if err != nil {
			return false
		}
		if typ != fcgiStdin || id != r.ID {
			c.peer.fault("record of type %d, id %d in the body of %d", typ, id, r.ID)
			return false
		}
		if len(content) == 0 {
			c.peer.Requests.Add(1)
			return true
		}
		r.Body = append(r.Body, content...)
	}
}

// next reads a whole request.
func (c *peerConn) next() (*peerRequest, bool) {
	r, ok := c.head()
	return r, ok && c.body(r)
}

// say writes bytes; whether anybody reads them is the test's affair.
func (c *peerConn) say(s string) bool {
	_, err := io.WriteString(c.Conn, s)
	return err == nil
}

// drained waits until the gateway hangs up, and reports what it sent until then.
// The gateway must do so within the time given.
func (c *peerConn) drained(within time.Duration) (n int64) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	n, err := io.Copy(io.Discard, c.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.peer.fault("the gateway kept a connection that is of no use")
	}
	return n
}

// askFCGI is a request to a FastCGI application without the gateway; it
// returns what the application writes to standard output.
func askFCGI(t testing.TB, socket string, params map[string]string) string {
	t.Helper()
	nc, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	var pairs string
	for name, value := range params {
		pairs += string([]byte{byte(len(name)), byte(len(value))}) + name + value
	}
	request := fcgiRecord(fcgiBegin, 1, "\x00\x01\x00\x00\x00\x00\x00\x00", 0) +
		fcgiRecord(fcgiParams, 1, pairs, 0) + fcgiRecord(fcgiParams, 1, "", 0) + fcgiRecord(fcgiStdin, 1, "", 0)
	if _, err := io.WriteString(nc, request); err != nil {
		t.Fatal(err)
	}
	c := &peerConn{Conn: nc, in: bufio.NewReader(nc), peer: &peer{t: t}}
	var out []byte
	for {
		typ, _, content, err := c.record()
		switch {
		case err != nil:
			t.Fatalf("%s: %v", socket, err)
		case typ == fcgiStdout:
			out = append(out, content...)
		case typ == fcgiEnd:
			return string(out)
		}
	}
}
