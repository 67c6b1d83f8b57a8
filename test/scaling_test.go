package test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// crewOf waits until the gateway has so many workers.
func crewOf(t *testing.T, g *harness.Gateway, what string, want int) {
	t.Helper()
	harness.Eventually(t, 5*time.Second, fmt.Sprintf("%s: %d workers", what, want), func() bool { return len(workers(g, "")) == want })
}

// occupy has so many requests in progress, each for d, until the function that
// it returns has been called.
func occupy(t *testing.T, g *harness.Gateway, requests int, d time.Duration) (wait func()) {
	t.Helper()
	var asked sync.WaitGroup
	for range requests {
		asked.Go(func() {
			if r, err := g.Try("GET", fmt.Sprintf("/sleep?s=%f", d.Seconds()), nil); err != nil || r.Status != http.StatusOK {
				t.Errorf("%v, %+v", err, r)
			}
		})
	}
	return asked.Wait
}

// A pool keeps idle workers ready for what may come, beside those at work, and
// ends those that are too many, one by one.
func TestSpareWorkers(t *testing.T) {
	t.Parallel()
	g, _ := managed(t, greedy, "workers: '1:5', min_spare: 2, max_spare: 3, idle_timeout: 400ms")
	g.Start()
	crewOf(t, g, "without requests", 2)
	g.LogLine(`"because": "too few idle workers"`)
	done := occupy(t, g, 2, time.Second)
	crewOf(t, g, "two at work", 4)
	done()
	crewOf(t, g, "in peace again", 3)
	g.LogLine(`"because": "workers idle"`)
	// It is not the bounds that the workers meet.
	time.Sleep(600 * time.Millisecond)
	if n := len(workers(g, "")); n != 3 {
		t.Errorf("%d workers, and three may idle", n)
	}
}

// TTIN and TTOU move both ends of a range.
func TestRangeByHand(t *testing.T) {
	t.Parallel()
	g, _ := managed(t, greedy, "workers: '1:2', idle_timeout: 300ms")
	g.Start()
	crewOf(t, g, "at first", 1)
	g.Signal(syscall.SIGTTIN)
	crewOf(t, g, "at least two after TTIN", 2)
	done := occupy(t, g, 6, 500*time.Millisecond)
	crewOf(t, g, "at most three after TTIN", 3)
	done()
	crewOf(t, g, "idle", 2)
	g.Signal(syscall.SIGTTOU)
	crewOf(t, g, "at least one after TTOU", 1)
	done = occupy(t, g, 6, 300*time.Millisecond)
	crewOf(t, g, "at most two after TTOU", 2)
	done()
}

// Workers are replaced for their age, not all at once, and nobody who asks
// notices.
func TestAgedWorkersAreReplaced(t *testing.T) {
	t.Parallel()
	g, _ := managed(t, greedy, "workers: 2, max_age: 1s")
	g.Start()
	first := pids(workers(g, ""))
	seen := newTally()
	crowd(g, 4, 120, func(c *caller, _ int) {
		r, err := c.call("GET", "/sleep?s=0.02", "")
		if err != nil || r.Status != http.StatusOK {
			seen.add("failed", "%v, %+v", err, r)
		}
		time.Sleep(30 * time.Millisecond)
	})
	seen.only(t)
	g.LogLine("1s old")
	harness.Eventually(t, 5*time.Second, "the first workers have gone", func() bool {
		return !slices.ContainsFunc(pids(workers(g, "")), func(pid int) bool { return slices.Contains(first, pid) })
	})
}

// The budget of a pool is kept by replacing its biggest worker, and nobody who
// asks notices.
func TestBudgetOfAPool(t *testing.T) {
	t.Parallel()
	g, _ := managed(t, greedy, "workers: 3, memory_budget: 250m")
	g.Start()
	seen := newTally()
	crowd(g, 3, 60, func(c *caller, n int) {
		r, err := c.call("GET", "/leak", "")
		if err != nil || r.Status != http.StatusOK {
			seen.add("failed", "%v, %+v", err, r)
		}
		time.Sleep(60 * time.Millisecond)
	})
	seen.only(t)
	g.LogLine("the biggest with ")
	g.LogLine("over the budget of 250.0 MiB")
	// The last leak may be the one that exceeds it.
	harness.Eventually(t, 5*time.Second, "all workers below the budget", func() bool {
		all := int64(0)
		for _, w := range workers(g, "") {
			all += harness.MemoryOf(w.PID).RSS
		}
		return all <= 250<<20 && len(workers(g, "")) == 3
	})
}

// Without a number the gateway chooses one by the machine, and says why.
func TestWorkersChosen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeScript(t, filepath.Join(dir, "managed.py"), greedy, 0o644)
	g := harness.New(t, "run", "managed:application", "--chdir", dir, "--python", harness.Python(t))
	g.Env = []string{"GOMAXPROCS=1"} // what the gateway takes for the processors
	g.Start()
	g.LogLine("workers chosen")
	line := ""
	for l := range strings.Lines(g.Stderr()) {
		if strings.Contains(l, "workers chosen") {
			line = l
		}
	}
	if !strings.Contains(line, `"workers": "2:3"`) || !strings.Contains(line, `"reason": "1 processor"`) {
		t.Errorf("the log says %s", line)
	}
	crewOf(t, g, "without requests", 2)
}

// Work that takes long has a pool of its own: when all of that pool's workers
// and places are taken, requests to the other pool don't notice.
func TestPoolsAreApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeScript(t, filepath.Join(dir, "managed.py"), greedy, 0o644)
	g := harness.Serve(t, fmt.Sprintf(`
pools:
  quick: {app: "managed:application", chdir: %[1]q, python: %[2]q, workers: 1}
  heavy: {app: "managed:application", chdir: %[1]q, python: %[2]q, workers: 1, queue_length: 1}
sites:
  - routes:
      - {path: /, pool: quick}
      - {path: /heavy, pool: heavy}
`, dir, harness.Python(t)))
	stop := make(chan struct{})
	var asked sync.WaitGroup
	for range 4 { // one at work, one in the queue, and others for the place of who is done
		asked.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond): // after a refusal
				}
				if r, err := g.Try("GET", "/heavy/sleep?s=0.8", nil); err != nil || r.Status != http.StatusOK && r.Status != http.StatusServiceUnavailable {
					t.Errorf("%v, %+v", err, r)
				}
			}
		})
	}
	harness.Eventually(t, 5*time.Second, "the heavy pool is full", func() bool { return g.Get("/heavy/").Status == http.StatusServiceUnavailable })
	for range 20 {
		if began, r := time.Now(), g.Get("/"); r.Status != http.StatusOK || time.Since(began) > 500*time.Millisecond {
			t.Errorf("status %d after %v", r.Status, time.Since(began))
		}
	}
	close(stop)
	asked.Wait()
}
