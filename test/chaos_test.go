package test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Workers are replaced under load, and no request notices.
func TestRecyclingLosesNoRequest(t *testing.T) {
	g := probe(t, "--workers", "4", "--max-requests", "50", "--max-requests-jitter", "20", "--access-log", "off").Start()
	first := pids(workers(g, ""))
	seen := newTally()
	total := scaled(10_000, 200_000)
	rate := crowd(g, 64, total, func(c *caller, n int) {
		token := strconv.Itoa(n)
		r, err := c.call("GET", "/token?x="+token, "")
		switch {
		case err != nil:
			seen.add("broken", "request %d: %v", n, err)
		case r.Status != http.StatusOK:
			seen.add(fmt.Sprint(r.Status), "request %d: %+v", n, r)
		case r.Body != token || r.Header.Get("X-Token") != token:
			seen.add("foreign", "request %d: %+v", n, r)
		}
	})
	seen.only(t)
	t.Logf("%d requests, %.0f/s", total, rate)
	harness.Eventually(t, 20*time.Second, "four workers", func() bool {
		return len(workers(g, "")) == 4 && len(harness.Zombies(g.PID)) == 0
	})
	for _, pid := range pids(workers(g, "")) {
		for _, old := range first {
			if pid == old {
				t.Errorf("worker %d was never replaced", pid)
			}
		}
	}
}

// Random workers are killed with -9 all the time. A request is answered right,
// or with 502; a POST is executed once at most; at the end everything is as it
// was at the beginning.
func TestChaosWorkersAreKilled(t *testing.T) {
	const crew = 4
	kept := t.TempDir()
	g := harness.New(t, "run", "wsgi_probe:application", "--chdir", harness.App(t), "--python", harness.Python(t),
		"--env", "TEST_DIR="+kept, "--workers", strconv.Itoa(crew), "--access-log", "off", "--log-level", "error")
	growth := int64(512 << 20) // the race detector remembers much
	if soak {
		g.Binary, growth = harness.BuildPlain(t), 32<<20
	}
	g.Start()
	whole := func() bool { return len(workers(g, "")) == crew && len(harness.Zombies(g.PID)) == 0 }
	harness.Eventually(t, 20*time.Second, "all workers run", whole)
	// The first requests make what stays: threads, buffers, caches.
	crowd(g, 64, 500, func(c *caller, n int) { _, _ = c.call("GET", "/token?x=warm", "") })
	files := func() int { return len(harness.OpenFiles(g.PID)) }
	harness.Eventually(t, 10*time.Second, "the connections are closed", func() bool { return sockets(g) <= 1+2*crew })
	filesBefore, memoryBefore := files(), harness.MemoryOf(g.PID).RSS

	stop := make(chan struct{})
	killed := 0
	var killer sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
			}
			if family := workers(g, ""); len(family) > 0 {
				if p := family[rand.IntN(len(family))]; p.Alive() && syscall.Kill(p.PID, syscall.SIGKILL) == nil {
					killed++
				}
			}
		}
	})

	seen := newTally()
	var mu sync.Mutex
	confirmed := map[string]bool{} // POSTs that were answered 200
	total := scaled(20_000, 1_000_000)
	rate := crowd(g, 64, total, func(c *caller, n int) {
		method, target, want, token := "GET", "/token?x=", strconv.Itoa(n), strconv.Itoa(n)
		if n%50 == 0 {
			method, target, want = "POST", "/count?id=", "1"
		}
		r, err := c.call(method, target+token, "")
		switch {
		case err != nil:
			seen.add(method+" broken", "request %d: %v", n, err)
		case r.Status == http.StatusBadGateway:
			seen.add(method+" 502", "")
		case r.Status != http.StatusOK:
			seen.add(fmt.Sprintf("%s %d", method, r.Status), "request %d: %+v", n, r)
		case r.Body != want || method == "GET" && r.Header.Get("X-Token") != token:
			seen.add(method+" wrong", "request %d: %+v", n, r)
		default:
			seen.add(method+" right", "")
			if method == "POST" {
				mu.Lock()
				confirmed[token] = true
				mu.Unlock()
			}
		}
	})
	close(stop)
	killer.Wait()
	t.Logf("%d requests, %.0f/s, %d workers killed: GET %d right and %d times 502, POST %d right and %d times 502", total, rate, killed,
		seen.of("GET right"), seen.of("GET 502"), seen.of("POST right"), seen.of("POST 502"))
	seen.only(t, "GET right", "GET 502", "POST right", "POST 502")
	if n := seen.of("GET 502"); n > max(3, total/1000) {
		t.Errorf("%d GETs were answered 502, although they may be given to another worker", n)
	}
	if killed < 5 {
		t.Errorf("only %d workers were killed", killed)
	}
	for id, times := range executed(t, kept) {
		if times > 1 {
			t.Errorf("POST %s was executed %d times", id, times)
		}
		delete(confirmed, id)
	}
	if len(confirmed) > 0 {
		t.Errorf("%d POSTs were answered 200 and not executed", len(confirmed))
	}

	harness.Eventually(t, 30*time.Second, "all workers run again", whole)
	harness.Eventually(t, 10*time.Second, "no descriptor is left open", func() bool { return files() <= filesBefore })
	if left := harness.Descendants(g.PID); len(left) != crew+1 {
		t.Errorf("%d processes are left, want %d workers and the guard: %v", len(left), crew, left)
	}
	memory := harness.MemoryOf(g.PID).RSS
	t.Logf("descriptors %d, at first %d; RSS %d MiB, at first %d", files(), filesBefore, memory>>20, memoryBefore>>20)
	if memory > memoryBefore+growth {
		t.Errorf("the memory went from %d to %d bytes", memoryBefore, memory)
	}
	if r := g.Get("/token?x=after"); r.Body != "after" {
		t.Errorf("afterwards: %+v", r)
	}
}

// sockets counts what the gateway holds open of that kind.
func sockets(g *harness.Gateway) int {
	n := 0
	for _, target := range harness.OpenFiles(g.PID) {
		if len(target) > 7 && target[:7] == "socket:" {
			n++
		}
	}
	return n
}

// executed is how often each id was executed by /count of the probe.
func executed(t *testing.T, dir string) map[string]int {
	t.Helper()
	out, err := exec.Command(harness.Python(t), "-c", `
import json, sqlite3, sys
print(json.dumps(dict(sqlite3.connect(sys.argv[1]).execute("SELECT id, count(*) FROM executed GROUP BY id"))))
`, filepath.Join(dir, "count.sqlite3")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	times := map[string]int{}
	if err := json.Unmarshal(out, &times); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return times
}
