package cgi

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"gatecrew/protocol"
)

// Limits on the head of an answer. One that is larger is Malformed.
const (
	MaxHead       = 64 << 10 // bytes, the empty line included
	MaxHeadFields = 1000
)

// Head is the head of an application's answer.
type Head struct {
	// Status is 200 to 999, or one of the two that come before a final answer
	// and that an application may send: 103 (RFC 8297), after which the next
	// head follows at once, and 101, which only the handshake of a WebSocket
	// asks for: the caller refuses it elsewhere.
	Status int
	// Header are the fields for the client, in the script's order for each
	// name. Status and the fields about the connection are not among them:
	// framing is the gateway's.
	Header http.Header
	// LocalRedirect is the path and query of a local redirect (RFC 3875,
	// section 6.2.2), "" when the answer is none. The gateway is to answer
	// as if the client had asked for it. Status and Header then hold the
	// redirect that would make the client ask, for where that can't be done.
	LocalRedirect string
}

// ParseHead reads the head of a CGI response (RFC 3875, section 6) from the
// beginning of an application's output. It returns the length of the head with
// its empty line; the body follows. A length of 0 without an error means that
// more output is needed: the caller adds to buf and calls again, or, when there
// is no more, calls with atEOF.
//
// Lines end with LF or CRLF. Every error is a *protocol.Error of kind Malformed
// and says which line is wrong and why that may be; a line is refused as soon as
// it is complete, so that an application that prints something else is not
// waited for.
//
// Refused are also a Status that is none of Head.Status or is given twice, a
// Location, Content-Type or Content-Length given twice with different values,
// and a Content-Length that is no number. Without a Status the answer
// is 302 when there is a Location, else 200. A Location that is a path, and is
// the only field, is a local redirect.
func ParseHead(buf []byte, atEOF bool) (h *Head, n int, err error) {
	n, fields, err := scanHead(buf, atEOF, false)
	if n == 0 || err != nil {
		return nil, 0, err
	}
	h = &Head{Header: make(http.Header, fields)}
	if err := h.readFields(string(buf[:n]), fields, false); err != nil {
		return nil, 0, err
	}
	location, redirect := h.Header["Location"]
	switch {
	case h.Status != 0:
	case !redirect:
		h.Status = http.StatusOK
	case location[0] == "":
		return nil, 0, malformed("Location is empty")
	default:
		h.Status = http.StatusFound
		if fields == 1 && isLocal(location[0]) {
			h.LocalRedirect = location[0]
		}
	}
	return h, n, nil
}

// ParseNPHHead reads the head of an answer from a script with non-parsed
// headers (RFC 3875, section 5): an HTTP/1.x status line and fields. It works
// as ParseHead does, but a Location is nothing special, a Status field is
// dropped, and a Transfer-Encoding other than identity is refused: the gateway
// frames the body anew, and would have to undo it.
func ParseNPHHead(buf []byte, atEOF bool) (h *Head, n int, err error) {
	n, fields, err := scanHead(buf, atEOF, true)
	if n == 0 || err != nil {
		return nil, 0, err
	}
	head := string(buf[:n])
	statusLine, rest, _ := strings.Cut(head, "\n")
	status, err := parseStatusLine(strings.TrimSuffix(statusLine, "\r"))
	if err != nil {
		return nil, 0, err
	}
	h = &Head{Status: status, Header: make(http.Header, fields)}
	if err := h.readFields(rest, fields, true); err != nil {
		return nil, 0, err
	}
	return h, n, nil
}

// scanHead looks for the empty line that ends a head and checks the lines
// before it. It returns the head's length and number of fields, or 0 when
// there is no empty line yet.
func scanHead(buf []byte, atEOF, nph bool) (n, fields int, err error) {
	number := 0
	for n < len(buf) {
		length := bytes.IndexByte(buf[n:min(len(buf), MaxHead)], '\n')
		if length < 0 {
			break
		}
		line := bytes.TrimSuffix(buf[n:n+length], []byte{'\r'})
		n += length + 1
		number++
		switch {
		case nph && number == 1:
			// It is parsed when the head is complete; here only what can't
			// become one is refused, so that it is not waited for.
			if !bytes.HasPrefix(line, []byte("HTTP/1.")) {
				return 0, 0, badLine(number, line, "no HTTP/1.x status line, which a script with non-parsed headers begins with")
			}
			if i := indexControl(line); i >= 0 {
				return 0, 0, badLine(number, line, "control character %#02x", line[i])
			}
		case len(line) == 0 && fields == 0 && !nph:
			return 0, 0, malformed("no field before the empty line (the application printed an empty line first)")
		case len(line) == 0:
			return n, fields, nil
		case fields == MaxHeadFields:
			return 0, 0, malformed("more than %d fields", MaxHeadFields)
		default:
			if err := checkLine(number, line); err != nil {
				return 0, 0, err
			}
			fields++
		}
	}
	switch {
	case len(buf) >= MaxHead:
		return 0, 0, malformed("no empty line within %d bytes", MaxHead)
	case !atEOF:
		return 0, 0, nil
	case len(buf) == 0:
		return 0, 0, malformed("the application ended without an answer")
	case n < len(buf):
		return 0, 0, badLine(number+1, buf[n:], "the application ended within its head")
	}
	return 0, 0, malformed("the application ended without the empty line that ends the head")
}

