package fcgi

import (
	"errors"
	"fmt"

	"gatecrew/protocol"
	"gatecrew/protocol/nonblock"
)

// readSize is how much one read of the socket takes, and bulkRead how much from
// the moment on when the application has once filled that.
const (
	readSize = 32 << 10
	bulkRead = nonblock.MaxUntold
)

// reader is the read loop's own state: where it stands in the record stream.
type reader struct {
	rec     header
	stream  *Stream // of rec; nil when the content concerns nobody
	left    int     // content bytes of rec to come
	whole   bool    // the content of rec is handled in one piece; it fits into the read buffer
	padding int     // padding bytes of rec to come
	touched []*Stream
	ended   *Stream // of a foreign application: its END_REQUEST was in this read

	files       bool // come with the bytes: a negotiated connection on a Unix socket
	descriptors descriptors
}

// violation is an application's breach of the protocol.
type violation struct{ error }

// hungUp is the end of the connection by the application's hand.
type hungUp struct{ error }

func (h hungUp) Error() string { return "fcgi: application hung up: " + h.error.Error() }
func (h hungUp) Unwrap() error { return h.error }

// readLoop reads until the connection dies. It never waits for a write, and
// on a negotiated connection for no reader either.
func (c *Conn) readLoop() {
	defer c.reader.descriptors.close()
	buf := make([]byte, readSize)
	have := 0
	for {
		n, err := c.read(buf[have:])
		have += n
		filled := have == len(buf)
		used, bad := c.consume(buf[:have])
		switch {
		case bad != nil:
		case err != nil && errors.As(err, new(violation)):
			bad = err
		case c.reader.descriptors.unused(buf[used:have], c.reader.left > 0 && c.reader.rec.typ == typeFile):
			bad = errUnused
		}
		ended := c.reader.ended
		c.reader.ended = nil
		if ended != nil && bad == nil && used < have {
			bad = violation{errors.New("fcgi: bytes behind the end of the request")}
		}
		if bad != nil {
			kind := protocol.Died
			if errors.As(bad, new(violation)) {
				kind = protocol.Malformed
			}
			c.teardown(kind, bad)
		}
		if ended != nil && ended.ended != nil {
			// Not before all that was read has been looked at: the next
			// request, which has the same id, would get what stands behind
			// this one's end.
			ended.ended(0)
		}
		for i, s := range c.reader.touched {
			s.notify() // once per socket read, not per record
			c.reader.touched[i] = nil
		}
		c.reader.touched = c.reader.touched[:0]
		rest := buf[used:have]
		if filled && len(buf) < bulkRead {
			buf = make([]byte, bulkRead)
		}
		have = copy(buf, rest)
		if bad != nil {
			return
		}
		if err != nil {
			c.teardown(protocol.Died, hungUp{err})
			return
		}
	}
}

// read reads from the socket, once. Descriptors that come with the bytes are
// closed by the kernel unless the connection was negotiated.
func (c *Conn) read(p []byte) (int, error) {
	switch r := &c.reader; {
	case r.files:
		return r.descriptors.read(c.w.direct, p)
	case c.w.direct != nil:
		return c.w.direct.Read(p)
	}
	return c.nc.Read(p)
}

// consume takes as much of b as it can: what it leaves is less than a header,
// or less than the content of a record that is only understood whole.
func (c *Conn) consume(b []byte) (used int, err error) {
	r := &c.reader
	size := len(b)
	for {
		switch {
		case r.left > 0:
			if len(b) == 0 {
				return size, nil
			}
			n := min(len(b), r.left)
			if r.whole && n < r.left {
				return size - len(b), nil
			}
			if err := c.content(b[:n]); err != nil {
				return 0, err
			}
			b, r.left = b[n:], r.left-n
		case r.padding > 0:
			if len(b) == 0 {
				return size, nil
			}
			n := min(len(b), r.padding)
			b, r.padding = b[n:], r.padding-n
		case len(b) < headerSize:
			return size - len(b), nil
		default:
			if err := c.begin(b); err != nil {
				return 0, err
			}
			b = b[headerSize:]
		}
	}
}

