package cgi

import (
	"slices"
	"strings"
	"testing"
)

// TestClass08IndexedQuery: RFC 3875, section 4.4, and CVE-2012-1823.
func TestClass08IndexedQuery(t *testing.T) {
	for query, want := range map[string][]string{
		"a": {"a"}, "a+b": {"a", "b"}, "a%20b+c": {"a b", "c"}, "a%2bb": {"a+b"}, "a%3db": {"a=b"}, "a++b": {"a", "", "b"}, "+": {"", ""},
		"$(id)+;ls+`x`+|+%0a": {"$(id)", ";ls", "`x`", "|", "\n"}, "caf%e9": {"caf\xe9"},
		"": nil, "a=b": nil, "a+b=c": nil, "=": nil, "a%00b": nil, "%00": nil, "a%zz": nil, "a%": nil,
		"-s": nil, "%2ds": nil, "a+-b": nil, "-d+allow_url_include%3d1": nil, "--": nil,
		strings.Repeat("a+", 1022) + "a": slices.Repeat([]string{"a"}, 1023), strings.Repeat("a+", 1024) + "a": nil,
	} {
		for method, indexed := range map[string]bool{"GET": true, "HEAD": true, "POST": false, "PUT": false} {
			want := want
			if !indexed {
				want = nil
			}
			if got := QueryArgs(method, query); !slices.Equal(got, want) {
				t.Errorf("%s ?%.40s: %q, want %q", method, query, got, want)
			}
		}
	}
}

func FuzzQueryArgs(f *testing.F) {
	for _, query := range []string{"a+b", "-s", "%2d", "a%00", "a=b", "%", "+++"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		args := QueryArgs("GET", query)
		if len(args) > maxArgs {
			t.Fatalf("%d arguments", len(args))
		}
		for _, arg := range args {
			if strings.HasPrefix(arg, "-") || strings.IndexByte(arg, 0) >= 0 {
				t.Fatalf("%q gives %q", query, args)
			}
		}
	})
}
