package handler

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"gatecrew/gateway/spool"
)

const (
	// keptBody is how much of a body is kept for another worker. A worker
	// that has not begun a request has been sent less: its window, and what
	// was read to be sent next.
	keptBody = 192 << 10
	// maxDrained and drainTime bound what is read of a body that the
	// application didn't want, so that its connection serves another
	// request. net/http has the same size.
	maxDrained = 256 << 10
	drainTime  = 100 * time.Millisecond
)

// liveBody hands a body on as the client sends it. What is bounded is silence,
// not the length of an upload: each Read has a deadline of its own.
type liveBody struct {
	src     io.ReadCloser
	conn    *http.ResponseController
	silence time.Duration
	duplex  bool // net/http leaves the rest of it to us

	mu    sync.Mutex
	begun bool   // the client has been asked for it
	kept  []byte // what was read so far, for another worker
	next  int    // how much of kept this worker has got
	sent  bool   // kept is no longer all, or no longer needed
	err   error  // what the last Read of the client ended with
}

// Read implements io.Reader, for one goroutine at a time.
func (l *liveBody) Read(p []byte) (int, error) {
	l.mu.Lock()
	if l.next < len(l.kept) {
		n := copy(p, l.kept[l.next:])
		l.next += n
		err := l.err
		if l.next < len(l.kept) {
			err = nil
		}
		l.mu.Unlock()
		return n, err
	}
	if l.err != nil {
		defer l.mu.Unlock()
		return 0, l.err
	}
	l.begun = true
	l.mu.Unlock()

	_ = l.conn.SetReadDeadline(time.Now().Add(l.silence))
	n, err := l.src.Read(p)
	if err == io.EOF {
		// net/http goes on reading the connection to see the client leave.
		_ = l.conn.SetReadDeadline(time.Time{})
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent = l.sent || len(l.kept)+n > keptBody; l.sent {
		l.kept, l.next = nil, 0
	} else {
		l.kept = append(l.kept, p[:n]...)
		l.next = len(l.kept)
	}
	l.err = err
	return n, err
}

// rewind makes the body whole again for another worker.
func (l *liveBody) rewind() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sent:
		return errors.New("a part of the body has been handed on already")
	case l.err != nil && l.err != io.EOF:
		return l.err
	}
	l.next = 0
	return nil
}

// forget frees what is kept: no other worker gets the body any more.
func (l *liveBody) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = true // Read frees what is left when it is at its end
	if l.next == len(l.kept) {
		l.kept, l.next = nil, 0
	}
}

// failure says why the client could not be read; nil when it could.
func (l *liveBody) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || l.err == io.EOF {
		return nil
	}
	return bodyFailure(fmt.Errorf("%w: %w", spool.ErrClient, l.err))
}

// interrupt ends a Read of the client's connection that is in progress, so
// that an exchange whose application doesn't want the rest can be closed.
func (l *liveBody) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun && l.err == nil {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// finish sees to what the application has left of a body, when nothing reads it
// any more: with HTTP/1 the next request stands behind it. A little is read
// away; otherwise, or when the client waits to be told to send it, the
// connection is closed after the response.
func (l *liveBody) finish(x *exchange) {
	if !l.duplex || x.request.ProtoMajor != 1 || l.err == io.EOF {
		return
	}
	if l.err == nil && (l.begun || !expectsContinue(x.request)) {
		if x.wroteHeader {
			_ = l.conn.Flush() // the client may wait for it
		}
		_ = l.conn.SetReadDeadline(time.Now().Add(drainTime))
		if _, l.err = io.CopyN(io.Discard, l.src, maxDrained); l.err == io.EOF {
			_ = l.conn.SetReadDeadline(time.Time{})
			return
		}
	}
	closeAfter(x.ResponseWriter)
}

// closeAfter has net/http close the connection after the response, with a moment
// for the client to read it although it still sends. There is no other way to say that when
// the head of the response has been written.
func closeAfter(w http.ResponseWriter) {
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0))
}

// expectsContinue reports whether a client waits to be told to send its body
// (RFC 9110, section 10.1.1).
func expectsContinue(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}
