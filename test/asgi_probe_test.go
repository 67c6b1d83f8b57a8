package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// TestASGI asks the same questions of gatecrew and of uvicorn, the server
// that most applications are written on: test/probe are the questions,
// test/apps/asgi_probe.py answers them. What may differ stands in both places.
func TestASGI(t *testing.T) {
	for name, start := range probeServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			notes := filepath.Join(t.TempDir(), "lifespan")
			s := start(t, "asgi_probe:app", notes)
			// Only gatecrew's path is the client's: uvicorn puts --root-path in front.
			root := map[string]string{"gatecrew": "/mounted"}[name]
			cmd := exec.Command(harness.Python(t), "-m", "unittest", "discover", "-s", filepath.Join(harness.Root(t), "test", "probe"))
			cmd.Env = append(os.Environ(), "PROBE_ADDR="+s.addr, "PROBE_SERVER="+name, "PROBE_ROOT="+root, "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if line := bytes.Split(bytes.TrimSpace(out), []byte("\n")); len(line) > 1 {
				t.Logf("%s", bytes.Join(line[max(0, len(line)-3):], []byte(" ")))
			}
			if log := s.log(); !strings.Contains(log, "RuntimeError: on purpose") {
				t.Error("no traceback in the log")
			}
			s.stop()
			const want = "startup asgi=3.0 keys=['asgi', 'state', 'type']\nshutdown\n"
			if text, _ := os.ReadFile(notes); string(text) != want {
				t.Errorf("lifespan: %q, want %q", text, want)
			}
		})
	}
}

// TestASGILifespan: applications that can't start, and those that don't know
// what lifespan is.
func TestASGILifespan(t *testing.T) {
	for name, start := range probeServers {
		t.Run(name, func(t *testing.T) {
			for app, want := range map[string]string{"without": "no state", "hasty": "hasty"} {
				s := start(t, "asgi_probe:"+app, "")
				if r, err := harness.Client.Get("http://" + s.addr + "/mounted/"); err != nil || r.StatusCode != 200 {
					t.Errorf("%s: %v, %v", app, r, err)
				} else {
					body := make([]byte, 100)
					n, _ := r.Body.Read(body)
					r.Body.Close()
					// uvicorn has a state for those, too: an empty one.
					if got := string(body[:n]); got != want && got != "{}" {
						t.Errorf("%s: %q, want %q", app, got, want)
					}
				}
				s.stop()
			}
			s := start(t, "asgi_probe:failing", "")
			if s.addr != "" {
				t.Error("started, though lifespan.startup.failed")
			}
			if !strings.Contains(s.log(), "no database here") {
				t.Errorf("the reason is not in the log:\n%s", s.log())
			}
		})
	}
}

// A probeServer runs an application of test/apps at /mounted with one worker;
// addr is empty when it could not start. Lifespan events are written to notes.
type probeServer struct {
	addr string
	log  func() string
	stop func()
}

var probeServers = map[string]func(t *testing.T, app, notes string) probeServer{
	"gatecrew": probeGatecrew,
	"uvicorn":  probeUvicorn,
}

func probeGatecrew(t *testing.T, app, notes string) probeServer {
	t.Helper()
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
pools:
  probe: {app: %q, chdir: %q, python: %q, workers: 1, env: {PROBE_LIFESPAN: %q}}
sites:
  - routes: [{path: /mounted, pool: probe}]
`, app, harness.App(t), harness.Python(t), notes)), "--bind", "127.0.0.1:0")
	if strings.HasSuffix(app, ":failing") {
		// serve keeps the other routes up; run has nothing without its application.
		g = harness.New(t, "run", app, "--chdir", harness.App(t), "--python", harness.Python(t), "--workers", "1")
		if g.Launch(); !g.Wait(20*time.Second) || g.ExitCode() == 0 {
			t.Error("still there, or ended well")
		}
		return probeServer{"", g.Stderr, g.Stop}
	}
	g.Start()
	return probeServer{g.Addr, g.Stderr, g.Stop}
}

func probeUvicorn(t *testing.T, app, notes string) probeServer {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	_, port, _ := net.SplitHostPort(addr)
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log := func() string {
		text, _ := os.ReadFile(out.Name())
		return string(text)
	}
	cmd := exec.Command(harness.Python(t), "-m", "uvicorn", app, "--port", port, "--root-path", "/mounted", "--no-access-log", "--no-proxy-headers")
	cmd.Dir, cmd.Stdout, cmd.Stderr = harness.App(t), out, out
	cmd.Env = append(os.Environ(), "PROBE_LIFESPAN="+notes, "PYTHONDONTWRITEBYTECODE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop := func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-ended }
	t.Cleanup(stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		select {
		case <-ended:
			return probeServer{"", log, stop}
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("uvicorn did not start:\n%s", log())
		}
	}
	return probeServer{addr, log, stop}
}
