package websocket

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"gatecrew/protocol"
)

// inbox is what a client that sends something is read into. It is taken when
// the first bytes are there and given back when all of them have been used.
type inbox struct {
	buf    [inboxSize]byte
	r, w   int
	header [ws.MaxHeaderSize]byte
	reader bytes.Reader
}

const inboxSize = 8 << 10

var inboxes = sync.Pool{New: func() any { return new(inbox) }}

// message is a message of the client that has not arrived as a whole.
type message struct {
	open       bool
	kind       protocol.MessageKind
	compressed bool
	// content has room for the header that the application gets in front.
	content []byte
	// checked is how much of a text has been found to be UTF-8.
	checked int
}

// receiver reads the frames of one client. Its methods return a *closeError
// that ends the connection, or nil.
type receiver struct {
	*Conn
	in      *inbox
	message message
	given   bool  // the application has a message
	held    int64 // bytes of the hub's memory
}

// receive carries what the client sends until it has closed, or broken the
// rules, or gone.
func (c *Conn) receive() closeError {
	r := receiver{Conn: c}
	defer r.free()
	for {
		// A silent connection has no buffer but this one.
		n, err := c.transport.Read(c.first[:])
		if n > 0 {
			c.heard.Store(c.hub.clock.Load())
			r.in = inboxes.Get().(*inbox)
			r.in.r, r.in.w = 0, copy(r.in.buf[:], c.first[:n])
			end := r.frames()
			r.in.reader.Reset(nil)
			inboxes.Put(r.in)
			r.in = nil
			if end != nil {
				how := *end
				how.answerable = r.given && !end.frame && end.code != codeAbnormal
				return how
			}
		}
		if err != nil {
			return *lost(err)
		}
	}
}

func lost(err error) *closeError {
	return &closeError{code: codeAbnormal, err: err}
}

// more reads once from the client. Whatever was left of the inbox is moved to
// its beginning; there is always room.
func (r *receiver) more() *closeError {
	in := r.in
	if in.r > 0 {
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r = 0
	}
	n, err := r.transport.Read(in.buf[in.w:])
	if n == 0 && err != nil {
		return lost(err)
	}
	in.w += n
	r.heard.Store(r.hub.clock.Load())
	return nil
}

// frames takes frames until nothing is left in the inbox.
func (r *receiver) frames() *closeError {
	for r.in.r < r.in.w {
		h, end := r.header()
		if end == nil {
			if h.OpCode.IsControl() {
				end = r.control(h)
			} else {
				end = r.data(h)
			}
		}
		if end != nil {
			return end
		}
	}
	return nil
}

// header reads and checks the header of a frame.
func (r *receiver) header() (ws.Header, *closeError) {
	for {
		in := r.in
		in.reader.Reset(in.buf[in.r:in.w])
		h, err := ws.ReadHeaderBuffer(&in.reader, in.header[:])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if end := r.more(); end != nil {
				return h, end
			}
			continue
		case err != nil:
			return h, violation(codeProtocolError, err.Error())
		}
		in.r = in.w - in.reader.Len()
		return h, r.check(h)
	}
}

func (r *receiver) check(h ws.Header) *closeError {
	state := ws.StateServerSide
	if r.message.open {
		state = state.Set(ws.StateFragmented)
	}
	if r.bits > 0 {
		state = state.Set(ws.StateExtended)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return violation(codeProtocolError, err.Error())
	}
	// RFC 7692, section 6: RSV1 is for the first frame of a message.
	if h.Rsv != 0 && (h.Rsv != rsv1 || h.OpCode != ws.OpText && h.OpCode != ws.OpBinary) {
		return violation(codeProtocolError, "reserved bits are set")
	}
	return nil
}

// rsv1 is the bit that marks a compressed message.
const rsv1 = 0b100

// control takes a control frame, which fits into the inbox.
func (r *receiver) control(h ws.Header) *closeError {
	in, n := r.in, int(h.Length)
	for in.w-in.r < n {
		if end := r.more(); end != nil {
			return end
		}
	}
	payload := in.buf[in.r : in.r+n]
	in.r += n
	ws.Cipher(payload, h.Mask, 0)
	switch h.OpCode {
	case ws.OpPing:
		if err := r.sendControl(ws.OpPong, payload); err != nil && err != errClosed {
			return lost(err)
		}
	case ws.OpClose:
		end := parseClose(payload)
		return &end
	}
	return nil
}

// data takes a frame of a message.
func (r *receiver) data(h ws.Header) *closeError {
	m := &r.message
	if h.OpCode != ws.OpContinuation {
		m.open, m.kind, m.compressed = true, protocol.MessageKind(h.OpCode), h.Rsv == rsv1
	}
	if h.Length > r.options.MaxMessage-int64(m.length()) {
		return violation(codeTooLarge, "the message is too large")
	}
	var end *closeError
	if n := int(h.Length); h.Fin && m.content == nil && !m.compressed && n <= r.in.w-r.in.r {
		end = r.short(h, n)
	} else if end = r.collect(h); end == nil && h.Fin {
		end = r.whole()
	}
	if h.Fin {
		*m = message{}
		r.free()
	}
	return end
}

