package fcgi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"gatecrew/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// peer is the application's end of a connection, driven record by record. It
// has its own decoder, so that a fault in the package's can't hide.
type peer struct {
	t  testing.TB
	nc net.Conn
}

type record struct {
	typ     recordType
	id      uint16
	content []byte
}

func socketPair(t testing.TB) (gateway, application net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// foreign is a connection as to any FastCGI application.
func foreign(t testing.TB, o Options) (*Conn, *peer) {
	t.Helper()
	gateway, application := socketPair(t)
	c := NewConn(gateway, o)
	t.Cleanup(func() { c.Close() })
	application.SetDeadline(time.Now().Add(patience))
	return c, &peer{t, application}
}

func values(pairs ...string) []byte {
	var b []byte
	for i := 0; i < len(pairs); i += 2 {
		b = append(b, byte(len(pairs[i])), byte(len(pairs[i+1])))
		b = append(b, pairs[i]+pairs[i+1]...)
	}
	return b
}

// negotiated is a connection as to a worker of our own.
func negotiated(t testing.TB, o Options, maxReqs, window string, more ...string) (*Conn, *peer) {
	t.Helper()
	c, p := foreign(t, o)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		p.expect(typeGetValues, 0)
		p.send(typeGetValuesResult, 0, values(append(more, "FCGI_MAX_CONNS", "1", "FCGI_MAX_REQS", maxReqs, "FCGI_MPXS_CONNS", "1",
			"GATECREW_FLOW", "1", "GATECREW_WINDOW", window)...))
	}()
	if _, err := c.Negotiate(within(t)); err != nil {
		t.Fatal(err)
	}
	<-answered
	return c, p
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// read returns the next record; an error is the end of what the gateway sends.
func (p *peer) read() (record, error) {
	var h [8]byte
	if _, err := io.ReadFull(p.nc, h[:]); err != nil {
		return record{}, err
	}
	content := make([]byte, int(h[4])<<8|int(h[5])+int(h[6]))
	if _, err := io.ReadFull(p.nc, content); err != nil {
		return record{}, err
	}
	return record{recordType(h[1]), uint16(h[2])<<8 | uint16(h[3]), content[:len(content)-int(h[6])]}, nil
}

func (p *peer) expect(typ recordType, id uint16) []byte {
	p.t.Helper()
	r, err := p.read()
	if err != nil || r.typ != typ || r.id != id {
		p.t.Errorf("gateway sent type %d, id %d (%v), want type %d, id %d", r.typ, r.id, err, typ, id)
	}
	return r.content
}

// request reads a whole request and returns its body.
func (p *peer) request(id uint16) []byte {
	p.t.Helper()
	p.expect(typeBeginRequest, id)
	for len(p.expect(typeParams, id)) > 0 {
	}
	var body []byte
	for {
		part := p.expect(typeStdin, id)
		if len(part) == 0 || p.t.Failed() {
			return body
		}
		body = append(body, part...)
	}
}

func (p *peer) send(typ recordType, id uint16, content []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(raw(typ, id, content)); err != nil {
		p.t.Errorf("application can't send: %v", err)
	}
}

func (p *peer) end(id uint16, appStatus uint32, status byte) {
	p.t.Helper()
	p.send(typeEndRequest, id, endContent(appStatus, status))
}

func endContent(appStatus uint32, status byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, appStatus), status, 0, 0, 0)
}

func raw(typ recordType, id uint16, content []byte) []byte {
	return append([]byte{1, byte(typ), byte(id >> 8), byte(id), byte(len(content) >> 8), byte(len(content)), 0, 0}, content...)
}

func get(stdin io.Reader) *protocol.Request {
	return &protocol.Request{Role: protocol.Responder, Params: []protocol.Param{{Name: "REQUEST_METHOD", Value: "GET"}}, Stdin: stdin}
}

func mustOpen(t testing.TB, c *Conn, req *protocol.Request, ended func(time.Duration)) *Stream {
	t.Helper()
	s, err := c.Open(req, ended)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// mustRead reads an answer that is to end with an error of kind, 0 for io.EOF.
func mustRead(t testing.TB, s *Stream, want string, kind protocol.Kind) {
	t.Helper()
	defer time.AfterFunc(patience, func() { s.Conn().Close() }).Stop()
	got, err := io.ReadAll(s)
	if string(got) != want {
		t.Errorf("read %.80q (%d bytes), want %.80q (%d bytes)", got, len(got), want, len(want))
	}
	if protocol.KindOf(err) != kind || kind == 0 && err != nil {
		t.Errorf("answer ended with %v, want kind %q", err, kind)
	}
}

func mustClose(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal(what + ": did not happen")
	}
}

// once returns a callback and a channel that it closes; a second call panics.
func once() (func(time.Duration), <-chan struct{}) {
	done := make(chan struct{})
	return func(time.Duration) { close(done) }, done
}

func unseen(err error) bool {
	var e *protocol.Error
	return errors.As(err, &e) && e.Unseen
}

// blockingBody is a request body whose Read waits until it is released.
type blockingBody struct {
	head    io.Reader // what comes before it blocks
	reading chan struct{}
	release chan struct{}
	onRead  sync.Once
}

func newBlockingBody(head []byte) *blockingBody {
	return &blockingBody{head: bytes.NewReader(head), reading: make(chan struct{}), release: make(chan struct{})}
}

func (b *blockingBody) Read(p []byte) (int, error) {
	if n, err := b.head.Read(p); err == nil {
		return n, nil
	}
	b.onRead.Do(func() { close(b.reading) })
	<-b.release
	return 0, io.ErrUnexpectedEOF
}

// endless is a request body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
