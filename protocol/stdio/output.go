package stdio

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"gatecrew/protocol"
)

// Output makes messages of what a program writes. It holds no more than one
// unfinished line and the messages of one piece.
type Output struct {
	framing Framing
	max     int

	// buf[given:ready] are whole messages, or parts of one whose end the
	// program has yet to write. What follows is an unfinished line, after
	// room for its header.
	buf          []byte
	given, ready int
	open         bool // there is an unfinished line

	// For Lengths.
	length [4]byte
	got    int // bytes of length
	left   int // bytes of the message that are to come
}

// keep is how large an empty buffer may be that is kept for the next message.
const keep = 64 << 10

// NewOutput returns an Output of messages with at most max bytes of content.
func NewOutput(framing Framing, max int) Output { return Output{framing: framing, max: max} }

// Pending reports whether Read has something to give.
func (o *Output) Pending() bool { return o.given < o.ready }

// Read gives what there is of messages, 0 bytes when there is nothing.
func (o *Output) Read(p []byte) int {
	n := copy(p, o.buf[o.given:o.ready])
	o.given += n
	return n
}

// Release frees the buffer when it is empty.
func (o *Output) Release() {
	if o.given == len(o.buf) {
		o.buf, o.given, o.ready = nil, 0, 0
	}
}

// Feed takes what the program has written. To be called when nothing is
// pending. After an error, ErrTooLong, nothing of the message at fault can be
// read, and Feed must not be called again.
func (o *Output) Feed(chunk []byte) error {
	o.compact()
	switch o.framing {
	case Lines:
		return o.lines(chunk)
	case Lengths:
		return o.lengths(chunk)
	}
	if len(chunk) > 0 {
		o.buf = append(protocol.AppendMessage(o.buf, protocol.Binary, len(chunk)), chunk...)
	}
	o.ready = len(o.buf)
	return nil
}

// compact moves what has not been given to the front.
func (o *Output) compact() {
	rest := o.buf[o.given:]
	if cap(o.buf) > keep && len(rest) <= keep {
		o.buf = append([]byte(nil), rest...)
	} else if o.given > 0 {
		o.buf = o.buf[:copy(o.buf, rest)]
	}
	o.ready -= o.given
	o.given = 0
}

func (o *Output) lines(chunk []byte) error {
	for len(chunk) > 0 {
		if !o.open {
			o.buf = append(o.buf, make([]byte, protocol.MessageHeader)...)
			o.open = true
		}
		line, rest, whole := bytes.Cut(chunk, []byte("\n"))
		if len(o.buf)-o.ready-protocol.MessageHeader+len(line) > o.max+len("\r") {
			return o.tooLong()
		}
		o.buf = append(o.buf, line...)
		if !whole {
			return nil
		}
		if err := o.line(); err != nil {
			return err
		}
		chunk = rest
	}
	return nil
}

// line ends the unfinished line.
func (o *Output) line() error {
	start := o.ready + protocol.MessageHeader
	content := bytes.TrimSuffix(o.buf[start:], []byte("\r"))
	if !utf8.Valid(content) {
		content = bytes.ToValidUTF8(content, []byte("\uFFFD"))
	}
	if len(content) > o.max {
		return o.tooLong()
	}
	o.buf = append(o.buf[:start], content...)
	protocol.AppendMessage(o.buf[:o.ready], protocol.Text, len(content))
	o.ready, o.open = len(o.buf), false
	return nil
}

func (o *Output) lengths(chunk []byte) error {
	for len(chunk) > 0 {
		if o.left == 0 {
			n := copy(o.length[o.got:], chunk)
			o.got += n
			chunk = chunk[n:]
			if o.got < len(o.length) {
				return nil
			}
			length := binary.BigEndian.Uint32(o.length[:])
			if int64(length) > int64(o.max) {
				return o.tooLong()
			}
			o.buf = protocol.AppendMessage(o.buf, protocol.Binary, int(length))
			o.got, o.left = 0, int(length)
		}
		n := min(o.left, len(chunk))
		o.buf = append(o.buf, chunk[:n]...)
		o.left -= n
		chunk = chunk[n:]
		o.ready = len(o.buf)
	}
	return nil
}

// tooLong gives up the unfinished message.
func (o *Output) tooLong() error {
	err := fmt.Errorf("%w: a line of more than %d bytes", ErrTooLong, o.max)
	if o.framing == Lengths {
		err = fmt.Errorf("%w: a length of %d, the bytes %q, and %d are allowed", ErrTooLong, binary.BigEndian.Uint32(o.length[:]), o.length[:], o.max)
	}
	o.drop()
	return err
}

// drop forgets what is unfinished.
func (o *Output) drop() {
	o.buf = o.buf[:o.ready]
	o.open, o.got, o.left = false, 0, 0
}

// Inside reports whether a message has been given whose end is yet to come:
// nothing else can be said between.
func (o *Output) Inside() bool { return o.left > 0 }

// End takes note that the program has written all. peaceful says that it meant
// to end there: then a line without its end is a message too. The error is
// ErrCut when a message was begun that can't be ended.
func (o *Output) End(peaceful bool) error {
	switch {
	case o.left > 0 || o.got > 0 && peaceful:
		return ErrCut
	case o.open && peaceful:
		return o.line()
	}
	o.drop()
	return nil
}

// Close adds a close message, behind which nothing is read. What is unfinished
// is dropped. It must not be called while Inside.
func (o *Output) Close(code uint16, reason string) {
	o.drop()
	o.buf = protocol.AppendClose(o.buf, code, reason)
	o.ready = len(o.buf)
}
