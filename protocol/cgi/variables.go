package cgi

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"

	"gatecrew/protocol"
)

// meta is what becomes of a request head, and its connection, in variables that
// stand in no header field.
type meta struct {
	proto, method, target, query string
	local, remote                Endpoint
	tls                          *tls.ConnectionState
	host                         string
	length                       string // of the body; "" leaves CONTENT_LENGTH out
	contentType                  string
	typed                        bool // there is a contentType, if an empty one
	trailers                     bool // the client takes fields behind the body
}

// Endpoint is one end of a client's connection, as applications are told. Host
// is an address without a zone; a local IPv6 one stands in brackets, as in a
// URL. The end of a Unix socket has neither.
type Endpoint struct{ Host, Port string }

// LocalEndpoint is the end that a server has. A nil address is a Unix socket's.
func LocalEndpoint(a net.Addr) Endpoint {
	// *net.TCPAddr and *net.UDPAddr (HTTP/3) have this method.
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		if ap := a.AddrPort(); ap.IsValid() {
			// One string holds all three: "[2001:db8::1]:80".
			s := netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()).String()
			colon := strings.LastIndexByte(s, ':')
			return Endpoint{s[:colon], s[colon+1:]}
		}
	}
	return Endpoint{}
}

// RemoteEndpoint is the client's end, from what http.Request.RemoteAddr has of it.
func RemoteEndpoint(addr string) Endpoint {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, ""
	}
	host, _, _ = strings.Cut(host, "%") // an IPv6 zone means nothing to others
	if _, err := netip.ParseAddr(host); err != nil {
		return Endpoint{}
	}
	return Endpoint{host, port}
}

// output collects variables: as a list or, with encoded, as name-value pairs.
type output struct {
	params  []protocol.Param
	pairs   []byte
	encoded bool
	extra   []protocol.Param // with encoded: what replaces variables of the same name
}

func (o *output) add(name, value string) {
	if !o.encoded {
		o.params = append(o.params, protocol.Param{Name: name, Value: value})
		return
	}
	for i := range o.extra {
		if o.extra[i].Name == name {
			return
		}
	}
	o.pairs = protocol.AppendPair(o.pairs, name, value)
}

// variables adds all that is not from a header field of its own.
func (o *output) variables(m *meta, t *Target) {
	o.add("GATEWAY_INTERFACE", "CGI/1.1")
	o.add("SERVER_SOFTWARE", orElse(t.Software, "gatecrew"))
	o.add("SERVER_PROTOCOL", m.proto)
	// php-cgi built with force-cgi-redirect runs nothing without it.
	o.add("REDIRECT_STATUS", "200")
	if t.DocumentRoot != "" {
		o.add("DOCUMENT_ROOT", t.DocumentRoot)
	}
	o.server(m, t)
	o.add("REQUEST_METHOD", m.method)
	o.add("REQUEST_URI", m.target)
	o.add("QUERY_STRING", m.query)
	o.add("SCRIPT_NAME", t.ScriptName)
	o.add("PATH_INFO", t.PathInfo)
	o.add("DOCUMENT_URI", t.ScriptName+t.PathInfo)
	if t.ScriptFilename != "" {
		o.add("SCRIPT_FILENAME", t.ScriptFilename)
	}
	if t.DocumentRoot != "" && t.PathInfo != "" {
		o.add("PATH_TRANSLATED", strings.TrimSuffix(t.DocumentRoot, "/")+t.PathInfo)
	}
	if t.AuthType != "" {
		o.add("AUTH_TYPE", t.AuthType)
	}
	if t.RemoteUser != "" {
		o.add("REMOTE_USER", t.RemoteUser)
	}
	// The client of a unix socket has no address: the variables that must be
	// there are empty, since any address would be believed by someone, 127.0.0.1
	// most of all.
	o.add("REMOTE_ADDR", m.remote.Host)
	// RFC 3875, section 4.1.9: the address, when the name was not looked up.
	o.add("REMOTE_HOST", m.remote.Host)
	if m.remote.Port != "" {
		o.add("REMOTE_PORT", m.remote.Port)
	}
	if m.length != "" {
		o.add("CONTENT_LENGTH", m.length)
	}
	if m.typed {
		o.add("CONTENT_TYPE", m.contentType)
	}
	if m.host != "" {
		o.add("HTTP_HOST", m.host)
	}
	if m.trailers {
		o.add("HTTP_TE", "trailers")
	}
}

// server says where the request came in. On a socket that has no address, a unix
// one, the port is the scheme's own.
func (o *output) server(m *meta, t *Target) {
	scheme, port := "http", "80"
	if m.tls != nil {
		scheme, port = "https", "443"
	}
	name := "localhost"
	if m.local.Host != "" {
		name, port = m.local.Host, m.local.Port
		o.add("SERVER_ADDR", strings.Trim(name, "[]"))
	}
	o.add("SERVER_NAME", orElse(t.ServerName, name))
	o.add("SERVER_PORT", port)
	o.add("REQUEST_SCHEME", scheme)
	if m.tls != nil {
		o.params = appendTLS(o.params, m.tls) // no plain request has it
	}
}
