package test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// An answer that has no body by its nature gets none, whatever the application
// sends behind its head, and the connection stays in step: each is followed by
// a request whose answer must parse and be its own.
func TestClass23BodiesWhereNoneBelong(t *testing.T) { harness.EachReader(t, testBodiesWhereNoneBelong) }

func testBodiesWhereNoneBelong(t *testing.T) {
	s := startRig(t, rigOptions{serve: serveRaw})
	type page struct {
		method, path string
		status       int
		length       string // Content-Length, "" for none, "*" for either
	}
	raw := func(method, head string, status int, length string) (pages []page) {
		answer := strings.NewReplacer(" ", "%20", "\n", "%0a").Replace("Content-Type: text/plain\n" + head + "\na body that must not be sent\n")
		for _, path := range []string{"/cgi/raw.py?", "/peer/raw?"} {
			pages = append(pages, page{method, path + answer, status, length})
		}
		return pages
	}
	var pages []page
	pages = append(pages, raw("GET", "Status: 204\n", 204, "")...)
	pages = append(pages, raw("GET", "Status: 204\nContent-Length: 29\n", 204, "")...)
	pages = append(pages, raw("POST", "Status: 204\n", 204, "")...)
	pages = append(pages, raw("GET", "Status: 304\n", 304, "*")...)
	pages = append(pages, raw("GET", "Status: 304\nContent-Length: 29\n", 304, "*")...)
	pages = append(pages, raw("HEAD", "", 200, "*")...)
	pages = append(pages, raw("HEAD", "Content-Length: 29\n", 200, "29")...)
	pages = append(pages, raw("HEAD", "Content-Length: 7000\n", 200, "7000")...)
	pages = append(pages, raw("HEAD", "Status: 404\n", 404, "*")...)
	pages = append(pages, raw("GET", "Status: 103\n", 502, "*")...) // an interim status is no answer
	pages = append(pages,
		page{"GET", "/pool/body-anyway?status=204+No+Content", 204, ""},
		page{"GET", "/pool/body-anyway?status=304+Not+Modified", 304, "*"},
		page{"HEAD", "/pool/token?x=abcdef", 200, "6"},
		page{"HEAD", "/pool/stream?n=100&chunk=1000", 200, "*"},
		page{"HEAD", "/php/stream.php?n=100&chunk=1000", 200, "*"},
		page{"GET", "/php/status.php?code=204", 204, ""},
		page{"GET", "/php/status.php?code=304", 304, "*"},
		page{"HEAD", "/cgi/drip.py?n=20&bytes=1000&delay=0", 200, "*"},
	)
	for round := range scaled(1, 20) {
		c := s.Dial()
		in := bufio.NewReader(c)
		var all strings.Builder // pipelined
		for i, p := range pages {
			fmt.Fprintf(&all, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", p.method, p.path)
			fmt.Fprintf(&all, "GET /pool/token?x=round%dpage%d HTTP/1.1\r\nHost: x\r\n\r\n", round, i)
		}
		go io.WriteString(c, all.String()) // a failure shows as a missing answer
		for i, p := range pages {
			what := p.method + " " + p.path
			r, err := http.ReadResponse(in, &http.Request{Method: p.method})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != p.status || r.Close {
				t.Fatalf("%s: status %d, closing: %v, %v", what, r.StatusCode, r.Close, err)
			}
			if p.status < 500 && len(body) > 0 || strings.Contains(string(body), "must not be sent") {
				t.Errorf("%s: body %q", what, body)
			}
			if got := r.Header.Get("Content-Length"); p.length != "*" && got != p.length {
				t.Errorf("%s: Content-Length %q, want %q", what, got, p.length)
			}
			r, err = http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("after %s: %v", what, err)
			}
			want := fmt.Sprintf("round%dpage%d", round, i)
			if body, err := io.ReadAll(r.Body); err != nil || string(body) != want {
				t.Fatalf("after %s: %q, %v", what, body, err)
			}
		}
		c.Close()
	}
}

// serveRaw answers with the query string, percent-decoded, head and all.
func serveRaw(c *peerConn) {
	for {
		r, ok := c.next()
		if !ok {
			return
		}
		answer := strings.NewReplacer("%20", " ", "%0a", "\n").Replace(r.Params["QUERY_STRING"])
		if !c.say(fcgiRecord(fcgiStdout, r.ID, answer, 0) + fcgiEnding(r.ID, 0, 0)) {
			return
		}
	}
}

