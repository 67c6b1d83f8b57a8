package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// preloadApp says what there is to know about the process that it runs in. Its
// tables are some 50 MB, of many objects.
const preloadApp = `
import gc, json, os, random, socket, sys, threading, time

VERSION = 1
LOADED_BY = os.getpid()
TABLE = [str(i) * 12 for i in range(int(os.environ.get("TABLE", "10")))]
FORKED = []
os.register_at_fork(after_in_child=lambda: FORKED.append(os.getpid()))

if "UNSAFE" in os.environ:
    threading.Thread(target=time.sleep, args=(1000,), name="metrics-sender", daemon=True).start()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
sys.stdout.write("an unfinished line ")

def application(environ, start_response):
    what = environ["PATH_INFO"]
    if what == "/wait":
        time.sleep(0.5)
    elif what == "/collect":
        gc.collect()
        time.sleep(0.5)
    elif what == "/print":
        print("out of", os.getpid())
        print("err of", os.getpid(), file=sys.stderr)
    elif what == "/hang":
        open(os.environ["HANGING"], "w").close()
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "300")
        while True:
            pass
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({
        "version": VERSION, "pid": os.getpid(), "loaded_by": LOADED_BY, "name": os.environ["GATECREW_WORKER"],
        "random": random.random(), "forked": FORKED[-1:], "frozen": gc.get_freeze_count(),
    }).encode()]
`

type preloadAnswer struct {
	Version, PID int
	LoadedBy     int `json:"loaded_by"`
	Name         string
	Random       float64
	Forked       []int
	Frozen       int
}