// checkLine says what is wrong with a field line.
func checkLine(number int, line []byte) error {
	colon := bytes.IndexByte(line, ':')
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return badLine(number, line, "folded onto the line before, or indented")
	case colon < 0:
		return badLine(number, line, "no colon%s", guess(number, line))
	case colon == 0:
		return badLine(number, line, "no field name")
	case line[colon-1] == ' ' || line[colon-1] == '\t':
		return badLine(number, line, "a space before the colon%s", guess(number, line))
	}
	for _, c := range line[:colon] {
		if !tokenBytes[c] {
			return badLine(number, line, "%q in a field name%s", c, guess(number, line))
		}
	}
	if i := indexControl(line[colon+1:]); i >= 0 {
		return badLine(number, line, "control character %#02x", line[colon+1+i])
	}
	return nil
}

// indexControl returns where a control character is, -1 when there is none.
// CR, LF and NUL would let an application that echoes what it was sent write
// fields of its own; the others net/http would write in HTTP/1 and silently
// leave out in HTTP/2.
func indexControl(value []byte) int {
	for i, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

// readFields fills h from the field lines of a head that scanHead accepted.
func (h *Head) readFields(head string, fields int, nph bool) error {
	// One array holds the values of all fields that come once.
	values := make([]string, 0, fields)
	for range fields {
		var line string
		line, head, _ = strings.Cut(head, "\n")
		name, value, _ := strings.Cut(line, ":")
		name = textproto.CanonicalMIMEHeaderKey(name)
		value = strings.Trim(value, " \t\r")
		switch name {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade":
			continue
		case "Transfer-Encoding":
			if nph && !strings.EqualFold(value, "identity") {
				return malformed("Transfer-Encoding %s from a script with non-parsed headers; print the body as it is", quote(value))
			}
			continue
		case "Status":
			if nph {
				continue
			}
			if h.Status != 0 {
				return malformed("two Status fields")
			}
			status, ok := parseStatus(value)
			if !ok {
				return malformed("Status %s is none from 200 to 999, nor 103", quote(value))
			}
			h.Status = status
			continue
		case "Content-Length":
			if !isLength(value) {
				return malformed("Content-Length %s is no number", quote(value))
			}
			fallthrough
		case "Content-Type", "Location":
			if old, ok := h.Header[name]; ok {
				if old[0] != value {
					return malformed("two different %s fields", name)
				}
				continue
			}
		}
		if old, ok := h.Header[name]; ok {
			h.Header[name] = append(old, value)
			continue
		}
		values = append(values, value)
		// The capacity makes a second value move away from the shared array.
		h.Header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return nil
}

// parseStatus takes "404" and "404 Not Found", and the numbers of Head.Status.
func parseStatus(s string) (int, bool) {
	digits, _, _ := strings.Cut(s, " ")
	if len(digits) != 3 || !isDigits(digits) {
		return 0, false
	}
	status, _ := strconv.Atoi(digits)
	return status, status >= 200 || status == http.StatusEarlyHints || status == http.StatusSwitchingProtocols
}

// parseStatusLine takes "HTTP/1.1 404 Not Found".
func parseStatusLine(line string) (int, error) {
	version, rest, _ := strings.Cut(line, " ")
	status, ok := parseStatus(rest)
	if !ok || len(version) != len("HTTP/1.1") || !isDigits(version[len("HTTP/1."):]) {
		return 0, malformed("status line %s has no final status", quote(line))
	}
	return status, nil
}

// isLocal reports whether a Location is a path on this site: what RFC 3875
// calls local-Location. A fragment is for the client alone.
func isLocal(location string) bool {
	if location[0] != '/' {
		return false
	}
	for i := 0; i < len(location); i++ {
		if c := location[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

func isLength(s string) bool {
	if !isDigits(s) {
		return false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && n <= math.MaxInt64
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// tokenBytes says which bytes may stand in a field name (RFC 9110, section 5.6.2).
var tokenBytes = func() (table [256]bool) {
	for c := range table {
		table[c] = isAlnum(byte(c)) || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return table
}()

func badLine(number int, line []byte, format string, args ...any) error {
	return malformed("line %d, %s: %s", number, quote(string(line)), fmt.Sprintf(format, args...))
}

// guess names the mistake that a bad line usually comes from.
func guess(number int, line []byte) string {
	switch {
	case bytes.HasPrefix(line, []byte("HTTP/")):
		return " (a status line is for scripts whose name begins with nph-; others print a Status field)"
	case bytes.HasPrefix(line, []byte("Traceback ")):
		return " (a Python traceback; standard error is the place for it)"
	case number == 1:
		return " (the application printed text before its header)"
	}
	return " (is the empty line after the header missing?)"
}

func malformed(format string, args ...any) error {
	return &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("cgi: response head: "+format, args...)}
}

// quote shows at most the first 80 bytes of s, escaped.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return strconv.Quote(s)
}