// demandCut asks for a page whose application gives up after its head and body,
// with the length that its head declares, 0 for none. What arrives must be the
// beginning of the body, and its end an error.
func demandCut(t *testing.T, s *rig, path, body string, length int) {
	t.Helper()
	sent := len(body)
	protos := []string{"HTTP/1.1", "HTTP/1.0"}
	if length > 0 {
		protos = protos[:1] // the older one differs where the end of the connection is the end of the body
	}
	for _, proto := range protos {
		c := s.Dial()
		fmt.Fprintf(c, "GET %s %s\r\nHost: x\r\n\r\n", path, proto)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			// Broken off before the head left: nobody takes that for an answer.
			// One without a length has been sent on piece by piece.
			if sent > 0 && length == 0 && proto == "HTTP/1.1" {
				t.Errorf("%s %s: %v", proto, path, err)
			}
			c.Close()
			continue
		}
		got, err := io.ReadAll(r.Body)
		c.Close()
		switch {
		case r.StatusCode >= 500 && sent == 0:
			// The head was still with the application, or its first body
			// byte would have been (PEP 3333 wants it so): a plain failure.
		case r.StatusCode != 200:
			t.Errorf("%s %s: status %d after the head", proto, path, r.StatusCode)
		case err == nil:
			t.Errorf("%s %s: a clean end after %d bytes", proto, path, len(got))
		case !strings.HasPrefix(body, string(got)):
			t.Errorf("%s %s: bytes that the application did not send: %.100q", proto, path, got)
		case len(got) < len(body) && length == 0 && proto == "HTTP/1.1":
			t.Errorf("%s %s: %d bytes arrived of %d", proto, path, len(got), len(body))
		}
	}
}

// An answer shorter than its Content-Length never ends cleanly, and the log
// says why. The worker or connection behind it is of further use.
func TestClass24ShortBodies(t *testing.T) { harness.EachReader(t, testShortBodies) }

func testShortBodies(t *testing.T) {
	s := startRig(t, rigOptions{serve: serveRaw})
	for _, tt := range []struct{ path, letter string }{
		{"/cgi/die.py?length=100&sent=10", "b"},
		{"/peer/raw?Content-Length:%20100%0a%0ammmmmmmmmm", "m"},
		{"/pool/short", "s"},
		{"/php/stream.php?n=1&chunk=10&length=100", "s"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			for range 3 {
				demandCut(t, s, tt.path, strings.Repeat(tt.letter, 10), 100)
			}
		})
	}
	s.LogLine("response broken off")
	for range 10 {
		if r := s.Get("/pool/token?x=after"); r.Status != 200 || r.Body != "after" {
			t.Errorf("afterwards: %d %q", r.Status, r.Body)
		}
	}
}

// An answer longer than its Content-Length is cut there, and not a byte of the
// rest is found in what comes next on the connection.
func TestClass25LongBodies(t *testing.T) {
	t.Parallel()
	harness.EachReader(t, testLongBodies)
}

func testLongBodies(t *testing.T) {
	s := startRig(t, rigOptions{serve: serveRaw})
	c := s.Dial()
	in := bufio.NewReader(c)
	for i := range scaled(20, 500) {
		for path, want := range map[string]string{
			"/cgi/die.py?length=10&sent=100":                             "bbbbbbbbbb",
			"/cgi/die.py?length=10&sent=300000":                          "bbbbbbbbbb",
			"/cgi/die.py?length=0&sent=100":                              "",
			"/pool/long":                                                 "llllllllll",
			"/peer/raw?Content-Length:%205%0a%0ashortlong":               "short",
			"/php/stream.php?n=3&chunk=100000&length=10":                 "ssssssssss",
			"/pool/token?x=next":                                         "next",
			"/peer/raw?Content-Type:%20text/plain%0a%0a" + fmt.Sprint(i): fmt.Sprint(i),
		} {
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != 200 || string(body) != want {
				t.Fatalf("%s: %d %.100q, want %q, %v", path, r.StatusCode, body, want, err)
			}
			if r.Close { // allowed, but then for a reason that concerns this answer alone
				c = s.Dial()
				in = bufio.NewReader(c)
			}
		}
	}
	s.LogLine("longer than its Content-Length")
}

// cutPoints are the numbers of body bytes after which applications die.
var cutPoints = []int{0, 1, 100, 4095, 32768, 65535, 200_000}

// An application that dies in the middle of its answer breaks the answer off:
// what arrived is a beginning of it, nothing was added, and the client sees
// that it is not whole.
func TestClass26DeathInMidBody(t *testing.T) { harness.EachReader(t, testDeathInMidBody) }

