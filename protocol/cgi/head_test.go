package cgi

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"gatecrew/protocol"
)

func TestParseHead(t *testing.T) {
	type fields = http.Header
	for _, c := range []struct {
		name, in string
		want     Head
	}{
		{"document", "Content-Type: text/plain\r\n\r\n", Head{200, fields{"Content-Type": {"text/plain"}}, ""}},
		{"LF only", "Content-Type: text/plain\n\n", Head{200, fields{"Content-Type": {"text/plain"}}, ""}},
		{"LF and CRLF", "A: 1\nB: 2\r\n\n", Head{200, fields{"A": {"1"}, "B": {"2"}}, ""}},
		{"any case", "CONTENT-type: x\nstatus: 404 nope\n\n", Head{404, fields{"Content-Type": {"x"}}, ""}},
		{"no space after the colon, much after it", "A:1\nB: \t 2 \t\nC:\n\n", Head{200, fields{"A": {"1"}, "B": {"2"}, "C": {""}}, ""}},
		{"status without reason", "Status: 204\n\n", Head{204, fields{}, ""}},
		{"unassigned status", "Status: 999\n\n", Head{999, fields{}, ""}},
		{"no content type", "X-A: 1\n\n", Head{200, fields{"X-A": {"1"}}, ""}},
		{"cookies in order", "Set-Cookie: b\nSet-Cookie: a\nX: 1\nSet-Cookie: c\n\n", Head{200, fields{"Set-Cookie": {"b", "a", "c"}, "X": {"1"}}, ""}},
		{"bytes above 127", "X: caf\xe9 \xff\n\n", Head{200, fields{"X": {"caf\xe9 \xff"}}, ""}},
		{"tab in a value", "X: a\tb\n\n", Head{200, fields{"X": {"a\tb"}}, ""}},
		{"colons in a value", "X: a:b: c\n\n", Head{200, fields{"X": {"a:b: c"}}, ""}},
		{"every token character", "!#$%&'*+-.^_`|~0aZ: 1\n\n", Head{200, fields{http.CanonicalHeaderKey("!#$%&'*+-.^_`|~0aZ"): {"1"}}, ""}},
		{"length", "Content-Length: 12\nContent-Length: 12\n\n", Head{200, fields{"Content-Length": {"12"}}, ""}},
		{"same type twice", "Content-Type: a/b\nContent-Type: a/b\n\n", Head{200, fields{"Content-Type": {"a/b"}}, ""}},

		{"local redirect", "Location: /a?b\n\n", Head{302, fields{"Location": {"/a?b"}}, "/a?b"}},
		{"local redirect, two slashes", "Location: //a\r\n\r\n", Head{302, fields{"Location": {"//a"}}, "//a"}},
		{"path with a cookie", "Set-Cookie: a\nLocation: /a\n\n", Head{302, fields{"Location": {"/a"}, "Set-Cookie": {"a"}}, ""}},
		{"path with a type", "Content-Type: a/b\nLocation: /a\n\n", Head{302, fields{"Location": {"/a"}, "Content-Type": {"a/b"}}, ""}},
		{"path with a status", "Status: 303 See\nLocation: /a\n\n", Head{303, fields{"Location": {"/a"}}, ""}},
		{"path with a fragment", "Location: /a#b\n\n", Head{302, fields{"Location": {"/a#b"}}, ""}},
		{"path with a space", "Location: /a b\n\n", Head{302, fields{"Location": {"/a b"}}, ""}},
		{"client redirect", "Location: https://h/a#b\n\n", Head{302, fields{"Location": {"https://h/a#b"}}, ""}},
		{"relative reference", "Location: a\n\n", Head{302, fields{"Location": {"a"}}, ""}},
		{"client redirect with document", "Status: 301 Moved\nLocation: https://h/\nContent-Type: text/html\n\n",
			Head{301, fields{"Location": {"https://h/"}, "Content-Type": {"text/html"}}, ""}},
		{"early hints", "Status: 103 Early Hints\nLink: </a>\n\n", Head{103, fields{"Link": {"</a>"}}, ""}},
		{"early hints without a field", "Status: 103\n\n", Head{103, fields{}, ""}},
		{"early hints with a path", "Status: 103\nLocation: /a\n\n", Head{103, fields{"Location": {"/a"}}, ""}},
		{"switching protocols", "Status: 101\nUpgrade: websocket\nX: 1\n\n", Head{101, fields{"X": {"1"}}, ""}},
		{"created", "Status: 201\nLocation: /new\n\n", Head{201, fields{"Location": {"/new"}}, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := ParseHead([]byte(c.in+"the body\n\n"), false)
			if err != nil || n != len(c.in) || !reflect.DeepEqual(*h, c.want) {
				t.Fatalf("%+v, %d, %v\nwant %+v, %d", h, n, err, c.want, len(c.in))
			}
			checkIncremental(t, []byte(c.in))
			// All values are in one array: one more must not fall into the next field's.
			for name := range h.Header {
				h.Header.Add(name, "added")
			}
			for name, values := range h.Header {
				if !reflect.DeepEqual(values, append(c.want.Header[name], "added")) {
					t.Errorf("%s is %q after Add", name, values)
				}
			}
		})
	}
}

