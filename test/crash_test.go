package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// run is for someone at a keyboard: an application that can't be loaded is the
// end, with the reason.
func TestRunEndsWhenTheApplicationCannotBeLoaded(t *testing.T) {
	g := harness.New(t, "run", "broken_import:application", "--chdir", harness.App(t), "--python", harness.Python(t)).Launch()
	if !g.Wait(20 * time.Second) {
		t.Fatal("it runs on")
	}
	if code := g.ExitCode(); code != 4 {
		t.Errorf("exit status %d, want 4", code)
	}
	message := g.Stderr()
	for _, text := range []string{"broken_import", "Traceback", "ModuleNotFoundError", "no_such_module_anywhere", "could not be loaded"} {
		if !strings.Contains(message, text) {
			t.Errorf("the message lacks %q:\n%s", text, message)
		}
	}
	if strings.Contains(g.Stdout(), "ready") {
		t.Errorf("it said that it was ready: %s", g.Stdout())
	}
}

// serve has other sites to serve: a pool whose workers don't come up is tried
// again and again, ever more rarely, and is answered for with 503.
func TestClass47CrashLoop(t *testing.T) {
	t.Parallel()
	app, kept := t.TempDir(), t.TempDir()
	broken := filepath.Join(kept, "broken")
	writeScript(t, filepath.Join(app, "fragile.py"), `
import os
if os.path.exists(os.environ["TEST_DIR"] + "/broken"):
    raise SystemError("broken for the test")
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"whole\n"]
`, 0o644)
	writeScript(t, broken, "", 0o644)
	g := harness.Serve(t, fmt.Sprintf(`
pools:
  fragile: {app: "fragile:application", chdir: %q, python: %q, workers: 2, queue_timeout: 300ms, env: {TEST_DIR: %q}}
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 1, env: {TEST_DIR: %q}}
sites: [{routes: [{path: /fragile, pool: fragile}, {path: /pool, pool: probe}]}]
`, app, harness.Python(t), kept, harness.App(t), harness.Python(t), kept))

	loop := func(what string) {
		t.Helper()
		const watched = 3 * time.Second
		attempts, began, cpu := strings.Count(g.Stderr(), "worker failed to start"), time.Now(), processorTime(t, g.PID)
		for n := 0; time.Since(began) < watched; n++ {
			if n%3 == 0 {
				asked := time.Now()
				if r := g.Get("/fragile"); r.Status != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
					t.Errorf("%s: %+v", what, r)
				} else if took := time.Since(asked); took > 3*time.Second {
					t.Errorf("%s: the refusal took %v", what, took)
				}
			}
			if r := g.Get("/pool/token?x=" + strconv.Itoa(n)); r.Body != strconv.Itoa(n) {
				t.Errorf("%s: the other pool: %+v", what, r)
			}
			time.Sleep(100 * time.Millisecond)
		}
		attempts = strings.Count(g.Stderr(), "worker failed to start") - attempts
		cpu = processorTime(t, g.PID) - cpu
		t.Logf("%s: %d attempts in %v, %v of processor time", what, attempts, watched, cpu)
		// From 0.1 s, doubled each time, up to a half off by chance.
		if attempts > 12 {
			t.Errorf("%s: %d attempts to start in %v", what, attempts, watched)
		}
		if cpu > watched/4 {
			t.Errorf("%s: the gateway used %v of processor time in %v", what, cpu, watched)
		}
	}

	loop("broken from the start")
	if !strings.Contains(g.Stderr(), "SystemError: broken for the test") {
		t.Error("the log doesn't say why")
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	recovered := func() bool { return g.Get("/fragile").Body == "whole\n" }
	harness.Eventually(t, 20*time.Second, "the pool has recovered by itself", recovered)
	harness.Eventually(t, 20*time.Second, "both its workers run", func() bool { return len(workers(g, "fragile")) == 2 })

	writeScript(t, broken, "", 0o644)
	for _, p := range workers(g, "fragile") {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	harness.Eventually(t, 5*time.Second, "the workers are gone", func() bool { return g.Get("/fragile").Status == http.StatusServiceUnavailable })
	loop("broken while it ran")
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 20*time.Second, "the pool has recovered by itself", recovered)
}

// processorTime is what a process itself has used, without its children.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	field := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64
	for _, f := range field[11:13] { // utime and stime, see proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
