package cgi

import (
	"bytes"
	"fmt"
	"net/textproto"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"gatecrew/protocol"
)

func TestParseTrailers(t *testing.T) {
	for in, want := range map[string][]protocol.Param{
		"":                             nil,
		"X-Sum: 1\r\n":                 {{Name: "X-Sum", Value: "1"}},
		"x-sum:1\nSERVER-timing: a ;b": {{Name: "X-Sum", Value: "1"}, {Name: "Server-Timing", Value: "a ;b"}},
		"A: 1\r\nA:\t2 \r\nA:\r\n":     {{Name: "A", Value: "1"}, {Name: "A", Value: "2"}, {Name: "A"}},
		"A: \xe4:b\n":                  {{Name: "A", Value: "\xe4:b"}},
		// What would change the message for one who merges them into its head.
		"Content-Length: 5\nTransfer-Encoding: chunked\nHost: x\nA: 1\nset-cookie: a=b\nIf-Match: x\nTrailer: A\n": {{Name: "A", Value: "1"}},
		strings.Repeat("A: 1\n", MaxHeadFields): slices.Repeat([]protocol.Param{{Name: "A", Value: "1"}}, MaxHeadFields),
	} {
		got, err := ParseTrailers([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%.60q: %v, %v; want %v", in, got, err, want)
		}
	}
	for in, text := range map[string]string{
		"A: 1\n\nB: 2\n":  "trailers: line 2 is empty",
		"\r\n":            "line 1 is empty",
		"no colon\n":      "line 1",
		"A: 1\nB : 2\n":   "line 2",
		"A: 1\n folded\n": "line 2",
		": 1\n":           "line 1",
		"A: \x00\n":       "line 1",
		"A: 1\r\r\n":      "line 1",
		"\xc3\xa4: 1\n":   "line 1",
		strings.Repeat("A: 1\n", MaxHeadFields+1): fmt.Sprintf("more than %d fields", MaxHeadFields),
	} {
		got, err := ParseTrailers([]byte(in))
		if got != nil || protocol.KindOf(err) != protocol.Malformed || !strings.Contains(err.Error(), text) {
			t.Errorf("%.60q: %v, %v; want an error with %q", in, got, err, text)
		}
	}
}

// FuzzParseTrailers: what is accepted can be sent, and is the same when it is
// read again.
func FuzzParseTrailers(f *testing.F) {
	for _, in := range []string{"", "A: 1\r\n", "A: 1", "a:1\nB-c:  2 \r\n", "Content-Length: 1\n", "A: 1\n 2\n", "A : 1\n", "A: \x00\n", "A: 1\n\nB: 2\n", "If-X: 1\n"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := ParseTrailers(in)
		if err != nil {
			if protocol.KindOf(err) != protocol.Malformed || got != nil {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		var again bytes.Buffer
		for _, p := range got {
			if !httpguts.ValidTrailerHeader(p.Name) || !httpguts.ValidHeaderFieldName(p.Name) || !httpguts.ValidHeaderFieldValue(p.Value) ||
				textproto.CanonicalMIMEHeaderKey(p.Name) != p.Name || strings.Trim(p.Value, " \t") != p.Value {
				t.Fatalf("%+q", p)
			}
			fmt.Fprintf(&again, "%s: %s\r\n", p.Name, p.Value)
		}
		if second, err := ParseTrailers(again.Bytes()); err != nil || !reflect.DeepEqual(second, got) {
			t.Fatalf("%v, %v; first %v", second, err, got)
		}
	})
}
