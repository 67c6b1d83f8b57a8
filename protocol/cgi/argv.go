package cgi

import (
	"net/http"
	"net/url"
	"strings"
)

// maxArgs is the most words that QueryArgs gives; a query of more is none that
// a person searched for.
const maxArgs = 1024

// QueryArgs returns the command-line arguments that an indexed query stands
// for (RFC 3875, section 4.4): the decoded words of "?a+b", in order. It is to
// be asked only where a site allows it.
//
// There are none for a method other than GET and HEAD, for a query with a "="
// that is not escaped, and, the section leaving it to the server to generate no
// command line at all, for a query with a broken escape, a NUL, more than 1,024
// words, or a word that begins with "-", which an interpreter could take for
// an option (CVE-2012-1823).
func QueryArgs(method, query string) []string {
	if query == "" || method != http.MethodGet && method != http.MethodHead ||
		strings.IndexByte(query, '=') >= 0 || strings.Count(query, "+") >= maxArgs {
		return nil
	}
	args := strings.Split(query, "+")
	for i, word := range args {
		arg, err := url.PathUnescape(word)
		if err != nil || strings.IndexByte(arg, 0) >= 0 || strings.HasPrefix(arg, "-") {
			return nil
		}
		args[i] = arg
	}
	return args
}