// preloading starts a gateway on a copy of the application.
func preloading(t *testing.T, dir, more string) *harness.Gateway {
	t.Helper()
	return harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
pools:
  web: {app: "shop:application", chdir: %q, python: %q, preload: true, %s}
sites: [{routes: [{path: /, pool: web}]}]
`, dir, harness.Python(t), more))
}

func preloadDir(t *testing.T) (dir, app string) {
	t.Helper()
	dir = t.TempDir()
	app = filepath.Join(dir, "shop.py")
	writeScript(t, app, preloadApp, 0o644)
	return dir, app
}

func preloadAsk(t *testing.T, g *harness.Gateway, path string) (a preloadAnswer) {
	t.Helper()
	if r := g.Get(path); r.Status != http.StatusOK {
		t.Errorf("%s: %d %s", path, r.Status, r.Body)
	} else if err := json.Unmarshal([]byte(r.Body), &a); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return a
}

// askEach asks every one of n workers of one thread.
func askEach(t *testing.T, g *harness.Gateway, n int, path string) map[int]preloadAnswer {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "all workers are ready", func() bool { return strings.Count(g.Stderr(), "worker ready") >= n })
	answers := make([]preloadAnswer, n)
	var asked sync.WaitGroup
	for i := range n {
		asked.Go(func() { answers[i] = preloadAsk(t, g, path) })
	}
	asked.Wait()
	byPID := map[int]preloadAnswer{}
	for _, a := range answers {
		byPID[a.PID] = a
	}
	if len(byPID) != n {
		t.Errorf("%d requests at once were answered by the workers %v", n, byPID)
	}
	return byPID
}

// A pool that preloads loads the application once, and its workers share the
// memory of it, also after their collector has been through it. What must not be
// shared isn't.
func TestPreload(t *testing.T) {
	t.Parallel()
	const n = 4
	dir, _ := preloadDir(t)
	g := preloading(t, dir, fmt.Sprintf(`workers: %d, env: {TABLE: "450000", UNSAFE: "1"}`, n))
	workers := askEach(t, g, n, "/collect")

	names, randoms, loader := map[string]bool{}, map[float64]bool{}, 0
	for pid, a := range workers {
		names[a.Name], randoms[a.Random] = true, true
		if loader == 0 {
			loader = a.LoadedBy
		}
		if a.LoadedBy != loader || a.LoadedBy == pid {
			t.Errorf("worker %d has an application that was loaded by %d, others by %d", pid, a.LoadedBy, loader)
		}
		if len(a.Forked) != 1 || a.Forked[0] != pid {
			t.Errorf("the hook of the application ran last in %v, not in worker %d", a.Forked, pid)
		}
		if a.Frozen < 1000 {
			t.Errorf("worker %d: the collector leaves out %d objects", pid, a.Frozen)
		}
		if p, _ := harness.Lookup(pid); p.PPID != g.PID {
			t.Errorf("worker %d is a child of %d, not of the gateway", pid, p.PPID)
		}
		if pgid, _ := syscall.Getpgid(pid); pgid != pid {
			t.Errorf("worker %d is in the process group %d", pid, pgid)
		}
	}
	for i := range n {
		if name := fmt.Sprint("web/", i+1); !names[name] {
			t.Errorf("no worker is %s: %v", name, names)
		}
	}
	if len(randoms) != n {
		t.Errorf("workers drew the same numbers: %v", randoms)
	}

	var rss, pss int64
	all := []int{loader}
	for pid := range workers {
		all = append(all, pid)
	}
	for _, pid := range all {
		m := harness.MemoryOf(pid)
		rss, pss = rss+m.RSS, pss+m.PSS
	}
	t.Logf("%d processes: %d MB if nothing was shared, %d MB as it is", len(all), rss>>20, pss>>20)
	if rss < int64(len(all))*50<<20 || pss > rss/2 {
		t.Errorf("%d processes of %d MB together use %d MB", len(all), rss>>20, pss>>20)
	}

	owner := map[string]int{}
	for _, pid := range all {
		ours := 0
		for fd, target := range harness.OpenFiles(pid) {
			if !strings.HasPrefix(target, "socket:") && !strings.HasPrefix(target, "pipe:") || pid == loader && fd > 2 && fd < 100 {
				continue
			}
			if other, known := owner[target]; known && other != pid {
				t.Errorf("%d and %d share descriptor %d: %s", pid, other, fd, target)
			}
			if fd >= 100 {
				ours++
			}
			// The application's own two are what the warning below is about.
			if _, inherited := harness.OpenFiles(loader)[fd]; !inherited || fd < 3 || fd >= 100 {
				owner[target] = pid
			}
		}
		want := 3 // the requests' socket, the control connection and the pipe for dumps
		if pid == loader {
			want = 2
		}
		if ours != want {
			t.Errorf("%d has %d descriptors to the gateway, want %d: %v", pid, ours, want, harness.OpenFiles(pid))
		}
	}

	g.LogLine("web/preload")
	g.LogLine("which do not run in the workers: metrics-sender;")
	g.LogLine("which all workers would share: to 127.0.0.1 port ")
	if n := strings.Count(g.Stderr(), "metrics-sender"); n != 1 {
		t.Errorf("the warning about threads was given %d times", n)
	}
	a := preloadAsk(t, g, "/print")
	for _, stream := range []string{"out", "err"} {
		g.LogLine(fmt.Sprintf("%s\t%s of %d", a.Name, stream, a.PID))
	}
	g.Stop()
	if n := strings.Count(g.Stderr(), "an unfinished line"); n != 1 {
		t.Errorf("what was printed before the fork was printed %d times", n)
	}
}

// What was loaded serves on: a worker that dies is forked anew from the code that
// the others run, whatever has become of the files. When the process that forks
// dies as well, the workers don't notice, and the next one runs what is there.
func TestPreloadDeaths(t *testing.T) {
	t.Parallel()
	dir, app := preloadDir(t)
	g := preloading(t, dir, "workers: 1")
	kill := func(pid int) {
		t.Helper()
		seen := strings.Count(g.Stderr(), "worker ready")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, 10*time.Second, "another worker is ready", func() bool { return strings.Count(g.Stderr(), "worker ready") > seen })
	}
	first := preloadAsk(t, g, "/")
	writeScript(t, app, "half a li", 0o644)
	kill(first.PID)
	second := preloadAsk(t, g, "/")
	if second.PID == first.PID || second.LoadedBy != first.LoadedBy || second.Version != 1 {
		t.Errorf("after the worker's death: %+v, before it %+v", second, first)
	}
	g.LogLine("signal: killed")

	writeScript(t, app, strings.ReplaceAll(preloadApp, "VERSION = 1", "VERSION = 22"), 0o644)
	if err := syscall.Kill(second.LoadedBy, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	g.LogLine("preloading process died")
	if a := preloadAsk(t, g, "/"); a.PID != second.PID {
		t.Errorf("after the death of the process that forks: %+v, before it %+v", a, second)
	}
	kill(second.PID)
	if a := preloadAsk(t, g, "/"); a.Version != 22 || a.LoadedBy == second.LoadedBy {
		t.Errorf("after both have died: %+v", a)
	}
}

// Workers that are replaced all the time lose no request.
func TestPreloadRecycles(t *testing.T) {
	t.Parallel()
	dir, _ := preloadDir(t)
	g := preloading(t, dir, "workers: 2, max_requests: 5")
	pids, loaders := map[int]bool{}, map[int]bool{}
	for end := time.Now().Add(20 * time.Second); len(pids) < scaled(10, 1000) && time.Now().Before(end); {
		a := preloadAsk(t, g, "/")
		pids[a.PID], loaders[a.LoadedBy] = true, true
	}
	if len(pids) < 10 || len(loaders) != 1 {
		t.Errorf("%d workers, loaded by %v", len(pids), loaders)
	}
	if zombies := harness.Zombies(g.PID); len(zombies) > 2 { // one may just be dying
		t.Errorf("zombies: %v", zombies)
	}
}

// A restart starts a new process that forks, and the old one ends with
// its last worker. No request notices.
func TestPreloadRestarts(t *testing.T) {
	t.Parallel()
	dir, app := preloadDir(t)
	g := preloading(t, dir, "workers: 1")
	stop, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		for {
			select {
			case <-stop:
				return
			default:
				preloadAsk(t, g, "/")
			}
		}
	}()
	before := preloadAsk(t, g, "/")
	old, _ := harness.Lookup(before.LoadedBy)
	for _, version := range []int{22, 333, 4444} { // of another size each time: Python compares that, and whole seconds
		writeScript(t, app, strings.ReplaceAll(preloadApp, "VERSION = 1", fmt.Sprint("VERSION = ", version)), 0o644)
		g.Signal(syscall.SIGHUP)
		harness.Eventually(t, 10*time.Second, "the new version answers", func() bool { return preloadAsk(t, g, "/").Version == version })
		harness.Eventually(t, 10*time.Second, "the process that forked the old workers ends", func() bool { return !old.Alive() })
		old, _ = harness.Lookup(preloadAsk(t, g, "/").LoadedBy)
	}
	close(stop)
	<-asked
	for end := time.Now().Add(5 * time.Second); len(workers(g, "")) != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left are %v\n%s", workers(g, ""), g.Stderr())
		}
	}
}

// Why it can't be loaded is said once, in the log or else at the end.
func TestPreloadOfABrokenApplication(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"info", "error"} {
		g := harness.New(t, "run", "broken_import:application", "--preload", "--workers", "3", "--log-level", level,
			"--chdir", harness.App(t), "--python", harness.Python(t)).Launch()
		if !g.Wait(20 * time.Second) {
			t.Fatal("it runs on")
		}
		if code := g.ExitCode(); code != 4 {
			t.Errorf("exit status %d, want 4", code)
		}
		for _, text := range []string{"Traceback", "import no_such_module_anywhere", "could not be loaded"} {
			if n := strings.Count(g.Stderr(), text); n != 1 {
				t.Errorf("level %s: %q is there %d times:\n%s", level, text, n, g.Stderr())
			}
		}
	}
}

// Workers that were forked have no parent that takes them along: kill -9 of the
// gateway ends them all the same, and what they started.
func TestPreloadKill9(t *testing.T) {
	t.Parallel()
	dir, _ := preloadDir(t)
	hanging := filepath.Join(t.TempDir(), "hanging")
	mark := "preload-" + strconv.Itoa(os.Getpid())
	g := preloading(t, dir, fmt.Sprintf("workers: 2, env: {HANGING: %q, GATECREW_TEST_MARK: %q}", hanging, mark))
	go func() { _, _ = g.Try("GET", "/hang", nil) }()
	harness.Eventually(t, 10*time.Second, "a request hangs", func() bool {
		_, err := os.Stat(hanging)
		return err == nil && len(marked("GATECREW_TEST_MARK="+mark)) == 4
	})
	g.Kill9()
	allGone(t, 2*time.Second, "kill -9", marked("GATECREW_TEST_MARK="+mark))
}

func TestPreloadFlask(t *testing.T) {
	t.Parallel()
	g := harness.Start(t, "run", "flask_checked:application", "--preload", "--chdir", harness.App(t), "--python", harness.Python(t),
		"--workers", "2", "--threads", "4", "--access-log", "off")
	if r := g.Get("/"); r.Status != http.StatusOK || r.Body != "Hello, World!" {
		t.Errorf("/: %d %v %q", r.Status, r.Header, r.Body)
	}
	t.Run("form", func(t *testing.T) { flaskForm(t, g) })
	t.Run("sessions", func(t *testing.T) { flaskSessions(t, g) })
}
