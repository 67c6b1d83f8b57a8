package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// probe prepares a gateway for test/apps/wsgi_probe.py.
func probe(t *testing.T, flags ...string) *harness.Gateway {
	t.Helper()
	return harness.New(t, append([]string{"run", "wsgi_probe:application", "--chdir", harness.App(t),
		"--python", harness.Python(t), "--env", "TEST_DIR=" + t.TempDir()}, flags...)...)
}

// stopsIn waits for the end of a gateway that was told to stop, and demands an
// orderly one.
func stopsIn(t *testing.T, g *harness.Gateway, d time.Duration) {
	t.Helper()
	began := time.Now()
	if !g.Wait(d) {
		t.Errorf("it has not ended after %v", d)
		return
	}
	t.Logf("ended after %v", time.Since(began))
	if code := g.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}
}

// A request that is being answered when TERM comes is answered to its end, and
// nothing new is begun.
func TestClass62TermIsGraceful(t *testing.T) {
	g := probe(t, "--workers", "2").Start()
	family := harness.Descendants(g.PID)

	idle := newCaller(g)
	defer idle.close()
	if _, err := idle.call("GET", "/", ""); err != nil {
		t.Fatal(err)
	}
	busy := newCaller(g)
	defer busy.close()
	var answer harness.Response
	var failure error
	var asked sync.WaitGroup
	asked.Go(func() { answer, failure = busy.call("GET", "/stream?n=4&chunk=8&delay=0.3", "") })
	queued := make(chan harness.Response, 3)
	for range cap(queued) { // more than there are workers
		asked.Go(func() {
			c := newCaller(g)
			defer c.close()
			r, err := c.call("GET", "/sleep?s=0.7", "")
			if err != nil {
				t.Errorf("a request that waited for a worker: %v", err)
			} else if c.conn != nil {
				t.Error("the last answer on a connection doesn't say so")
			}
			queued <- r
		})
	}
	time.Sleep(300 * time.Millisecond) // the requests are with the gateway by then
	g.Signal(syscall.SIGTERM)
	harness.Eventually(t, 2*time.Second, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", g.Addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	// The idle connection ends rather than being left to the kernel.
	if err := idle.conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.in.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection: %v, want its end", err)
	}
	asked.Wait()
	if failure != nil || answer.Status != http.StatusOK || answer.Body != strings.Repeat("s", 32) {
		t.Errorf("the request in progress: %v, %+v", failure, answer)
	}
	for range cap(queued) {
		if r := <-queued; r.Status != http.StatusOK || r.Body != "slept\n" {
			t.Errorf("a request that waited for a worker: %+v", r)
		}
	}
	stopsIn(t, g, 5*time.Second)
	allGone(t, time.Second, "after the end", family)
}

// Clients that keep connections open hold nothing up.
func TestClass62TermWithIdleConnections(t *testing.T) {
	g := probe(t).Start()
	for i := range 50 {
		c := newCaller(g)
		defer c.close()
		if r, err := c.call("GET", "/token?x="+strconv.Itoa(i), ""); err != nil || r.Body != strconv.Itoa(i) {
			t.Fatalf("%v, %+v", err, r)
		}
	}
	g.Signal(syscall.SIGTERM)
	stopsIn(t, g, 3*time.Second)
}

// Two TERMs, INT and QUIT don't wait for requests.
func TestClass62FastStops(t *testing.T) {
	t.Parallel()
	for _, signals := range [][]syscall.Signal{
		{syscall.SIGTERM, syscall.SIGTERM}, {syscall.SIGINT}, {syscall.SIGQUIT}, {syscall.SIGTERM, syscall.SIGINT},
	} {
		t.Run(fmt.Sprint(signals), func(t *testing.T) {
			t.Parallel()
			dir := harness.CGIDir(t)
			kept := t.TempDir()
			g := harness.Serve(t, fmt.Sprintf(`
graceful_timeout: 5m
pools:
  probe: {app: "wsgi_probe:application", chdir: %q, python: %q, workers: 1, graceful_timeout: 5m, env: {TEST_DIR: %q}}
sites: [{routes: [{path: /pool, pool: probe}, {path: /cgi, cgi: {dir: %q, env: {TEST_DIR: %q}}}]}]
`, harness.App(t), harness.Python(t), kept, dir, kept))
			for _, target := range []string{"/pool/sleep?s=300", "/cgi/hang.py?children=1&name=hanging"} {
				fmt.Fprintf(g.Dial(), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target)
			}
			family := append(pidsIn(t, filepath.Join(kept, "hanging")), harness.Descendants(g.PID)...)
			for i, s := range signals {
				if i > 0 {
					g.LogLine("stopping after the requests in progress")
				}
				g.Signal(s)
			}
			// The worker may be asked, with TERM, before it is killed.
			stopsIn(t, g, 8*time.Second)
			allGone(t, time.Second, "after the end", family)
		})
	}
}

