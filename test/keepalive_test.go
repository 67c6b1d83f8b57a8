package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// An application that ends a process after so many requests closes the kept
// connection with it. No client notices, whatever the method.
func TestClass34ConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	s := startRig(t, rigOptions{children: 4, requests: 3})
	n := scaled(2000, 50_000)
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			var children sync.Map
			failed := inParallel(4, n/2, func(i int) error {
				want := fmt.Sprintf("x=%d", i)
				var body *strings.Reader
				if method == "POST" {
					body = strings.NewReader(want)
				} else {
					body = strings.NewReader("")
				}
				r, err := s.Try(method, "/php/index.php?"+want, body, "Content-Type", "application/x-www-form-urlencoded")
				if err != nil || r.Status != 200 {
					return fmt.Errorf("%s %d: %d %.200q, %v", method, i, r.Status, r.Body, err)
				}
				var page struct {
					Get, Post any
					PID       int
				}
				if err := json.Unmarshal([]byte(r.Body), &page); err != nil {
					return err
				}
				children.Store(page.PID, nil)
				if got := fmt.Sprint(page.Get); got != fmt.Sprintf("map[x:%d]", i) {
					return fmt.Errorf("%s %d: $_GET is %s", method, i, got)
				}
				if got := fmt.Sprint(page.Post); method == "POST" && got != fmt.Sprintf("map[x:%d]", i) {
					return fmt.Errorf("%s %d: $_POST is %s", method, i, got)
				}
				return nil
			})
			failed.report(t, n/2)
			ended := 0
			children.Range(func(any, any) bool { ended++; return true })
			if ended < n/2/4 {
				t.Errorf("%d processes for %d requests: they did not end after 3 each", ended, n/2)
			}
		})
	}
}

// An application that is started again closes all its connections at once.
func TestClass34ApplicationRestarts(t *testing.T) {
	var generation atomic.Int64
	s := startRig(t, rigOptions{peer: ", max_connections: 4", serve: func(c *peerConn) {
		mine := generation.Load()
		for {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := c.in.Peek(1); err != nil {
				if generation.Load() != mine {
					return
				}
				if !strings.Contains(err.Error(), "timeout") {
					return
				}
				continue
			}
			_ = c.SetReadDeadline(time.Time{})
			r, ok := c.next()
			if !ok || !c.say(fcgiPlain(r.ID, r.Params["QUERY_STRING"])) {
				return
			}
		}
	}})
	restart := time.NewTicker(100 * time.Millisecond)
	defer restart.Stop()
	go func() {
		for range restart.C {
			generation.Add(1)
		}
	}()
	n := scaled(4000, 100_000)
	failed := inParallel(4, n, func(i int) error {
		r, err := s.Try("GET", fmt.Sprintf("/peer/x?%d", i), nil)
		if err != nil || r.Status != 200 || r.Body != fmt.Sprint(i) {
			return fmt.Errorf("%d %.200q, %v", r.Status, r.Body, err)
		}
		return nil
	})
	failed.report(t, n)
	if generation.Load() < 2 {
		t.Error("nothing was started again")
	}
}

// Kept connections are kept: many requests in a row, and beside each other, need
// no more connections than may be open at once.
func TestClass34ConnectionsAreKept(t *testing.T) {
	t.Parallel()
	s := startRig(t, rigOptions{peer: ", max_connections: 4"})
	n := scaled(1000, 50_000)
	failed := inParallel(1, n, func(i int) error {
		if r, err := s.Try("GET", fmt.Sprintf("/peer/x?%d", i), nil); err != nil || r.Body != fmt.Sprint(i) {
			return fmt.Errorf("%d %q %v", r.Status, r.Body, err)
		}
		return nil
	})
	failed.report(t, n)
	if got := s.Peer.Accepted.Load(); got > int64(n/100) {
		t.Errorf("%d connections for %d requests in a row", got, n)
	}
	before := s.Peer.Accepted.Load()
	failed = inParallel(16, n, func(i int) error {
		if r, err := s.Try("PUT", fmt.Sprintf("/peer/x?%d", i), strings.NewReader("body")); err != nil || r.Body != "body" {
			return fmt.Errorf("%d %q %v", r.Status, r.Body, err)
		}
		return nil
	})
	failed.report(t, n)
	if got := s.Peer.Accepted.Load() - before; got > int64(n/10) {
		t.Errorf("%d connections for %d requests of 16 clients", got, n)
	}
	if open := s.Peer.Open.Load(); open > 4 {
		t.Errorf("%d connections are open, 4 are allowed", open)
	}
	harness.Eventually(t, 15*time.Second, "idle connections are given back", func() bool { return s.Peer.Open.Load() == 0 })
}

// fpmStatus is php-fpm's own page about itself.
type fpmStatus struct {
	Active int `json:"active processes"`
	Idle   int `json:"idle processes"`
}

// fpmStatus asks php-fpm by a connection of its own.
func (s *rig) fpmStatus(t testing.TB) (status fpmStatus) {
	t.Helper()
	body := askFCGI(t, s.FPM.Socket, map[string]string{
		"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/fpm-status", "SCRIPT_FILENAME": "/fpm-status", "QUERY_STRING": "json", "REQUEST_URI": "/fpm-status?json",
	})
	_, page, _ := strings.Cut(body, "\r\n\r\n")
	if err := json.Unmarshal([]byte(page), &status); err != nil {
		t.Fatalf("%v: %q", err, body)
	}
	return status
}

// More clients than an application has processes, and more connections than it
// has processes, too: each request is served in turn, and none waits for a
// process that an idle connection holds.
func TestClass34MoreClientsThanProcesses(t *testing.T) {
	s := startRig(t, rigOptions{children: 4, connections: 6})
	n := scaled(4000, 200_000)
	var slowest atomic.Int64
	failed := inParallel(64, n, func(i int) error {
		path := "/php/index.php?x=1"
		if i%50 == 0 {
			path = "/php/sleep.php?s=0.02"
		}
		began := time.Now()
		r, err := s.Try([]string{"GET", "POST"}[i%2], path, http.NoBody)
		if err != nil || r.Status != 200 {
			return fmt.Errorf("%d %.200q, %v", r.Status, r.Body, err)
		}
		if d := int64(time.Since(began)); d > slowest.Load() {
			slowest.Store(d)
		}
		return nil
	})
	failed.report(t, n)
	if d := time.Duration(slowest.Load()); d > 5*time.Second {
		t.Errorf("a request took %v", d)
	}
	harness.Eventually(t, 15*time.Second, "all of php-fpm's processes are idle", func() bool {
		return s.fpmStatus(t).Active <= 1 // the one that answers this
	})
	if len(harness.Descendants(s.FPM.PID)) != 4 || strings.Contains(s.FPM.Log(), "exited") {
		t.Errorf("a process has ended:\n%s", s.FPM.Log())
	}
}