// begin reads a record's header and decides whom the content is for; the
// rules are those of PROTOCOL.md, section 7.
func (c *Conn) begin(b []byte) error {
	h, err := parseHeader(b)
	if err != nil {
		return violation{err}
	}
	c.w.mu.Lock()
	s := c.lookupLocked(h.id)
	flow := c.flow
	c.w.mu.Unlock()

	ofRequest := false // a record that only makes sense for an open request
	whole := false
	switch h.typ {
	case typeStdout, typeStderr:
		ofRequest = true
	case typeEndRequest:
		ofRequest, whole = true, true
		if h.content != endSize {
			return violation{fmt.Errorf("fcgi: end of request: %d bytes of content instead of %d", h.content, endSize)}
		}
	case typeCredit:
		ofRequest, whole = true, flow
		if flow && h.content != creditSize {
			return violation{fmt.Errorf("fcgi: credit: %d bytes of content instead of %d", h.content, creditSize)}
		}
	case typeFile:
		ofRequest, whole = true, flow
		if flow && h.content != fileSize {
			return violation{fmt.Errorf("fcgi: file: %d bytes of content instead of %d", h.content, fileSize)}
		}
	case typeTrailers:
		ofRequest, whole = true, flow
		if flow && h.content > maxTrailers {
			return violation{fmt.Errorf("fcgi: trailers: %d bytes of content, at most %d are read", h.content, maxTrailers)}
		}
	case typeBegun:
		whole = c.loop.async.Load() && h.id == 0
		if whole && h.content != begunSize {
			return violation{fmt.Errorf("fcgi: begun: %d bytes of content instead of %d", h.content, begunSize)}
		}
	case typeGetValuesResult:
		whole = true
		if h.content > maxValues {
			return violation{fmt.Errorf("fcgi: values: %d bytes of content, at most %d are read", h.content, maxValues)}
		}
	}
	if !flow && s == nil && (h.id != 0 || ofRequest) {
		return violation{fmt.Errorf("fcgi: record of type %d for request %d, which is not open", h.typ, h.id)}
	}
	r := &c.reader
	r.rec, r.stream, r.left, r.whole, r.padding = h, s, h.content, whole, h.padding
	if h.content > 0 {
		return nil
	}
	switch {
	case h.typ == typeStdout && s != nil:
		err = s.endStdout()
	case h.typ == typeTrailers && s != nil && flow:
		err = s.trail(nil)
	case h.typ == typeGetValuesResult:
		err = c.content(nil)
	}
	if err != nil {
		return violation{err}
	}
	return nil
}

// content takes a piece of the current record's content, or all of it.
func (c *Conn) content(p []byte) error {
	r := &c.reader
	s := r.stream
	if r.rec.typ == typeGetValuesResult && r.rec.id == 0 {
		return c.values(p)
	}
	if r.rec.typ == typeBegun && r.whole {
		return c.begun(p)
	}
	if r.rec.typ == typeFile && r.whole {
		return c.file(s, p) // the descriptor is there, whoever it is for
	}
	if s == nil {
		return nil
	}
	switch r.rec.typ {
	case typeStdout:
		c.touch(s)
		if err := s.stdout(p); err != nil {
			return violation{err}
		}
	case typeStderr:
		s.writeStderr(p)
	case typeCredit:
		return c.credit(s, p)
	case typeTrailers:
		if r.whole {
			if err := s.trail(p); err != nil {
				return violation{err}
			}
		}
	case typeEndRequest:
		c.touch(s)
		return c.end(s, p)
	}
	return nil
}

// touch has the reader of s woken when the block that was read is dealt with.
func (c *Conn) touch(s *Stream) {
	if !s.touched {
		s.touched = true
		c.reader.touched = append(c.reader.touched, s)
	}
}

// credit takes a grant for the body of s.
func (c *Conn) credit(s *Stream, p []byte) error {
	if !s.flow { // a type that a foreign application can't mean
		return nil
	}
	n, err := parseCredit(p)
	if err != nil {
		return violation{err}
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if n > maxWindow-s.credit {
		return violation{fmt.Errorf("fcgi: credit: window of request %d grows beyond %d", s.id, maxWindow)}
	}
	s.credit += n
	s.demanded = true
	s.granted.Broadcast()
	return nil
}

// end takes END_REQUEST for s. An error means that the connection has no
// further use; the request's own result stands.
func (c *Conn) end(s *Stream, p []byte) error {
	appStatus, status, worked := parseEnd(p)
	s.end(appStatus, status)
	if !s.flow {
		worked = 0 // a foreign application may have anything there
	}
	c.w.mu.Lock()
	mine := c.removeLocked(s)
	var last error
	switch {
	case !s.flow && !s.stdinDone:
		last = errEarlyEnd
	case c.writeErr != nil && c.open == 0:
		last = c.writeErr
	}
	c.w.mu.Unlock()
	if last != nil {
		c.teardown(protocol.Died, last)
	}
	switch {
	case !mine:
	case !s.flow && last == nil:
		c.reader.ended = s // readLoop calls ended
	case s.ended != nil:
		s.ended(worked)
	}
	return last
}
