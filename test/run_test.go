package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// runApp is an application in every form that `gatecrew run` takes; each says
// which one it is, and where it finds itself.
const runApp = `
import json, os, sys
from wsgiref.validate import validator

def named(name):
    def answer(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({
            "name": name, "script": environ["SCRIPT_NAME"], "path": environ["PATH_INFO"], "cwd": os.getcwd(),
            "env": dict(os.environ), "prefix": sys.prefix, "remote": environ["REMOTE_ADDR"],
        }).encode()]
    return validator(answer)

application = named("application")
app = named("app")

class nested:
    inner = named("nested.inner")

def make():
    return named("make()")
`

// runAnswer is what it says.
type runAnswer struct {
	Name, Script, Path, Cwd, Prefix, Remote string
	Env                                     map[string]string
}

func runFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"demo.py", "demo.wsgi", "package/__init__.py", "package/wsgi.py"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(runApp), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startRun starts `gatecrew run` in a folder, without a virtual environment.
func startRun(t *testing.T, dir string, args ...string) *harness.Gateway {
	t.Helper()
	g := harness.New(t, append([]string{"run", "--workers", "1", "--access-log", "off"}, args...)...)
	g.Dir, g.Env = dir, []string{"VIRTUAL_ENV="}
	return g.Start()
}

func ask(t *testing.T, g *harness.Gateway, path string) (a runAnswer) {
	t.Helper()
	r := g.Get(path)
	if err := json.Unmarshal([]byte(r.Body), &a); err != nil || r.Status != http.StatusOK {
		t.Fatalf("%s: %d %q, %v", path, r.Status, r.Body, err)
	}
	return a
}

// TestRunTargets: a Python application in each form.
func TestRunTargets(t *testing.T) {
	t.Parallel()
	dir := runFolder(t)
	elsewhere := t.TempDir()
	for _, tt := range []struct{ dir, target, name string }{
		{dir, "demo:app", "app"},
		{dir, "demo:nested.inner", "nested.inner"},
		{dir, "demo:make()", "make()"},
		{dir, "package.wsgi:application", "application"},
		{dir, "demo.wsgi", "application"},
		{dir, "demo.py", "application"},
		{elsewhere, filepath.Join(dir, "demo.wsgi"), "application"},
		{elsewhere, filepath.Join(dir, "demo.py") + ":app", "app"},
	} {
		g := startRun(t, tt.dir, tt.target)
		got := ask(t, g, "/some/page")
		if got.Name != tt.name || got.Script != "" || got.Path != "/some/page" || got.Cwd != tt.dir {
			t.Errorf("%s: %+v", tt.target, got)
		}
		g.Stop()
	}
}

