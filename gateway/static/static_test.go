package static

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// canary stands in every file that must not be served.
const canary = "CANARY-never-served"

// site is a directory that is served, with something outside of it.
type site struct {
	t    *testing.T
	dir  string
	url  string
	errs chan error // what Serve returned, nil included

	files *Files
}

// newSite makes a tree from path → content beside "outside/secret.txt".
func newSite(t *testing.T, o Options, files map[string]string) *site {
	t.Helper()
	base := t.TempDir()
	s := &site{t: t, dir: filepath.Join(base, "root"), errs: make(chan error, 100)}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("../outside/secret.txt", canary)
	s.write("../secret.txt", canary)
	for name, content := range files {
		s.write(name, content)
	}
	o.Dir = s.dir
	if o.Cache == nil {
		o.Cache = NewCache(1 << 20)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.files = f
	t.Cleanup(func() { _ = f.Close() })
	server := httptest.NewServer(s.handler(f))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// handler does what the gateway does with Serve, only with a raw path.
func (s *site) handler(f *Files) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := f.Serve(w, r, r.URL.Path)
		select {
		case s.errs <- err:
		default:
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrIncomplete):
			panic(http.ErrAbortHandler)
		case errors.Is(err, ErrMethod):
			w.WriteHeader(http.StatusMethodNotAllowed)
		case errors.Is(err, fs.ErrNotExist):
			w.WriteHeader(http.StatusNotFound)
		case errors.Is(err, fs.ErrPermission):
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
}

func (s *site) write(name, content string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) link(target, name string) {
	s.t.Helper()
	if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

// do sends one request with the headers "Name: value" and reads the answer.
func (s *site) do(method, path string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := direct.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(body)
}

func (s *site) get(path string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	return s.do(http.MethodGet, path, headers...)
}

// status checks the status of a GET.
func (s *site) status(want int, path string, headers ...string) {
	s.t.Helper()
	resp, body := s.get(path, headers...)
	if resp.StatusCode != want {
		s.t.Errorf("GET %s %q: %d, want %d", path, headers, resp.StatusCode, want)
	}
	if strings.Contains(body, canary) {
		s.t.Errorf("GET %s %q: the canary was served", path, headers)
	}
}

// direct neither follows redirects nor asks for compression by itself.
var direct = &http.Transport{DisableCompression: true, DisableKeepAlives: true}

func TestServe(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{
		"index.html":                  "<p>home",
		"empty.txt":                   "",
		"a b/ü.txt":                   "umlaut",
		"dir/index.html":              "in dir",
		"bare/file.txt":               "x",
		".well-known/security.txt":    "contact",
		"data":                        "<html>no sniffing",
		"up.JPG":                      "jpeg",
		"index.d/index.html/file.txt": "x",
	})
	for _, c := range []struct{ path, ctype, body string }{
		{"/", "text/html; charset=utf-8", "<p>home"},
		{"/index.html", "text/html; charset=utf-8", "<p>home"},
		{"/empty.txt", "text/plain; charset=utf-8", ""},
		{"/a%20b/%C3%BC.txt", "text/plain; charset=utf-8", "umlaut"},
		{"/dir/", "text/html; charset=utf-8", "in dir"},
		{"/.well-known/security.txt", "text/plain; charset=utf-8", "contact"},
		{"/data", "application/octet-stream", "<html>no sniffing"},
		{"/up.JPG", "image/jpeg", "jpeg"},
	} {
		var tags []string
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := s.do(method, c.path)
			want := c.body
			if method == "HEAD" {
				want = ""
			}
			if resp.StatusCode != 200 || body != want || resp.ContentLength != int64(len(c.body)) {
				t.Errorf("%s %s: %d, %q, length %d", method, c.path, resp.StatusCode, body, resp.ContentLength)
			}
			h := resp.Header
			if h.Get("Content-Type") != c.ctype || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Last-Modified") == "" || h.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s %s: %v", method, c.path, h)
			}
			tags = append(tags, h.Get("Etag"))
		}
		if tags[0] != tags[1] || len(tags[0]) < 10 || tags[0][0] != '"' {
			t.Errorf("%s: entity tags %q", c.path, tags)
		}
	}
	for _, path := range []string{"/missing", "/missing/", "/data/", "/data/x", "/bare/", "/bare", "/index.d/", "/INDEX.HTML", "/index.html.", "/" + strings.Repeat("x", 300), strings.Repeat("/x", 3000)} {
		s.status(404, path)
	}
}

