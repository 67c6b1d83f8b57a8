package cgi

import (
	"net/http"
	"strconv"
	"strings"

	"gatecrew/protocol"
)

// Plain is the head of a request of HTTP/1.1 about which no two parsers can
// differ: its target is a path of ordinary characters, each field stands in
// it once, and none is about the connection, but for a Content-Length.
// gateway/http1 reads such heads, and leaves all others to net/http.
type Plain struct {
	// Method is one of RFC 9110 but CONNECT and TRACE, or PATCH.
	Method string
	// Target is as the client wrote it; Path and Query are its parts before
	// and behind the first "?".
	Target, Path, Query string
	// Host is the Host field. It is not checked, see Clean.
	Host string
	// ContentLength is the length of the body in bytes; 0 with HasLength is
	// an empty body, and without it there is none.
	ContentLength int
	HasLength     bool
	// Fields are all fields but Host, in their order, with their names as
	// the client wrote them.
	Fields []Field
	// Local and Remote are the ends of the connection.
	Local, Remote Endpoint
}

// Field is a header field. Value has no white space around it.
type Field struct{ Name, Value string }

// Get returns the value of the field with a name, "" when there is none.
func (p *Plain) Get(name string) string {
	for i := range p.Fields {
		if f := &p.Fields[i]; len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Clean checks what CheckRequest does beyond the rules of Plain, and returns the
// path as CleanPath does. The error is CheckRequest's or CleanPath's.
func (p *Plain) Clean() (path string, err error) {
	if err := checkHost(p.Host); err != nil {
		return "", err
	}
	return CleanPath(p.Path)
}

// AppendPairs appends the meta-variables that AppendParams makes of the same
// request, and UNIQUE_ID with id unless t sets it, as name-value pairs of FastCGI.
func AppendPairs(dst []byte, p *Plain, t *Target, id string) []byte {
	o := output{pairs: dst, encoded: true, extra: t.Extra}
	m := meta{proto: "HTTP/1.1", method: p.Method, target: p.Target, query: p.Query, local: p.Local, remote: p.Remote, host: p.Host}
	if p.HasLength {
		m.length = strconv.Itoa(p.ContentLength)
	}
	for i := range p.Fields {
		f := &p.Fields[i]
		if len(f.Name) == len("Content-Type") && strings.EqualFold(f.Name, "Content-Type") {
			m.contentType, m.typed = f.Value, true
		}
	}
	o.variables(&m, t)
	for i := range p.Fields {
		f := &p.Fields[i]
		if variable, ok := plainVariable(f.Name, t.PassAuthorization); ok {
			o.add(variable, f.Value)
		}
	}
	named := false
	for _, e := range t.Extra {
		if e.Name == "UNIQUE_ID" { // Apache's name; a site may set its own
			if e.Value == "" {
				continue
			}
			named = true
		}
		o.pairs = protocol.AppendPair(o.pairs, e.Name, e.Value)
	}
	if !named {
		o.pairs = protocol.AppendPair(o.pairs, "UNIQUE_ID", id)
	}
	return o.pairs
}

// spelledFields are the known fields by the two spellings that clients use: the
// canonical one, and that of HTTP/2.
var spelledFields = func() map[string]knownField {
	spelled := make(map[string]knownField, 2*len(knownFields))
	for name, known := range knownFields {
		spelled[name] = known
		spelled[strings.ToLower(name)] = known
	}
	return spelled
}()

// plainVariable is fieldVariable for a name in any spelling.
func plainVariable(name string, passAuthorization bool) (string, bool) {
	if known, ok := spelledFields[name]; ok {
		return known.variable, known.rule == passField || known.rule == credentialField && passAuthorization
	}
	return fieldVariable(http.CanonicalHeaderKey(name), passAuthorization)
}
