package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// managed prepares a gateway whose pool runs app, the text of a module.
func managed(t *testing.T, app string, settings string) (g *harness.Gateway, module string) {
	t.Helper()
	dir := t.TempDir()
	module = filepath.Join(dir, "managed.py")
	writeScript(t, module, app, 0o644)
	return harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
pools:
  web: {app: "managed:application", chdir: %q, python: %q, %s}
sites:
  - routes:
      - {path: /, pool: web}
`, dir, harness.Python(t), settings))), module
}

// greedy leaks, or takes a lot at once, or takes its time.
const greedy = `
import os, time
from urllib.parse import parse_qs
kept = []

def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"])
    path = environ["PATH_INFO"]
    if path == "/leak":
        kept.append(b"x" * (10 << 20))
    elif path == "/hoard":
        pieces = []
        for _ in range(int(query["mib"][0]) // 10):
            pieces.append(b"x" * (10 << 20))
            time.sleep(0.01)
    elif path == "/sleep":
        time.sleep(float(query["s"][0]))
    body = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
`

// A worker that leaks 10 MiB with each request is replaced at its limit, and
// nobody who asks notices.
func TestLeakingWorkersAreReplaced(t *testing.T) {
	g, _ := managed(t, greedy, "workers: 2, max_memory: 100m")
	g.Start()
	seen := newTally()
	answered := map[string]int{}
	var mu sync.Mutex
	biggest := int64(0)
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, w := range workers(g, "") {
				biggest = max(biggest, harness.MemoryOf(w.PID).RSS)
			}
		}
	})
	crowd(g, 4, scaled(80, 3000), func(c *caller, n int) {
		r, err := c.call("GET", "/leak", "")
		if err != nil || r.Status != http.StatusOK {
			seen.add("failed", "%v, %+v", err, r)
		}
		mu.Lock()
		answered[r.Body]++
		mu.Unlock()
		time.Sleep(100 * time.Millisecond)
	})
	close(stop)
	watching.Wait()
	seen.only(t)
	if len(answered) < 4 {
		t.Errorf("too few were replaced: by process, the answers are %v", answered)
	}
	// What comes until the replacement is ready is on top of the limit.
	if biggest > 600<<20 {
		t.Errorf("the biggest worker held %d MiB", biggest>>20)
	}
	g.LogLine("over the limit of 100.0 MiB")
}

// A worker that takes far too much in one request is killed in the middle of
// it, with that request alone.
func TestHoardingWorkerIsKilled(t *testing.T) {
	g, _ := managed(t, greedy, "workers: 3, hard_memory: 300m")
	g.Start()
	var asked sync.WaitGroup
	for range 2 {
		asked.Go(func() {
			if r, err := g.Try("GET", "/sleep?s=2", nil); err != nil || r.Status != http.StatusOK {
				t.Errorf("a neighbour: %v, %+v", err, r)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // they have begun
	biggest := int64(0)
	over := make(chan struct{})
	asked.Go(func() {
		defer close(over)
		r, err := g.Try("GET", "/hoard?mib="+strconv.Itoa(scaled(1000, 2000)), nil)
		if err != nil || r.Status != http.StatusBadGateway {
			t.Errorf("the hoarder: %v, %+v", err, r)
		}
	})
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-time.After(10 * time.Millisecond):
		}
		for _, w := range workers(g, "") {
			biggest = max(biggest, harness.MemoryOf(w.PID).RSS)
		}
	}
	asked.Wait()
	if biggest > 800<<20 {
		t.Errorf("it got as far as %d MiB", biggest>>20)
	}
	g.LogLine("over the hard limit of 300.0 MiB")
	harness.Eventually(t, 5*time.Second, "three workers", func() bool { return len(workers(g, "")) == 3 })
}

const versioned = `
# version %[1]s
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(%[1]q)))])
    return [b%[1]q]
