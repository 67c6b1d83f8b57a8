package test

import (
	"fmt"
	"html"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// maxGatewayMemory is what the gateway itself may use at most, whatever passes
// through it.
const maxGatewayMemory = 64 << 20

// gitHost is a gateway that serves one folder of repositories to git, at /git,
// and to browsers, with cgit at /cgit. Both programs are what Debian installs.
type gitHost struct {
	*harness.Gateway
	dir string // of the repositories
	env []string
}

// gitCommits is how long the history of demo.git is: two rounds of
// negotiation, and requests that the client compresses.
const gitCommits = 150

// startGit starts it with one repository, demo.git.
func startGit(t *testing.T) *gitHost {
	t.Helper()
	home := t.TempDir()
	h := &gitHost{dir: filepath.Join(home, "repositories"), env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.org",
	}}
	// What git spends on compression, on either side, says nothing here.
	settings := "[core]\n\tcompression = 0\n[transfer]\n\tunpackLimit = 1\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
	demo := filepath.Join(h.dir, "demo.git")
	h.git(t, home, "init", "--quiet", "--bare", "--initial-branch=main", demo)
	h.importCommits(t, demo, "main", 1_700_000_000)
	cgitrc := filepath.Join(home, "cgitrc")
	err := os.WriteFile(cgitrc, fmt.Appendf(nil, `
css=/cgit-static/cgit.css
logo=/cgit-static/cgit.png
cache-size=0
enable-index-links=1
snapshots=tar.gz
repo.url=demo
repo.path=%s
repo.desc=A demonstration
`, demo), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	h.Gateway = harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
limits: {spool_dir: %q}
sites:
  - routes:
      - path: /git
        cgi:
          script: /usr/lib/git-core/git-http-backend
          env: {GIT_PROJECT_ROOT: %q, GIT_HTTP_EXPORT_ALL: "1", HOME: %q}
      - path: /cgit
        cgi: {script: /usr/lib/cgit/cgit.cgi, env: {CGIT_CONFIG: %q}}
      - path: /cgit-static
        static: {dir: /usr/share/cgit}
`, t.TempDir(), h.dir, home, cgitrc)))
	h.Binary = harness.BuildPlain(t)
	h.Start()
	return h
}

// importCommits makes a branch of gitCommits commits, one a minute from a time on.
func (h *gitHost) importCommits(t *testing.T, repository, branch string, from int64) {
	t.Helper()
	var history strings.Builder
	for i := range gitCommits {
		fmt.Fprintf(&history, "commit refs/heads/%s\ncommitter Ann <ann@example.org> %d +0000\n", branch, from+60*int64(i))
		fmt.Fprintf(&history, "data <<END\nChange %d of %s\nEND\n", i, branch)
		fmt.Fprintf(&history, "M 644 inline folder/file%d.txt\ndata <<END\nline <%d>\nEND\n", i%7, i)
	}
	importer := h.command(repository, "fast-import", "--quiet")
	importer.Stdin = strings.NewReader(history.String())
	if out, err := importer.CombinedOutput(); err != nil {
		t.Fatalf("git fast-import: %v\n%s", err, out)
	}
}

func (h *gitHost) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, h.env
	return cmd
}

// git runs git in a folder and returns what it printed.
func (h *gitHost) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := h.command(dir, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// traced is git with its records of the HTTP conversation, which it returns.
func (h *gitHost) traced(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace")
	cmd := h.command(dir, args...)
	cmd.Env = append(cmd.Env, "GIT_TRACE_CURL="+path, "GIT_TRACE_CURL_NO_DATA=1", "GIT_TRACE_PACKET="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	trace, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(trace)
}

// same demands that a clone is whole, byte for byte as its hashes say, and has
// the commit that the server has.
func (h *gitHost) same(t *testing.T, clone string) {
	t.Helper()
	h.git(t, clone, "fsck", "--strict")
	want := h.git(t, filepath.Join(h.dir, "demo.git"), "rev-parse", "main")
	if got := h.git(t, clone, "rev-parse", "origin/main"); got != want {
		t.Errorf("%s has commit %s, the server %s", clone, got, want)
	}
}

// TestGit is what people do with git-http-backend, done by git itself.
func TestGit(t *testing.T) {
	t.Parallel()
	h := startGit(t)
	work, demo := t.TempDir(), filepath.Join(h.dir, "demo.git")
	url := h.URL + "/git/demo.git"

	for _, version := range []string{"2", "0"} {
		name := filepath.Join(work, "version"+version)
		trace := h.traced(t, work, "-c", "protocol.version="+version, "clone", "--quiet", url, name)
		if got := strings.Contains(trace, "clone< version 2"); got != (version == "2") {
			t.Errorf("the server spoke version 2: %v; asked for was %s", got, version)
		}
		h.same(t, name)
	}

	shallow := filepath.Join(work, "shallow")
	h.git(t, work, "clone", "--quiet", "--depth", "1", url, shallow)
	if n := h.git(t, shallow, "rev-list", "--count", "HEAD"); n != "1" {
		t.Errorf("the shallow clone has %s commits", n)
	}
	h.git(t, shallow, "fetch", "--quiet", "--unshallow")
	if n := h.git(t, shallow, "rev-list", "--count", "HEAD"); n != fmt.Sprint(gitCommits) {
		t.Errorf("the deepened clone has %s commits", n)
	}
	h.same(t, shallow)

	if out, err := h.command(work, "clone", url+"-not").CombinedOutput(); err == nil || !strings.Contains(string(out), "not found") {
		t.Errorf("a repository that is not there: %v\n%s", err, out)
	}

	// A history of its own makes a clone tell what it has, at length: the
	// client compresses such a request.
	behind := filepath.Join(work, "version2")
	h.importCommits(t, filepath.Join(behind, ".git"), "local", 1_710_000_000)

	// A file that no compression makes smaller: the request is chunked, since
	// the client doesn't know its length.
	pusher := filepath.Join(work, "version0")
	size := scaled[int64](100<<20, 500<<20)
	writeNoise(t, filepath.Join(pusher, "noise"), size)
	h.git(t, pusher, "add", "noise")
	h.git(t, pusher, "commit", "--quiet", "-m", "Noise")
	if out, err := h.command(pusher, "push", "origin", "main").CombinedOutput(); err == nil || !strings.Contains(string(out), "403") {
		t.Errorf("a push that is not allowed: %v\n%s", err, out)
	}
	h.git(t, demo, "config", "http.receivepack", "true")
	trace := h.traced(t, pusher, "push", "--quiet", "origin", "main")
	if !strings.Contains(trace, "=> Send header: Transfer-Encoding: chunked") {
		t.Error("the push was not chunked")
	}
	if sent, got := h.git(t, pusher, "rev-parse", "main"), h.git(t, demo, "rev-parse", "main"); sent != got {
		t.Errorf("commit %s was pushed, the server has %s", sent, got)
	}
	if peak := harness.MemoryOf(h.PID).Peak; peak > maxGatewayMemory {
		t.Errorf("the gateway used %d MB for a push of %d MB", peak>>20, size>>20)
	}

	trace = h.traced(t, behind, "fetch", "--quiet")
	if !strings.Contains(trace, "=> Send header: Content-Encoding: gzip") {
		t.Error("no request of the fetch was compressed")
	}
	h.same(t, behind)
	if peak := harness.MemoryOf(h.PID).Peak; peak > maxGatewayMemory {
		t.Errorf("the gateway used %d MB for a push and a fetch of %d MB", peak>>20, size>>20)
	}
}

// TestCgit looks at that repository with cgit, a C program that answers every
// path by PATH_INFO and makes its links from SCRIPT_NAME.
func TestCgit(t *testing.T) {
	h := startGit(t)
	head := h.git(t, filepath.Join(h.dir, "demo.git"), "rev-parse", "main")
	last := gitCommits - 1
	line := (last-3)/7*7 + 3 // the last change of file3.txt
	for path, want := range map[string]string{
		"/cgit":                            "A demonstration",
		"/cgit/":                           "A demonstration",
		"/cgit/demo/":                      fmt.Sprintf("Change %d", last),
		"/cgit/demo/log/":                  fmt.Sprintf("Change %d", last-20),
		"/cgit/demo/log/?ofs=100":          "Change 20",
		"/cgit/demo/tree/folder":           "file3.txt",
		"/cgit/demo/tree/folder/":          "file3.txt",
		"/cgit/demo/tree/folder/file3.txt": fmt.Sprintf("line &lt;%d&gt;", line),
		"/cgit/demo/commit/?id=" + head:    head,
		"/cgit/demo/diff/?id=" + head:      fmt.Sprintf("+line &lt;%d&gt;", last),
		"/cgit/demo/refs/":                 "main",
	} {
		r := h.Get(path)
		if r.Status != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") || !strings.Contains(r.Body, want) {
			t.Errorf("%s: %d %q, no %q in\n%s", path, r.Status, r.Header.Get("Content-Type"), want, r.Body)
		}
	}
	plain := h.Get("/cgit/demo/plain/folder/file3.txt")
	if plain.Status != http.StatusOK || !strings.HasPrefix(plain.Header.Get("Content-Type"), "text/plain") || plain.Body != fmt.Sprintf("line <%d>\n", line) {
		t.Errorf("plain blob: %d %v %q", plain.Status, plain.Header, plain.Body)
	}
	if r := h.Do("HEAD", "/cgit/demo/plain/folder/file3.txt", nil); r.Status != http.StatusOK || r.Body != "" {
		t.Errorf("HEAD: %d %q", r.Status, r.Body)
	}
	for path, status := range map[string]int{"/cgit/other/": 404, "/cgit/demo/tree/nothing": 404, "/cgit/demo/nothing/": 404} {
		if r := h.Get(path); r.Status != status {
			t.Errorf("%s: %d, want %d", path, r.Status, status)
		}
	}
	patch := h.Get("/cgit/demo/patch/?id=" + head)
	if patch.Status != http.StatusOK || !strings.HasPrefix(patch.Body, "From "+head) {
		t.Errorf("patch: %d %q", patch.Status, patch.Body)
	}
	if snapshot := h.Get("/cgit/demo/snapshot/demo-main.tar.gz"); snapshot.Status != http.StatusOK || !strings.HasPrefix(snapshot.Body, "\x1f\x8b") {
		t.Errorf("snapshot: %d, %d bytes", snapshot.Status, len(snapshot.Body))
	}
	if css := h.Get("/cgit-static/cgit.css"); css.Status != http.StatusOK || !strings.HasPrefix(css.Header.Get("Content-Type"), "text/css") {
		t.Errorf("css: %d %v", css.Status, css.Header)
	}

	// Every link of the page where people land leads somewhere.
	page := h.Get("/cgit/demo/").Body
	links := regexp.MustCompile(`(?:href|src|action)='(/[^'#]*)`).FindAllStringSubmatch(page, -1)
	if len(links) < 20 {
		t.Errorf("only %d links in\n%s", len(links), page)
	}
	followed := map[string]bool{"/favicon.ico": true} // the site's, not cgit's
	for _, link := range links {
		path := html.UnescapeString(link[1])
		if followed[path] {
			continue
		}
		followed[path] = true
		if r := h.Get(path); r.Status != http.StatusOK {
			t.Errorf("the link %s: %d", path, r.Status)
		}
	}
}
