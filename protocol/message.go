package protocol

import "encoding/binary"

// MessageKind is what a message of a Socket carries, with the numbers of RFC
// 6455, section 5.2. The zero value is invalid.
type MessageKind uint8

const (
	Text   MessageKind = 1 // UTF-8
	Binary MessageKind = 2
	Close  MessageKind = 8 // a status code and a reason, or nothing
)

// MessageHeader is how many bytes stand before the content of a message.
const MessageHeader = 5

// AppendMessage appends the header of a message with so many bytes of content,
// at most 4294967295.
func AppendMessage(b []byte, kind MessageKind, length int) []byte {
	return binary.BigEndian.AppendUint32(append(b, byte(kind)), uint32(length))
}

// ParseMessage reads the header that b, of at least MessageHeader bytes, begins
// with. ok is false for a kind that there is not.
func ParseMessage(b []byte) (kind MessageKind, length int, ok bool) {
	_ = b[MessageHeader-1]
	kind = MessageKind(b[0])
	return kind, int(binary.BigEndian.Uint32(b[1:])), kind == Text || kind == Binary || kind == Close
}

// AppendClose appends a whole close message. The reason is cut to what a
// control frame can hold.
func AppendClose(b []byte, code uint16, reason string) []byte {
	const most = 123
	if len(reason) > most {
		reason = reason[:most]
		for len(reason) > 0 && reason[len(reason)-1]&0xc0 == 0x80 { // not inside a character
			reason = reason[:len(reason)-1]
		}
		if len(reason) > 0 && reason[len(reason)-1] >= 0xc0 {
			reason = reason[:len(reason)-1]
		}
	}
	b = AppendMessage(b, Close, 2+len(reason))
	return append(binary.BigEndian.AppendUint16(b, code), reason...)
}