// TestRunOptions: what a newcomer adds to a target, all of it at once.
func TestRunOptions(t *testing.T) {
	dir, public := runFolder(t), t.TempDir()
	for name, text := range map[string]string{"style.css": "body {}", "index.html": "<p>static"} {
		if err := os.WriteFile(filepath.Join(public, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The path of a Unix socket has room for 107 bytes; t.TempDir's may be longer.
	sockets, err := os.MkdirTemp("", "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket := filepath.Join(sockets, "s")

	g := harness.New(t, "run", "demo:app", "--workers", "1", "--access-log", "off", "--chdir", dir, "--root-path", "/shop",
		"-e", "ONE=a,b=c", "--env", "TWO=", "--pass-env", "HANDED_ON", "--static", "/static="+public, "--static", "/other="+public,
		"--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--bind", "unix:"+socket)
	g.Env = []string{"VIRTUAL_ENV=", "HANDED_ON=yes", "KEPT_BACK=secret"}
	g.Start()

	got := ask(t, g, "/page")
	if got.Script != "/shop" || got.Path != "/page" || got.Cwd != dir {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]string{"ONE": "a,b=c", "TWO": "", "HANDED_ON": "yes"} {
		if value, ok := got.Env[name]; !ok || value != want {
			t.Errorf("%s=%q, %v; want %q", name, value, ok, want)
		}
	}
	if _, ok := got.Env["KEPT_BACK"]; ok {
		t.Error("the application sees all of the gateway's environment")
	}
	for path, want := range map[string]string{"/static/style.css": "body {}", "/other/": "<p>static"} {
		if r := g.Get(path); r.Status != http.StatusOK || r.Body != want {
			t.Errorf("%s: %d %q", path, r.Status, r.Body)
		}
	}

	// The line that says where it is, says all of it.
	ready := regexp.MustCompile(`^gatecrew: ready on http://(127\.0\.0\.1:\d+)/ http://(127\.0\.0\.1:\d+)/ unix:(\S+)\n$`)
	m := ready.FindStringSubmatch(g.Stdout())
	if m == nil || m[1] == m[2] || m[3] != socket {
		t.Fatalf("the ready line is %q", g.Stdout())
	}
	for network, address := range map[string]string{"tcp": m[2], "unix": socket} {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
		resp, err := client.Get("http://example.org/page")
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"name": "app"`) {
			t.Errorf("%s: %d %q, %v", address, resp.StatusCode, body, err)
		}
	}
	g.Stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket was left: %v", err)
	}
}

// TestRunPython: which interpreter runs the application when nobody says so.
func TestRunPython(t *testing.T) {
	t.Parallel()
	dir := runFolder(t)
	active := filepath.Join(t.TempDir(), "active")
	makeVenv(t, active)
	base, err := exec.Command("python3", "-c", "import sys; print(sys.prefix)").Output()
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, target, virtualEnv, want string, args ...string) {
		t.Helper()
		g := harness.New(t, append([]string{"run", target, "--workers", "1"}, args...)...)
		if !strings.HasPrefix(target, "/") {
			g.Dir = dir
		}
		g.Env = []string{"VIRTUAL_ENV=" + virtualEnv}
		g.Start()
		if got := ask(t, g, "/"); got.Prefix != want {
			t.Errorf("%s: the interpreter of %s ran it, want %s", what, got.Prefix, want)
		}
		g.Stop()
	}
	check("nothing there", "demo:app", "", strings.TrimSpace(string(base)))
	makeVenv(t, filepath.Join(dir, "venv"))
	check("venv", "demo:app", "", filepath.Join(dir, "venv"))
	makeVenv(t, filepath.Join(dir, ".venv"))
	check(".venv before venv", "demo:app", "", filepath.Join(dir, ".venv"))
	check(".venv beside a file", filepath.Join(dir, "demo.wsgi"), "", filepath.Join(dir, ".venv"))
	check("the active one before them", "demo:app", active, active)
	check("--python before all", "demo:app", active, filepath.Join(dir, "venv"), "--python", "venv/bin/python")
}

func makeVenv(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("python3", "-m", "venv", "--without-pip", dir).CombinedOutput(); err != nil {
		t.Fatalf("python3 -m venv: %v\n%s", err, out)
	}
}

// TestRunPort: platforms that start containers say the port in $PORT.
func TestRunPort(t *testing.T) {
	port := fmt.Sprint(harness.FreePort(t))
	g := harness.New(t, "run", "demo:app", "--workers", "1")
	g.Args = []string{"run", "demo:app", "--workers", "1"} // no --bind
	g.Dir, g.Env = runFolder(t), []string{"VIRTUAL_ENV=", "PORT=" + port}
	g.Start()
	if !strings.HasSuffix(g.Addr, ":"+port) {
		t.Errorf("$PORT is %s, ready on %s", port, g.Addr)
	}
	if got := ask(t, g, "/"); got.Name != "app" {
		t.Errorf("%+v", got)
	}
}

// TestRunFails: an application that can't be loaded ends the program with
// status 4 and says why, where and what to do.
func TestRunFails(t *testing.T) {
	for _, tt := range []struct {
		target string
		said   []string
	}{
		{"broken_import:application", []string{
			"Traceback (most recent call last):", filepath.Join("apps", "broken_import.py") + `", line 3, in <module>`,
			"ModuleNotFoundError: No module named 'no_such_module_anywhere'", "next step: install it for this interpreter"}},
		{"wsgi_probe:aplication", []string{"has no attribute 'aplication'", "wsgi_probe has: application"}},
		{"no_module_of_this_name:app", []string{"No module named 'no_module_of_this_name'", "working directory: " + harness.App(t)}},
	} {
		g := harness.New(t, "run", tt.target, "--workers", "2")
		g.Dir = harness.App(t)
		g.Launch()
		if !g.Wait(20 * time.Second) {
			t.Fatalf("%s: still running:\n%s", tt.target, g.Stderr())
		}
		if g.ExitCode() != 4 || g.Stdout() != "" {
			t.Errorf("%s: status %d, standard output %q", tt.target, g.ExitCode(), g.Stdout())
		}
		for _, text := range tt.said {
			if !strings.Contains(g.Stderr(), text) {
				t.Errorf("%s: no %q in\n%s", tt.target, text, g.Stderr())
			}
		}
	}
}
