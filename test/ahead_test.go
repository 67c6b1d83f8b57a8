package test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// TestSlowRequestDelaysNoQuickOne: workers that are quick are given requests
// ahead; the ones behind a request that turns out slow must go elsewhere.
func TestSlowRequestDelaysNoQuickOne(t *testing.T) {
	app := harness.WriteFile(t, "app.py", `
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["QUERY_STRING"].encode()]
`)
	g := harness.New(t, "run", app+":app", "--workers", "2", "--access-log", "off")
	g.Binary = harness.BuildPlain(t) // one that is quick
	g.Start()
	quick := func(n, clients int) (worst time.Duration) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := range n {
					token := fmt.Sprintf("%d-%d", c, i)
					began := time.Now()
					r, err := g.Try("GET", "/?"+token, nil)
					took := time.Since(began)
					if err != nil || r.Status != 200 || !strings.Contains(r.Body, token) {
						t.Errorf("quick request: %v, %d %q", err, r.Status, r.Body)
						return
					}
					mu.Lock()
					worst = max(worst, took)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		return worst
	}
	quick(100, 64) // so that the workers are known to be quick
	const slow = 2 * time.Second
	for range 3 {
		var wg sync.WaitGroup
		wg.Go(func() {
			if r, err := g.Try("GET", "/slow", nil); err != nil || r.Status != 200 {
				t.Errorf("slow request: %v, %d", err, r.Status)
			}
		})
		if worst := quick(100, 64); worst > slow/2 {
			t.Errorf("a quick request took %v beside one of %v, with a worker idle", worst, slow)
		}
		wg.Wait()
	}
}

// TestBodiesBehindASlowRequest: requests with bodies that were given ahead to a
// worker which then stands still reach their application whole, once, and on
// another worker.
func TestBodiesBehindASlowRequest(t *testing.T) {
	app := harness.WriteFile(t, "app.py", `
import hashlib
import time

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1.5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%s %d %s" % (environ["QUERY_STRING"].encode(), len(body), hashlib.sha256(body).hexdigest().encode())]
`)
	g := harness.New(t, "run", app+":app", "--workers", "2", "--access-log", "off", "--log-level", "debug")
	g.Binary = harness.BuildPlain(t) // one that is quick
	g.Start()
	const slow = 1500 * time.Millisecond
	// Sizes about those of a record, of the worker's window, and of what is
	// kept in memory.
	sizes := []int{1, 1000, 8191, 8192, 65535, 65536, 200_000}
	post := func(c *caller, token string, size int) time.Duration {
		body := strings.Repeat(token[:1], size)
		began := time.Now()
		r, err := c.call("POST", "/?"+token, body)
		took := time.Since(began)
		want := fmt.Sprintf("%s %d %x", token, size, sha256.Sum256([]byte(body)))
		if err != nil || r.Status != 200 || r.Body != want {
			t.Errorf("%s with a body of %d bytes: %v, %d %q", token, size, err, r.Status, r.Body)
		}
		return took
	}
	quick := func(total int) (worst time.Duration) {
		var mu sync.Mutex
		crowd(g, 48, total, func(c *caller, n int) {
			size := 10 // so that the workers are known to be quick
			if n%8 == 0 {
				size = sizes[n/8%len(sizes)]
			}
			took := post(c, fmt.Sprintf("%d", n), size)
			mu.Lock()
			defer mu.Unlock()
			worst = max(worst, took)
		})
		return worst
	}
	quick(2000)
	returned := func() int { return strings.Count(g.Stderr(), "request is given to another worker") }
	for round := 0; round < 3 || round < 10 && returned() == 0; round++ {
		// Nothing is given ahead for half a second after a slow request, be it
		// slow because the machine is busy.
		time.Sleep(600 * time.Millisecond)
		quick(100)
		var wg sync.WaitGroup
		wg.Go(func() {
			c := newCaller(g)
			defer c.close()
			if r, err := c.call("POST", "/slow?slow", "body"); err != nil || r.Status != 200 {
				t.Errorf("slow request: %v, %d", err, r.Status)
			}
		})
		if worst := quick(2000); worst > slow/2 {
			t.Errorf("a quick request took %v beside one of %v, with a worker idle", worst, slow)
		}
		wg.Wait()
	}
	back := returned()
	t.Logf("%d requests were given back", back)
	if back == 0 {
		t.Error("no request was given back: nothing stood behind the slow ones")
	}
}
