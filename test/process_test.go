package test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// A child process has its standard descriptors and nothing of the gateway's:
// no listener, no client's connection, no other child's pipe.
func TestClass41DescriptorsOfChildren(t *testing.T) {
	dir, kept := harness.CGIDir(t), t.TempDir()
	// What the listing itself has open is gone when its names are looked at.
	script(t, dir, "descriptors.py", `#!/usr/bin/python3
import os
print("Content-Type: text/plain\n")
for fd in os.listdir("/proc/self/fd"):
    try:
        print(fd, os.readlink("/proc/self/fd/" + fd))
    except OSError:
        pass
`)
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: %q}
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 2, env: {TEST_DIR: %q}}
sites:
  - routes:
      - {path: /cgi, cgi: {dir: %q, env: {TEST_DIR: %q}}}
      - {path: /pool, pool: probe}
`, filepath.Join(kept, "access.log"), harness.App(t), harness.Python(t), kept, dir, kept))

	clients := scaled(200, 500)
	var connected, done sync.WaitGroup
	release := make(chan struct{})
	for i := range clients {
		connected.Add(1)
		done.Go(func() {
			c := newCaller(g)
			defer c.close()
			r, err := c.call("GET", "/pool/token?x="+strconv.Itoa(i), "")
			if err != nil || r.Body != strconv.Itoa(i) {
				t.Errorf("client %d: %v, %+v", i, err, r)
			}
			connected.Done()
			<-release
		})
	}
	connected.Wait()

	for range 5 {
		page := g.Get("/cgi/descriptors.py")
		if page.Status != http.StatusOK {
			t.Fatalf("status %d: %s", page.Status, page.Body)
		}
		files := map[string]string{}
		for line := range strings.Lines(page.Body) {
			fd, target, _ := strings.Cut(strings.TrimSpace(line), " ")
			files[fd] = target
		}
		for fd, target := range files {
			if n, err := strconv.Atoi(fd); err != nil || n > 2 || !strings.HasPrefix(target, "pipe:") {
				t.Errorf("a script has descriptor %s: %s", fd, target)
			}
		}
		if len(files) != 3 {
			t.Errorf("a script has the descriptors %v, want 0, 1 and 2", files)
		}
	}
	owner := map[string]int{}
	crew := workers(g, "probe")
	if len(crew) != 2 {
		t.Errorf("the workers are %v, want 2", crew)
	}
	for _, w := range crew {
		sockets, ends := 0, map[string]int{}
		for fd, target := range harness.OpenFiles(w.PID) {
			switch {
			case fd == 0 && target == "/dev/null":
				continue
			case strings.HasPrefix(target, "socket:"):
				sockets++
			case strings.HasPrefix(target, "pipe:"):
				ends[target]++
			default:
				t.Errorf("worker %d has descriptor %d: %s", w.PID, fd, target)
			}
			if other, known := owner[target]; known && other != w.PID {
				t.Errorf("the workers %d and %d share %s", w.PID, other, target)
			}
			owner[target] = w.PID
		}
		open := 0 // pipes whose other end is elsewhere: standard output, standard error and that for dumps
		for _, n := range ends {
			open += n % 2
		}
		if sockets != 2 || open != 3 { // the requests' socket, and the control connection
			t.Errorf("worker %d has %d sockets and %d pipes to others, want 2 and 3: %v", w.PID, sockets, open, harness.OpenFiles(w.PID))
		}
	}
	close(release)
	done.Wait()
}

// A script that makes a daemon leaves an orphan, which becomes the gateway's
// child: when it ends the gateway has to collect it.
func TestClass42NoZombies(t *testing.T) {
	dir := harness.CGIDir(t)
	// The same in little time: a child of its own session, one of the script's.
	script(t, dir, "double-fork.sh", `#!/bin/sh
