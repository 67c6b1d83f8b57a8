package test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// More requests than an application can take are refused while they are fresh:
// the queue has an end, and who finds no place is told at once.
func TestClass50Overload(t *testing.T) {
	const queue = 8
	kept := t.TempDir()
	dir := t.TempDir()
	script(t, dir, "slow.sh", "#!/bin/sh\nsleep 1\nprintf 'Content-Type: text/plain\\n\\nslept\\n'\n")
	script(t, dir, "fast.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nfast\\n'\n")
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 4, queue_length: %d, env: {TEST_DIR: %q}}
sites:
  - routes:
      - {path: /pool, pool: probe}
      - {path: /cgi, cgi: {dir: %q, max: 4, queue_length: %d}}
`, harness.App(t), harness.Python(t), queue, kept, dir, queue)))
	g.Binary = harness.BuildPlain(t) // its memory is measured
	g.Start()
	harness.Eventually(t, 20*time.Second, "four workers ready", func() bool { return strings.Count(g.Stderr(), "worker ready") == 4 })

	for _, c := range []struct{ name, slow, fast, fastBody string }{
		{"pool", "/pool/sleep?s=1", "/pool/token?x=fast", "fast"},
		{"CGI", "/cgi/slow.sh", "/cgi/fast.sh", "fast\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const handler = time.Second
			before := harness.MemoryOf(g.PID).RSS
			clients := scaled(1000, 5000)
			seen := newTally()
			var mu sync.Mutex
			var refused []time.Duration
			began := time.Now()
			crowd(g, clients, clients, func(call *caller, n int) {
				asked := time.Now()
				r, err := call.call("GET", c.slow, "")
				took := time.Since(asked)
				switch {
				case err != nil:
					seen.add("broken", "%v", err)
				case r.Status == http.StatusOK && r.Body == "slept\n" && took >= handler:
					seen.add("served", "%v", took)
				case r.Status == http.StatusServiceUnavailable:
					seen.add("refused", "%v", took)
					if after, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || after < 1 {
						seen.add("no Retry-After", "%+v", r)
					}
					mu.Lock()
					refused = append(refused, took)
					mu.Unlock()
				default:
					seen.add("wrong", "%+v after %v", r, took)
				}
			})
			took := time.Since(began)
			seen.only(t, "served", "refused")
			if n := seen.of("served"); n < 4+queue {
				t.Errorf("%d served, want at least the %d that have a place", n, 4+queue)
			}
			slices.Sort(refused)
			if len(refused) == 0 {
				t.Fatal("nobody was refused")
			}
			median, last := refused[len(refused)/2], refused[len(refused)-1]
			// What a client measures has the time in it that this machine needs
			// for all of them at once. Who waits in the queue by mistake waits
			// for several handlers, or for the queue's ten seconds.
			if median > 3*handler || last > 6*handler {
				t.Errorf("refusals took %v in the middle and %v at most, handlers take %v", median, last, handler)
			}
			peak := harness.MemoryOf(g.PID).Peak
			t.Logf("%d served and %d refused in %v; a refusal took %v in the middle, %v at most; RSS from %d to %d MiB",
				seen.of("served"), len(refused), took, median, last, before>>20, peak>>20)
			if limit := before + int64(clients)*(64<<10); peak > limit {
				t.Errorf("%d clients took the memory from %d to %d bytes", clients, before, peak)
			}
			if r := g.Get(c.fast); r.Status != http.StatusOK || r.Body != c.fastBody {
				t.Errorf("afterwards: %+v", r)
			}
		})
	}
	if n := len(workers(g, "probe")); n != 4 {
		t.Errorf("%d workers afterwards, want 4", n)
	}
}

// Who has a place in the queue waits no longer than the queue's time.
func TestClass50QueueTimeout(t *testing.T) {
	t.Parallel()
	kept := t.TempDir()
	dir := t.TempDir()
	script(t, dir, "slow.sh", "#!/bin/sh\nsleep 3\nprintf 'Content-Type: text/plain\\n\\nslept\\n'\n")
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off", level: error}
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 1, queue_timeout: 500ms, env: {TEST_DIR: %q}}
sites:
  - routes:
      - {path: /pool, pool: probe}
      - {path: /cgi, cgi: {dir: %q, max: 1, queue_timeout: 500ms}}
`, harness.App(t), harness.Python(t), kept, dir))
	for _, c := range []struct{ name, slow string }{{"pool", "/pool/sleep?s=3"}, {"CGI", "/cgi/slow.sh"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const handler, patience = 3 * time.Second, 500 * time.Millisecond
			seen := newTally()
			crowd(g, 8, 8, func(call *caller, n int) {
				asked := time.Now()
				r, err := call.call("GET", c.slow, "")
				took := time.Since(asked)
				switch {
				case err == nil && r.Status == http.StatusOK && r.Body == "slept\n":
					seen.add("served", "")
				case err == nil && r.Status == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "" && took >= patience && took < handler:
					seen.add("refused", "")
				default:
					seen.add("wrong", "%v, %+v after %v", err, r, took)
				}
			})
			seen.only(t, "served", "refused")
			if seen.of("served") != 1 || seen.of("refused") != 7 {
				t.Errorf("%d served and %d refused, want 1 and 7", seen.of("served"), seen.of("refused"))
			}
		})
	}
}

