package cgi

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// RequestError says that a request is refused before any application sees it.
// Its text is for the log; it quotes at most a short piece of the request.
type RequestError struct {
	// Status is the HTTP status that tells the client: 400 for what is wrong,
	// 431 for what is too large.
	Status int
	// Reason says what was wrong.
	Reason string
}

func (e *RequestError) Error() string { return "cgi: request: " + e.Reason }

func badRequest(format string, args ...any) error {
	return &RequestError{Status: http.StatusBadRequest, Reason: fmt.Sprintf(format, args...)}
}

// maxHost is the longest name that DNS can hold, written out (RFC 1035,
// section 2.3.4), with room for a port.
const maxHost = 255 + len(":65535")

// CheckRequest refuses, with a *RequestError, what parsers on the way to an
// application are known to read in different ways:
//
//   - a request-target with a space, a control character, a byte above 0x7e or
//     a fragment, none of which RFC 9112, section 3.2, allows;
//   - a target without a path (OPTIONS *, CONNECT), with user information, or
//     with a scheme but no host (RFC 9110, section 4.2.1);
//   - a path that holds NUL once it is decoded;
//   - a Host that is not a host name or address with an optional port;
//   - Content-Type given twice with different values.
//
// What net/http has refused already (two Host fields, differing
// Content-Length, bad field names and values) is not looked at again.
func CheckRequest(r *http.Request) error {
	for i := 0; i < len(r.RequestURI); i++ {
		if c := r.RequestURI[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return badRequest("target: byte %#02x at offset %d", c, i)
		}
	}
	if r.URL.User != nil {
		return badRequest("target: user information in a URL")
	}
	if r.URL.Scheme != "" && r.URL.Host == "" {
		return badRequest("target: a URL without a host")
	}
	// An absolute-form target may leave the path out, it then means "/".
	if !strings.HasPrefix(r.URL.Path, "/") && (r.URL.Path != "" || r.URL.Host == "" || r.Method == http.MethodConnect) {
		return badRequest("target: no path")
	}
	if strings.IndexByte(r.URL.Path, 0) >= 0 {
		return badRequest("path: NUL")
	}
	if err := checkHost(r.Host); err != nil {
		return err
	}
	if types := r.Header["Content-Type"]; len(types) > 1 {
		for _, t := range types[1:] {
			if t != types[0] {
				return badRequest("Content-Type: two different values")
			}
		}
	}
	return nil
}

// checkHost accepts an empty value (RFC 9112, section 3.2), and otherwise a
// DNS name, an IPv4 address or an IPv6 address in brackets, each with an
// optional port. Of a name's characters only letters, digits, "-", "_" and "."
// are taken: the rest of what RFC 3986 calls a reg-name names no host, but has
// a meaning in the URLs, mails and cache keys that applications make of it.
// Empty labels are refused for the same reason, ".." being one; a single dot
// at the end is the DNS root and stays.
func checkHost(hostport string) error {
	if hostport == "" {
		return nil
	}
	if len(hostport) > maxHost {
		return badRequest("Host: %d bytes long", len(hostport))
	}
	host, port := hostport, ""
	if host[0] == '[' {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return badRequest("Host: %q has no closing bracket", hostport)
		}
		host, port = host[1:end], host[end+1:]
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() || a.Zone() != "" {
			return badRequest("Host: %q is no IPv6 address", hostport)
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			host, port = host[:i], host[i:]
		}
		if !validName(host) {
			return badRequest("Host: %q is no host name", hostport)
		}
	}
	if port != "" && !validPort(port) {
		return badRequest("Host: %q has no valid port", hostport)
	}
	return nil
}

func validName(host string) bool {
	label := 0 // characters in the current label
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
		case isAlnum(c) || c == '-' || c == '_':
			label++
		default:
			return false
		}
	}
	return host != ""
}

// validPort takes a colon and a number below 65536. RFC 3986, section 3.2.3,
// allows the number to be left out.
func validPort(port string) bool {
	if port[0] != ':' || len(port) > len(":65535") {
		return false
	}
	n := 0
	for _, c := range []byte(port[1:]) {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