func TestMethods(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"a.txt": "a", "dir/index.html": "d"})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"} {
		for _, path := range []string{"/a.txt", "/dir/", "/dir"} {
			resp, _ := s.do(method, path)
			if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" || resp.Header.Get("Etag") != "" {
				t.Errorf("%s %s: %d, %v", method, path, resp.StatusCode, resp.Header)
			}
		}
		if resp, _ := s.do(method, "/missing"); resp.StatusCode != 404 || resp.Header.Get("Allow") != "" {
			t.Errorf("%s /missing: %d, %v", method, resp.StatusCode, resp.Header)
		}
	}
}

func TestIndex(t *testing.T) {
	files := map[string]string{"both/a.htm": "a", "both/b.htm": "b", "second/b.htm": "b", "program/index.php": canary}
	s := newSite(t, Options{Index: []string{"a.htm", "index.php", "b.htm"}, Deny: []string{".php"}}, files)
	for path, want := range map[string]string{"/both/": "a", "/second/": "b"} {
		if _, body := s.get(path); body != want {
			t.Errorf("%s: %q, want %q", path, body, want)
		}
	}
	s.status(404, "/program/")
	s.status(404, "/program")
	none := newSite(t, Options{Index: []string{}}, map[string]string{"index.html": "x"})
	none.status(404, "/")
}

func TestDirectoryRedirect(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"dir/sub/index.html": "x", "evil.com/index.html": "x", "a:b/index.html": "x", "x?#y/index.html": "x"})
	for path, want := range map[string]string{
		"/dir/sub":             "/dir/sub/",
		"/dir/sub?q=1&r=%0d%0": "/dir/sub/?q=1&r=%0d%0",
		"/evil.com":            "/evil.com/",
		"/a:b":                 "/a:b/",
		"/x%3F%23y":            "/x%3F%23y/",
	} {
		resp, _ := s.get(path)
		location, err := resp.Location()
		if resp.StatusCode != 301 || err != nil || location.String() != s.url+want {
			t.Errorf("%s: %d to %v, want %s", path, resp.StatusCode, location, want)
		}
		if got, _ := s.get(strings.TrimPrefix(location.String(), s.url)); got.StatusCode != 200 {
			t.Errorf("%s leads to %s: %d", path, location, got.StatusCode)
		}
	}
	// Behind a prefix the client keeps it.
	f, err := New(Options{Dir: filepath.Join(s.dir, "dir", "sub")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	w := httptest.NewRecorder()
	if err := f.Serve(w, httptest.NewRequest("GET", "/static?x", nil), ""); err != nil || w.Code != 301 || w.Header().Get("Location") != "./static/?x" {
		t.Errorf("prefix without a slash: %d, %v, error %v", w.Code, w.Header(), err)
	}
}

// No path that a client can write makes a redirect to another host.
func TestNoOpenRedirect(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"evil.com/index.html": "x", "\\evil.com/index.html": "x", "https:/evil.com/index.html": "x"})
	base, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"//evil.com", "/evil.com", "/%5Cevil.com", "/\\evil.com", "///evil.com", "/https:/evil.com", "/https:%2Fevil.com", "/.//evil.com", "/%2Fevil.com", "//evil.com/%2e%2e"} {
		for _, line := range strings.Split(s.raw(path), "\r\n") {
			location, ok := strings.CutPrefix(line, "Location: ")
			if !ok {
				continue
			}
			// Browsers take a backslash for a slash.
			to, err := base.Parse(strings.ReplaceAll(location, "\\", "/"))
			if err != nil || to.Host != base.Host {
				t.Errorf("%s leads to %q", path, location)
			}
		}
	}
}

// raw sends a request line byte for byte and returns the whole answer.
func (s *site) raw(target string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", target); err != nil {
		s.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		s.t.Fatalf("%q: %v", target, err)
	}
	return string(answer)
}

func TestTraversal(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"index.html": "home", "dir/file.txt": "x"})
	ups := []string{"..", "%2e%2e", ".%2e", "%2e.", "..;", "%252e%252e", "..%00", "..%5c", "..\\", "%c0%ae%c0%ae", "...", "..%20", ".%00.", "%u002e%u002e"}
	slashes := []string{"/", "%2f", "//", "/./", "%5c", "\\", "%252f", "%c0%af"}
	targets := []string{"secret.txt", "outside/secret.txt"}
	tried := 0
	for _, prefix := range []string{"/", "/dir/", "/dir/file.txt/", "//", "/%2f", "/missing/"} {
		for _, up := range ups {
			for _, slash := range slashes {
				for depth := 1; depth <= 2; depth++ {
					for _, target := range targets {
						tried++
						if answer := s.raw(prefix + strings.Repeat(up+slash, depth) + target); strings.Contains(answer, canary) {
							t.Errorf("%s served the canary", prefix+strings.Repeat(up+slash, depth)+target)
						}
					}
				}
			}
		}
	}
	if tried < 2000 {
		t.Errorf("only %d traversals were tried", tried)
	}
	for _, path := range []string{"/" + filepath.ToSlash(filepath.Dir(s.dir)) + "/secret.txt", "/index.html%00.txt", "/%00", "/dir//file.txt", "/dir/./file.txt", "/dir/../index.html"} {
		if answer := s.raw(path); strings.Contains(answer, canary) || strings.HasPrefix(answer, "HTTP/1.0 200") {
			t.Errorf("%s: %.60q", path, answer)
		}
	}
}

