package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// startPID1 starts a gateway as process 1 of a namespace, as a container does.
func startPID1(t *testing.T, args ...string) (g *harness.Gateway, init harness.Process) {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err == nil {
		err = exec.Command(unshare, "--pid", "--fork", "--mount-proc", "true").Run()
	}
	if err != nil {
		t.Skip("no new PID namespace can be made here: ", err)
	}
	g = harness.New(t)
	g.Binary = unshare
	g.Args = append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", harness.Build(t)}, args...)
	g.Args = append(g.Args, "--bind", "127.0.0.1:0")
	g.Start()
	family := harness.Descendants(g.PID)
	if len(family) == 0 {
		t.Fatal("unshare has no child")
	}
	return g, family[0]
}

// As process 1 a gateway collects every orphan of its container, its own and
// those of strangers, and is not disturbed by them.
func TestProcessOne(t *testing.T) {
	kept := t.TempDir()
	g, init := startPID1(t, "run", harness.CGIDir(t), "--env", "TEST_DIR="+kept, "--access-log", "off")
	for i := range 20 {
		r := g.Get("/double-fork.py?setsid=" + strconv.Itoa(i%2))
		if r.Status != http.StatusOK || r.Body != "body\n" {
			t.Fatalf("got %+v", r)
		}
	}
	// What docker exec does: a process that nobody in the container started,
	// and that leaves an orphan there. One ends, one stays.
	enter := func(script string) {
		t.Helper()
		out, err := exec.Command("nsenter", "-t", strconv.Itoa(init.PID), "-p", "-m", "sh", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("nsenter: %v: %s", err, out)
		}
	}
	const stays = "86399"
	enter("(setsid sleep 0.2 >/dev/null 2>&1 &); (setsid sleep " + stays + " >/dev/null 2>&1 &)")
	harness.Eventually(t, 5*time.Second, "the guard and the stranger are all that is left, and no zombie", func() bool {
		return len(harness.Descendants(init.PID)) == 2 && len(harness.Zombies(init.PID)) == 0
	})
	// A script at work is ended with all it started, and the stranger is not.
	began := make(chan struct{})
	go func() {
		defer close(began)
		g.Try("GET", "/hang.py?children=1&setsid=1&name=family", nil)
	}()
	family := pidsInNamespace(t, init, filepath.Join(kept, "family"))
	if len(family) != 3 {
		t.Fatalf("the script's family: %v", family)
	}
	stranger := below(init.PID, stays)
	if len(stranger) != 1 {
		t.Fatalf("the stranger: %v", stranger)
	}
	start := time.Now()
	for range 2 { // the second one hurries
		_ = syscall.Kill(init.PID, syscall.SIGTERM)
		time.Sleep(50 * time.Millisecond)
	}
	if !g.Wait(8 * time.Second) {
		t.Fatal("it does not stop")
	}
	if code := g.ExitCode(); code != 0 {
		t.Errorf("exit status %d: %s", code, g.Stderr())
	}
	t.Logf("stopped in %v", time.Since(start))
	<-began
	allGone(t, time.Second, "the script's family", family)
}

// pidsInNamespace returns the processes of the namespace that init is the first
// of whose numbers a script has written, as they are known here.
func pidsInNamespace(t *testing.T, init harness.Process, path string) (found []harness.Process) {
	t.Helper()
	var text []byte
	harness.Eventually(t, 10*time.Second, "the script's processes run", func() (ok bool) {
		var err error
		text, err = os.ReadFile(path)
		return err == nil
	})
	for _, p := range harness.Descendants(init.PID) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		_, ids, _ := strings.Cut(string(status), "\nNSpid:")
		ids, _, _ = strings.Cut(ids, "\n")
		if fields := strings.Fields(ids); len(fields) == 2 && strings.Contains("\n"+string(text), "\n"+fields[1]+"\n") {
			found = append(found, p)
		}
	}
	return found
}

// TERM as process 1 lets the request in progress end.
func TestProcessOneStopsGracefully(t *testing.T) {
	g, init := startPID1(t, "run", harness.App(t, "wsgi_probe.py"), "--workers", "1", "--python", harness.Python(t))
	answer := make(chan harness.Response, 1)
	go func() {
		r, err := g.Try("GET", "/sleep?s=1", nil)
		if err != nil {
			t.Error(err)
		}
		answer <- r
	}()
	harness.Eventually(t, 5*time.Second, "the request runs", func() bool { return len(harness.Descendants(init.PID)) >= 2 })
	time.Sleep(300 * time.Millisecond)
	_ = syscall.Kill(init.PID, syscall.SIGTERM)
	if r := <-answer; r.Status != http.StatusOK {
		t.Errorf("got %+v", r)
	}
	if !g.Wait(8*time.Second) || g.ExitCode() != 0 {
		t.Errorf("exit status %d: %s", g.ExitCode(), g.Stderr())
	}
}
