package stdio

import (
	"encoding/binary"
	"fmt"

	"gatecrew/protocol"
)

// Input makes what a program reads of messages that come in pieces of any size.
type Input struct {
	framing Framing
	header  [protocol.MessageHeader]byte
	got     int // bytes of header
	left    int // bytes of content that are to come, once header is whole
}

// NewInput returns an Input.
func NewInput(framing Framing) Input { return Input{framing: framing} }

// Append appends to dst what the program gets for a piece of messages. The
// error is ErrBinary, or says that the piece is not framed as messages are; dst
// then has what comes before, and Append must not be called again.
func (in *Input) Append(dst, piece []byte) ([]byte, error) {
	for len(piece) > 0 {
		if in.got < len(in.header) {
			n := copy(in.header[in.got:], piece)
			in.got += n
			piece = piece[n:]
			if in.got < len(in.header) {
				return dst, nil
			}
			kind, length, ok := protocol.ParseMessage(in.header[:])
			switch {
			case !ok || kind == protocol.Close:
				return dst, fmt.Errorf("stdio: a message of kind %d", kind)
			case kind == protocol.Binary && in.framing == Lines:
				return dst, ErrBinary
			case in.framing == Lengths:
				dst = binary.BigEndian.AppendUint32(dst, uint32(length))
			}
			in.left = length
		}
		n := min(in.left, len(piece))
		dst = append(dst, piece[:n]...)
		in.left -= n
		piece = piece[n:]
		if in.left == 0 {
			in.got = 0
			if in.framing == Lines {
				dst = append(dst, '\n')
			}
		}
	}
	return dst, nil
}
