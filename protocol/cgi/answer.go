package cgi

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
)

// Answer is what AppendAnswer found in an application's output.
type Answer struct {
	Status int
	Body   int // bytes
}

// AppendAnswer makes an HTTP/1.1 response of the whole output of an application,
// a CGI response head and its body (RFC 3875, section 6), and appends it to
// dst. date is a Date field with its CRLF, for a head that has none.
//
// It knows the answers that need nothing but their bytes. Of all others it says
// false, with dst as it was: an interim response, a local redirect, a status
// without a body, a Content-Length that is not the body's, a file to be sent in
// place of the body, and what ParseHead refuses.
func AppendAnswer(dst, out []byte, date string) (response []byte, a Answer, ok bool) {
	n, fields, err := scanHead(out, true, false)
	if n == 0 || err != nil {
		return dst, a, false
	}
	head, body := out[:n], out[n:]
	status, ok := findStatus(head)
	if !ok || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified {
		return dst, a, false
	}
	b := AppendStatusLine(dst, status)
	sized, typed, dated := false, false, false
	for range fields {
		end := bytes.IndexByte(head, '\n')
		line := head[:end]
		head = head[end+1:]
		colon := bytes.IndexByte(line, ':')
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t\r")
		switch fieldKind(name) {
		case statusField, connectionField:
			continue
		case lengthField:
			if size, known := parseLength(value); sized || !known || size != len(body) {
				return dst, a, false
			}
			sized = true
		case typeField:
			if typed {
				return dst, a, false
			}
			typed = true
		case dateField:
			dated = true
		case locationField, fileField:
			return dst, a, false // rare, and there are rules for them
		}
		b = appendCanonical(b, name)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	if !dated {
		b = append(b, date...)
	}
	if !sized {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, body...), Answer{Status: status, Body: len(body)}, true
}

// answerField is what a response field means to AppendAnswer.
type answerField uint8

const (
	otherField answerField = iota
	statusField
	connectionField // the gateway's own
	lengthField
	typeField
	dateField
	locationField
	fileField // names a file to be sent in place of the body
)

// fieldKind sorts a field by its name; readFields has the same rules.
func fieldKind(name []byte) answerField {
	is := func(s string) bool { return strings.EqualFold(string(name), s) }
	switch name[0] | 0x20 {
	case 's':
		if is("Status") {
			return statusField
		}
	case 'c':
		switch {
		case is("Content-Length"):
			return lengthField
		case is("Content-Type"):
			return typeField
		case is("Connection"):
			return connectionField
		}
	case 'd':
		if is("Date") {
			return dateField
		}
	case 'l':
		if is("Location") {
			return locationField
		}
	case 'k':
		if is("Keep-Alive") {
			return connectionField
		}
	case 'p':
		if is("Proxy-Connection") {
			return connectionField
		}
	case 't':
		if is("Te") || is("Trailer") || is("Transfer-Encoding") {
			return connectionField
		}
	case 'u':
		if is("Upgrade") {
			return connectionField
		}
	case 'x':
		if is("X-Sendfile") || is("X-Accel-Redirect") {
			return fileField
		}
	}
	return otherField
}

// findStatus returns the status of a head that scanHead has accepted, 200 when it
// has no Status field. ok is false for one that ParseHead refuses.
func findStatus(head []byte) (status int, ok bool) {
	for len(head) > 2 { // what is left is more than the empty line
		end := bytes.IndexByte(head, '\n')
		line := head[:end]
		head = head[end+1:]
		colon := bytes.IndexByte(line, ':')
		if colon != len("Status") || fieldKind(line[:colon]) != statusField {
			continue
		}
		if status != 0 {
			return 0, false
		}
		if status, ok = parseStatus(string(bytes.Trim(line[colon+1:], " \t\r"))); !ok {
			return 0, false
		}
	}
	if status == 0 {
		status = http.StatusOK
	}
	return status, true
}

func parseLength(value []byte) (int, bool) {
	if len(value) == 0 || len(value) > 10 {
		return 0, false
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// AppendStatusLine appends the status line of an HTTP/1.1 response (RFC 9112,
// section 4), as net/http writes it.
func AppendStatusLine(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = append(b, "status code "...)
		b = strconv.AppendInt(b, int64(status), 10)
	}
	return append(b, "\r\n"...)
}

// appendCanonical writes a field name as textproto.CanonicalMIMEHeaderKey spells it.
func appendCanonical(b, name []byte) []byte {
	upper := true
	for _, c := range name {
		switch {
		case upper && 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case !upper && 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		b = append(b, c)
		upper = c == '-'
	}
	return b
}
