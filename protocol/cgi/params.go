package cgi

import (
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gatecrew/protocol"
)

// Target is where a request was routed, and all that the site says about it.
// Nothing in it may come from the request's header.
type Target struct {
	// ScriptName and PathInfo are the decoded path of the request, split
	// where the script's name ends (RFC 3875, sections 4.1.13 and 4.1.5).
	// Put together they are what CleanPath returned, save that ScriptName
	// has a directory's index script behind the path.
	ScriptName, PathInfo string
	// ScriptFilename is the script's absolute path, DocumentRoot the
	// directory that the site's URLs stand for. "" leaves the variable out,
	// and DocumentRoot also leaves out PATH_TRANSLATED.
	ScriptFilename, DocumentRoot string
	// ServerName is the site's own name; "" is the address of the socket
	// that the request came in on. The Host field is never used: HTTP_HOST
	// has it.
	ServerName string
	// Software is the name and version of the gateway, "gatecrew/1.2"; ""
	// is "gatecrew".
	Software string
	// PassAuthorization gives HTTP_AUTHORIZATION and HTTP_PROXY_AUTHORIZATION
	// to the application, for one that checks passwords itself. Every other
	// one should not see them (RFC 3875, section 4.1.18).
	PassAuthorization bool
	// AuthType and RemoteUser are from the gateway's own authentication; ""
	// when there was none.
	AuthType, RemoteUser string
	// Extra are variables from the site's configuration. They replace
	// computed ones of the same name. See CheckName.
	Extra []protocol.Param
}

// baseParams is how many variables AppendParams sets beside those from header
// fields and the configuration, at most and without a client certificate.
const baseParams = 31

// clientCertParams is how many a client certificate adds, its names apart.
const clientCertParams = 10

// AppendParams appends the meta-variables for r (RFC 3875, section 4.1, and
// those that applications expect beside them) to dst. Each name is set once;
// a name that dst already holds is not looked for. What all requests to a
// server have in common comes first: whoever decodes many of them can tell by
// the first bytes. Those from header fields come last, in order of name.
//
// What a client sends can only reach variables that carry it by definition
// (REQUEST_*, QUERY_STRING, CONTENT_*, and HTTP_*): the server's and the
// client's address, the scheme and the user are from the socket and from t.
// Header fields whose name has anything but letters, digits and hyphens are
// left out, and so are Proxy, the fields about the connection and, unless t
// allows them, credentials. A field given more than once is joined with ", ",
// Cookie with "; ".
//
// PATH_INFO and QUERY_STRING are always set, if to "". CONTENT_LENGTH is set
// when r has a body of known length; whoever replaces a body of unknown length
// with a spooled one sets r.ContentLength.
//
// It doesn't check r, see CheckRequest.
func AppendParams(dst []protocol.Param, r *http.Request, t *Target) []protocol.Param {
	size := baseParams + len(r.Header) + len(t.Extra)
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		size += clientCertParams
	}
	start := len(dst)
	o := output{params: slices.Grow(dst, size)}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	m := meta{
		proto: r.Proto, method: orElse(r.Method, http.MethodGet), target: originForm(r), query: r.URL.RawQuery,
		local: LocalEndpoint(local), remote: RemoteEndpoint(r.RemoteAddr), tls: r.TLS,
		host: r.Host, trailers: acceptsTrailers(r),
	}
	// A length of zero says in r that there is no body, or that there is an
	// empty one; only the latter is shown (RFC 3875, section 4.1.2).
	if r.ContentLength > 0 || r.ContentLength == 0 && (len(r.Header["Content-Length"]) > 0 || len(r.TransferEncoding) > 0) {
		m.length = strconv.FormatInt(r.ContentLength, 10)
	}
	if types := r.Header["Content-Type"]; len(types) > 0 {
		m.contentType, m.typed = types[0], true
	}
	o.variables(&m, t)
	// In order of name: whoever compares two runs of a script is not to find
	// differences that are none.
	var room [24]string
	names := slices.AppendSeq(room[:0], maps.Keys(r.Header))
	slices.Sort(names)
	for _, name := range names {
		values := r.Header[name]
		if variable, ok := fieldVariable(name, t.PassAuthorization); ok && len(values) > 0 {
			o.add(variable, joinValues(name, values))
		}
	}
	return overrideParams(o.params, start, t.Extra)
}

// overrideParams sets the extra variables in dst[start:].
func overrideParams(dst []protocol.Param, start int, extra []protocol.Param) []protocol.Param {
	for _, e := range extra {
		i := slices.IndexFunc(dst[start:], func(p protocol.Param) bool { return p.Name == e.Name })
		if i < 0 {
			dst = append(dst, e)
		} else {
			dst[start+i].Value = e.Value
		}
	}
	return dst
}

// originForm returns the request-target as the client wrote it, without the
// scheme and authority that an absolute-form target has before its path.
func originForm(r *http.Request) string {
	uri := r.RequestURI
	if uri == "" { // a request that the gateway made
		return r.URL.RequestURI()
	}
	if uri[0] == '/' {
		return uri
	}
	_, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return uri
	}
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// acceptsTrailers reports whether the client takes fields behind the body. It is
// all that applications are told of TE: the transfer codings that it names are
// the connection's (RFC 9110, section 10.1.4).
func acceptsTrailers(r *http.Request) bool {
	for _, value := range r.Header["Te"] {
		for coding := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(coding, " \t"), "trailers") {
				return true
			}
		}
	}
	return false
}

func joinValues(name string, values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	if name == "Cookie" { // RFC 9113, section 8.2.3
		return strings.Join(values, "; ")
	}
	return strings.Join(values, ", ")
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
