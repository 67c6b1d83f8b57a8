package test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// filesApp has a WSGI application for each way to answer with a file.
const filesApp = `
import os, tempfile
from urllib.parse import parse_qsl

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse
from django.urls import path
from flask import Flask, request, send_file

PLACE = os.environ["PLACE"]


def unlinked():
    file = tempfile.TemporaryFile()
    with open(os.path.join(PLACE, "large"), "rb") as source:
        while block := source.read(1 << 20):
            file.write(block)
    file.seek(0)
    return file


def plain(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True, encoding="latin-1"))
    status = query.pop("status", "200 OK")
    start_response(status, list(query.items()))
    return [b"the body"]


flask = Flask(__name__)
settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x")


@flask.route("/file")
def flask_file():
    return send_file(os.path.join(PLACE, "large"), mimetype="text/x-large", download_name="a.txt", max_age=60)


@flask.route("/unlinked")
def flask_unlinked():
    return send_file(unlinked(), mimetype="text/plain")


@flask.route("/named")
def flask_named():
    flask.config["USE_X_SENDFILE"] = flask.use_x_sendfile = True
    try:
        return send_file(os.path.join(PLACE, "large"), mimetype="text/x-large")
    finally:
        flask.use_x_sendfile = flask.config["USE_X_SENDFILE"] = False


urlpatterns = [
    path("django/file", lambda r: FileResponse(open(os.path.join(PLACE, "large"), "rb"), filename="a.bin", as_attachment=True)),
    path("django/unlinked", lambda r: FileResponse(unlinked())),
]
django.setup()
site = WSGIHandler()


def app(environ, start_response):
    name = (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).split("/")[1]
    return {"flask": flask, "django": site}.get(name, plain)(environ, start_response)
`

// fileSite serves filesApp, a CGI script that says what it is told, and a folder
// of the files that both may name.
type fileSite struct {
	*harness.Gateway
	place, large string
	sum          string
}