func testDeathInMidBody(t *testing.T) {
	s := startRig(t, rigOptions{serve: serveAndDie})
	type page struct{ path, letter string }
	apps := [][]page{
		{{"/cgi/die.py?signal=9", "b"}, {"/cgi/die.py?signal=11", "b"}, {"/cgi/die.py?code=1", "b"}},
		// In turns: workers that only ever die are held back, and rightly so.
		{{"/pool/die-mid?x", "m"}, {"/pool/raise-mid?x", "m"}},
		{{"/php/die.php?x", "m"}},
		{{"/peer/die?x", "m"}},
	}
	inParallel(len(apps), len(apps), func(i int) error {
		for _, sent := range cutPoints {
			for _, p := range apps[i] {
				path, body := fmt.Sprintf("%s&sent=%d", p.path, sent), strings.Repeat(p.letter, sent)
				demandCut(t, s, path, body, 0)
				demandCut(t, s, fmt.Sprintf("%s&length=%d", path, sent+1000), body, sent+1000)
			}
		}
		return nil
	})
	s.LogLine("response broken off")
	s.worksAfterDeaths(t)
}

// serveAndDie sends ?sent= bytes of an answer and hangs up.
func serveAndDie(c *peerConn) {
	r, ok := c.next()
	if !ok {
		return
	}
	if r.Params["PATH_INFO"] != "/die" {
		c.say(fcgiPlain(r.ID, "abc"))
		return
	}
	query := "&" + r.Params["QUERY_STRING"] + "&"
	var sent, length int
	if i := strings.Index(query, "&sent="); i >= 0 {
		fmt.Sscanf(query[i:], "&sent=%d", &sent)
	}
	head := "Content-Type: text/plain\n"
	if i := strings.Index(query, "&length="); i >= 0 {
		fmt.Sscanf(query[i:], "&length=%d", &length)
		head += fmt.Sprintf("Content-Length: %d\n", length)
	}
	c.say(fcgiRecord(fcgiStdout, r.ID, head+"\n", 0))
	for n := 0; sent > 0; sent -= n {
		n = min(sent, 8000)
		c.say(fcgiRecord(fcgiStdout, r.ID, strings.Repeat("m", n), 0))
	}
}

// worksAfterDeaths is worksEverywhere where the peer answers otherwise.
func (s *rig) worksAfterDeaths(t *testing.T) {
	t.Helper()
	s.worksEverywhere(t)
	if zombies := harness.Zombies(s.PID); len(zombies) > 0 {
		harness.Eventually(t, 5*time.Second, "no zombies", func() bool { return len(harness.Zombies(s.PID)) == 0 })
	}
}

// An application that dies before its head is a 502, which is no part of any
// other answer. An idempotent request is tried once more, a POST is not.
func TestClass27DeathBeforeTheHead(t *testing.T) { harness.EachReader(t, testDeathBeforeTheHead) }

func testDeathBeforeTheHead(t *testing.T) {
	var asked = map[string]int{}
	s := startRig(t, rigOptions{serve: func(c *peerConn) {
		for {
			r, ok := c.next()
			if !ok {
				return
			}
			c.peer.mu.Lock()
			asked[r.Params["REQUEST_METHOD"]+r.Params["QUERY_STRING"]]++
			c.peer.mu.Unlock()
			switch r.Params["PATH_INFO"] {
			case "/die":
				return
			case "/half":
				c.say(fcgiRecord(fcgiStdout, r.ID, "Content-Type: te", 0))
				return
			case "/stderr":
				c.say(fcgiRecord(fcgiStderr, r.ID, "about to die\n", 0))
				return
			}
			c.say(fcgiPlain(r.ID, r.Params["QUERY_STRING"]))
		}
	}})
	for _, path := range []string{
		"/cgi/die.py?head=none", "/cgi/die.py?head=none&code=3", "/cgi/die.py?head=none&signal=9", "/cgi/die.py?head=part&signal=9",
		"/pool/die?code=0", "/pool/die?code=1", "/php/die.php", "/peer/die?die", "/peer/half?half", "/peer/stderr?stderr",
	} {
		for _, method := range []string{"GET", "POST"} {
			r := s.Do(method, path, nil)
			if r.Status != 502 || !strings.HasPrefix(r.Body, "502 Bad Gateway\n") || r.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s %s: %d %v %q", method, path, r.Status, r.Header, r.Body)
			}
		}
	}
	s.Peer.mu.Lock()
	for _, what := range []string{"die", "half", "stderr"} {
		if get, post := asked["GET"+what], asked["POST"+what]; get != 2 || post != 1 {
			t.Errorf("%s: GET was asked %d times, want 2; POST %d, want 1", what, get, post)
		}
	}
	s.Peer.mu.Unlock()
	s.worksAfterDeaths(t)
}
