package http1

import (
	"bytes"
	"strings"

	"gatecrew/protocol/cgi"
)

// verdict is what the beginning of a connection's bytes is.
type verdict uint8

const (
	more  verdict = iota // a part of a head that may become plain
	plain                // a plain head
	other                // anything else: net/http is to judge it
)

// maxHead is the longest head in bytes that is read here.
const maxHead = 8 << 10

// parse reads the head that b begins with into p, whose Local and Remote it leaves
// alone. n is the head's length with its empty line, for a plain one.
//
// It knows what cgi.Plain describes and nothing else: every freedom of RFC 9112
// that servers are known to take in different ways (bare LF, folded lines, a
// space before a colon, other versions, Transfer-Encoding, a field given twice)
// makes a head other.
func parse(b []byte, p *cgi.Plain, maxFields int) (n int, v verdict) {
	n = bytes.Index(b, []byte("\r\n\r\n")) + 4
	if n < 4 {
		return 0, begins(b, p, maxFields)
	}
	if n > maxHead {
		return 0, other
	}
	s := string(b[:n]) // what is made of the head lives as long as somebody needs it
	if i := parseLine(s, p); i == 0 || parseFields(s[i:], p, maxFields) != plain {
		return 0, other
	}
	return n, plain
}

// begins is the verdict on a head that is not whole. What can't become plain any
// more is other at once: net/http may see the end of a head where none is here
// (behind a bare LF), and tells a client what is wrong before it has sent all.
func begins(b []byte, p *cgi.Plain, maxFields int) verdict {
	if len(b) >= maxHead || len(b) > 0 && (b[0] < 'A' || b[0] > 'Z') {
		return other
	}
	lines := bytes.LastIndexByte(b, '\n') + 1 // those that are complete
	if lines == 0 {
		return more
	}
	s := string(b[:lines]) + "\r\n"
	if i := parseLine(s, p); i == 0 || parseFields(s[i:], p, maxFields) == other {
		return other
	}
	return more
}

// methods are those that a plain head has.
var methods = [...]string{"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"}

// parseLine reads the request line (RFC 9112, section 3) and returns its length,
// 0 when it is not plain.
func parseLine(s string, p *cgi.Plain) int {
	p.Method = ""
	for _, m := range &methods {
		if len(s) > len(m) && s[len(m)] == ' ' && s[:len(m)] == m {
			p.Method = m
			break
		}
	}
	start := len(p.Method) + 1
	// A target that begins with two slashes is a path here, but the name of a
	// host to others.
	if p.Method == "" || start+1 >= len(s) || s[start] != '/' || s[start+1] == '/' {
		return 0
	}
	i := start
	for ; targetBytes[s[i]]&inPath != 0; i++ {
		if s[i] == '%' && (targetBytes[s[i+1]]&isHex == 0 || targetBytes[s[i+2]]&isHex == 0) {
			return 0
		}
	}
	p.Path, p.Query = s[start:i], ""
	if s[i] == '?' {
		query := i + 1
		for i = query; targetBytes[s[i]]&inQuery != 0; i++ {
		}
		p.Query = s[query:i]
	}
	p.Target = s[start:i]
	const version = " HTTP/1.1\r\n"
	if !strings.HasPrefix(s[i:], version) {
		return 0
	}
	return i + len(version)
}

const (
	inPath  = 1 << iota // may stand in a path as it is, or begins an escape
	inQuery             // may stand in a query
	isHex
)

// targetBytes says where a byte may stand in a target. In a path these are the
// characters of RFC 3986, section 3.3, which no parser escapes or refuses; in a
// query all that RFC 9112 allows and that are passed on as they are. The bytes of
// a head end with CR and LF, which stand in neither: no loop runs over its end.
var targetBytes = func() (table [256]uint8) {
	for c := byte('!'); c <= '~'; c++ {
		if c != '#' {
			table[c] |= inQuery
		}
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@/%", c) >= 0 {
			table[c] |= inPath
		}
		if 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || '0' <= c && c <= '9' {
			table[c] |= isHex
		}
	}
	return table
}()

// parseFields reads the field lines and the empty line behind them. It returns other
// when one of them is not plain, and more when one is missing.
func parseFields(s string, p *cgi.Plain, maxFields int) verdict {
	p.Fields = p.Fields[:0]
	p.Host, p.HasLength, p.ContentLength = "", false, 0
	var seen [64]uint32 // a hash of each name without its case
	n, hosts := 0, 0
	pragma, cacheControl := false, false
	for len(s) > 2 {
		hash := uint32(2166136261)
		colon := 0
		for ; nameBytes[s[colon]] != 0; colon++ {
			hash = (hash ^ uint32(nameBytes[s[colon]])) * 16777619
		}
		if s[colon] != ':' || colon == 0 {
			return other
		}
		for _, h := range seen[:n] {
			if h == hash {
				return other // given twice or, seldom, another name with the same hash
			}
		}
		end := colon + 1 + strings.IndexByte(s[colon+1:], '\r')
		if s[end+1] != '\n' { // an end there is: that of the head
			return other
		}
		value := trim(s[colon+1 : end])
		if !validValue(value) {
			return other
		}
		name := s[:colon]
		s = s[end+2:]
		if n == len(seen) || n == maxFields {
			return other
		}
		seen[n] = hash
		n++
		is := func(known string) bool { return strings.EqualFold(name, known) }
		switch len(name) {
		case len("TE"):
			if is("TE") {
				return other
			}
		case len("Host"):
			if is("Host") {
				if !validHost(value) {
					return other
				}
				p.Host = value
				hosts++
				continue
			}
		case len("Expect"):
			if is("Expect") {
				return other
			}
			pragma = pragma || is("Pragma")
		case len("Upgrade"):
			if is("Upgrade") || is("Trailer") {
				return other
			}
		case len("Connection"):
			if is("Connection") && !strings.EqualFold(value, "keep-alive") {
				return other
			}
		case len("Cache-Control"):
			cacheControl = cacheControl || is("Cache-Control")
		case len("Content-Length"):
			if is("HTTP2-Settings") {
				return other
			}
			if is("Content-Length") {
				var ok bool
				if p.ContentLength, ok = decimal(value); !ok {
					return other
				}
				p.HasLength = true
			}
		case len("Transfer-Encoding"):
			if is("Transfer-Encoding") {
				return other
			}
		}
		p.Fields = append(p.Fields, cgi.Field{Name: name, Value: value})
	}
	// net/http makes a Cache-Control of a Pragma that stands alone.
	if hosts == 0 || pragma && !cacheControl {
		return more
	}
	return plain
}

// nameBytes has the lower case of each byte of a field name (RFC 9110, section
// 5.6.2), and 0 for all others.
var nameBytes = func() (table [256]byte) {
	for c := 0; c < 256; c++ {
		switch c := byte(c); {
		case 'A' <= c && c <= 'Z':
			table[c] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c < 0x7f && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
			table[c] = c
		}
	}
	return table
}()

// trim removes optional white space (RFC 9110, section 5.6.3).
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// validValue accepts what RFC 9110, section 5.5, does: no control characters but
// the tab.
func validValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validHost accepts what net/http takes for a Host: the characters of RFC 3986,
// section 3.2.2. cgi.Plain's Clean asks for more.
func validHost(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; targetBytes[c]&inPath == 0 && c != '[' && c != ']' || c == '@' || c == '/' {
			return false
		}
	}
	return true
}

// decimal takes a length of up to nine digits; larger bodies are no plain ones.
func decimal(s string) (n int, ok bool) {
	if len(s) == 0 || len(s) > 9 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}
