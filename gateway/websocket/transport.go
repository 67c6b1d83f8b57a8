package websocket

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// transport is the byte stream to a client.
type transport interface {
	io.Reader
	io.Writer
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// finish says that nothing more is sent, where that can be said without
	// closing; false when it can't.
	finish() bool
	// Close ends the stream. Reads and writes in progress fail.
	Close() error
}

// upgraded is a connection that was taken over from net/http.
type upgraded struct {
	net.Conn
	early []byte // what the client sent before the handshake was answered
}

// takeOver answers the handshake with 101 and takes the connection over.
func takeOver(w http.ResponseWriter, header http.Header) (*upgraded, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	t := &upgraded{Conn: conn}
	if n := buffered.Reader.Buffered(); n > 0 {
		t.early = make([]byte, n)
		_, _ = io.ReadFull(buffered.Reader, t.early) // it is in memory
	}
	_ = conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	head := bufio.NewWriterSize(conn, 1<<10)
	_, _ = head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = header.Write(head)
	_, _ = head.WriteString("\r\n")
	err = head.Flush()
	_ = conn.SetWriteDeadline(time.Time{})
	return t, err
}

func (t *upgraded) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		if t.early = t.early[n:]; len(t.early) == 0 {
			t.early = nil
		}
		return n, nil
	}
	return t.Conn.Read(p)
}

func (t *upgraded) finish() bool {
	half, ok := t.Conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

// stream is a stream of an HTTP/2 connection. It ends when its handler returns.
type stream struct {
	io.Reader
	w      http.ResponseWriter
	rc     *http.ResponseController
	closed atomic.Bool
}

// openStream answers an extended CONNECT with 200.
func openStream(w http.ResponseWriter, r *http.Request, header http.Header) (*stream, error) {
	answer := w.Header()
	for name, values := range header {
		answer[name] = values
	}
	answer["Content-Type"] = nil // there is no content to guess the type of
	w.WriteHeader(http.StatusOK)
	t := &stream{Reader: r.Body, w: w, rc: http.NewResponseController(w)}
	return t, t.rc.Flush()
}

func (t *stream) Write(p []byte) (int, error) {
	if t.closed.Load() {
		return 0, os.ErrClosed
	}
	n, err := t.w.Write(p)
	if err == nil {
		err = t.rc.Flush()
	}
	return n, err
}

func (t *stream) SetReadDeadline(at time.Time) error {
	if t.closed.Load() {
		return os.ErrClosed
	}
	return t.rc.SetReadDeadline(at)
}

func (t *stream) SetWriteDeadline(at time.Time) error {
	if t.closed.Load() {
		return os.ErrClosed
	}
	return t.rc.SetWriteDeadline(at)
}

func (t *stream) finish() bool { return false }

func (t *stream) Close() error {
	if !t.closed.Swap(true) {
		_ = t.rc.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}
