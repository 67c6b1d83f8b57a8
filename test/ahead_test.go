package test

import (
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
