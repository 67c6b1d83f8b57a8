package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// companion is a program that accepts connections on a Unix socket a while after
// its start, and has processes of its own: one beside it, one moved away.
const companion = `import os, signal, socket, subprocess, sys, time
name, address = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: (print(name, "stops", flush=True), sys.exit(0)))
print(name, "starts", flush=True)
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sleep", "1001"], start_new_session=True)
time.sleep(0.3)
if os.path.exists(address):
    os.unlink(address)
listener = socket.socket(socket.AF_UNIX)
listener.bind(address)
listener.listen()
while True:
    signal.pause()
`

// inOrder fails the test unless the log has lines with each text, one after the
// other.
func inOrder(t *testing.T, log string, texts ...string) {
	t.Helper()
	rest := log
	for _, text := range texts {
		i := strings.Index(rest, text)
		if i < 0 {
			t.Errorf("no %q after the ones before it in %q, in\n%s", text, texts, log)
			return
		}
		rest = rest[i+len(text):]
	}
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "programs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Programs are started in order and before the pools that need them, again when
// they die, stopped in order when the last request has ended, and leave nothing
// behind.
func TestPrograms(t *testing.T) {
	dir := shortDir(t)
	mark := "GATECREW_TEST_MARK=" + filepath.Base(dir)
	config := fmt.Sprintf(`
log: {access: "off"}
pools:
  probe: {app: "wsgi_probe:application", chdir: %[1]q, python: %[2]q, workers: 1, after: [queue], env: {TEST_DIR: %[3]q}}
programs:
  queue: {command: [python, %[4]q, queue, "%[3]s/queue"], after: [store], ready: unix:%[3]s/queue, env: &env {GATECREW_TEST_MARK: %[5]q}}
  store: {command: [python, %[4]q, store, "%[3]s/store"], ready: unix:%[3]s/store, env: *env}
  broken: {command: [sh, -c, "echo no such table; exit 3"], env: *env}
sites: [{routes: [{path: /, pool: probe}]}]
`, harness.App(t), harness.Python(t), dir, harness.WriteFile(t, "companion.py", companion), filepath.Base(dir))

	g := harness.Serve(t, config)
	if r := g.Get("/token?x=1"); r.Body != "1" {
		t.Errorf("%+v", r)
	}
	g.LogLine("no such table")
	inOrder(t, g.Stderr(), "store starts", `program up	{"program": "store"`, "queue starts", `program up	{"program": "queue"`, "worker ready")

	pid := regexp.MustCompile(`program up\t\{"program": "store", "pid": (\d+)`).FindStringSubmatch(g.Stderr())
	if pid == nil {
		t.Fatalf("no number in\n%s", g.Stderr())
	}
	var number int
	fmt.Sscan(pid[1], &number)
	family := harness.Descendants(number)
	if len(family) != 2 {
		t.Errorf("processes of the program: %v", family)
	}
	if err := syscall.Kill(number, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	allGone(t, 3*time.Second, "of a killed program", family)
	for deadline := time.Now().Add(10 * time.Second); strings.Count(g.Stderr(), `program up	{"program": "store"`) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it was not started again:\n%s", g.Stderr())
		}
	}
	if n := strings.Count(g.Stderr(), "queue starts"); n != 1 {
		t.Errorf("the one that comes after it was started %d times", n)
	}

	before := len(g.Stderr())
	answered := make(chan harness.Response, 1)
	go func() { answered <- g.Get("/sleep?s=0.6") }()
	time.Sleep(200 * time.Millisecond) // it has come to the worker
	g.Stop()
	if r := <-answered; r.Status != http.StatusOK {
		t.Errorf("the last request: %+v", r)
	}
	inOrder(t, g.Stderr()[before:], "worker ended", "queue stops", `program ended	{"program": "queue"`, "store stops", `program ended	{"program": "store"`)
	if left := marked(mark); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	g = harness.Serve(t, config)
	g.Kill9()
	for deadline := time.Now().Add(3 * time.Second); len(marked(mark)) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range marked(mark) {
		t.Errorf("after a kill -9: still there: %v %s", p, commandLine(p.PID))
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// A program that does not work keeps nothing from being served: neither the
// other sites nor, in the end, the pool that waits for it.
func TestProgramThatNeverComesUp(t *testing.T) {
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
pools:
  probe: {app: "wsgi_probe:application", chdir: %[1]q, python: %[2]q, workers: 1, after: [broken]}
  free: {app: "wsgi_probe:application", chdir: %[1]q, python: %[2]q, workers: 1}
programs:
  broken: {command: [sh, -c, "echo 'no configuration' >&2; exit 3"], start_timeout: 3s}
sites: [{routes: [{path: /, pool: probe}, {path: /free, pool: free}]}]
`, harness.App(t), harness.Python(t)))
	if r := g.Get("/free/token?x=1"); r.Body != "1" {
		t.Errorf("the other pool: %+v", r)
	}
	inOrder(t, g.Stderr(), "program ended by itself", "no configuration", "pool waits for a program that has failed")
	if strings.Contains(g.Stderr(), "pool is started although") {
		t.Errorf("the other pool had to wait:\n%s", g.Stderr())
	}
	if r := g.Get("/token?x=2"); r.Body != "2" {
		t.Errorf("the pool that waited: %+v", r)
	}
	g.LogLine("program is not up in time")
	inOrder(t, g.Stderr(), "pool is started although", "broken (backing off, exit status 3: no configuration)")
}

// A Flask view has a Celery worker do its work over Redis, and one TERM ends all
// three: the task in progress is finished, and Redis goes last.
func TestCelery(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	file := filepath.Join(dir, "slow")
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
pools:
  web: {app: "celery_app:app", chdir: %[1]q, python: %[2]q, workers: 1, after: [redis], env: &env {REDIS_SOCKET: "%[3]s/redis", SLOW_FILE: %[4]q}}
programs:
  redis:
    command: [redis-server, --port, 0, --unixsocket, "%[3]s/redis", --dir, %[3]q, --save, ""]
    ready: unix:%[3]s/redis
  celery:
    command: [celery, -A, celery_app.celery, worker, --loglevel, INFO, --concurrency, 2, --without-gossip, --without-mingle]
    chdir: %[1]q
    env: *env
    after: [redis]
sites: [{routes: [{path: /, pool: web}]}]
`, harness.App(t), harness.Python(t), dir, file))
	if r := g.Get("/add/20/22"); r.Status != http.StatusOK || strings.TrimSpace(r.Body) != `{"sum":42}` {
		t.Errorf("%+v", r)
	}
	if r := g.Do("POST", "/slow", nil); r.Status != http.StatusAccepted {
		t.Errorf("%+v", r)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file + ".begun"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the task was not begun:\n%s", g.Stderr())
		}
	}
	g.Stop()
	if _, err := os.Stat(file + ".done"); err != nil {
		t.Errorf("the task in progress was cut off: %v", err)
	}
	inOrder(t, g.Stderr(), "Warm shutdown", `program ended	{"program": "celery"`, "bye bye", `program ended	{"program": "redis"`)
	if strings.Contains(g.Stderr(), "killing its process group") || strings.Count(g.Stderr(), `"exit": "exit status 0"`) < 2 {
		t.Errorf("not in peace:\n%s", g.Stderr())
	}
}