`

// Restart follows restart under load, also with an application that can't be
// loaded in between, and no request fails.
func TestRollingRestart(t *testing.T) {
	g, module := managed(t, fmt.Sprintf(versioned, "1"), "workers: 2, threads: 4")
	g.Start()
	every, rounds := scaled(time.Second, 2*time.Second), scaled(7, 150)
	broken := rounds / 2
	seen := newTally()
	stop := crew(g, 64, func(c *caller) {
		r, err := c.call("GET", "/", "")
		switch {
		case err != nil || r.Status != http.StatusOK:
			seen.add("failed", "%v, %+v", err, r)
		default:
			seen.add("version "+r.Body, "")
		}
		time.Sleep(20 * time.Millisecond)
	})
	rewrite := func(text string) {
		t.Helper()
		next := module + ".next"
		writeScript(t, next, text, 0o644)
		if err := os.Rename(next, module); err != nil {
			t.Fatal(err)
		}
	}
	count := func(text string) int { return strings.Count(g.Stderr(), text) }
	restart := func(what, line string) {
		t.Helper()
		before := count(line)
		began := time.Now()
		g.Signal(syscall.SIGHUP)
		harness.Eventually(t, 20*time.Second, what, func() bool { return count(line) > before })
		time.Sleep(every - time.Since(began))
	}
	last := ""
	for i := 2; i < 2+rounds; i++ {
		last = strconv.Itoa(i)
		if i-2 == broken {
			before := pids(workers(g, ""))
			rewrite("import no_such_module_anywhere\n")
			restart("the restart fails", "restart failed, the workers of before serve on")
			if after := pids(workers(g, "")); !slices.Equal(after, before) {
				t.Errorf("the workers were %v and are %v", before, after)
			}
			g.LogLine("ModuleNotFoundError: No module named 'no_such_module_anywhere'")
			continue
		}
		rewrite(fmt.Sprintf(versioned, last))
		restart("restart "+last, "restart done")
	}
	if r := g.Get("/"); r.Body != last {
		t.Errorf("after all restarts version %q answers", r.Body)
	}
	stop()
	if n := seen.of("failed"); n != 0 {
		t.Errorf("%d requests failed, the first: %s", n, seen.first["failed"])
	}
	if seen.of("version "+last) == 0 || seen.of("version 1") == 0 {
		t.Errorf("answers: %v", seen.count)
	}
	harness.Eventually(t, 5*time.Second, "two workers", func() bool { return len(workers(g, "")) == 2 })
}

// A pool on demand has no process until it is asked, and none again when it is
// not.
func TestOnDemand(t *testing.T) {
	g, _ := managed(t, greedy, "workers: '0:2', idle_timeout: 1s")
	g.Start()
	for range 2 {
		if w := workers(g, ""); len(w) != 0 {
			t.Errorf("without requests there are %v", w)
		}
		if r := g.Get("/"); r.Status != http.StatusOK {
			t.Errorf("%+v", r)
		}
		if w := workers(g, ""); len(w) != 1 {
			t.Errorf("after a request there are %v", w)
		}
		harness.Eventually(t, 5*time.Second, "no worker", func() bool { return len(workers(g, "")) == 0 })
	}
}

// A pool that can't load its application refuses requests at once and says
// when to come again; the other pool serves as ever.
func TestPoolDown(t *testing.T) {
	dir := t.TempDir()
	writeScript(t, filepath.Join(dir, "managed.py"), greedy, 0o644)
	broken := filepath.Join(dir, "broken.py")
	writeScript(t, broken, "import no_such_module_anywhere\n", 0o644)
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
pools:
  good: {app: "managed:application", chdir: %[1]q, python: %[2]q, workers: 1}
  bad: {app: "broken:application", chdir: %[1]q, python: %[2]q, workers: 2}
sites:
  - routes:
      - {path: /, pool: good}
      - {path: /bad, pool: bad}
`, dir, harness.Python(t)))).Start()
	harness.Eventually(t, 20*time.Second, "refusals at once", func() bool {
		began := time.Now()
		r := g.Get("/bad")
		after, _ := strconv.Atoi(r.Header.Get("Retry-After"))
		if good := g.Get("/"); good.Status != http.StatusOK {
			t.Errorf("the other pool: %+v", good)
		}
		return r.Status == http.StatusServiceUnavailable && after >= 1 && time.Since(began) < 500*time.Millisecond
	})
	g.LogLine("No module named 'no_such_module_anywhere'")
	writeScript(t, broken, "from managed import application\n", 0o644)
	g.Signal(syscall.SIGHUP)
	harness.Eventually(t, 10*time.Second, "it is back", func() bool { return g.Get("/bad").Status == http.StatusOK })
}

// A new worker answers its warm-up before it gets a request, or none.
func TestWarmUp(t *testing.T) {
	const warm = `
seen = []
def application(environ, start_response):
    seen.append(environ["PATH_INFO"] + "?" + environ["QUERY_STRING"] + " " + environ.get("HTTP_USER_AGENT", ""))
    if environ["PATH_INFO"] == "/warm" and %s:
        environ["wsgi.errors"].write("the cache is away\n")
        start_response("503 Cold", [("Content-Type", "text/plain")])
        return [b"not yet"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [seen[0].encode()]
`
	g, module := managed(t, fmt.Sprintf(warm, "False"), "workers: 1, warm_up: '/warm?now=1'")
	g.Start()
	if r := g.Get("/"); r.Body != "/warm?now=1 gatecrew-warm-up" {
		t.Errorf("the first request was %q", r.Body)
	}
	writeScript(t, module, fmt.Sprintf(warm, "True"), 0o644)
	g.Signal(syscall.SIGHUP)
	harness.Eventually(t, 10*time.Second, "the restart fails", func() bool { return strings.Contains(g.Stderr(), "restart failed") })
	for _, part := range []string{"GET /warm?now=1", "503 Service Unavailable", "not yet", "the cache is away"} {
		if !strings.Contains(g.Stderr(), part) {
			t.Errorf("the log does not have %q:\n%s", part, g.Stderr())
		}
	}
	if r := g.Get("/"); r.Status != http.StatusOK {
		t.Errorf("%+v", r)
	}
}