// A gateway whose application takes long to load can be stopped meanwhile.
func TestClass62TermDuringStart(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			app := t.TempDir()
			writeScript(t, filepath.Join(app, "slow.py"), "import time\ntime.sleep(300)\n", 0o644)
			g := harness.New(t, "run", "slow:application", "--chdir", app, "--python", harness.Python(t)).Launch()
			harness.Eventually(t, 10*time.Second, "a worker is starting", func() bool { return len(workers(g, "")) > 0 })
			family := harness.Descendants(g.PID)
			g.Signal(syscall.SIGHUP) // restarts what has not started, and must not end it
			g.Signal(signal)
			stopsIn(t, g, 3*time.Second)
			allGone(t, time.Second, "after the end", family)
			if strings.Contains(g.Stdout(), "ready") {
				t.Error("it said that it was ready")
			}
		})
	}
}

// A storm of HUP loses no request, starts no crowd of processes, and leaves
// workers that are all new.
func TestClass62HangUpStorm(t *testing.T) {
	g := probe(t, "--workers", "2").Start()
	before := workers(g, "")
	seen := newTally()
	most := 0
	var storm sync.WaitGroup
	storm.Go(func() {
		for range 100 {
			g.Signal(syscall.SIGHUP)
			time.Sleep(5 * time.Millisecond)
			most = max(most, len(workers(g, "")))
		}
	})
	crowd(g, 4, 400, func(c *caller, n int) {
		if r, err := c.call("GET", "/token?x="+strconv.Itoa(n), ""); err != nil || r.Body != strconv.Itoa(n) {
			seen.add("wrong", "%v, %+v", err, r)
		}
	})
	storm.Wait()
	seen.only(t)
	if most > 6 {
		t.Errorf("%d workers at once, for a pool of two", most)
	}
	g.LogLine("restart done")
	harness.Eventually(t, 5*time.Second, "two new workers, and no old one", func() bool {
		after := workers(g, "")
		return len(after) == 2 && !slices.ContainsFunc(after, func(p harness.Process) bool { return slices.Contains(before, p) })
	})
}

func pids(family []harness.Process) []int {
	var out []int
	for _, p := range family {
		out = append(out, p.PID)
	}
	return out
}

// TTIN and TTOU are one worker more and one less, and no request is lost.
func TestClass62WorkersByHand(t *testing.T) {
	g := probe(t, "--workers", "2").Start()
	seen := newTally()
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			c := newCaller(g)
			defer c.close()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if r, err := c.call("GET", "/token?x="+strconv.Itoa(n), ""); err != nil || r.Body != strconv.Itoa(n) {
					seen.add("wrong", "%v, %+v", err, r)
				}
			}
		})
	}
	for i, step := range []struct {
		signal syscall.Signal
		want   int
	}{
		{syscall.SIGTTIN, 3}, {syscall.SIGTTIN, 4}, {syscall.SIGTTOU, 3}, {syscall.SIGTTOU, 2},
		{syscall.SIGTTOU, 1}, {syscall.SIGTTOU, 1}, {syscall.SIGTTIN, 2},
	} {
		g.Signal(step.signal)
		// Two signals that wait together come in the order of their numbers.
		harness.Eventually(t, 10*time.Second, "the signal is seen", func() bool { return strings.Count(g.Stderr(), "pool resized") == i+1 })
		harness.Eventually(t, 20*time.Second, fmt.Sprintf("step %d: %d workers", i, step.want), func() bool {
			return len(workers(g, "")) == step.want
		})
	}
	close(stop)
	callers.Wait()
	seen.only(t)
}

