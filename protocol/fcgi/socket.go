package fcgi

import (
	"errors"
	"io"

	"gatecrew/protocol"
)

var (
	errEnded     = errors.New("fcgi: socket: the request has ended")
	errNotSocket = errors.New("fcgi: socket: the request's role is not WebSocket")
)

// boundary follows the messages in a stream of bytes that may be cut anywhere.
// The zero value stands between two messages.
type boundary struct {
	head [protocol.MessageHeader]byte
	have int // bytes of head
	left int // content bytes of the message to come
}

// between reports whether a message may begin here.
func (b *boundary) between() bool { return b.have == 0 && b.left == 0 }

func (b *boundary) advance(p []byte) {
	for len(p) > 0 {
		if b.left > 0 {
			n := min(b.left, len(p))
			b.left, p = b.left-n, p[n:]
			continue
		}
		n := copy(b.head[b.have:], p)
		b.have, p = b.have+n, p[n:]
		if b.have == len(b.head) {
			_, b.left, _ = protocol.ParseMessage(b.head[:])
			b.have = 0
		}
	}
}

// Write implements protocol.Socket. It waits for credit, and returns early with
// an error when the request has ended, or after WriteClose or Close. Nothing
// may be written before Read has returned the head with status 101.
func (s *Stream) Write(p []byte) (int, error) {
	if !s.socket {
		return 0, errNotSocket
	}
	n, ok := s.send.sendStdin(s, p, false)
	if !ok {
		return n, s.writeError()
	}
	return n, nil
}

// writeError says why nothing can be written any more.
func (s *Stream) writeError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return &protocol.Error{Kind: protocol.ClientGone, Err: errClosed}
	case s.over && s.result != io.EOF:
		return s.result
	}
	return errEnded
}

// WriteClose implements protocol.Socket. It says nothing in the middle of a
// message, nor a second time; the application then takes the end of the request for a client that has gone.
// It waits for nothing: credit isn't asked for, and a Write in progress ends.
func (s *Stream) WriteClose(code uint16, reason string) {
	if s.socket {
		s.send.sendClose(s, protocol.AppendClose(nil, code, reason))
	}
}

// Wait implements protocol.Socket. A stream that has nothing to read holds no
// buffer while it waits.
func (s *Stream) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.buf.len() == 0 && !s.over && !s.closed && s.broken == nil {
		s.wake.Wait()
	}
}
