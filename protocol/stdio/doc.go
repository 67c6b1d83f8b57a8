// Package stdio carries the messages of a WebSocket over the standard input and
// output of a program: Output makes messages of what a program writes, Input
// makes what it reads of messages. Both sides hold messages as
// protocol.AppendMessage frames them.
package stdio

import "errors"

// Framing is how a program tells messages apart. The zero value is invalid.
type Framing uint8

const (
	// Lines makes each line a text message, without its LF or CRLF. What is
	// not UTF-8 in a line becomes U+FFFD: a client would have to break off
	// the connection for it (RFC 6455, section 8.1). A text message is a line
	// for each that it has: a line feed in it is passed on. A binary message
	// can't be told.
	Lines Framing = iota + 1
	// Lengths puts 4 bytes before each message, the length of its content as
	// a big-endian number. What the program writes is binary; it is not told
	// of which kind a client's message was.
	Lengths
	// Stream has no messages: each piece that the program writes, as the
	// system hands it over, is a binary message, and of a client's messages
	// it gets the content, one after the other. It is for protocols that find
	// their own borders in a stream of bytes.
	Stream
)

var (
	// ErrTooLong means that a message of the program exceeds the limit.
	ErrTooLong = errors.New("stdio: a message is too long")
	// ErrBinary means that a client has sent a binary message to a program
	// of lines.
	ErrBinary = errors.New("stdio: a binary message for a program that reads lines")
	// ErrCut means that a program has ended inside of a message.
	ErrCut = errors.New("stdio: the output ends inside of a message")
)
