package websocket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"gatecrew/protocol"
)

// Messages of an application are read into a buffer with room for a frame's
// header in front. Most are short; one that doesn't fit gets a large buffer,
// and one that doesn't fit there either is sent in fragments, so that its
// length doesn't matter.
const (
	room       = ws.MaxHeaderSize
	smallPiece = 4 << 10
	largePiece = 64 << 10
)

var (
	smallPieces = sync.Pool{New: func() any { return new([room + smallPiece]byte) }}
	largePieces = sync.Pool{New: func() any { return new([room + largePiece]byte) }}
	deflated    = sync.Pool{New: func() any { return new(bytes.Buffer) }}
)

// piece is a buffer from one of the pools, of which buf[r:w] is filled.
type piece struct {
	buf   []byte
	small *[room + smallPiece]byte
	large *[room + largePiece]byte
	r, w  int
}

func newPiece() piece {
	small := smallPieces.Get().(*[room + smallPiece]byte)
	return piece{buf: small[:], small: small, r: room, w: room}
}

func (p *piece) free() {
	if p.small != nil {
		smallPieces.Put(p.small)
	}
	if p.large != nil {
		largePieces.Put(p.large)
	}
	*p = piece{}
}

// fit makes room for a message of so many bytes, its header included, if that
// can be: what is filled is moved to the front, or to a large buffer.
func (p *piece) fit(n int) {
	if room+n > len(p.buf) && p.large == nil {
		p.large = largePieces.Get().(*[room + largePiece]byte)
		p.w = room + copy(p.large[room:], p.buf[p.r:p.w])
		p.buf, p.r = p.large[:], room
		smallPieces.Put(p.small)
		p.small = nil
	} else if p.r > room {
		p.w = room + copy(p.buf[room:], p.buf[p.r:p.w])
		p.r = room
	}
}

// errAppClosed ends deliver: the application has closed the connection.
var errAppClosed = errors.New("websocket: the application has closed")

// deliver carries what the application sends until it has closed or ended.
func (c *Conn) deliver() {
	for {
		if len(c.begun) == 0 && c.begunErr == nil {
			c.app.Wait() // without a buffer
		}
		p := newPiece()
		err := c.relay(&p)
		p.free()
		switch {
		case err == nil:
		case err == errAppClosed:
			return
		default:
			c.appEnded(err)
			return
		}
	}
}

// read reads from the application, first what came with its head.
func (c *Conn) read(p []byte) (int, error) {
	if len(c.begun) > 0 {
		n := copy(p, c.begun)
		if c.begun = c.begun[n:]; len(c.begun) == 0 {
			c.begun = nil
		}
		return n, nil
	}
	if c.begunErr != nil {
		return 0, c.begunErr
	}
	return c.app.Read(p)
}

// relay reads once, and on until nothing is left of a message that has begun.
func (c *Conn) relay(p *piece) error {
	for {
		n, err := c.read(p.buf[p.w:])
		p.w += n
		need, sendErr := c.messages(p)
		switch {
		case sendErr != nil:
			return sendErr
		case err != nil:
			return err
		case p.r == p.w:
			return nil
		}
		p.fit(need)
	}
}

// messages sends the messages that are there as a whole, several of them with
// one write, and those that are too long for that as they come. need is how
// much the rest has to become.
func (c *Conn) messages(p *piece) (need int, err error) {
	// Frames are put together where messages stood: their headers are shorter.
	begin := p.r
	end := begin
	flush := func() error {
		frames := p.buf[begin:end]
		begin, end = p.r, p.r
		if len(frames) == 0 {
			return nil
		}
		return c.toClient(frames)
	}
	for {
		if p.w-p.r < protocol.MessageHeader {
			return protocol.MessageHeader, flush()
		}
		kind, length, ok := protocol.ParseMessage(p.buf[p.r:])
		if !ok || kind == protocol.Close && length > ws.MaxControlFramePayloadSize {
			return 0, errors.Join(flush(), &protocol.Error{Kind: protocol.Malformed, Err: errors.New("websocket: the application sent what is no message")})
		}
		whole := protocol.MessageHeader + length
		switch {
		case p.w-p.r < whole && whole <= largePiece:
			return whole, flush()
		case p.w-p.r < whole:
			if err := flush(); err != nil {
				return 0, err
			}
			if err := c.fragments(kind, length, p); err != nil {
				return 0, err
			}
			begin, end = p.r, p.r
		case kind == protocol.Close:
			content := p.buf[p.r+protocol.MessageHeader : p.r+whole]
			if err := flush(); err != nil {
				return 0, err
			}
			c.appClosed(content)
			return 0, errAppClosed
		case c.bits > 0 && length >= compressMin:
			content := p.buf[p.r+protocol.MessageHeader : p.r+whole]
			if err := flush(); err != nil {
				return 0, err
			}
			if err := c.compressed(ws.OpCode(kind), content, true, true); err != nil {
				return 0, err
			}
			p.r += whole
			begin, end = p.r, p.r
		default:
			content := p.buf[p.r+protocol.MessageHeader : p.r+whole]
			end += putHeader(p.buf[end:], ws.OpCode(kind), 0, true, length)
			end += copy(p.buf[end:], content)
			p.r += whole
		}
	}
}

