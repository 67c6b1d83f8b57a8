package test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// project is an application that a test edits while it is served.
type project struct {
	*harness.Gateway
	t    *testing.T
	took []time.Duration // by each expect
}

const flaskProject = `
from flask import Flask, render_template
import helper

app = Flask(__name__)

@app.get("/")
def index():
    return helper.TEXT

@app.get("/page")
def page():
    return render_template("page.html")

@app.get("/late")
def late():
    import late
    return late.TEXT
`

// startProject serves a Flask application with --reload.
func startProject(t *testing.T, files map[string]string, args ...string) *project {
	t.Helper()
	g := harness.New(t, append([]string{"run", "app:app", "--reload", "--reload-include", "**/*.html", "--python", harness.Python(t), "--access-log", "off"}, args...)...)
	p := &project{Gateway: g, t: t}
	for name, text := range map[string]string{
		"app.py": flaskProject, "helper.py": "TEXT = 'first'", "late.py": "TEXT = 'first'", "templates/page.html": "first page",
	} {
		p.save(name, text)
	}
	for name, text := range files {
		p.save(name, text)
	}
	g.Start()
	return p
}

func (p *project) save(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// importing is how long Python takes to import Flask at the moment: the part of
// a restart that is not gatecrew's.
func importing(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if out, err := exec.Command(harness.Python(t), "-c", "import flask").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return time.Since(began)
}

// expect asks for a path, once, and measures how long that took.
func (p *project) expect(path, want string) {
	p.t.Helper()
	began := time.Now()
	r := p.Get(path)
	took := time.Since(began)
	if !strings.Contains(r.Body, want) {
		p.t.Errorf("%s: %d %q, want %q", path, r.Status, r.Body, want)
	}
	p.took = append(p.took, took)
}

// saved is what the kernel's notification takes to arrive, at most. A request
// that comes sooner after a save than a person could send one may be answered
// by the code of before.
const saved = 20 * time.Millisecond

// TestReload: the request after a save is answered by the new code, at most a
// second later than Python takes to import it.
func TestReload(t *testing.T) {
	p := startProject(t, nil)
	p.expect("/", "first")
	p.LogLine("watching files for changes; this is for development, not for production")
	if m := regexp.MustCompile(`"files": (\d+)}`).FindStringSubmatch(p.Stderr()); m == nil || len(m[1]) < 2 {
		t.Errorf("the number of files is %q; Flask alone has more", m)
	}
	for _, c := range []struct{ name, text, path, want string }{
		{"app.py", strings.Replace(flaskProject, "helper.TEXT", "'edited ' + helper.TEXT", 1), "/", "edited first"},
		{"helper.py", "TEXT = 'secon'", "/", "edited secon"}, // of the same length, in the same second
		{"helper.py", "TEXT = 'third'", "/", "edited third"},
		{"templates/page.html", "second page", "/page", "second page"},
		{"templates/new.html", "new", "/page", "second page"},
	} {
		p.save(c.name, c.text)
		time.Sleep(saved)
		p.expect(c.path, c.want)
	}
	slices.Sort(p.took[1:]) // without the first, before which nothing was saved
	took, python := p.took[len(p.took)/2], importing(t)
	t.Logf("from the save to the answer: %v; Python imports Flask in %v", took, python)
	if took > time.Second+2*python {
		t.Errorf("from the save to the answer: %v", took)
	}
	if n := strings.Count(p.Stderr(), "files changed, restarting"); n != 5 {
		t.Errorf("%d restarts, want 5\n%s", n, p.Stderr())
	}
	t.Run("imported later", func(t *testing.T) {
		p := &project{Gateway: p.Gateway, t: t}
		p.expect("/late", "first")
		time.Sleep(500 * time.Millisecond) // a worker looks for new modules four times a second
		p.save("late.py", "TEXT = 'second'")
		time.Sleep(saved)
		p.expect("/late", "second")
	})
}

// TestReloadOfWhatIsBroken: the developer gets the traceback, others don't, and
// a repaired application is served again, whether it was broken by a change or
// from the start.
func TestReloadOfWhatIsBroken(t *testing.T) {
	p := startProject(t, nil, "--bind", "0.0.0.0:0")
	p.expect("/", "first")
	p.LogLine("reload is for development, and others can connect to this address")
	p.save("helper.py", "TEXT = 'second\n")
	time.Sleep(saved)
	p.shown("SyntaxError", filepath.Join(p.Dir, "helper.py")+", line 1")
	p.hidden()
	p.save("helper.py", "TEXT = 'third'")
	time.Sleep(saved)
	p.expect("/", "third")

	t.Run("from the start", func(t *testing.T) {
		p := startProject(t, map[string]string{"helper.py": "import missing\nTEXT = missing.TEXT"})
		p.shown("ModuleNotFoundError: No module named &#39;missing&#39;", filepath.Join(p.Dir, "helper.py")+", line 1")
		p.save("missing.py", "TEXT = 1 / 0")
		time.Sleep(saved)
		p.shown("ZeroDivisionError", filepath.Join(p.Dir, "missing.py")+", line 1")
		p.save("missing.py", "TEXT = 'found'")
		time.Sleep(saved)
		p.expect("/", "found")
	})
	t.Run("by what is not watched", func(t *testing.T) {
		p := &project{Gateway: p.Gateway, t: t}
		p.save("helper.py", "TEXT = open('data').read()")
		time.Sleep(saved)
		p.shown("FileNotFoundError")
		p.save("data", "there")
		p.Signal(syscall.SIGHUP)
		harness.Eventually(t, 10*time.Second, "a HUP has it tried again", func() bool { return p.Get("/").Body == "there" })
	})
	t.Run("hangs when it is imported", func(t *testing.T) {
		p := &project{Gateway: p.Gateway, t: t}
		p.save("helper.py", "import time\ntime.sleep(3600)")
		time.Sleep(10 * saved)
		p.save("helper.py", "TEXT = 'awake'")
		time.Sleep(saved)
		p.expect("/", "awake")
	})
}

// shown asks as a browser on this machine does, and as curl does.
func (p *project) shown(want ...string) {
	p.t.Helper()
	page := p.Do("GET", "/", nil, "Accept", "text/html,*/*;q=0.8")
	if page.Status != http.StatusServiceUnavailable || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
		p.t.Errorf("the page: %d %v", page.Status, page.Header)
	}
	for _, w := range want {
		if !strings.Contains(page.Body, w) {
			p.t.Errorf("the page lacks %q:\n%s", w, page.Body)
		}
	}
	text := p.Get("/")
	if text.Status != http.StatusServiceUnavailable || !strings.HasPrefix(text.Header.Get("Content-Type"), "text/plain") || !strings.Contains(text.Body, "Traceback") {
		p.t.Errorf("as a text: %d %v %q", text.Status, text.Header, text.Body)
	}
	if head := p.Do("HEAD", "/", nil); head.Status != http.StatusServiceUnavailable || head.Body != "" || head.Header.Get("Gatecrew-Load-Error") == "" {
		p.t.Errorf("HEAD: %d %v %q", head.Status, head.Header, head.Body)
	}
}

