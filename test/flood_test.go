package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// A flood of diagnostics before the first byte of the answer: it is read all the
// time, so that nothing blocks, and cut, so that neither memory nor log grow
// with it. Requests beside it are served.
func TestClass36StderrFlood(t *testing.T) { harness.EachReader(t, testStderrFlood) }

func testStderrFlood(t *testing.T) {
	size := scaled(64<<20, 1<<30)
	s := startRig(t, rigOptions{plain: true, peer: ", timeout: 30s", serve: func(c *peerConn) {
		for {
			r, ok := c.next()
			if !ok {
				return
			}
			body := r.Params["QUERY_STRING"]
			if r.Params["PATH_INFO"] == "/flood" {
				line := strings.Repeat("e", 79) + "\n"
				record := fcgiRecord(fcgiStderr, r.ID, strings.Repeat(line, 800), 0)
				for n := 0; n < size; n += 800 * len(line) {
					if !c.say(record) {
						return
					}
				}
				body = "body"
			}
			if !c.say(fcgiPlain(r.ID, body)) {
				return
			}
		}
	}})
	s.worksEverywhere(t)
	for _, tt := range []struct{ name, path, body string }{
		{"CGI", fmt.Sprintf("/cgi/stderr.py?bytes=%d", size), "body\n"},
		{"CGI, one endless line", fmt.Sprintf("/cgi/stderr.py?line=0&bytes=%d", size), "body\n"},
		{"CGI, behind the head", fmt.Sprintf("/cgi/stderr.py?when=between&bytes=%d", size), "body\n"},
		{"CGI, behind the body", fmt.Sprintf("/cgi/stderr.py?when=after&bytes=%d", size), "body\n"},
		{"pool, wsgi.errors", fmt.Sprintf("/pool/stderr?n=%d", size), "noisy\n"},
		{"pool, descriptor 2", fmt.Sprintf("/pool/stderr?fd=1&n=%d", size), "noisy\n"},
		{"FastCGI", "/peer/flood?", "body"},
		{"php-fpm", "/php/stderr.php?n=20000", "noisy\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, log := harness.MemoryOf(s.PID), len(s.Stderr())
			done := make(chan struct{})
			slowest := time.Duration(0)
			go func() {
				defer close(done)
				r, err := s.Try("GET", tt.path, nil)
				if err != nil || r.Status != 200 || r.Body != tt.body {
					t.Errorf("%d %.100q, %v", r.Status, r.Body, err)
				}
			}()
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
					began := time.Now()
					if r, err := s.Try("GET", "/peer/x?beside", nil); err != nil || r.Body != "beside" {
						t.Errorf("beside it: %d %.100q, %v", r.Status, r.Body, err)
					}
					slowest = max(slowest, time.Since(began))
				}
			}
			if slowest > 2*time.Second {
				t.Errorf("a request beside it took %v", slowest)
			}
			after := harness.MemoryOf(s.PID)
			t.Logf("the gateway grew from %d to %d KiB", before.Peak>>10, after.Peak>>10)
			if after.Peak > before.Peak+8<<20 {
				t.Error("that is more than 8 MiB")
			}
			// A MiB of burst and 256 KiB a second are a worker's; a request has 64 KiB.
			if grown := len(s.Stderr()) - log; grown > 8<<20 {
				t.Errorf("%d bytes of log for %d of diagnostics", grown, size)
			}
		})
	}
	s.worksEverywhere(t)
}