// checkIncremental feeds a good head byte by byte: nothing is said before its
// last one.
func checkIncremental(t *testing.T, head []byte) {
	t.Helper()
	for i := range head {
		if h, n, err := ParseHead(head[:i], false); h != nil || n != 0 || err != nil {
			t.Fatalf("after %d of %d bytes: %+v, %d, %v", i, len(head), h, n, err)
		}
		if _, _, err := ParseHead(head[:i], true); protocol.KindOf(err) != protocol.Malformed {
			t.Fatalf("ended after %d of %d bytes: %v", i, len(head), err)
		}
	}
	if _, n, err := ParseHead(head, true); n != len(head) || err != nil {
		t.Fatalf("ended after the head: %d, %v", n, err)
	}
}

// TestClass28MalformedHeads: each is refused, as soon as it can be known, with
// words that help the one who wrote the script.
func TestClass28MalformedHeads(t *testing.T) {
	long := strings.Repeat("x", MaxHead)
	for _, c := range []struct{ name, in, text string }{
		{"text first", "Hello\nContent-Type: a/b\n\n", `line 1, "Hello": no colon (the application printed text before its header)`},
		{"HTML first", "<html><body>\n", "text before its header"},
		{"URL first", "see http://h/\n", `' ' in a field name (the application printed text`},
		{"text later", "Content-Type: a/b\nHello\n\n", `line 2, "Hello": no colon (is the empty line after the header missing?)`},
		{"traceback", "Traceback (most recent call last):\n  File \"x\"\n", "a Python traceback"},
		{"source", "#!/bin/sh\necho\n", "text before its header"},
		{"status line", "HTTP/1.1 200 OK\nA: 1\n\n", "nph-"},
		{"status line with a colon", "HTTP/1.1 200 OK: x\nA: 1\n\n", "nph-"},
		{"long line without a colon", strings.Repeat("x", 5000) + "\n", "no colon"},
		{"empty line first", "\nA: 1\n\n", "no field before the empty line"},
		{"CRLF first", "\r\nA: 1\n\n", "no field before the empty line"},
		{"folded", "A: 1\n 2\n\n", `line 2, " 2": folded`},
		{"folded with a tab", "A: 1\n\t2\n\n", "folded"},
		{"indented", " A: 1\n\n", "indented"},
		{"blanks only", "A: 1\n  \n\n", "folded"},
		{"space before the colon", "A : 1\n\n", "a space before the colon"},
		{"tab before the colon", "A\t: 1\n\n", "a space before the colon"},
		{"no name", ": 1\n\n", "no field name"},
		{"space in the name", "A B: 1\n\n", `' ' in a field name`},
		{"bracket in the name", "A[]: 1\n\n", `'[' in a field name`},
		{"byte above 127 in the name", "A\xe9: 1\n\n", "in a field name"},
		{"NUL in the name", "A\x00: 1\n\n", `'\x00' in a field name`},
		{"NUL in a value", "A: \x00\n\n", "control character 0x00"},
		{"CR in a value", "A: 1\rB: 2\n\n", "control character 0x0d"},
		{"two CR", "A: 1\r\r\n\r\n", "control character 0x0d"},
		{"escape in a value", "A: \x1b[1m\n\n", "control character 0x1b"},
		{"DEL in a value", "A: \x7f\n\n", "control character 0x7f"},
		{"CR in the name", "A\r: 1\n\n", "in a field name"},
		{"status 099", "Status: 099\n\n", `Status "099"`},
		{"status 99", "Status: 99\n\n", `Status "99"`},
		{"status abc", "Status: abc\n\n", `Status "abc"`},
		{"status 1000", "Status: 1000 OK\n\n", `Status "1000 OK"`},
		{"status 0", "Status: 0\n\n", `Status "0"`},
		{"status -200", "Status: -200\n\n", `Status "-200"`},
		{"status +20", "Status: +20\n\n", `Status "+20"`},
		{"status 200OK", "Status: 200OK\n\n", `Status "200OK"`},
		{"status with version", "Status: HTTP/1.1 200\n\n", `Status "HTTP/1.1 200"`},
		{"status empty", "Status:\n\n", `Status ""`},
		{"status 100", "Status: 100 Continue\n\n", `Status "100 Continue"`},
		{"status 102", "Status: 102\n\n", `Status "102"`},
		{"status 104", "Status: 104\n\n", `Status "104"`},
		{"status in other digits", "Status: ２００\n\n", "Status"},
		{"two statuses", "Status: 200\nA: 1\nStatus: 200\n\n", "two Status fields"},
		{"two locations", "Location: /a\nLocation: /b\n\n", "two different Location fields"},
		{"location empty", "Location:\n\n", "Location is empty"},
		{"two types", "Content-Type: a/b\nContent-Type: c/d\n\n", "two different Content-Type fields"},
		{"two lengths", "Content-Length: 1\nContent-Length: 2\n\n", "two different Content-Length fields"},
		{"length as a list", "Content-Length: 1, 1\n\n", `Content-Length "1, 1"`},
		{"length negative", "Content-Length: -1\n\n", `Content-Length "-1"`},
		{"length with a sign", "Content-Length: +1\n\n", `Content-Length "+1"`},
		{"length hexadecimal", "Content-Length: 0x10\n\n", `Content-Length "0x10"`},
		{"length too large", "Content-Length: 9223372036854775808\n\n", `Content-Length "92233`},
		{"length empty", "Content-Length:\n\n", `Content-Length ""`},
		{"too many fields", strings.Repeat("A: 1\n", MaxHeadFields+1) + "\n", "more than 1000 fields"},
		{"one large field", "A: " + long, "within 65536 bytes"},
		{"large by many fields", strings.Repeat("A: "+strings.Repeat("x", 97)+"\n", 656) + "\n", "within 65536 bytes"},
		{"no line at all", long, "within 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := ParseHead([]byte(c.in), false)
			if h != nil || n != 0 || protocol.KindOf(err) != protocol.Malformed || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%+v, %d, %v; want an error with %q", h, n, err, c.text)
			}
			if len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x00\r\n\x1b") {
				t.Errorf("unfit for a log: %q", err)
			}
		})
	}
	for in, text := range map[string]string{
		"": "ended without an answer", "A: 1\n": "without the empty line", "A: 1\r\n\r": "within its head", "A: 1": "within its head", "Hello": "within its head",
	} {
		if h, n, err := ParseHead([]byte(in), true); h != nil || n != 0 || protocol.KindOf(err) != protocol.Malformed || !strings.Contains(err.Error(), text) {
			t.Errorf("ended after %q: %+v, %d, %v; want an error with %q", in, h, n, err, text)
		}
	}
}

