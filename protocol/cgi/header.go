package cgi

import "net/http"

// fieldRule is what becomes of a request header field.
type fieldRule uint8

const (
	passField fieldRule = iota
	dropField
	credentialField // passed only with Target.PassAuthorization
)

type knownField struct {
	variable string // HTTP_NAME
	rule     fieldRule
}

// knownFields holds what nearly all requests carry, so that their names are
// converted once for the life of the process, and the fields with a rule of
// their own. It never changes, so no request can make it grow.
var knownFields = makeKnownFields()

func makeKnownFields() map[string]knownField {
	known := make(map[string]knownField)
	add := func(rule fieldRule, names ...string) {
		for _, name := range names {
			variable, ok := convertName(name)
			if !ok {
				panic("cgi: not a canonical field name: " + name)
			}
			known[name] = knownField{variable, rule}
		}
	}
	add(passField,
		"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Headers",
		"Access-Control-Request-Method", "Cache-Control", "Content-Encoding", "Content-Language",
		"Content-Range", "Cookie", "Date", "Depth", "Destination", "Dnt", "Expect", "Forwarded", "From",
		"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Last-Event-Id",
		"Origin", "Pragma", "Priority", "Range", "Referer", "Sec-Ch-Ua", "Sec-Ch-Ua-Mobile",
		"Sec-Ch-Ua-Platform", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User",
		"Sec-Gpc", "Traceparent", "Tracestate", "Upgrade-Insecure-Requests", "User-Agent", "Via",
		"X-Csrf-Token", "X-Csrftoken", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port",
		"X-Forwarded-Proto", "X-Real-Ip", "X-Request-Id", "X-Requested-With")
	add(credentialField, "Authorization", "Proxy-Authorization")
	add(dropField,
		// HTTP_PROXY is where many HTTP clients look for a proxy to send
		// their own requests through (httpoxy, CVE-2016-5385).
		"Proxy",
		// They have meta-variables of their own (RFC 3875, section 4.1.18).
		"Host", "Content-Length", "Content-Type",
		// They are about the client's connection (RFC 9110, section 7.6.1).
		// What else a Connection field names is passed: the gateway is
		// the end of that connection, and the client could otherwise hide
		// fields that a proxy before the gateway has set.
		"Connection", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade")
	return known
}

// fieldVariable returns the variable that a request header field is passed in,
// and false when it is not passed. Two different names never give the same
// variable.
func fieldVariable(name string, passAuthorization bool) (string, bool) {
	known, ok := knownFields[name]
	if !ok {
		return convertName(name)
	}
	return known.variable, known.rule == passField || known.rule == credentialField && passAuthorization
}

// convertName makes HTTP_X_REAL_IP from X-Real-Ip. Both "-" and "_" would
// become "_", so that a client could give a second value to a field that a
// proxy checked or set (CVE-2015-0219): only letters, digits and hyphens are
// taken. A name must also be in canonical form, as it always is in what
// net/http read; "x-a" beside "X-A" would be the same trick.
func convertName(name string) (string, bool) {
	if name == "" || http.CanonicalHeaderKey(name) != name {
		return "", false
	}
	b := make([]byte, 0, 64)
	b = append(b, "HTTP_"...)
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '-':
			b = append(b, '_')
		case 'a' <= c && c <= 'z':
			b = append(b, c-'a'+'A')
		case isAlnum(c):
			b = append(b, c)
		default:
			return "", false
		}
	}
	return string(b), true
}
