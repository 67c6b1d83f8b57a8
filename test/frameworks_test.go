package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

var frameworks = []string{"Starlette", "FastAPI", "Quart", "Litestar", "Django"}

// TestFrameworks: the same site in five frameworks, each mounted below a path,
// used as people use them: chat, events, uploads, background tasks, files
// (test/apps/asgi/client.py).
func TestFrameworks(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "picture.bin")
	writeNoise(t, file, 3<<20)

	var pools, routes strings.Builder
	for _, name := range frameworks {
		lower := strings.ToLower(name)
		fmt.Fprintf(&pools, "  %s: {app: \"%s_app:app\", chdir: %q, python: %q, workers: 1, env: {SITE_FILE: %q}}\n",
			lower, lower, harness.App(t, "asgi"), harness.Python(t), file)
		fmt.Fprintf(&routes, "      - {path: /%s, pool: %s}\n", lower, lower)
	}
	g := harness.Serve(t, "log: {access: \"off\"}\npools:\n"+pools.String()+"sites:\n  - routes:\n"+routes.String())
	// The group ends before the gateway does.
	t.Run("sites", func(t *testing.T) {
		for _, name := range frameworks {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cmd := exec.Command(harness.Python(t), harness.App(t, "asgi", "client.py"), g.URL+"/"+strings.ToLower(name), name, file)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	})
	for _, name := range []string{"Starlette", "FastAPI", "Quart"} { // the others log errors as their settings say
		if !strings.Contains(g.Stderr(), "raised in "+name) {
			t.Errorf("%s: the error is not in the log", name)
		}
	}
}

// TestSocketIO: polling, the upgrade to a socket, events both ways, and a
// rolling restart after which the clients are connected to the new worker.
func TestSocketIO(t *testing.T) {
	t.Parallel()
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
graceful_timeout: 5s
pools:
  talk: {app: "socketio_app:app", chdir: %q, python: %q, workers: 1}
sites:
  - routes: [{path: /, pool: talk}]
`, harness.App(t, "asgi"), harness.Python(t)))
	acrossRestart(t, g, harness.App(t, "asgi", "socketio_client.py"), g.URL)
}

// TestBrowser opens the chat of the examples in two tabs of a real browser.
func TestBrowser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(t), "examples"))); err != nil {
		t.Fatal(err)
	}
	g := harness.Start(t, "serve", "-c", filepath.Join(dir, "gatecrew.yaml"))
	acrossRestart(t, g, filepath.Join(harness.Root(t), "test", "browser", "chat.py"), g.URL+"/chat/")
}

// acrossRestart runs a client that prints "restart" when it has seen what it
// wants, and reads a line when the workers are being replaced.
func acrossRestart(t *testing.T, g *harness.Gateway, args ...string) {
	t.Helper()
	cmd := exec.Command(harness.Python(t), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := harness.WriteFile(t, "output", "")
	output, err := os.OpenFile(out, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for asked := false; ; {
		select {
		case err := <-ended:
			if text, _ := os.ReadFile(out); err != nil || !asked {
				t.Errorf("%v\n%s", err, text)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		if text, _ := os.ReadFile(out); !asked && strings.Contains(string(text), "restart\n") {
			asked = true
			g.Signal(syscall.SIGHUP)
			_, _ = stdin.Write([]byte("go on\n"))
		}
	}
}