(setsid true </dev/null >/dev/null 2>&1 &)
(true </dev/null >/dev/null 2>&1 &)
printf 'Content-Type: text/plain\n\nbody\n'
`)
	g := harness.Start(t, "run", dir, "--access-log", "off")
	seen := newTally()
	runs := scaled(300, 10_000)
	targets := []string{"/double-fork.py", "/double-fork.py?setsid=0"}
	rate := crowd(g, 8, runs, func(c *caller, n int) {
		target := "/double-fork.sh"
		if n%20 == 0 {
			target = targets[n/20%2]
		}
		if r, err := c.call("GET", target, ""); err != nil || r.Status != 200 || r.Body != "body\n" {
			seen.add("failed", "%v, %+v", err, r)
		}
	})
	t.Logf("%d runs, %.0f/s", runs, rate)
	seen.only(t)
	harness.Eventually(t, 5*time.Second, "no script and no zombie is left", func() bool {
		return len(below(g.PID, "double-fork")) == 0 && len(harness.Zombies(g.PID)) == 0
	})
	if left := harness.Descendants(g.PID); len(left) > 1 {
		t.Errorf("left: %v, want the guard alone", left)
	}
}

// The request ends with its script, whoever still holds the pipes open.
func TestClass43BackgroundChild(t *testing.T) {
	kept := t.TempDir()
	g := harness.Start(t, "run", harness.CGIDir(t), "--env", "TEST_DIR="+kept)
	began := time.Now()
	r := g.Get("/background.sh")
	took := time.Since(began)
	if r.Status != http.StatusOK || r.Body != "body\n" {
		t.Errorf("got %+v", r)
	}
	if took > 1500*time.Millisecond {
		t.Errorf("the response took %v", took)
	}
	allGone(t, 2*time.Second, "what the script started", pidsIn(t, filepath.Join(kept, "background")))
}

// A script that hangs is ended with all that it started: when it was silent
// for too long, and when its client has gone.
func TestHangingScripts(t *testing.T) {
	t.Parallel()
	kept := t.TempDir()
	g := harness.New(t, "run", harness.CGIDir(t), "--env", "TEST_DIR="+kept, "--timeout", "1s", "--access-log-format", "json")
	g.Start()
	const stopGrace = 5 * time.Second
	for _, c := range []struct {
		name, query string
		within      time.Duration
	}{
		{"plain", "children=3", 3 * time.Second},
		{"stubborn", "children=2&ignore_term=1", 3*time.Second + stopGrace},
		{"busy", "children=1&spin=1", 3 * time.Second},
	} {
		t.Run("timeout before the head/"+c.name, func(t *testing.T) {
			t.Parallel()
			name := "timeout-" + c.name
			began := time.Now()
			r, err := g.Try("GET", "/hang.py?"+c.query+"&name="+name, nil)
			if err != nil || r.Status != http.StatusGatewayTimeout {
				t.Errorf("got %v, %+v; want 504", err, r)
			}
			if took := time.Since(began); took < time.Second {
				t.Errorf("it was given up after %v, the limit is 1 s of silence", took)
			}
			allGone(t, c.within, "the script's family", pidsIn(t, filepath.Join(kept, name)))
		})
		t.Run("timeout after the head/"+c.name, func(t *testing.T) {
			t.Parallel()
			name := "late-" + c.name
			r, err := g.Try("GET", "/hang.py?head=1&"+c.query+"&name="+name, nil)
			if !errors.Is(err, io.ErrUnexpectedEOF) || r.Status != http.StatusOK || r.Body != "waiting\n" {
				t.Errorf("got %v, %+v; want a response that is broken off", err, r)
			}
			allGone(t, c.within, "the script's family", pidsIn(t, filepath.Join(kept, name)))
		})
	}
}

func TestClass35ClientLeavesScript(t *testing.T) {
	t.Parallel()
	kept := t.TempDir()
	g := harness.Start(t, "run", harness.CGIDir(t), "--env", "TEST_DIR="+kept, "--access-log-format", "json")
	const stopGrace = 5 * time.Second
	for _, c := range []struct {
		name, query string
		within      time.Duration
	}{
		{"plain", "children=3", 2 * time.Second},
		{"answering", "children=2&head=1", 2 * time.Second},
		{"stubborn", "children=2&ignore_term=1", 2*time.Second + stopGrace},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn := g.Dial()
			fmt.Fprintf(conn, "GET /hang.py?%s&name=%s HTTP/1.1\r\nHost: h\r\n\r\n", c.query, c.name)
			family := pidsIn(t, filepath.Join(kept, c.name))
			if len(family) < 5 {
				t.Fatalf("only %v run", family)
			}
			conn.Close()
			allGone(t, c.within, "the script's family", family)
			harness.Eventually(t, 10*time.Second, "the access log has the request", func() bool {
				for line := range strings.Lines(g.Stdout()) {
					if strings.Contains(line, "name="+c.name) {
						if want := map[bool]string{true: `"status":200`, false: `"status":499`}[strings.Contains(c.query, "head")]; !strings.Contains(line, want) {
							t.Errorf("logged as %s, want %s", line, want)
						}
						return true
					}
				}
				return false
			})
		})
	}
}

// A script that wants to clean up is asked first.
func TestScriptIsAskedBeforeItIsKilled(t *testing.T) {
	kept := t.TempDir()
	dir := t.TempDir()
	script(t, dir, "tidy.py", `#!/usr/bin/python3
import os, signal, sys, time
def tidy(*_):
    with open(os.environ["TEST_DIR"] + "/tidied", "w") as out:
        out.write("tidied")
    sys.exit(0)
