package cgi

import (
	"bytes"
	"net/textproto"
	"strings"

	"gatecrew/protocol"
)

// ParseTrailers reads the fields that an application sends behind the body, as
// lines of a head without the empty one; the last may have no line end. The
// names come back in the form of HTTP/1. Fields that a trailer may not have
// (RFC 9110, section 6.5.1) are left out. Every error is a *protocol.Error of
// kind Malformed.
func ParseTrailers(text []byte) ([]protocol.Param, error) {
	var trailers []protocol.Param
	for number := 1; len(text) > 0; number++ {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte{'\n'})
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 {
			return nil, malformed("trailers: line %d is empty", number)
		}
		if number > MaxHeadFields {
			return nil, malformed("trailers: more than %d fields", MaxHeadFields)
		}
		if err := checkLine(number, line); err != nil {
			return nil, err
		}
		name, value, _ := strings.Cut(string(line), ":")
		if name = textproto.CanonicalMIMEHeaderKey(name); trailing(name) {
			trailers = append(trailers, protocol.Param{Name: name, Value: strings.Trim(value, " \t")})
		}
	}
	return trailers, nil
}

// trailing reports whether a field may be sent as a trailer: whoever merges
// trailers into the head must not come to understand the message in another
// way. What is needed for framing, routing, authentication, or to process the
// content or the whole response, may not (RFC 9110, section 6.5.1).
func trailing(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Authorization", "Cookie", "Proxy-Authenticate", "Proxy-Authorization", "Set-Cookie", "Www-Authenticate",
		"Content-Encoding", "Content-Range", "Content-Type",
		"Age", "Cache-Control", "Date", "Expect", "Expires", "Location", "Max-Forwards", "Pragma", "Range", "Retry-After", "Status",
		"Strict-Transport-Security", "Vary", "Warning":
		return false
	}
	return !strings.HasPrefix(name, "If-")
}