// hidden asks as others do: from another address, through a proxy on this
// machine, by a name that leads here.
func (p *project) hidden() {
	p.t.Helper()
	check := func(who string, r harness.Response) {
		p.t.Helper()
		if r.Status != http.StatusServiceUnavailable || strings.Contains(r.Body, "Error") || strings.Contains(r.Body, "helper") || r.Header.Get("Gatecrew-Load-Error") != "" {
			p.t.Errorf("%s: %d %v %q", who, r.Status, r.Header, r.Body)
		}
	}
	check("through a proxy", p.Do("GET", "/", nil, "Accept", "text/html", "X-Forwarded-For", "127.0.0.1"))
	check("by another name", p.Do("GET", "/", nil, "Accept", "text/html", "Host", "evil.example"))
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, a := range addrs {
		ip := a.(*net.IPNet).IP
		if ip.IsLoopback() || ip.To4() == nil {
			continue
		}
		// A connection to an own address comes from that address.
		local := p.URL
		p.URL = strings.Replace(local, "127.0.0.1", ip.String(), 1)
		check("from "+ip.String(), p.Do("GET", "/", nil, "Accept", "text/html", "X-Forwarded-For", "127.0.0.1"))
		check("from "+ip.String(), p.Do("GET", "/", nil, "Accept", "text/html", "Host", "localhost"))
		p.URL = local
		return
	}
	p.t.Log("this machine has no other address to ask from")
}
