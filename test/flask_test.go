package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// TestFlask uses what Flask applications are made of, under wsgiref.validate.
func TestFlask(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ workers, threads string }{{"2", "1"}, {"2:4", "4"}} {
		t.Run(c.workers+" workers of "+c.threads+" threads", func(t *testing.T) {
			g := harness.Start(t, "run", "flask_checked:application", "--chdir", harness.App(t), "--python", harness.Python(t),
				"--workers", c.workers, "--threads", c.threads, "--access-log", "off")
			if r := g.Get("/"); r.Status != http.StatusOK || r.Body != "Hello, World!" || r.Header.Get("Content-Length") != "13" {
				t.Errorf("/: %d %v %q", r.Status, r.Header, r.Body)
			}
			if r := g.Do("HEAD", "/", nil); r.Status != http.StatusOK || r.Body != "" || r.Header.Get("Content-Length") != "13" {
				t.Errorf("HEAD /: %d %v %q", r.Status, r.Header, r.Body)
			}
			t.Run("request", func(t *testing.T) { flaskRequest(t, g) })
			t.Run("form", func(t *testing.T) { flaskForm(t, g) })
			t.Run("upload", func(t *testing.T) { flaskUpload(t, g) })
			t.Run("events", func(t *testing.T) { flaskEvents(t, g) })
			t.Run("sessions", func(t *testing.T) { flaskSessions(t, g) })
			for path, status := range map[string]int{"/nothing": 404, "/form": 405, "/fail": 500} {
				if r := g.Get(path); r.Status != status || strings.Contains(r.Body, "raised") {
					t.Errorf("%s: %d %q", path, r.Status, r.Body)
				}
			}
			g.LogLine("RuntimeError: raised in a Flask view")
			if strings.Contains(g.Stderr(), "AssertionError") {
				t.Errorf("wsgiref.validate complains:\n%s", g.Stderr())
			}
		})
	}
}

func flaskRequest(t *testing.T, g *harness.Gateway) {
	r := g.Do("GET", "/json?a=1&a=2&b=%C3%A4", nil, "Host", "example.org:8080", "X-Forwarded-Proto", "https", "X-List", "one", "X-List", "two")
	var got struct {
		Args                                  map[string][]string
		Path, Root, URL, Remote, Scheme, Host string
		Headers                               map[string]string
	}
	if err := json.Unmarshal([]byte(r.Body), &got); err != nil {
		t.Fatalf("%v: %d %q", err, r.Status, r.Body)
	}
	if want := map[string][]string{"a": {"1", "2"}, "b": {"ä"}}; !reflect.DeepEqual(got.Args, want) {
		t.Errorf("arguments %q, want %q", got.Args, want)
	}
	for what, pair := range map[string][2]string{
		"path": {got.Path, "/json"}, "root": {got.Root, ""}, "remote": {got.Remote, "127.0.0.1"}, "scheme": {got.Scheme, "http"},
		"host": {got.Host, "example.org:8080"}, "list": {got.Headers["X-List"], "one, two"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s %q, want %q", what, pair[0], pair[1])
		}
	}
	if !strings.HasPrefix(got.URL, "http://example.org:8080/json?a=1") {
		t.Errorf("URL %q", got.URL)
	}
}

func flaskForm(t *testing.T, g *harness.Gateway) {
	r := g.Do("POST", "/form", strings.NewReader("x=1&x=2&y=a+%26+b"), "Content-Type", "application/x-www-form-urlencoded")
	var got struct{ Form map[string][]string }
	if err := json.Unmarshal([]byte(r.Body), &got); err != nil {
		t.Fatalf("%v: %d %q", err, r.Status, r.Body)
	}
	if want := map[string][]string{"x": {"1", "2"}, "y": {"a & b"}}; !reflect.DeepEqual(got.Form, want) {
		t.Errorf("form %q, want %q", got.Form, want)
	}
}

func flaskUpload(t *testing.T, g *harness.Gateway) {
	const size = 3 << 20
	var file strings.Builder
	file.WriteString("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"ä.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n")
	data, err := io.ReadAll(noise(size))
	if err != nil {
		t.Fatal(err)
	}
	file.Write(data)
	file.WriteString("\r\n--b--\r\n")
	want := fmt.Sprintf(`"bytes":%d,"sha256":%q`, size, noiseSum(t, size))
	for what, body := range map[string]struct{ kind, body string }{
		"form": {"multipart/form-data; boundary=b", file.String()}, "body": {"application/octet-stream", string(data)},
	} {
		if r := g.Do("POST", "/upload", strings.NewReader(body.body), "Content-Type", body.kind); !strings.Contains(r.Body, want) {
			t.Errorf("%s: %d %q, want %s", what, r.Status, r.Body, want)
		}
		if r := g.Do("POST", "/upload", chunkedOnly{strings.NewReader(body.body)}, "Content-Type", body.kind); !strings.Contains(r.Body, want) {
			t.Errorf("%s, chunked: %d %q, want %s", what, r.Status, r.Body, want)
		}
	}
}

// flaskEvents: each event is there when it was sent, not when the last one was.
func flaskEvents(t *testing.T, g *harness.Gateway) {
	resp, err := harness.Client.Get(g.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	var first time.Time
	n := 0
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		if want := fmt.Sprintf("data: %d of /events", n); lines.Text() != want {
			t.Errorf("%q, want %q", lines.Text(), want)
		}
		if n++; n == 1 {
			first = time.Now()
		}
	}
	// The application sleeps four tenths of a second after the first event.
	if took := time.Since(first); n != 5 || lines.Err() != nil || took < 300*time.Millisecond {
		t.Errorf("%d events, %v; the last %v after the first", n, lines.Err(), took)
	}
}

// flaskSessions: people who are logged in at the same time are not mistaken for
// each other, whichever workers they meet.
func flaskSessions(t *testing.T, g *harness.Gateway) {
	var people sync.WaitGroup
	for i := range 8 {
		people.Go(func() {
			b := newBrowser(t, g)
			name := fmt.Sprintf("person %d", i)
			b.read("login", http.StatusOK)(b.http.PostForm(g.URL+"/login", map[string][]string{"name": {name}}))
			for range 20 {
				b.want(b.page("/whoami", http.StatusOK), fmt.Sprintf("%q", name))
			}
		})
	}
	people.Wait()
	newBrowser(t, g).want(g.Get("/whoami").Body, "null")
}