signal.signal(signal.SIGTERM, tidy)
while True:
    time.sleep(60)
`)
	g := harness.Start(t, "run", dir, "--env", "TEST_DIR="+kept, "--timeout", "500ms")
	if r := g.Get("/tidy.py"); r.Status != http.StatusGatewayTimeout {
		t.Errorf("status %d, want 504", r.Status)
	}
	harness.Eventually(t, 3*time.Second, "the script has tidied up", func() bool {
		data, _ := os.ReadFile(filepath.Join(kept, "tidied"))
		return string(data) == "tidied"
	})
}

// How a script ends says whether its answer is whole, unless its own
// Content-Length has said so before.
func TestScriptFailsAfterItsWholeAnswer(t *testing.T) {
	g := harness.Start(t, "run", harness.CGIDir(t))
	for _, end := range []string{"code=1", "signal=9"} {
		if r, err := g.Try("GET", "/die.py?length=10&sent=10&"+end, nil); err != nil || r.Status != http.StatusOK || r.Body != "bbbbbbbbbb" {
			t.Errorf("%s: %v, %+v", end, err, r)
		}
		if r, err := g.Try("GET", "/die.py?sent=10&"+end, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, of unknown length: %v, %+v; want a response that is broken off", end, err, r)
		}
	}
	g.LogLine("failed after its whole answer")
}

// A script that is being written is "text file busy" for whoever executes it.
func TestClass55ScriptIsRewritten(t *testing.T) {
	dir := t.TempDir()
	const text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nversion\\n'\n"
	script(t, dir, "quiet.sh", text)
	inPlace, renamed := script(t, dir, "in-place.sh", text), script(t, dir, "renamed.sh", text)
	g := harness.Start(t, "run", dir, "--access-log", "off")

	stop := make(chan struct{})
	var writers sync.WaitGroup
	var writes atomic.Int64
	// pause is how long a file is left alone between two rewrites.
	rewrite := func(pause time.Duration, once func() error) {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				if err := once(); err != nil {
					t.Error(err)
					return
				}
				writes.Add(1)
			}
		})
	}
	rewrite(40*time.Millisecond, func() error {
		// Without O_TRUNC: an empty script would be broken for another reason.
		f, err := os.OpenFile(inPlace, os.O_WRONLY, 0)
		if errors.Is(err, syscall.ETXTBSY) {
			return nil // it is being executed at the moment
		}
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteString(text)
		time.Sleep(10 * time.Millisecond)
		return err
	})
	rewrite(time.Millisecond, func() error {
		next := filepath.Join(t.TempDir(), "next")
		if err := os.WriteFile(next, []byte(text), 0o755); err != nil {
			return err
		}
		return os.Rename(next, renamed)
	})
	seen := newTally()
	paths := []string{"/in-place.sh", "/renamed.sh", "/quiet.sh"}
	runs := scaled(600, 20_000)
	rate := crowd(g, 8, runs, func(c *caller, n int) {
		path := paths[n%len(paths)]
		if r, err := c.call("GET", path, ""); err != nil || r.Status != 200 || r.Body != "version\n" {
			seen.add(path, "%v, %+v", err, r)
		}
	})
	close(stop)
	writers.Wait()
	seen.only(t)
	if writes.Load() < 20 {
		t.Errorf("only %d rewrites happened", writes.Load())
	}
	t.Logf("%d runs, %.0f/s, beside %d rewrites", runs, rate, writes.Load())
}

// One script that stays busy is its own problem.
func TestClass55BusyScriptHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	const text = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nok\\n'\n"
	script(t, dir, "fast.sh", text)
	f, err := os.OpenFile(script(t, dir, "busy.sh", text), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := harness.Start(t, "run", dir, "--access-log", "off")

	began := time.Now()
	if r := g.Get("/busy.sh"); r.Status != http.StatusBadGateway {
		t.Fatalf("a script that stays busy: status %d", r.Status)
	}
	patience := time.Since(began) // what the gateway waits for such a script

	stop := crew(g, 4, func(c *caller) {
		_, _ = c.call("GET", "/busy.sh", "") // refused, as above
	})
	var slowest time.Duration
	for range 10 {
		began := time.Now()
		if r := g.Get("/fast.sh"); r.Body != "ok\n" {
			t.Errorf("got %+v", r)
		}
		slowest = max(slowest, time.Since(began))
	}
	stop()
	t.Logf("beside busy scripts, which wait %v, another took up to %v", patience, slowest)
	if slowest > patience {
		t.Errorf("another script took %v, as long as the busy ones (%v)", slowest, patience)
	}
}
