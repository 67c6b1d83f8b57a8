package cgi

import (
	"strings"
	"testing"
)

func TestCleanPath(t *testing.T) {
	for escaped, want := range map[string]string{
		"": "/", "/": "/", "/a": "/a", "/a/": "/a/", "//": "//", "/a//b": "/a//b", "//a": "//a",
		"/.": "/", "/./": "/", "/a/.": "/a/", "/a/./b": "/a/b", "/a/..": "/", "/a/../": "/", "/a/../b": "/b", "/a/b/../..": "/",
		"/a//../b": "/a/b", "/a/%2e": "/a/", "/a/%2E%2e/b": "/b", "/a/.%2e/b": "/b", "/%2e/a": "/a",
		"/...": "/...", "/.a": "/.a", "/a..": "/a..", "/..a": "/..a", "/..;/a": "/..;/a", `/..\a`: `/..\a`,
		"/a%20b": "/a b", "/a+b": "/a+b", "/%41": "/A", "/%2541": "/%41", "/%252e%252e/a": "/%2e%2e/a",
		"/a%2fb": "/a/b", "/AC%2FDC": "/AC/DC", "/%c4%b0": "/İ", "/İ": "/İ", "/a%0ab": "/a\nb", "/%ff": "/\xff",
	} {
		if got, err := CleanPath(escaped); err != nil || got != want {
			t.Errorf("CleanPath(%q) = %q, %v, want %q", escaped, got, err, want)
		}
	}
	for _, escaped := range []string{
		"a", "*", "%2fa", "/..", "/../", "/../a", "/a/../..", "/%2e%2e", "/.%2e/a", "/./..", "/a/../../b",
		"/%00", "/a/%00/..", "/a\x00", "/%", "/%2", "/%zz", "/a%2f..", "/..%2fa", "/..%2f..%2fetc", "/%2e%2e%2fa", "/a%2f.%2fb", "/.%2f",
	} {
		if got, err := CleanPath(escaped); statusOf(t, err) != 400 {
			t.Errorf("CleanPath(%q) = %q, %v, want 400", escaped, got, err)
		}
	}
}

// FuzzCleanPath: what comes out has no dot segment and no NUL, begins with a
// slash, and was decoded once.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"", "/", "/a/../b", "/%2e%2e/", "/a%2f..%2fb", "//", "/a//../..", "/%", "/İ/ẞ.php", "/a/.", "/%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		got, err := CleanPath(escaped)
		if err != nil {
			if statusOf(t, err) != 400 {
				t.Fatalf("%q: %v", escaped, err)
			}
			return
		}
		if !strings.HasPrefix(got, "/") || strings.IndexByte(got, 0) >= 0 {
			t.Fatalf("%q: %q", escaped, got)
		}
		for seg := range strings.SplitSeq(got, "/") {
			if seg == "." || seg == ".." {
				t.Fatalf("%q: %q has a dot segment", escaped, got)
			}
		}
		if segs, err := segments(escaped); err != nil || joinSegments(segs) != got {
			t.Fatalf("%q: %q, but segments %q, %v", escaped, got, segs, err)
		}
	})
}

func BenchmarkCleanPath(b *testing.B) {
	for _, escaped := range []string{"/shop/items/42", "/shop/a%20b/../c"} {
		b.Run(escaped, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CleanPath(escaped); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
