package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// recorder is a test that notes its errors, so that this test can demand them.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(func())            {}
func (r *recorder) Errorf(f string, a ...any) { r.errors = append(r.errors, fmt.Sprintf(f, a...)) }

// stand starts a shell script in the gateway's place.
func stand(t *testing.T, script string) (*Gateway, *recorder) {
	t.Helper()
	r := &recorder{TB: t}
	g := New(r)
	g.Binary, g.Args = "/bin/sh", []string{"-c", script}
	g.StopWithin = 2 * time.Second
	return g.Start(), r
}

const (
	ready = "echo gatecrew: ready on http://127.0.0.1:4711 and more; "
	idle  = "while :; do sleep 0.02; done"
)

func TestStopJudges(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"clean", "trap 'exit 0' TERM; " + ready + idle, ""},
		{"exit status", "trap 'exit 3' TERM; " + ready + idle, "exit status 3"},
		{"late", "trap '' TERM QUIT; " + ready + idle, "did not end within"},
		{"orphan", "trap 'exit 0' TERM; sleep 97 & " + ready + idle, "left behind"},
		{"race", "trap 'exit 0' TERM; echo WARNING: DATA RACE >&2; " + ready + idle, "DATA RACE"},
		{"panic", "trap 'echo panic: oops >&2; exit 0' TERM; " + ready + idle, "panic:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, r := stand(t, tt.script)
			if g.URL != "http://127.0.0.1:4711" || g.Addr != "127.0.0.1:4711" {
				t.Errorf("URL %q, Addr %q", g.URL, g.Addr)
			}
			g.Stop()
			got := strings.Join(r.errors, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("errors %q, want %q among them", got, tt.want)
			}
			if p, ok := Lookup(g.PID); ok {
				t.Errorf("still there: %v", p)
			}
		})
	}
}

func TestStopAfterCrash(t *testing.T) {
	g, r := stand(t, ready+"exit 1")
	g.Wait(5 * time.Second)
	g.Stop()
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], "by itself") {
		t.Errorf("errors %q", r.errors)
	}
}

func TestStopAfterKill9(t *testing.T) {
	g, r := stand(t, ready+idle)
	g.Kill9()
	g.Stop()
	if len(r.errors) != 0 {
		t.Errorf("errors %q", r.errors)
	}
}

func TestProcesses(t *testing.T) {
	// The odd name is one that a careless parser of /proc/PID/stat trips over.
	odd := t.TempDir() + "/a) Z (b"
	if err := os.Symlink("/bin/sh", odd); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd, "-c", `sh -c "sleep 0 & exec sleep 97"; :`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	Eventually(t, 5*time.Second, "a child and a zombie below it", func() bool {
		return len(Descendants(pid)) == 2 && len(Zombies(pid)) == 1
	})
	self, ok := Lookup(pid)
	if !ok || self.Name != "a) Z (b" || self.PPID != os.Getpid() || !self.Alive() {
		t.Errorf("got %+v, %v", self, ok)
	}
	if m := MemoryOf(pid); m.RSS < 4096 || m.Peak < m.RSS || m.PSS > m.RSS {
		t.Errorf("got %+v", m)
	}
	if files := OpenFiles(pid); files[0] != "/dev/null" {
		t.Errorf("got %v", files)
	}
	for _, p := range append(Descendants(pid), self) {
		if child, err := os.FindProcess(p.PID); err == nil {
			_ = child.Kill()
		}
	}
	_ = cmd.Wait() // killed, as it must be
	if self.Alive() {
		t.Error("a dead process counts as alive")
	}
}

func TestStartFPM(t *testing.T) {
	f := StartFPM(t, 2, 0)
	if !strings.Contains(f.Log(), "ready to handle connections") {
		t.Errorf("log:\n%s", f.Log())
	}
}

func TestFixtures(t *testing.T) {
	dir := CGIDir(t)
	out, err := exec.Command(dir + "/env").Output()
	if err != nil || !strings.HasPrefix(string(out), "Content-Type: application/json\n\n{") {
		t.Errorf("the C program answers %q, %v", out, err)
	}
	site := Django(t)
	for _, path := range []string{"/db.sqlite3", "/static/admin/css/base.css"} {
		if _, err := os.Stat(site + path); err != nil {
			t.Error(err)
		}
	}
}