// putHeader writes the header of a frame of at most 65535 bytes, which is
// shorter than that of a message.
func putHeader(b []byte, op ws.OpCode, rsv byte, fin bool, length int) int {
	b[0] = rsv<<4 | byte(op)
	if fin {
		b[0] |= 0x80
	}
	if length < 126 {
		b[1] = byte(length)
		return 2
	}
	b[1] = 126
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	return 4
}

// maxFrame is the longest payload that putHeader can write.
const maxFrame = 1<<16 - 1

// fragments sends a message that is longer than any buffer, as it comes.
func (c *Conn) fragments(kind protocol.MessageKind, length int, p *piece) error {
	p.fit(largePiece)
	p.r += protocol.MessageHeader
	op, left := ws.OpCode(kind), length
	for {
		if n := min(p.w-p.r, left, maxFrame); n > 0 {
			left -= n
			content := p.buf[p.r : p.r+n]
			p.r += n
			var err error
			if c.bits > 0 {
				err = c.compressed(op, content, op != ws.OpContinuation, left == 0)
			} else {
				// There is room: for the message's header, or in front.
				var header [4]byte
				h := putHeader(header[:], op, 0, left == 0, n)
				begin := p.r - n - h
				copy(p.buf[begin:], header[:h])
				err = c.toClient(p.buf[begin:p.r])
			}
			if err != nil {
				return err
			}
			op = ws.OpContinuation
		}
		if left == 0 {
			return nil
		}
		if p.r == p.w {
			p.r, p.w = room, room
			n, err := c.read(p.buf[p.w:])
			p.w += n
			if n == 0 && err != nil {
				return err
			}
		}
	}
}

// compressed sends a frame whose content is compressed.
func (c *Conn) compressed(op ws.OpCode, content []byte, first, last bool) error {
	out := deflated.Get().(*bytes.Buffer)
	defer func() {
		if out.Cap() <= 2*largePiece {
			out.Reset()
			deflated.Put(out)
		}
	}()
	out.Reset()
	out.Write(make([]byte, room)) // for the header
	if err := compress(out, content, c.bits, last); err != nil {
		return err
	}
	rsv := byte(0)
	if first {
		rsv = rsv1
	}
	var header headerWriter
	payload := out.Len() - room
	if err := ws.WriteHeaderBuffer(&header, ws.Header{Fin: last, Rsv: rsv, OpCode: op, Length: int64(payload)}, header.scratch[:]); err != nil {
		return err
	}
	frame := out.Bytes()[room-header.n:]
	copy(frame, header.b[:header.n])
	return c.toClient(frame)
}

// headerWriter keeps the header that is written to it.
type headerWriter struct {
	b, scratch [ws.MaxHeaderSize]byte
	n          int
}

func (w *headerWriter) Write(p []byte) (int, error) {
	w.n += copy(w.b[w.n:], p)
	return len(p), nil
}

// toClient sends frames. When the client can't be written to, receive is told
// to end: its own reads may well go on.
func (c *Conn) toClient(frames []byte) error {
	c.spoken.Store(c.hub.clock.Load())
	err := c.send(frames)
	if err != nil && err != errClosed {
		c.cut()
	}
	if err != nil {
		return errAppClosed // nothing else can be said to the client
	}
	return nil
}

// appClosed closes the connection as the application wants it.
func (c *Conn) appClosed(content []byte) {
	r := Result{Code: codeNormal}
	if len(content) >= 2 {
		r.Code, r.Reason = binary.BigEndian.Uint16(content), string(content[2:])
	}
	if !sendable(r.Code) || !utf8.ValidString(r.Reason) {
		r.Err = errors.New("websocket: the application closes with a code or reason that can't be sent: " + itoa(int(r.Code)))
		r.Code, r.Reason = codeInternalError, ""
	}
	c.closeFor(r)
}

// appEnded closes the connection of an application that has ended without
// closing it.
func (c *Conn) appEnded(err error) {
	r := Result{Code: codeNormal}
	if err != io.EOF {
		r.Code, r.Err = codeInternalError, err
	}
	c.closeFor(r)
}

func (c *Conn) closeFor(r Result) {
	if !c.begin(r) {
		return
	}
	c.awaitClose()
	_ = c.sendClose(ws.NewCloseFrameBody(ws.StatusCode(r.Code), r.Reason))
	if !c.silence() {
		_ = c.app.Close() // it does not take the message that receive has for it
	}
}