func startFileSite(t *testing.T, size int64) *fileSite {
	t.Helper()
	s := &fileSite{place: t.TempDir()}
	s.large = filepath.Join(s.place, "large")
	writeNoise(t, s.large, size)
	s.sum = noiseSum(t, size)
	for name, text := range map[string]string{
		"public/a b.txt": "with a space", "public/%41.txt": "with a percent sign", "public/.dot": "with a dot", "public/sub/x.html": "<p>", "secret": "a secret",
	} {
		name = filepath.Join(s.place, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"public/out": "../secret", "public/in": "sub/x.html", "public/away": "/etc", "linked": "public"} {
		if err := os.Symlink(to, filepath.Join(s.place, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(s.large, filepath.Join(s.place, "public/large")); err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(s.place, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(app, "files_app.py"), []byte(filesApp), 0o644); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(s.place, "says.sh")
	writeScript(t, script, "#!/bin/sh\nprintf 'Content-Type: text/plain\\nX-Accel-Redirect: /internal/sub/x.html\\nX-Accel-Buffering: no\\n\\n'\n", 0o755)
	s.Gateway = harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
pools:
  files: {app: "files_app:app", chdir: %[2]q, python: %[3]q, workers: 1, threads: 4, env: {PLACE: %[1]q}}
sites:
  - routes:
      - {path: /, pool: files, sendfile: {roots: ["%[1]s/linked", "%[1]s/public"], accel: {/internal/: "%[1]s/public", /internal/sub/deep/: "%[1]s/public/sub"}}}
      - {path: /flask, pool: files, sendfile: {roots: [%[1]q]}}
      - {path: /none, pool: files}
      - {path: /passed, pool: files, sendfile: {pass: true}}
      - {path: /cgi, cgi: {script: %[4]q}, sendfile: {accel: {/internal/: "%[1]s/public"}}}
`, s.place, app, harness.Python(t), script))
	return s
}

// Files of frameworks are sent whole and in parts, and the worker and the
// gateway hold no part of them in memory.
func TestFilesOfFrameworks(t *testing.T) {
	t.Parallel()
	size := int64(scaled(24<<20, 256<<20))
	s := startFileSite(t, size)
	s.Get("/flask/file") // what is loaded at the first use
	before := s.memory(t)
	for _, path := range []string{"/flask/file", "/flask/unlinked", "/flask/named", "/django/file", "/django/unlinked"} {
		resp, err := harness.Client.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.New()
		n, err := io.Copy(hash, resp.Body)
		resp.Body.Close()
		if sum := fmt.Sprintf("%x", hash.Sum(nil)); err != nil || n != size || sum != s.sum || resp.ContentLength != size || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d, %d bytes of %d, %v, sum %s", path, resp.StatusCode, n, size, err, sum)
		}
		if r := s.Do("HEAD", path, nil); r.Status != http.StatusOK || path != "/flask/unlinked" && r.Header.Get("Content-Length") != strconv.FormatInt(size, 10) {
			t.Errorf("HEAD %s: %d %q", path, r.Status, r.Header)
		}
	}
	if grown := s.memory(t) - before; grown > 12<<20 {
		t.Errorf("the processes grew by %d MiB", grown>>20)
	}
	content, err := os.ReadFile(s.large)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/flask/file", "/flask/named"} {
		r := s.Do("GET", path, nil, "Range", "bytes=1000-200999")
		if r.Status != http.StatusPartialContent || r.Body != string(content[1000:201000]) || r.Header.Get("Content-Range") != fmt.Sprintf("bytes 1000-200999/%d", size) {
			t.Errorf("%s: a range: %d %q, %d bytes", path, r.Status, r.Header, len(r.Body))
		}
		whole := s.Do("HEAD", path, nil)
		r = s.Do("GET", path, nil, "If-None-Match", whole.Header.Get("Etag"))
		if r.Status != http.StatusNotModified || r.Body != "" || r.Header.Get("X-Sendfile") != "" {
			t.Errorf("%s: not modified: %d %q", path, r.Status, r.Header)
		}
		if got := whole.Header; got.Get("Content-Type") != "text/x-large; charset=utf-8" || got.Get("X-Sendfile") != "" || got.Get("Etag") == "" {
			t.Errorf("%s: %q", path, got)
		}
	}
	if r := s.Do("HEAD", "/django/file", nil); r.Header.Get("Content-Disposition") != `attachment; filename="a.bin"` {
		t.Errorf("%q", r.Header)
	}
}

// memory is the most that the gateway and its worker have had together, in bytes.
func (s *fileSite) memory(t *testing.T) int64 {
	t.Helper()
	sum := harness.MemoryOf(s.PID).Peak
	for _, p := range harness.Descendants(s.PID) {
		sum += harness.MemoryOf(p.PID).Peak
	}
	return sum
}

// What an application names is sent from the folders of its route, with the
// application's fields, and from nowhere else.
func TestNamedFiles(t *testing.T) {
	s := startFileSite(t, 1<<20)
	ask := func(path string, fields ...string) harness.Response {
		t.Helper()
		q := url.Values{}
		for i := 0; i < len(fields); i += 2 {
			q.Set(fields[i], fields[i+1])
		}
		return s.Get(path + "?" + q.Encode())
	}
	public := filepath.Join(s.place, "public")
	for _, tt := range []struct {
		field, value string
		status       int
		body         string
	}{
		{"X-Sendfile", public + "/a b.txt", 200, "with a space"},
		{"X-Sendfile", public + "/%41.txt", 200, "with a percent sign"},
		{"X-Sendfile", public + "/.dot", 200, "with a dot"},
		{"X-Sendfile", public + "/in", 200, "<p>"},
		{"X-Sendfile", s.place + "/linked/in", 200, "<p>"},
		{"X-Sendfile", public + "/sub/../sub//x.html", 200, "<p>"},
		{"X-Sendfile", public + "/nothing", 404, ""},
		{"X-Sendfile", public + "/sub", 404, ""},
		{"X-Sendfile", public + "/out", 403, ""},
		{"X-Sendfile", public + "/away/passwd", 403, ""},
		{"X-Sendfile", s.place + "/secret", 502, ""},
		{"X-Sendfile", public + "/../secret", 502, ""},
		{"X-Sendfile", public + "x/../secret", 502, ""},
		{"X-Sendfile", public, 502, ""},
		{"X-Sendfile", "/etc/passwd", 502, ""},
		{"X-Sendfile", "a b.txt", 502, ""},
		{"X-Sendfile", "", 502, ""},
		{"X-Accel-Redirect", "/internal/a b.txt", 200, "with a space"},
		{"X-Accel-Redirect", "/internal/a%20b.txt?x=y", 200, "with a space"},
		{"X-Accel-Redirect", "/internal/%2541.txt", 200, "with a percent sign"},
		{"X-Accel-Redirect", "/internal/sub/deep/x.html", 200, "<p>"},
		{"X-Accel-Redirect", "/internal/%2e%2e/secret", 502, ""},
		{"X-Accel-Redirect", "/internal/../secret", 502, ""},
		{"X-Accel-Redirect", "/internal/sub/..%2f..%2f../secret", 502, ""},
		{"X-Accel-Redirect", "/internal/out", 403, ""},
		{"X-Accel-Redirect", "/internal/%00", 404, ""},
		{"X-Accel-Redirect", "/internal/%zz", 502, ""},
		{"X-Accel-Redirect", "/internalx/a", 502, ""},
		{"X-Accel-Redirect", "@named", 502, ""},
		{"X-Accel-Redirect", public + "/a b.txt", 502, ""},
	} {
		r := ask("/", tt.field, tt.value, "Content-Length", "8")
		if r.Status != tt.status || tt.status == 200 && r.Body != tt.body || strings.Contains(r.Body, "secret") || strings.Contains(r.Body, "the body") {
			t.Errorf("%s: %s: %d %q, want %d %q", tt.field, tt.value, r.Status, r.Body, tt.status, tt.body)
		}
		if r.Header.Get(tt.field) != "" || strings.Contains(r.Body, s.place) {
			t.Errorf("%s: %s: the client sees %q %q", tt.field, tt.value, r.Header, r.Body)
		}
	}
	s.LogLine("the file that the application names can't be sent")
	s.LogLine("is in none of the route's sendfile.roots")

	r := ask("/", "X-Sendfile", public+"/in", "Content-Type", "text/own", "Etag", `"own"`, "Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT",
		"Set-Cookie", "a=b", "Content-Disposition", "attachment", "Cache-Control", "private")
	if h := r.Header; h.Get("Content-Type") != "text/own" || h.Get("Etag") != `"own"` || h.Get("Last-Modified") != "Mon, 02 Jan 2006 15:04:05 GMT" ||
		h.Get("Set-Cookie") != "a=b" || h.Get("Content-Disposition") != "attachment" || h.Get("Cache-Control") != "private" {
		t.Errorf("the application's fields are gone: %q", h)
	}
	r = ask("/", "X-Sendfile", public+"/sub/x.html")
	if h := r.Header; h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("Etag") == "" || h.Get("Last-Modified") == "" {
		t.Errorf("the file's own fields are missing: %q", h)
	}
	query := "/?X-Sendfile=" + url.QueryEscape(public+"/sub/x.html")
	if r := s.Do("GET", query, nil, "If-None-Match", r.Header.Get("Etag")); r.Status != http.StatusNotModified || r.Body != "" {
		t.Errorf("not modified: %d %q", r.Status, r.Body)
	}
	if r := s.Do("GET", query, nil, "Range", "bytes=1-1"); r.Status != http.StatusPartialContent || r.Body != "p" {
		t.Errorf("a range: %d %q", r.Status, r.Body)
	}
	if r := s.Do("POST", query, strings.NewReader("x"), "Range", "bytes=1-1"); r.Status != http.StatusOK || r.Body != "<p>" {
		t.Errorf("POST: %d %q", r.Status, r.Body)
	}
	if r := s.Do("HEAD", query, nil); r.Status != http.StatusOK || r.Body != "" || r.Header.Get("Content-Length") != "3" {
		t.Errorf("HEAD: %d %q", r.Status, r.Header)
	}
	if r := ask("/", "status", "404 Not Found", "X-Sendfile", public+"/in"); r.Status != 404 || r.Body != "the body" || r.Header.Get("X-Sendfile") != "" {
		t.Errorf("another status: %d %q %q", r.Status, r.Header, r.Body)
	}
	for _, field := range []string{"X-Sendfile", "X-Accel-Redirect"} {
		if r := ask("/none", field, public+"/in"); r.Status != http.StatusBadGateway || r.Header.Get(field) != "" || strings.Contains(r.Body, public) {
			t.Errorf("%s without the setting: %d %q %q", field, r.Status, r.Header, r.Body)
		}
		if r := ask("/passed", field, public+"/in"); r.Status != http.StatusOK || r.Header.Get(field) != public+"/in" || r.Body != "the body" {
			t.Errorf("%s passed on: %d %q %q", field, r.Status, r.Header, r.Body)
		}
	}
	s.LogLine("the route has no sendfile.roots")
	if r := s.Get("/cgi"); r.Status != http.StatusOK || r.Body != "<p>" || r.Header.Get("Content-Type") != "text/plain" || r.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("a script: %d %q %q", r.Status, r.Header, r.Body)
	}
}
