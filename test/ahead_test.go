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
	g := harness.Start(t, "run", harness.App(t, "wsgi_probe.py"), "--workers", "2")
	quick := func(n, clients int) (worst time.Duration) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := range n {
					token := fmt.Sprintf("%d-%d", c, i)
					began := time.Now()
					r, err := g.Try("GET", "/token?x="+token, nil)
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
	quick(20, 16) // so that the workers are known to be quick
	const slow = 4 * time.Second
	for range 3 {
		var wg sync.WaitGroup
		wg.Go(func() {
			if r, err := g.Try("GET", fmt.Sprintf("/sleep?s=%v", slow.Seconds()/2), nil); err != nil || r.Status != 200 {
				t.Errorf("slow request: %v, %d", err, r.Status)
			}
		})
		if worst := quick(20, 16); worst > slow/4 {
			t.Errorf("a quick request took %v beside one of %v, with a worker idle", worst, slow/2)
		}
		wg.Wait()
	}
}