// TestHeadLimits: the largest head that is allowed, with a body behind it.
func TestHeadLimits(t *testing.T) {
	head := []byte("A: " + strings.Repeat("x", MaxHead-len("A: \n\n")) + "\n\n")
	body := bytes.Repeat([]byte("b"), 2*MaxHead)
	if _, n, err := ParseHead(append(head, body...), false); n != MaxHead || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	crlf := append(head[:MaxHead-1:MaxHead-1], "\r\n"...)
	head = append([]byte("A"), head...)
	for _, buf := range [][]byte{head, append(head, body...), crlf} {
		if _, n, err := ParseHead(buf, false); n != 0 || protocol.KindOf(err) != protocol.Malformed {
			t.Errorf("one byte more, %d in all: %d, %v", len(buf), n, err)
		}
	}
	fields := []byte(strings.Repeat("A: 1\n", MaxHeadFields) + "\n")
	if h, n, err := ParseHead(fields, false); n != len(fields) || err != nil || len(h.Header["A"]) != MaxHeadFields {
		t.Errorf("%d fields: %d, %v", MaxHeadFields, n, err)
	}
}

// TestClass29ResponseSplitting: what an application echoes stays in its field
// or the answer is refused, also when it is written as HTTP.
func TestClass29ResponseSplitting(t *testing.T) {
	for _, echoed := range []string{"\r", "\x00", "\x0b", "\x85", "\u2028", "%0d%0a", "\\r\\n", "\r\r\n x", "嘊嘍"} {
		h, _, err := ParseHead([]byte("X-Echo: a"+echoed+"Set-Cookie: evil=1\n\n"), true)
		if err != nil {
			if protocol.KindOf(err) != protocol.Malformed {
				t.Errorf("%q: %v", echoed, err)
			}
			continue
		}
		rec := httptest.NewRecorder()
		for name, values := range h.Header {
			rec.Header()[name] = values
		}
		rec.WriteHeader(h.Status)
		if res := rec.Result(); len(res.Cookies()) > 0 || len(h.Header) != 1 {
			t.Errorf("%q became fields %q", echoed, h.Header)
		}
	}
}

