package fcgi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gatecrew/protocol"
)

// sender is what a stream needs of its connection.
type sender interface {
	// sendStdin sends content of the request's body, and its end when last
	// is set. It waits for room and credit. It returns how much of it was
	// sent, and false when the request takes no more.
	sendStdin(s *Stream, content []byte, last bool) (int, bool)
	// sendClose sends the last message of a socket, if it can stand here. It
	// waits for nothing.
	sendClose(s *Stream, message []byte)
	// awaitDemand waits until the application has asked for the body, and
	// reports false when the request takes none.
	awaitDemand(s *Stream) bool
	// grant gives the application n more bytes of STDOUT.
	grant(s *Stream, n int)
	// abort tells the application to give up, and the body's goroutine to
	// end. It does nothing for a request that has ended.
	abort(s *Stream)
}

// Stream is one request on a connection; it implements protocol.Extended, and
// protocol.Socket when the request has that role. One goroutine reads it and one
// writes it; Close may be called from any.
//
// Its life is two independent facts. The application's side is open until
// END_REQUEST arrived (result is set) or the connection died (result is set
// to its error). The gateway's side is open until Close.
type Stream struct {
	id     uint16
	window int  // bytes of STDOUT that the application may be ahead of Read
	flow   bool // credit is granted; else the read loop waits for Read
	socket bool // its input are messages
	held   bool // it may be begun while the ends of others are held back
	again  bool // it has the id of a request before
	conn   *Conn
	send   sender
	ended  func(worked time.Duration)

	pumped chan struct{} // closed when Stdin is read no more; nil when no goroutine reads it
	live   protocol.Live // what that goroutine reads; nil when nobody waits for a client there

	// Guarded by the connection's lock.
	start      uint64    // position of BEGIN_REQUEST in all that the connection sent
	credit     int       // bytes of STDIN that may be sent; meaningful with flow
	demanded   bool      // a grant came: the application has asked for the body
	stdinDone  bool      // the empty STDIN record is queued
	stdinEnded bool      // nothing more is sent: the request has ended or was aborted
	granted    sync.Cond // on the connection's lock: credit came, or stdinEnded
	messages   boundary  // of a socket

	touched bool // the read loop will wake the reader; only the read loop uses it

	mu        sync.Mutex
	wake      sync.Cond // on mu: something below changed
	buf       buffer
	credited  int       // bytes of STDOUT that the application may still send; with flow
	consumed  int       // bytes read and not granted yet
	grantedAt time.Time // when that was done last; the zero time before
	stdoutEnd bool      // the empty STDOUT record came
	began     bool      // STDOUT content came
	appended  bool      // a FILE record came
	trailed   bool      // a TRAILERS record came
	over      bool      // END_REQUEST came or the connection died; result tells which
	result    error     // io.EOF, or an *protocol.Error
	appStatus uint32
	broken    error          // the request's own context or body failed: an *protocol.Error
	file      *protocol.File // what the FILE record brought, until somebody takes it
	trailers  []protocol.Param
	spoilt    error // a file or trailers that can't be had: an *protocol.Error
	closed    bool
	waiting   bool   // the read loop waits for room (without flow)
	told      func() // Notify's; nil when nobody is to be told

	stderrMu sync.Mutex // held during stderr.Write, so that none is on its way after Close
	stderr   io.Writer  // nil when nobody listens, and after Close
}

var errClosed = errors.New("fcgi: stream is closed")

// Conn is the connection that the request is on.
func (s *Stream) Conn() *Conn { return s.conn }

// AppStatus is the application's exit status (FastCGI 1.0, section 5.5). It
// means something after Read returned io.EOF, and for an application of our
// own it is then 0.
func (s *Stream) AppStatus() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.appStatus
}

// Read implements protocol.Exchange. It returns what has arrived as soon as
// there is anything, and io.EOF with the last of it when the end has arrived
// too. io.EOF means that END_REQUEST came with the status
// FCGI_REQUEST_COMPLETE and, from a negotiated peer, appStatus 0. The end of
// Open's context makes it fail at once, with ClientGone, or TimedOut when a
// deadline was the cause; so does Close, with ClientGone.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for {
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, &protocol.Error{Kind: protocol.ClientGone, Err: errClosed}
		case s.broken != nil:
			err := s.broken
			s.mu.Unlock()
			return 0, err
		case s.buf.len() > 0:
			n := s.buf.read(p)
			grant := s.consumeLocked(n)
			var err error
			if s.over && s.result == io.EOF && s.buf.len() == 0 {
				err = io.EOF // with the last bytes: who reads them knows the length
			}
			s.mu.Unlock()
			if grant > 0 {
				s.send.grant(s, grant)
			}
			return n, err
		case s.over:
			err := s.result
			s.mu.Unlock()
			return 0, err
		}
		s.wake.Wait()
	}
}

// bulkTime is in how much time half of a window must be read for the window to grow.
// Each half is a change of processes: fewer of them is what a large one gains. Who
// takes longer would have the gateway hold that much for him all the while.
const bulkTime = 4 * time.Millisecond

// consumeLocked accounts for n bytes read and returns how many to grant: half
// a window at a time, so that a grant is rare and the application never
// waits for one while the reader keeps up.
func (s *Stream) consumeLocked(n int) (grant int) {
	if !s.flow {
		if s.waiting {
			s.wake.Broadcast()
		}
		return 0
	}
	if s.consumed += n; s.over || s.consumed < max(s.window/2, 1) {
		return 0
	}
	grant, s.consumed = s.consumed, 0
	if bulk := s.conn.bulk; s.window < bulk {
		now := time.Now()
		if now.Sub(s.grantedAt) < bulkTime {
			more := min(s.window, bulk-s.window)
			s.window += more
			grant += more
		}
		s.grantedAt = now
	}
	s.credited += grant
	return grant
}