func TestDenied(t *testing.T) {
	files := map[string]string{"ok.txt": "x", "php.txt": "x", "aphp": "x", "x.phpx": "x"}
	denied := []string{".git/config", ".env", ".htaccess", "dir/.hidden", "dir/.d/file.txt", "sub/.well-known/x", ".well-known/.secret", "..x",
		"a.php", "a.PHP", "a.php.bak", "a.php~", "a.Php~~", "a.php.", "dir.php/file.txt", "x.y.inc"}
	for _, name := range denied {
		files[name] = canary
	}
	s := newSite(t, Options{Deny: []string{".php", ".INC"}}, files)
	for _, name := range denied {
		s.status(403, "/"+name)
	}
	s.status(403, "/.missing") // the answer does not tell whether it exists
	s.status(403, "/missing.php")
	for _, name := range []string{"/ok.txt", "/php.txt", "/aphp", "/x.phpx"} {
		s.status(200, name)
	}
}

func TestSymbolicLinks(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"real/file.txt": "inside"})
	s.link("real/file.txt", "to-file.txt")
	s.link("real", "to-dir")
	s.link("../outside", "out")
	s.link("../secret.txt", "out.txt")
	s.link(filepath.Join(s.dir, "..", "secret.txt"), "absolute.txt")
	s.link("out", "twice")
	s.link("loop", "loop")
	s.link("nowhere", "dangling")
	s.link("/dev/zero", "zero")
	for _, path := range []string{"/to-file.txt", "/to-dir/file.txt"} {
		if _, body := s.get(path); body != "inside" {
			t.Errorf("%s: %q", path, body)
		}
	}
	for _, path := range []string{"/out/secret.txt", "/out.txt", "/absolute.txt", "/twice/secret.txt", "/zero"} {
		s.status(403, path)
	}
	s.status(404, "/loop")
	s.status(404, "/dangling")
}

// A directory changes between a real one and a link out of the root while it
// is asked for: what is outside never comes.
func TestSymlinkSwapRace(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"a/secret.txt": "inside"})
	s.link("../outside", "b")
	f, err := New(Options{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		a, b := filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	served, refused := 0, 0
	r := httptest.NewRequest("GET", "/a/secret.txt", nil)
	for range 100_000 {
		w := httptest.NewRecorder()
		switch err := f.Serve(w, r, "/a/secret.txt"); {
		case err == nil:
			served++
			if w.Body.String() != "inside" {
				t.Fatalf("served %q", w.Body)
			}
		case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
			refused++
		default:
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
	if served == 0 || refused == 0 {
		t.Errorf("%d served, %d refused: there was no race", served, refused)
	}
}

func TestSpecialFilesDoNotExist(t *testing.T) {
	s := newSite(t, Options{Index: []string{"fifo", "index.html"}}, map[string]string{"index.html": "home"})
	if err := unix.Mkfifo(filepath.Join(s.dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(s.dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s.status(404, "/fifo") // and returns at once
	s.status(404, "/s")
	if _, body := s.get("/"); body != "home" {
		t.Errorf("index behind a FIFO: %q", body)
	}
}

func TestClosed(t *testing.T) {
	f, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/x", nil), "/x"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
}

func TestNewFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, o := range []Options{
		{}, {Dir: filepath.Join(dir, "missing")}, {Dir: file},
		{Dir: dir, Index: []string{""}}, {Dir: dir, Index: []string{"."}}, {Dir: dir, Index: []string{"a/b"}}, {Dir: dir, Index: []string{".."}},
		{Dir: dir, Deny: []string{"php"}}, {Dir: dir, Deny: []string{"."}}, {Dir: dir, Deny: []string{".tar.gz"}},
	} {
		if f, err := New(o); err == nil {
			_ = f.Close()
			t.Errorf("New(%+v) worked", o)
		}
	}
}
