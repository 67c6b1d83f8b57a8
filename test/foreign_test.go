package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// head is the head of an answer.
const plainHead = "Content-Type: text/plain\r\n\r\n"

// breaches are answers of FastCGI applications that do it in an unusual way, or
// wrong. answer is what is sent for request 1; hangUp closes the connection
// behind it. A status of 0 means that the response breaks off.
var breaches = []struct {
	name   string
	answer func(token string) string
	hangUp bool
	status int
	kept   bool // the connection is of further use
}{
	{name: "plain", status: 200, kept: true, answer: func(x string) string { return fcgiPlain(1, x) }},
	{name: "padding of 255 bytes", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead, 255) + fcgiRecord(7, 1, "diagnostics\n", 255) + fcgiRecord(6, 1, x, 255) +
			fcgiRecord(6, 1, "", 255) + fcgiRecord(3, 1, "\x00\x00\x00\x00\x00\x00\x00\x00", 255)
	}},
	{name: "one byte a record", status: 200, kept: true, answer: func(x string) string {
		var s strings.Builder
		for _, c := range plainHead + x {
			s.WriteString(fcgiRecord(6, 1, string(c), 0))
		}
		return s.String() + fcgiEnding(1, 0, 0)
	}},
	{name: "empty STDOUT, then STDERR, then END", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + fcgiRecord(6, 1, "", 0) + fcgiRecord(7, 1, "late\n", 0) + fcgiRecord(7, 1, "", 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "STDOUT not ended", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "exit status 7", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + fcgiEnding(1, 7, 0)
	}},
	{name: "unknown types", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(12, 0, "?", 0) + fcgiRecord(99, 1, "what is this", 7) + fcgiRecord(200, 1, "", 0) + fcgiRecord(128, 1, "more", 0) +
			fcgiRecord(6, 1, plainHead, 0) + fcgiRecord(255, 1, strings.Repeat("x", 0xffff), 255) + fcgiRecord(6, 1, x, 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "management records", status: 200, kept: true, answer: func(x string) string {
		return fcgiRecord(10, 0, "\x0f\x01FCGI_MPXS_CONNS1", 0) + fcgiRecord(11, 0, "\x09\x00\x00\x00\x00\x00\x00\x00", 0) +
			fcgiRecord(6, 1, plainHead+x, 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "two ENDs", status: 200, answer: func(x string) string { return fcgiPlain(1, x) + fcgiEnding(1, 0, 0) }},
	{name: "STDOUT after END", status: 200, answer: func(x string) string {
		return fcgiPlain(1, x) + fcgiRecord(6, 1, plainHead+"foreign", 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "half a record after END", status: 200, answer: func(x string) string {
		return fcgiPlain(1, x) + fcgiRecord(6, 1, plainHead+"foreign", 0)[:5]
	}},
	{name: "a record of another request after END", status: 200, answer: func(x string) string {
		return fcgiPlain(1, x) + fcgiRecord(6, 2, plainHead+"foreign", 0)
	}},
	{name: "STDOUT after its end", status: 0, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + fcgiRecord(6, 1, "", 0) + fcgiRecord(6, 1, "foreign", 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "wrong version", status: 502, answer: func(x string) string { return "\x02" + fcgiPlain(1, x)[1:] }},
	{name: "wrong version in the middle", status: 0, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + "\x00" + fcgiRecord(6, 1, "foreign", 0)[1:] + fcgiEnding(1, 0, 0)
	}},
	{name: "wrong request", status: 502, answer: func(x string) string { return fcgiPlain(2, x) }},
	{name: "request 0", status: 502, answer: func(x string) string { return fcgiPlain(0, x) }},
	{name: "wrong request in the middle", status: 0, answer: func(x string) string {
		return fcgiRecord(6, 1, plainHead+x, 0) + fcgiRecord(6, 2, "foreign", 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "END of 7 bytes", status: 502, answer: func(x string) string { return fcgiRecord(3, 1, "\x00\x00\x00\x00\x00\x00\x00", 0) }},
	{name: "END of 9 bytes", status: 502, answer: func(x string) string { return fcgiRecord(3, 1, "\x00\x00\x00\x00\x00\x00\x00\x00\x00", 0) }},
	{name: "END of no bytes", status: 502, answer: func(x string) string { return fcgiRecord(3, 1, "", 0) }},
	{name: "nothing but END", status: 502, kept: true, answer: func(x string) string { return fcgiEnding(1, 0, 0) }},
	{name: "half a head and END", status: 502, kept: true, answer: func(x string) string {
		return fcgiRecord(6, 1, "Content-Type: te", 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "half a head, then dead", status: 502, hangUp: true, answer: func(x string) string { return fcgiRecord(6, 1, "Content-Type: te", 0) }},
	{name: "half a record, then dead", status: 502, hangUp: true, answer: func(x string) string { return fcgiRecord(6, 1, plainHead+x, 0)[:20] }},
	{name: "half a record header, then dead", status: 502, hangUp: true, answer: func(x string) string { return "\x01\x06\x00" }},
	{name: "dead at once", status: 502, hangUp: true, answer: func(x string) string { return "" }},
	{name: "dead behind the body", status: 0, hangUp: true, answer: func(x string) string { return fcgiRecord(6, 1, plainHead+x, 0) }},
	{name: "a field of 1 MiB", status: 502, answer: func(x string) string {
		s := fcgiRecord(6, 1, "Content-Type: text/plain\r\nX-A: ", 0)
		for range 17 {
			s += fcgiRecord(6, 1, strings.Repeat("a", 0xffff), 0)
		}
		return s + fcgiRecord(6, 1, "\r\n\r\n"+x, 0) + fcgiEnding(1, 0, 0)
	}},
	{name: "HTTP in place of FastCGI", status: 502, hangUp: true, answer: func(x string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" }},
	{name: "overloaded", status: 503, kept: true, answer: func(x string) string { return fcgiEnding(1, 0, fcgiOverloaded) }},
	{name: "can't multiplex", status: 503, kept: true, answer: func(x string) string { return fcgiEnding(1, 0, fcgiCantMpx) }},
	{name: "unknown role", status: 502, kept: true, answer: func(x string) string { return fcgiEnding(1, 0, fcgiUnknownRole) }},
	{name: "unknown protocol status", status: 502, kept: true, answer: func(x string) string { return fcgiEnding(1, 0, 77) }},
	{name: "silent", status: 504, answer: func(x string) string { return "" }},
	{name: "silent behind half a head", status: 504, answer: func(x string) string { return fcgiRecord(6, 1, "Content-Type: te", 0) }},
	{name: "silent behind the body", status: 0, answer: func(x string) string { return fcgiRecord(6, 1, plainHead+x, 0) }},
}

// Each breach of FastCGI gives its own request the status that it deserves and
// no other one anything at all; a connection that can't be trusted is closed.
func TestClass32MisbehavingFastCGI(t *testing.T) {
	t.Parallel()
	s := startRig(t, rigOptions{
		peer: ", max_connections: 1, timeout: 300ms", // whatever a breach leaves behind hits the next request
		serve: func(c *peerConn) {
			for {
				r, ok := c.next()
				if !ok {
					return
				}
				var n int
				if _, err := fmt.Sscanf(r.Params["PATH_INFO"], "/breach/%d", &n); err != nil {
					c.say(fcgiPlain(r.ID, r.Params["QUERY_STRING"]))
					continue
				}
				b := breaches[n]
				c.say(b.answer(r.Params["QUERY_STRING"]))
				switch {
				case b.hangUp:
					return
				case !b.kept:
					c.drained(10 * time.Second)
					return
				}
			}
		},
	})
	rounds := scaled(2, 100)
	for n, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			for round := range rounds {
				for _, method := range []string{"GET", "POST"} {
					token := fmt.Sprintf("token-%s-%d-%d", method, n, round)
					r, err := s.Try(method, fmt.Sprintf("/peer/breach/%d?%s", n, token), nil)
					switch {
					case b.status == 0:
						// The head may have been given up together with the body.
						if err == nil || !strings.HasPrefix(token, r.Body) {
							t.Errorf("%d %.100q, %v; want a part of %q and an error", r.Status, r.Body, err, token)
						}
					case err != nil || r.Status != b.status:
						t.Errorf("%d %.100q, %v; want status %d", r.Status, r.Body, err, b.status)
					case b.status == 200 && r.Body != token:
						t.Errorf("%.100q, want %q", r.Body, token)
					case b.status == 503 && r.Header.Get("Retry-After") == "":
						t.Error("503 without Retry-After")
					case b.status > 200 && (strings.Contains(r.Body, token) || strings.Contains(r.Body, "foreign")):
						t.Errorf("%q shows what the application said", r.Body)
					}
					dialled := s.Peer.Accepted.Load()
					if r, err := s.Try("GET", "/peer/x?after-"+token, nil); err != nil || r.Status != 200 || r.Body != "after-"+token {
						t.Errorf("after it: %d %.100q, %v", r.Status, r.Body, err)
					}
					if kept := s.Peer.Accepted.Load() == dialled; kept != b.kept {
						t.Errorf("connection used again: %v, want %v", kept, b.kept)
					}
				}
			}
		})
	}
}

// An application may answer before it has read the body, or without reading it.
// The client gets the answer, however large its upload, and nothing hangs.
func TestClass32EarlyAnswers(t *testing.T) {
	t.Parallel()
	s := startRig(t, rigOptions{
		peer: ", timeout: 2s",
		serve: func(c *peerConn) {
			r, ok := c.head()
			if !ok {
				return
			}
			switch r.Params["PATH_INFO"] {
			case "/close": // answers and hangs up
				c.say(fcgiPlain(r.ID, "early"))
			case "/keep": // answers and reads nothing until the gateway hangs up
				c.say(fcgiPlain(r.ID, "early"))
				c.drained(10 * time.Second)
			case "/no-end": // answers, reads on slowly and ends
				c.say(fcgiRecord(fcgiStdout, r.ID, plainHead+"early", 0))
				c.body(r)
				c.say(fcgiEnding(r.ID, 0, 0))
			case "/large": // much more than fits into any buffer, before the first read
				c.say(fcgiRecord(fcgiStdout, r.ID, plainHead, 0))
				for range 400 {
					c.say(fcgiRecord(fcgiStdout, r.ID, strings.Repeat("l", 0xffff), 0))
				}
				c.body(r)
				c.say(fcgiEnding(r.ID, 0, 0))
			default:
				if c.body(r) {
					c.say(fcgiPlain(r.ID, "abc"))
				}
			}
		},
	})
	size := scaled[int64](16<<20, 512<<20)
	for _, path := range []string{"/peer/close", "/peer/keep", "/peer/no-end", "/peer/large", "/pool/first-bytes?n=5", "/cgi/die.py?sent=5"} {
		t.Run(path, func(t *testing.T) {
			began := time.Now()
			r := s.Do("POST", path, &placed{n: size}, "Content-Type", "application/octet-stream")
			want := map[byte]int{'l': 400 * 0xffff}[path[len("/peer/")]]
			if r.Status != 200 || len(r.Body) != max(5, want) {
				t.Errorf("%d, %d bytes: %.100q", r.Status, len(r.Body), r.Body)
			}
			if d := time.Since(began); d > scaled(20*time.Second, 5*time.Minute) {
				t.Errorf("took %v", d)
			}
		})
	}
	s.worksEverywhere(t)
}

// tokens look so, and no two requests have the same.
var tokenPattern = regexp.MustCompile(`tok-[0-9a-f]{16}-`)

// issued are the tokens of all requests so far. A token that a mutation has
// made up is not among them.
type issued struct{ sync.Map }

func (i *issued) next(r *rand.Rand) string {
	token := fmt.Sprintf("tok-%016x-", r.Uint64())
	i.Store(token, nil)
	return token
}

// foreign finds another request's token in what a client got.
func (i *issued) foreign(text, own string) string {
	for _, token := range tokenPattern.FindAllString(text, -1) {
		if _, known := i.Load(token); known && token != own {
			return token
		}
	}
	return ""
}

// Answers with random faults in them: each client gets its own answer, whole, or
// an error, and never a byte of another's. Beside them others are served as if
// nothing was.
func TestClass32MutatedStreams(t *testing.T) {
	t.Parallel()
	const seed = 20
	var all issued
	s := startRig(t, rigOptions{
		peer: ", max_connections: 6, timeout: 250ms",
		serve: func(c *peerConn) {
			for {
				r, ok := c.next()
				if !ok {
					return
				}
				var n uint64
				token, found := strings.CutPrefix(r.Params["QUERY_STRING"], "mutate&")
				fmt.Sscanf(r.Params["PATH_INFO"], "/%d", &n)
				answer := fcgiPlain(r.ID, token)
				if found {
					random := rand.New(rand.NewPCG(seed, n))
					answer = mutated(random, r.ID, token)
					if !c.say(answer) || random.IntN(8) > 0 {
						return // nobody can tell what the rest means
					}
					continue
				}
				if !c.say(answer) {
					return
				}
			}
		},
	})
	n := scaled(4000, 1_000_000)
	statuses := sync.Map{}
	failed := inParallel(16, n, func(i int) error {
		random := rand.New(rand.NewPCG(seed+1, uint64(i)))
		token := all.next(random)
		if i%4 == 0 { // a request beside them, to an application that does nothing wrong
			r, err := s.Try("GET", "/pool/token?x="+token, nil)
			if err != nil || r.Status != 200 || r.Body != token {
				return fmt.Errorf("request %d beside: %d %.100q, %v", i, r.Status, r.Body, err)
			}
			return nil
		}
		r, err := s.Try("GET", fmt.Sprintf("/peer/%d?mutate&%s", i, token), nil)
		if other := all.foreign(fmt.Sprint(r.Header)+r.Body, token); other != "" {
			return fmt.Errorf("request %d: token %s of another one in %d %.300q", i, other, r.Status, r.Body)
		}
		statuses.Store(r.Status, nil)
		if err == nil && r.Status >= 500 && strings.Contains(r.Body, "tok-") {
			return fmt.Errorf("request %d: the application's bytes in the gateway's own page: %q", i, r.Body)
		}
		return nil
	})
	failed.report(t, n)
	for _, status := range []int{200, 502, 504} {
		if _, seen := statuses.Load(status); !seen {
			t.Errorf("no mutation led to status %d: they are too tame", status)
		}
	}
	// A connection that a mutation has left odd must not fail for ever.
	harness.Eventually(t, 5*time.Second, "the application answers as before", func() bool {
		r, err := s.Try("GET", "/peer/x?abc", nil)
		return err == nil && r.Status == 200 && r.Body == "abc"
	})
	s.worksEverywhere(t)
}

// mutated is an answer with a few random faults.
func mutated(r *rand.Rand, id uint16, token string) string {
	b := []byte(fcgiRecord(fcgiStderr, id, token+" says\n", r.IntN(9)) +
		fcgiRecord(fcgiStdout, id, "Content-Type: text/plain\r\nX-Token: "+token+"\r\n\r\n", r.IntN(9)) +
		fcgiRecord(fcgiStdout, id, strings.Repeat(token, 3), 0) + fcgiRecord(fcgiStdout, id, token, 0) +
		fcgiRecord(fcgiStdout, id, "", 0) + fcgiEnding(id, 0, 0))
	for range 1 + r.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := r.IntN(len(b))
		end := min(len(b), at+1+r.IntN(40))
		switch r.IntN(6) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b[at] = byte(r.Uint32())
		case 2: // a piece is missing
			b = append(b[:at:at], b[end:]...)
		case 3: // a piece comes twice
			b = append(append(b[:end:end], b[at:end]...), b[end:]...)
		case 4: // cut off
			b = b[:at]
		case 5: // whole records again, END included
			b = append(b, b...)
		}
	}
	return string(b)
}

// Many requests at once, a part of them given up by their clients at a random
// moment: whoever stays gets his own answer and nothing else.
func TestClass33NoCrossTalk(t *testing.T) {
	t.Parallel()
	const seed = 33
	s := startRig(t, rigOptions{serve: func(c *peerConn) {
		for {
			r, ok := c.next()
			if !ok {
				return
			}
			time.Sleep(time.Duration(len(r.Params["QUERY_STRING"])%3) * time.Millisecond)
			if !c.say(fcgiPlain(r.ID, r.Params["QUERY_STRING"]+string(r.Body))) {
				return
			}
		}
	}})
	var all issued
	paths := []string{"/pool/token?x=", "/pool/token?x=", "/pool/token?x=", "/php/index.php?x=", "/peer/x?", "/peer/x?"}
	n := scaled(6000, 1_000_000)
	failed := inParallel(32, n, func(i int) error {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		token := all.next(random)
		path := paths[random.IntN(len(paths))] + token
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leaves := random.IntN(10) == 0
		if leaves {
			defer time.AfterFunc(time.Duration(random.IntN(4000))*time.Microsecond, cancel).Stop()
		}
		req, err := http.NewRequestWithContext(ctx, "GET", s.URL+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Own", token)
		resp, err := harness.Client.Do(req)
		if err != nil {
			if leaves && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if other := all.foreign(string(body)+fmt.Sprint(resp.Header), token); other != "" {
			return fmt.Errorf("%s got %s in %.300q", path, other, body)
		}
		if err != nil && leaves {
			return nil
		}
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), token) {
			return fmt.Errorf("%s: %d %.100q, %v", path, resp.StatusCode, body, err)
		}
		return nil
	})
	failed.report(t, n)
	s.worksEverywhere(t)
}