// TestClass30ConnectionFields: the gateway owns the framing.
func TestClass30ConnectionFields(t *testing.T) {
	in := "Content-Length: 5\nX: 1\n"
	for _, f := range []string{
		"Connection: keep-alive, X", "Keep-Alive: 1", "Transfer-Encoding: chunked", "Upgrade: websocket", "Proxy-Connection: close",
		"TE: trailers", "Trailer: X-Sum", "connection: close", "TRANSFER-ENCODING: gzip",
	} {
		in += f + "\n"
	}
	h, _, err := ParseHead([]byte(in+"\n"), false)
	want := http.Header{"Content-Length": {"5"}, "X": {"1"}}
	if err != nil || !reflect.DeepEqual(h.Header, want) {
		t.Errorf("%v, %v; want %v", h, err, want)
	}
}

func TestParseNPHHead(t *testing.T) {
	type fields = http.Header
	for _, c := range []struct {
		name, in string
		want     Head
	}{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n", Head{200, fields{"Content-Type": {"a/b"}}, ""}},
		{"no reason, no fields", "HTTP/1.0 404\n\n", Head{404, fields{}, ""}},
		{"empty reason", "HTTP/1.1 404 \n\n", Head{404, fields{}, ""}},
		{"location", "HTTP/1.1 200 OK\nLocation: /a\n\n", Head{200, fields{"Location": {"/a"}}, ""}},
		{"status field", "HTTP/1.1 200 OK\nStatus: 404\n\n", Head{200, fields{}, ""}},
		{"early hints", "HTTP/1.1 103 Early Hints\nLink: </a>\n\n", Head{103, fields{"Link": {"</a>"}}, ""}},
		{"connection fields", "HTTP/1.1 200 OK\nConnection: close\nTransfer-Encoding: identity\nA: 1\n\n", Head{200, fields{"A": {"1"}}, ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, n, err := ParseNPHHead([]byte(c.in+"body"), false)
			if err != nil || n != len(c.in) || !reflect.DeepEqual(*h, c.want) {
				t.Fatalf("%+v, %d, %v\nwant %+v, %d", h, n, err, c.want, len(c.in))
			}
			for i := range c.in {
				if h, n, err := ParseNPHHead([]byte(c.in[:i]), false); h != nil || n != 0 || err != nil {
					t.Fatalf("after %d bytes: %+v, %d, %v", i, h, n, err)
				}
			}
		})
	}
	for in, text := range map[string]string{
		"Content-Type: a/b\n":  "no HTTP/1.x status line",
		"\n":                   "no HTTP/1.x status line",
		"HTTP/2 200\nA: 1\n\n": "no HTTP/1.x status line",
		"HTTP/1.1\n\n":         "no final status",
		"HTTP/1. 200\n\n":      "no final status",
		"HTTP/1.x 200\n\n":     "no final status",
		"HTTP/1.1 099 x\n\n":   "no final status",
		"HTTP/1.1 2000\n\n":    "no final status",
		"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\n":      "no final status",
		"HTTP/1.1 200 O\rK\n\n":                             "control character 0x0d",
		"HTTP/1.1 200 OK\nHello\n\n":                        "line 2",
		"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n":   "print the body as it is",
		"HTTP/1.1 200 OK\nContent-Length: 1, 1\n\n":         "Content-Length",
		"HTTP/1.1 200 OK\nA: " + strings.Repeat("x", 1<<16): "within 65536 bytes",
	} {
		if h, n, err := ParseNPHHead([]byte(in), false); h != nil || n != 0 || protocol.KindOf(err) != protocol.Malformed || !strings.Contains(err.Error(), text) {
			t.Errorf("%.60q: %+v, %d, %v; want an error with %q", in, h, n, err, text)
		}
	}
	for _, in := range []string{"", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\n", "HTTP/1.1 200 OK\nA: 1\n"} {
		if _, _, err := ParseNPHHead([]byte(in), true); protocol.KindOf(err) != protocol.Malformed {
			t.Errorf("ended after %q: %v", in, err)
		}
	}
}