// A pool that gets three times what it can do, for as long as that lasts, does
// what it can for those who are served soon, refuses the others soon, keeps
// nothing of them in memory, and is itself again within a second.
func TestSustainedOverload(t *testing.T) {
	const (
		capacity = 200 // requests a second: four workers, 20 ms each
		deadline = 2 * time.Second
		tick     = 10 * time.Millisecond
	)
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 4, queue_length: 200, queue_timeout: %s, env: {TEST_DIR: %q}}
sites:
  - routes:
      - {path: /, pool: probe}
      - {path: /health, pool: probe, priority: high}
      - {path: /bulk, pool: probe, priority: low}
`, harness.App(t), harness.Python(t), deadline, t.TempDir())))
	g.Binary = harness.BuildPlain(t) // its memory is measured
	g.Start()
	harness.Eventually(t, 20*time.Second, "four workers ready", func() bool { return strings.Count(g.Stderr(), "worker ready") == 4 })

	seen := newTally()
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	ask := func(c *caller, who, path string) bool {
		asked := time.Now()
		r, err := c.call("GET", path, "")
		d := time.Since(asked)
		what := who + " served"
		switch {
		case err != nil:
			seen.add(who+" broken", "%v after %v", err, d)
			return false
		case r.Status == http.StatusServiceUnavailable:
			what = who + " refused"
			if after, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || after < 1 || after > int(deadline/time.Second) {
				seen.add("no Retry-After", "%+v", r)
			}
		case r.Status != http.StatusOK || r.Body != "slept\n":
			seen.add(who+" wrong", "%+v", r)
		}
		seen.add(what, "")
		mu.Lock()
		defer mu.Unlock()
		took[what] = append(took[what], d)
		return r.Status == http.StatusOK
	}
	idle := make(chan *caller, 10000)
	defer func() {
		for range len(idle) {
			(<-idle).close()
		}
	}()
	var wg sync.WaitGroup
	send := func(who, path string) {
		wg.Go(func() {
			var c *caller
			select {
			case c = <-idle:
			default:
				c = newCaller(g)
			}
			ask(c, who, path)
			idle <- c
		})
	}
	rush := scaled(5*time.Second, time.Minute)
	ticks := int(rush / tick)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var early, late int64
	for n := range ticks {
		<-ticker.C
		for range 3 * capacity / int(time.Second/tick) {
			send("normal", "/sleep?s=0.02")
		}
		if n%10 == 0 {
			send("high", "/health/sleep?s=0.02")
			send("low", "/bulk/sleep?s=0.02")
		}
		switch n {
		case ticks / 3:
			early = harness.MemoryOf(g.PID).RSS
		case ticks - 1:
			late = harness.MemoryOf(g.PID).RSS
		}
	}
	over := time.Now()
	c := newCaller(g)
	defer c.close()
	for quick := 0; quick < 10; quick++ {
		asked := time.Now()
		if !ask(c, "later", "/sleep?s=0.02") || time.Since(asked) > deadline/10 {
			quick = -1
		}
		if time.Since(over) > 10*time.Second {
			t.Fatal("not itself again for 10 s")
		}
	}
	recovered := time.Since(over)
	wg.Wait()
	quantile := func(what string, q float64) time.Duration {
		all := took[what]
		slices.Sort(all)
		if len(all) == 0 {
			t.Errorf("%s: none", what)
			return 0
		}
		return all[int(q*float64(len(all)-1))]
	}
	seen.only(t, "normal served", "normal refused", "high served", "low refused", "low served", "later served", "later refused")
	for _, what := range []string{"normal served", "normal refused", "high served", "low refused"} {
		p99 := quantile(what, .99)
		t.Logf("%s: %d, p50 %v, p99 %v, max %v", what, len(took[what]), quantile(what, .5), p99, quantile(what, 1))
		if p99 > deadline/2 {
			t.Errorf("%s: p99 is %v, with a deadline of %v", what, p99, deadline)
		}
	}
	t.Logf("%d served in %v, RSS %d and %d MiB, recovered in %v", len(took["normal served"]), rush, early>>20, late>>20, recovered)
	if late > early+16<<20 {
		t.Errorf("memory grew from %d to %d bytes", early, late)
	}
	if recovered > time.Second+10*deadline/100 { // ten requests of 20 ms took part of it
		t.Errorf("recovered in %v", recovered)
	}
	g.LogLine("pool overloaded")
	g.LogLine("pool no longer overloaded")
}

// A request whose client has left while it waited reaches no worker.
func TestGoneFromTheQueue(t *testing.T) {
	t.Parallel()
	app := harness.WriteFile(t, "app.py", `
import time

seen = []

def app(environ, start_response):
    seen.append(environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(seen).encode()]
`)
	g := harness.Start(t, "run", app+":app", "--workers", "1", "--access-log", "off")
	var wg sync.WaitGroup
	wg.Go(func() {
		if r, err := g.Try("GET", "/slow", nil); err != nil || r.Status != http.StatusOK {
			t.Errorf("slow request: %v, %d", err, r.Status)
		}
	})
	time.Sleep(200 * time.Millisecond)
	var gone []net.Conn
	for range 50 {
		c := g.Dial()
		fmt.Fprint(c, "GET /gone HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
		gone = append(gone, c)
	}
	time.Sleep(200 * time.Millisecond)
	for _, c := range gone {
		c.Close()
	}
	wg.Wait()
	if r := g.Get("/last"); r.Body != "/slow /last" {
		t.Errorf("the application saw %s", r.Body)
	}
}