// short takes a message that is one frame and all there. Before it stand at
// least six bytes of the frame's header, in which there is room for the
// message's.
func (r *receiver) short(h ws.Header, n int) *closeError {
	in := r.in
	payload := in.buf[in.r : in.r+n]
	ws.Cipher(payload, h.Mask, 0)
	if r.message.kind == protocol.Text && !utf8.Valid(payload) {
		return violation(codeInvalidData, notText)
	}
	begin := in.r - protocol.MessageHeader
	protocol.AppendMessage(in.buf[begin:begin], r.message.kind, n)
	r.give(in.buf[begin : in.r+n])
	in.r += n
	return nil
}

const notText = "a text that is not UTF-8"

// collect adds the payload of a frame to the message as it arrives. Memory is
// taken for what is there, not for what a header promises.
func (r *receiver) collect(h ws.Header) *closeError {
	m := &r.message
	if m.content == nil {
		if end := r.grow(min(int(h.Length), inboxSize)); end != nil {
			return end
		}
	}
	for done := 0; done < int(h.Length); {
		left := int(h.Length) - done
		begin := len(m.content)
		if begin == cap(m.content) {
			if end := r.grow(min(left, max(begin, inboxSize))); end != nil {
				return end
			}
		}
		room := m.content[begin:min(cap(m.content), begin+left)]
		n := copy(room, r.in.buf[r.in.r:r.in.w])
		r.in.r += n
		if n == 0 {
			var err error
			if n, err = r.transport.Read(room); n == 0 && err != nil {
				return lost(err)
			}
			r.heard.Store(r.hub.clock.Load())
			r.spoken.Store(r.hub.clock.Load())
		}
		m.content = m.content[:begin+n]
		ws.Cipher(m.content[begin:], h.Mask, done)
		done += len(m.content) - begin
		if m.kind == protocol.Text && !m.compressed && !m.valid(false) {
			return violation(codeInvalidData, notText)
		}
		if r.mute.Load() {
			m.content, m.checked = m.content[:protocol.MessageHeader], 0
			// A text may be cut here: what follows is not looked at as such.
			m.kind = protocol.Binary
		}
	}
	return nil
}

// grow makes room for n bytes more of the message.
func (r *receiver) grow(n int) *closeError {
	m := &r.message
	size := max(len(m.content), protocol.MessageHeader)
	if !r.hold(size + n - cap(m.content)) {
		return errNoMemory
	}
	grown := make([]byte, size, size+n)
	copy(grown, m.content)
	m.content = grown
	return nil
}

// hold takes n bytes of what all messages of clients may hold together, and
// reports whether they are there. Free gives them back.
func (r *receiver) hold(n int) bool {
	r.held += int64(n)
	return r.hub.memory.Add(int64(-n)) >= 0
}

func (r *receiver) free() {
	if r.held != 0 {
		r.hub.memory.Add(r.held)
		r.held = 0
	}
}

var errNoMemory = violation(codeTryAgainLater, "too much is being sent at the moment")

// whole hands a collected message on.
func (r *receiver) whole() *closeError {
	m := &r.message
	if r.mute.Load() {
		return nil
	}
	if m.compressed {
		plain, err := decompress(protocol.MessageHeader, m.content[protocol.MessageHeader:], r.options.MaxMessage, r.hold)
		switch {
		case err == errTooLarge:
			return violation(codeTooLarge, "the message is too large")
		case err == errNotHeld:
			return errNoMemory
		case err != nil:
			return violation(codeInvalidData, "a message that can't be decompressed")
		}
		r.hold(-cap(m.content))
		m.content = plain
	}
	if m.kind == protocol.Text && !m.valid(true) {
		return violation(codeInvalidData, notText)
	}
	protocol.AppendMessage(m.content[:0], m.kind, m.length())
	r.give(m.content)
	return nil
}

func (m *message) length() int { return max(0, len(m.content)-protocol.MessageHeader) }

// valid reports whether the message is UTF-8 so far; a character at the end may
// be incomplete unless the message is whole.
func (m *message) valid(whole bool) bool {
	rest := m.content[protocol.MessageHeader+m.checked:]
	end := len(rest)
	if !whole {
		// The last character begins at most three bytes before the end.
		for i := 1; i <= min(utf8.UTFMax-1, len(rest)); i++ {
			if b := rest[len(rest)-i]; utf8.RuneStart(b) {
				if !utf8.FullRune(rest[len(rest)-i:]) {
					end -= i
				}
				break
			}
		}
	}
	m.checked += end
	return utf8.Valid(rest[:end])
}

// give gives messages to the application, and waits for it to take them. Once
// the connection is closing they are dropped; an application that has ended is
// deliver's affair.
func (r *receiver) give(p []byte) {
	r.giving <- struct{}{}
	defer func() { <-r.giving }()
	if r.mute.Load() {
		return
	}
	r.given = true
	r.spoken.Store(r.hub.clock.Load())
	r.stalled.Store(true)
	if _, err := r.app.Write(p); err != nil {
		r.mute.Store(true)
	}
	r.spoken.Store(r.hub.clock.Load())
	r.stalled.Store(false)
}