// Close implements protocol.Exchange. When the request has not ended it is
// aborted: with FCGI_ABORT_REQUEST on a negotiated connection, where its id
// stays taken until END_REQUEST, and by closing the connection of a foreign
// application.
//
// Close waits for a Read of Request.Stdin that is in progress, unless that is a
// protocol.Live, and for nothing else.
func (s *Stream) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.buf.reset()
	s.dropFileLocked()
	tell := s.wakeLocked()
	s.mu.Unlock()
	tell()
	if first {
		s.send.abort(s)
		s.stderrMu.Lock() // waits for a Write on its way; there will be no other
		s.stderr = nil
		s.stderrMu.Unlock()
	}
	switch {
	case s.live != nil:
		s.live.Detach()
	case s.pumped != nil:
		<-s.pumped
	}
	return nil
}

// interrupt makes Read fail with err while the request is open.
func (s *Stream) interrupt(err *protocol.Error) {
	s.mu.Lock()
	if s.broken == nil {
		s.broken = err
	}
	tell := s.wakeLocked()
	s.mu.Unlock()
	tell()
}

// contextError tells apart a client that went away and a request that took
// too long.
func contextError(ctx context.Context) *protocol.Error {
	cause := context.Cause(ctx)
	kind := protocol.ClientGone
	if errors.Is(cause, context.DeadlineExceeded) {
		kind = protocol.TimedOut
	}
	return &protocol.Error{Kind: kind, Err: fmt.Errorf("fcgi: request: %w", cause)}
}

// The rest is called by the read loop, or by whoever tears the connection down.

// stdout takes STDOUT content. It returns an error when the application broke
// the protocol. With flow it never waits; without, it waits until Read has
// made room for all of p, or nobody will.
func (s *Stream) stdout(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdoutEnd || s.appended || s.trailed {
		return errors.New("fcgi: stdout: content after its end")
	}
	s.began = true
	if s.flow {
		if s.credited -= len(p); s.credited < 0 {
			return errors.New("fcgi: stdout: more than the window allows")
		}
		if !s.closed {
			s.buf.write(p)
		}
		return nil
	}
	for len(p) > 0 && !s.closed && !s.over {
		if n := min(s.window-s.buf.len(), len(p)); n > 0 {
			s.buf.write(p[:n])
			p = p[n:]
			continue
		}
		if s.told != nil { // who makes room has to be told so first
			tell := s.wakeLocked()
			s.mu.Unlock()
			tell()
			s.mu.Lock()
			continue
		}
		s.waiting = true
		s.wake.Broadcast()
		s.wake.Wait()
		s.waiting = false
	}
	return nil
}

// endStdout takes the empty STDOUT record.
func (s *Stream) endStdout() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdoutEnd {
		return errors.New("fcgi: stdout: ended twice")
	}
	s.stdoutEnd = true
	return nil
}

// writeStderr passes diagnostics on while the request is not closed. What the
// writer makes of them is its own affair, so its error is not looked at.
func (s *Stream) writeStderr(p []byte) {
	s.stderrMu.Lock()
	defer s.stderrMu.Unlock()
	if s.stderr != nil {
		_, _ = s.stderr.Write(p)
	}
}

// end takes END_REQUEST.
func (s *Stream) end(appStatus uint32, status protocolStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over { // the connection was closed on this side a moment ago
		return
	}
	s.over, s.appStatus, s.result = true, appStatus, io.EOF
	switch {
	case s.flow && status == statusOverloaded && !s.began:
		s.result = &protocol.Error{Kind: protocol.Returned, Unseen: true, Err: errors.New("fcgi: worker has not started the request")}
	case status == statusCantMpx || status == statusOverloaded:
		s.result = &protocol.Error{Kind: protocol.Overloaded, Unseen: !s.began,
			Err: fmt.Errorf("fcgi: request rejected with protocol status %d", status)}
	case status != statusComplete:
		s.result = &protocol.Error{Kind: protocol.Malformed,
			Err: fmt.Errorf("fcgi: request rejected with protocol status %d", status)}
	case s.flow && appStatus != 0:
		s.result = &protocol.Error{Kind: protocol.Died,
			Err: fmt.Errorf("fcgi: application failed in its answer, status %d", appStatus)}
	case s.spoilt != nil:
		s.result = s.spoilt
	}
}

// fail ends the stream with the connection's error, and wakes whoever waits.
func (s *Stream) fail(err *protocol.Error) {
	s.mu.Lock()
	if !s.over {
		s.over, s.result = true, err
	}
	tell := s.wakeLocked()
	s.mu.Unlock()
	tell()
}

// unanswered reports whether nothing has come of the answer.
func (s *Stream) unanswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.began
}

// notify wakes the reader.
func (s *Stream) notify() {
	s.touched = false
	s.mu.Lock()
	tell := s.wakeLocked()
	s.mu.Unlock()
	tell()
}

// Notify implements protocol.Notifier.
func (s *Stream) Notify(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readyLocked() {
		return false
	}
	s.told = f
	return true
}

// readyLocked reports whether Read would not wait.
func (s *Stream) readyLocked() bool {
	return s.closed || s.broken != nil || s.over || s.buf.len() > 0
}

// wakeLocked wakes the reader, and returns what is to be called when the lock has
// been given back.
func (s *Stream) wakeLocked() (tell func()) {
	s.wake.Broadcast()
	if s.told == nil || !s.readyLocked() {
		return nobody
	}
	tell, s.told = s.told, nil
	return tell
}

func nobody() {}
