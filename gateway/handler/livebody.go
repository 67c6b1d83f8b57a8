package handler

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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

	mu      sync.Mutex
	read    sync.Cond   // on mu: a Read of the client has ended, or reader has changed
	reader  *liveReader // who gets the body now; nil when it's over
	reading atomic.Bool // a Read waits for the client, maybe an earlier reader's; written under mu
	begun   bool        // the client has been asked for it
	kept    []byte      // what was read and may be needed
	next    int         // how much of kept the reader has got
	sent    bool        // kept is no longer all that was read, or no longer needed by another worker
	err     error       // what the last Read of the client ended with
}

// liveReader is a live body as one worker gets it; it implements protocol.Live.
type liveReader struct{ *liveBody }

var errDetached = fmt.Errorf("the exchange is over: %w", os.ErrClosed)

// open returns the body for its first worker.
func (l *liveBody) open() *liveReader {
	l.read.L = &l.mu
	l.reader = &liveReader{l}
	return l.reader
}

// Read implements io.Reader, for one goroutine at a time.
func (r *liveReader) Read(p []byte) (int, error) {
	l := r.liveBody
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.reader == r && l.next == len(l.kept) && l.reading.Load() {
		l.read.Wait() // an earlier reader's Read brings what comes next
	}
	switch {
	case l.reader != r:
		return 0, errDetached
	case l.next < len(l.kept):
		n := copy(p, l.kept[l.next:])
		l.next += n
		return n, l.rest()
	case l.err != nil:
		return 0, l.err
	}
	n, err := l.await(p)
	if l.sent = l.sent || len(l.kept)+n > keptBody; !l.sent || l.reader != r {
		l.kept = append(l.kept, p[:n]...)
	}
	if l.reader != r {
		return 0, errDetached
	}
	l.next = len(l.kept)
	_ = l.rest()
	return n, err
}

// await reads from the client. The caller holds the lock, which is free meanwhile.
func (l *liveBody) await(p []byte) (int, error) {
	l.begun = true
	l.reading.Store(true)
	_ = l.conn.SetReadDeadline(time.Now().Add(l.silence))
	l.mu.Unlock()
	n, err := l.src.Read(p)
	l.mu.Lock()
	if err == io.EOF {
		// net/http goes on reading the connection to see the client leave.
		_ = l.conn.SetReadDeadline(time.Time{})
	}
	l.err = err
	l.reading.Store(false)
	l.read.Broadcast()
	return n, err
}

// rest is the error that comes with the last of what is kept, which is freed when no
// other worker needs it. The caller holds the lock.
func (l *liveBody) rest() error {
	if l.next < len(l.kept) {
		return nil
	}
	if l.sent {
		l.kept, l.next = nil, 0
	}
	return l.err
}

// Detach implements protocol.Live.
func (r *liveReader) Detach() {
	l := r.liveBody
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reader == r {
		l.reader = nil
		l.read.Broadcast()
	}
}

// Waits implements protocol.Live.
func (r *liveReader) Waits() bool { return r.reading.Load() }

// rewind returns the whole body for another worker.
func (l *liveBody) rewind() (io.Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sent:
		return nil, errors.New("a part of the body has been handed on already")
	case l.err != nil && l.err != io.EOF:
		return nil, l.err
	}
	l.reader, l.next = &liveReader{l}, 0
	return l.reader, nil
}

// forget frees what is kept: no other worker gets the body any more.
func (l *liveBody) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = true
	_ = l.rest()
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

// finish sees to what the application has left of a body, of which it gets no more:
// with HTTP/1 the next request stands behind it. A little is read
// away; otherwise, or when the client waits to be told to send it, the
// connection is closed after the response. No Read is in progress afterwards.
func (l *liveBody) finish(x *exchange) {
	kept := l.duplex && x.request.ProtoMajor == 1 // the connection
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reader = nil
	l.read.Broadcast()
	if kept && l.err == nil && x.wroteHeader {
		l.mu.Unlock()
		_ = l.conn.Flush() // the client may wait for it
		l.mu.Lock()
	}
	patience := time.Unix(1, 0)
	if kept {
		patience = time.Now().Add(drainTime)
	}
	if l.reading.Load() {
		_ = l.conn.SetReadDeadline(patience)
	}
	for l.reading.Load() {
		l.read.Wait()
	}
	if !kept || l.err == io.EOF {
		return
	}
	if l.err == nil && (l.begun || !expectsContinue(x.request)) {
		_ = l.conn.SetReadDeadline(patience)
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
