package cgi

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const testDate = "Date: Sat, 01 Nov 2025 10:00:00 GMT\r\n"

// answers are outputs that AppendAnswer takes, and some that it leaves alone.
var answers = []string{
	"Content-Type: text/plain\r\n\r\nhello", "Status: 404 Not Found\ncontent-type: text/html\n\n<p>", "Status: 200\r\nContent-Length: 3\r\n\r\nabc", "Content-Length: 03\n\nabc",
	"Set-Cookie: a=b\r\nset-cookie: c=d\r\nX-A: 1\r\nx-a: 2\r\n\r\n", "Connection: close\r\nTransfer-Encoding: chunked\r\nTe: x\r\nTrailer: x\r\nUpgrade: x\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nA: b\r\n\r\n",
	"Date: x\r\nServer: s\r\n\r\n", "Status: 299 x\n\nx", "A:\t b \t\n\n", "A: \xe4\n\n", "X_A: 1\n\n", "!: 1\n\n", "Status: 999\n\n",
	"Status: 103\n\n", "Status: 204\n\n", "Status: 304\n\n", "Location: /a\n\n", "X-Sendfile: /a\n\n", "Content-Length: 4\n\nabc", "Content-Type: a\nContent-Type: b\n\n", "Status: 99\n\n", "A : b\n\n", "", "\n", "a",
}

// checkAnswer compares what AppendAnswer makes of an output with what ParseHead reads.
func checkAnswer(t *testing.T, out []byte) (accepted bool) {
	t.Helper()
	response, a, ok := AppendAnswer([]byte("before"), out, testDate)
	if !ok {
		if string(response) != "before" || a.Status != 0 && a.Body != 0 {
			t.Fatalf("%q is left alone, but %q is there", out, response)
		}
		return false
	}
	h, n, err := ParseHead(out, true)
	if err != nil || h.LocalRedirect != "" {
		t.Fatalf("%q is taken; ParseHead says %+v, %v", out, h, err)
	}
	body := out[n:]
	want := maps.Clone(h.Header)
	if want["Date"] == nil {
		want["Date"] = []string{strings.TrimSpace(strings.TrimPrefix(testDate, "Date: "))}
	}
	if want["Content-Length"] == nil {
		want["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	r := bufio.NewReader(bytes.NewReader(response[len("before"):]))
	got, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("%q became %q: %v", out, response, err)
	}
	sent, err := io.ReadAll(got.Body)
	if err != nil || r.Buffered() > 0 || !bytes.Equal(sent, body) || a.Body != len(body) || got.StatusCode != h.Status || a.Status != h.Status || !maps.EqualFunc(got.Header, want, slices.Equal) {
		t.Fatalf("%q became %q (%+v, %v): status %d, want %d; %q, want %q", out, response, a, err, got.StatusCode, h.Status, got.Header, want)
	}
	return true
}

// TestAppendAnswer changes the outputs at random; SOAK=1 makes it three million.
func TestAppendAnswer(t *testing.T) {
	count, accepted := 30_000, 0
	if os.Getenv("SOAK") == "1" {
		count = 3_000_000
	}
	for _, out := range answers {
		checkAnswer(t, []byte(out))
	}
	g := rand.New(rand.NewPCG(1, 1))
	for range count {
		b := []byte(answers[g.IntN(len(answers))])
		for range g.IntN(4) {
			at := g.IntN(len(b) + 1)
			switch g.IntN(4) {
			case 0:
				line, _, _ := strings.Cut(answers[g.IntN(len(answers))], "\n")
				b = slices.Insert(b, at, []byte(line+"\n")...)
			case 1:
				b = slices.Insert(b, at, byte(g.IntN(256)))
			case 2:
				b = slices.Delete(b, at, min(len(b), at+1))
			case 3:
				if at < len(b) {
					b[at] ^= 1 << g.IntN(8)
				}
			}
		}
		if checkAnswer(t, b) {
			accepted++
		}
	}
	if accepted < count/10 {
		t.Errorf("only %d of %d outputs were taken", accepted, count)
	}
}

func FuzzAppendAnswer(f *testing.F) {
	for _, out := range answers {
		f.Add([]byte(out))
	}
	f.Fuzz(func(t *testing.T, out []byte) { checkAnswer(t, out) })
}

// TestPlainAllocations: between the client's head and the application's, and back,
// nothing is allocated.
func TestPlainAllocations(t *testing.T) {
	p := &Plain{Method: "POST", Target: "/app/form?a=b", Path: "/app/form", Query: "a=b", Host: "www.example:8080", Local: Endpoint{"127.0.0.1", "80"}, Remote: Endpoint{"127.0.0.1", "40000"},
		Fields: []Field{{"User-Agent", "curl/8"}, {"accept", "*/*"}, {"Cookie", "a=b"}, {"Authorization", "Bearer x"}, {"Content-Type", "text/plain"}}}
	target := &Target{ScriptName: "/app", PathInfo: "/form", Software: "gatecrew/1"}
	out := []byte("Status: 404 Not Found\r\nContent-Type: text/plain\r\nX-Own-Field: 1\r\n\r\nhello")
	pairs, response := make([]byte, 0, 4096), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := p.Clean(); err != nil {
			t.Fatal(err)
		}
		pairs = AppendPairs(pairs[:0], p, target, "id")
		var ok bool
		if response, _, ok = AppendAnswer(response[:0], out, testDate); !ok {
			t.Fatal("the answer is left alone")
		}
	}); n > 1 { // DOCUMENT_URI is put together
		t.Errorf("%v allocations, want 1", n)
	}
}