// USR1 is for whoever has renamed the access log.
func TestClass62LogRotation(t *testing.T) {
	log := filepath.Join(t.TempDir(), "access.log")
	g := harness.Start(t, "run", harness.App(t, "cgi"), "--access-log", log)
	has := func(path, text string) func() bool {
		return func() bool {
			data, _ := os.ReadFile(path)
			return bytes.Contains(data, []byte(text))
		}
	}
	g.Get("/echo.sh?first")
	harness.Eventually(t, 5*time.Second, "the log has the first request", has(log, "?first "))
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	g.Get("/echo.sh?second") // still into the old file, which has a new name
	g.Signal(syscall.SIGUSR1)
	harness.Eventually(t, 5*time.Second, "there is a new log", func() bool { _, err := os.Stat(log); return err == nil })
	g.Get("/echo.sh?third")
	harness.Eventually(t, 5*time.Second, "the new log has the third request", has(log, "?third "))
	if !has(log+".1", "?second ")() {
		t.Error("the second request is not in the renamed log")
	}
	for path, texts := range map[string][]string{log: {"?first ", "?second "}, log + ".1": {"?third "}} {
		for _, text := range texts {
			if has(path, text)() {
				t.Errorf("%s has %q", path, text)
			}
		}
	}
}

// Who reads the gateway's output may go away: that is no reason to stop serving.
func TestClass62NobodyReadsTheOutput(t *testing.T) {
	read, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(harness.Build(t), "run", harness.App(t, "cgi"), "--bind", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = written, written
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // for a test that failed; else it has ended
	})
	written.Close()
	url, out := "", bufio.NewReader(read)
	for url == "" {
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("before the ready line: %v", err)
		}
		url = regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	}
	read.Close()
	c := &caller{network: "tcp", addr: url}
	defer c.close()
	// Each of these writes a line, soon or at once, into a pipe without a reader.
	for n := range 20 {
		if r, err := c.call("GET", "/stderr.py?bytes=100", ""); err != nil || r.Body != "body\n" {
			t.Fatalf("request %d: %v, %+v", n, err, r)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after a TERM: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it has not ended 5 s after a TERM")
	}
}

// A child starts with the signals as every program expects them.
func TestClass62SignalsOfChildren(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "signals.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec grep -E '^Sig(Blk|Ign):' /proc/self/status\n")
	g := harness.Start(t, "run", dir)
	r := g.Get("/signals.sh")
	var blocked, ignored uint64
	if _, err := fmt.Sscanf(r.Body, "SigBlk:\t%x\nSigIgn:\t%x\n", &blocked, &ignored); err != nil {
		t.Fatalf("%v: %q", err, r.Body)
	}
	// Signals 32 and 33 are the C library's own: one that the gateway is linked
	// to, as in a build with the race detector, sets them as it likes.
	const libc = 1<<31 | 1<<32
	if blocked&^libc != 0 || ignored&^libc != 0 {
		t.Errorf("a script starts with\n%s", r.Body)
	}
}

// Signals in any order and number, under load, lose no request.
func TestClass62SignalStorm(t *testing.T) {
	log := filepath.Join(t.TempDir(), "access.log")
	g := probe(t, "--workers", "2", "--access-log", log).Start()
	family := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGALRM}
	stop := make(chan struct{})
	var storm sync.WaitGroup
	grown := 0
	storm.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
			}
			s := family[rand.IntN(len(family))]
			switch { // so that the machine is not filled with workers
			case s == syscall.SIGTTIN && grown >= 3, s == syscall.SIGTTOU && grown <= 0:
				continue
			case s == syscall.SIGTTIN:
				grown++
			case s == syscall.SIGTTOU:
				grown--
			}
			g.Signal(s)
		}
	})
	seen := newTally()
	total := scaled(1500, 500_000)
	rate := crowd(g, 8, total, func(c *caller, n int) {
		if r, err := c.call("GET", "/token?x="+strconv.Itoa(n), ""); err != nil || r.Body != strconv.Itoa(n) {
			seen.add("wrong", "%v, %+v", err, r)
		}
	})
	close(stop)
	storm.Wait()
	t.Logf("%d requests, %.0f/s", total, rate)
	seen.only(t)
	harness.Eventually(t, 5*time.Second, "the access log has all requests", func() bool {
		data, _ := os.ReadFile(log)
		return bytes.Count(data, []byte("\n")) >= total
	})
	// The kernel may have made one signal of two, so the gateway itself has to
	// say how many workers that makes.
	size := regexp.MustCompile(`pool resized\t.*"max": (\d+)`).FindAllStringSubmatch(g.Stderr(), -1)
	if len(size) == 0 {
		t.Fatal("the pool was never resized")
	}
	want, err := strconv.Atoi(size[len(size)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 20*time.Second, fmt.Sprintf("%d workers", want), func() bool { return len(workers(g, "")) == want })
}