// FuzzParseHead: what is accepted can be sent as HTTP, and how the bytes
// arrived makes no difference.
func FuzzParseHead(f *testing.F) {
	for _, in := range []string{
		"", "Content-Type: text/plain\n\nbody", "Status: 404 x\r\nA: 1\r\n\r\n", "Location: /a\n\n", "HTTP/1.1 200 OK\nA: 1\n\n", "Status: 099\n\n",
		"A: 1\n 2\n\n", "A : 1\n\n", "\n", "A: \x00\n\n", "Content-Length: 1\nContent-Length: 1\n\n", "Set-Cookie: a\nset-cookie: b\n\n", "A: 1\r\r\n",
	} {
		f.Add([]byte(in), len(in)/2)
	}
	f.Fuzz(func(t *testing.T, buf []byte, cut int) {
		for name, parse := range map[string]func([]byte, bool) (*Head, int, error){"ParseHead": ParseHead, "ParseNPHHead": ParseNPHHead} {
			h, n, err := parse(buf, true)
			if err != nil {
				if protocol.KindOf(err) != protocol.Malformed || h != nil || n != 0 {
					t.Fatalf("%s: %+v, %d, %v", name, h, n, err)
				}
			} else {
				checkHead(t, h, n, buf)
			}
			if cut < 0 || cut > len(buf) {
				continue
			}
			// A part of the output says the same as all of it, or nothing yet.
			early, m, earlyErr := parse(buf[:cut], false)
			switch {
			case earlyErr != nil && err == nil:
				t.Fatalf("%s: %v after %d bytes, but all of it is fine", name, earlyErr, cut)
			case m > 0 && (m != n || !reflect.DeepEqual(early, h)):
				t.Fatalf("%s: %+v after %d bytes, %+v after all", name, early, cut, h)
			case m == 0 && earlyErr == nil && err == nil && cut >= n:
				t.Fatalf("%s: nothing after %d bytes, the head has %d", name, cut, n)
			}
		}
	})
}

func checkHead(t *testing.T, h *Head, n int, buf []byte) {
	t.Helper()
	if n <= 0 || n > len(buf) || n > MaxHead || buf[n-1] != '\n' || h.Status < 200 && h.Status != 101 && h.Status != 103 || h.Status > 999 {
		t.Fatalf("%d of %d bytes: %+v", n, len(buf), h)
	}
	for name, values := range h.Header {
		switch name {
		case "", "Status", "Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Trailer", "Te", "Proxy-Connection":
			t.Fatalf("%q is among the fields", name)
		}
		if http.CanonicalHeaderKey(name) != name || strings.ContainsAny(name, " :\r\n\x00") {
			t.Fatalf("name %q", name)
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") || strings.TrimSpace(v) != v && strings.Trim(v, " \t") != v {
				t.Fatalf("value %q", v)
			}
		}
	}
	if h.LocalRedirect != "" && (h.LocalRedirect[0] != '/' || h.LocalRedirect != h.Header.Get("Location")) {
		t.Fatalf("local redirect %q, %q", h.LocalRedirect, h.Header)
	}
}

const typicalHead = "X-Powered-By: PHP/8.2\r\nContent-type: text/html; charset=UTF-8\r\nSet-Cookie: a=1\r\nCache-Control: no-store\r\n\r\n"

// TestParseHeadAllocations: the head, its text, its map (with the table) and
// the array of values; nothing for each line.
func TestParseHeadAllocations(t *testing.T) {
	few, many := []byte(typicalHead), []byte(strings.Repeat("Set-Cookie: a=1\n", 100)+"\n")
	if n := testing.AllocsPerRun(100, func() { ParseHead(few, false) }); n > 5 {
		t.Errorf("%v allocations for a typical head, want at most 5", n)
	}
	if n := testing.AllocsPerRun(100, func() { ParseHead(many, false) }); n > 20 {
		t.Errorf("%v allocations for 100 fields of one name", n)
	}
}

func BenchmarkParseHead(b *testing.B) {
	for name, in := range map[string]string{"typical": typicalHead, "smallest": "Content-Type: text/plain\n\n"} {
		b.Run(name, func(b *testing.B) {
			buf := []byte(in)
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if _, n, err := ParseHead(buf, false); n == 0 || err != nil {
					b.Fatal(fmt.Sprint(n, err))
				}
			}
		})
	}
}
