package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Clients that go away, before the head, in the body and in their own upload:
// a few seconds later no script runs, no worker and no process of php-fpm is at
// work for them, no connection is left, and the access log says 499.
func TestClass35ClientsThatLeave(t *testing.T) { harness.EachReader(t, testClientsThatLeave) }

func testClientsThatLeave(t *testing.T) {
	const seed = 35
	var aborted atomic.Int64
	s := startRig(t, rigOptions{
		log: ", access_format: json",
		cgi: ", max: 32",
		serve: func(c *peerConn) {
			for {
				r, ok := c.next()
				if !ok {
					return
				}
				if r.Params["PATH_INFO"] != "/hang" {
					c.say(fcgiPlain(r.ID, r.Params["QUERY_STRING"]))
					continue
				}
				c.drained(10 * time.Second) // a foreign application is told by the end of its connection
				aborted.Add(1)
				return
			}
		},
	})
	pages := []string{
		"/cgi/hang.py?children=2", "/cgi/hang.py?head=1", "/cgi/endless.py", "/cgi/drip.py?endless=1&delay=0.01",
		"/pool/sleep?s=0.2", "/pool/stream?n=1000000&chunk=10000", "/pool/close?n=50&delay=0.01",
		"/php/sleep.php?s=0.2", "/php/stream.php?n=1000000&chunk=10000",
		"/peer/hang",
	}
	n := scaled(200, 1000)
	var left atomic.Int64
	failed := inParallel(16, n, func(i int) error {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		page := pages[i%len(pages)]
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(5+random.IntN(150))*time.Millisecond)
		defer cancel()
		method, body := "GET", io.Reader(http.NoBody)
		if i%7 == 0 { // an upload that never comes to its end
			method, body = "POST", io.MultiReader(&placed{n: 100_000}, stalled{ctx})
		}
		req, err := http.NewRequestWithContext(ctx, method, s.URL+page, body)
		if err != nil {
			return err
		}
		resp, err := harness.Client.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		switch {
		case err == nil && !strings.HasPrefix(page, "/pool/close"):
			return fmt.Errorf("%s ended", page)
		case err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			return fmt.Errorf("%s: %v", page, err)
		case err != nil:
			left.Add(1)
		}
		return nil
	})
	failed.report(t, n)

	within := 5 * time.Second
	defer func() {
		if t.Failed() {
			t.Logf("scripts: %v", s.scripts())
		}
	}()
	harness.Eventually(t, within, "every script is gone", func() bool { return len(s.scripts()) == 0 })
	harness.Eventually(t, within, "the application's connections are closed", func() bool { return s.Peer.Open.Load() == 0 || aborted.Load() > 0 && s.Peer.Open.Load() <= 1 })
	harness.Eventually(t, within, "php-fpm's processes are idle", func() bool { return s.fpmStatus(t).Active <= 1 })
	// Both workers, with both threads, take requests at once.
	harness.Eventually(t, within, "four requests run side by side in the pool", func() bool {
		seen := map[string]bool{}
		answers := make(chan string, 4)
		for range 4 {
			go func() {
				r, err := s.Try("GET", "/pool/thread?s=0.3", nil)
				var page struct{ PID, Thread int }
				if err == nil {
					err = json.Unmarshal([]byte(r.Body), &page)
				}
				answers <- fmt.Sprint(page, err)
			}()
		}
		began := time.Now()
		for range 4 {
			seen[<-answers] = true
		}
		return len(seen) == 4 && time.Since(began) < 550*time.Millisecond
	})
	harness.Eventually(t, within, "each of them is a 499, or was complete when its client left", func() bool {
		got := strings.Count(s.Stdout(), `"status":499`)
		return got >= int(left.Load())/2
	})
	for line := range strings.Lines(s.Stdout()) {
		var entry struct {
			Status int
			URI    string
		}
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if entry.Status >= 500 {
			t.Errorf("a client that left is logged as %d: %s", entry.Status, line)
		}
	}
	s.worksEverywhere(t)
}

// scripts are the processes below the gateway that are its own neither by their
// program nor by their argument: its guard, the workers of the pool.
func (s *rig) scripts() (scripts []harness.Process) {
	for _, p := range harness.Descendants(s.PID) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if err == nil && !strings.Contains(string(line), "gatecrew") {
			scripts = append(scripts, p)
		}
	}
	return scripts
}

// stalled is the rest of a body that does not come.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// A client that leaves in the middle of its upload has sent no request: no
// application is asked to act on a part of it.
func TestClass35UploadsThatStop(t *testing.T) { harness.EachReader(t, testUploadsThatStop) }

func testUploadsThatStop(t *testing.T) {
	s := startRig(t, rigOptions{log: ", access_format: json"})
	for _, app := range []string{"/cgi/sum.py", "/pool/digest", "/php/index.php", "/peer/x"} {
		for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
			c := s.Dial()
			fmt.Fprintf(c, "POST %s?stops HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%x\r\n%s", app, framing, 300_000, strings.Repeat("u", 200_000))
			c.Close()
		}
	}
	harness.Eventually(t, 5*time.Second, "all eight are in the access log as 499", func() bool {
		return strings.Count(s.Stdout(), `"status":499`) == 8
	})
	if got := s.Peer.Requests.Load(); got != 0 {
		t.Errorf("the application has been given %d of them", got)
	}
	s.worksEverywhere(t)
}
