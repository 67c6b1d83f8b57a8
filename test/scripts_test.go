package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// scriptHost is a gateway before env, echo and form in four languages.
type scriptHost struct {
	*harness.Gateway
	dir, path string            // where the scripts are, on the disk and on the site
	endings   map[string]string // of the names, by language
}

// startExecutables serves a folder as it stands: what is executable is run, by
// its own #! line.
func startExecutables(t *testing.T) *scriptHost {
	t.Helper()
	dir := harness.CGIDir(t)
	return &scriptHost{
		Gateway: harness.Start(t, "run", dir, "--access-log", "off"), dir: dir,
		endings: map[string]string{"Perl": ".pl", "Python": ".py", "shell": ".sh", "C": ""},
	}
}

// startInterpreted serves scripts that are not executable: the configuration
// says what runs them.
func startInterpreted(t *testing.T) *scriptHost {
	t.Helper()
	dir := harness.CGIDir(t)
	for _, name := range []string{"env", "echo", "form"} {
		for _, ending := range []string{".pl", ".py", ".sh"} {
			if err := os.Chmod(filepath.Join(dir, name+ending), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".cgi")); err != nil {
			t.Fatal(err)
		}
	}
	return &scriptHost{
		Gateway: harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites:
  - routes:
      - path: /old/scripts
        cgi: {dir: %q, extensions: {.pl: perl, .py: python3, .sh: /bin/sh, .cgi: ""}}
`, dir)),
		dir: dir, path: "/old/scripts",
		endings: map[string]string{"Perl": ".pl", "Python": ".py", "shell": ".sh", "C": ".cgi"},
	}
}

// TestScripts runs what legacy sites consist of, unchanged, in both ways.
func TestScripts(t *testing.T) {
	t.Parallel()
	for how, start := range map[string]func(*testing.T) *scriptHost{"executables": startExecutables, "interpreted": startInterpreted} {
		t.Run(how, func(t *testing.T) {
			h := start(t)
			for language, ending := range h.endings {
				t.Run(language, func(t *testing.T) {
					h.env(t, "env"+ending)
					h.echo(t, "echo"+ending)
					if language == "Perl" {
						h.formPerl(t)
					} else {
						h.form(t, "form"+ending)
					}
				})
			}
			t.Run("no script", h.noScript)
		})
	}
}

func (h *scriptHost) env(t *testing.T, name string) {
	r := h.Get(h.path + "/" + name + "/more/p%C3%A4th?a=1&b=%20x")
	var got struct {
		Argv []string
		Cwd  string
		Env  map[string]string
		FDs  map[string]string
	}
	if err := json.Unmarshal([]byte(r.Body), &got); err != nil || r.Status != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %q, %v", r.Status, r.Header, r.Body, err)
	}
	for variable, want := range map[string]string{
		"GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "QUERY_STRING": "a=1&b=%20x", "SCRIPT_NAME": h.path + "/" + name,
		"PATH_INFO":       "/more/pÃ¤th", // bytes, see env.py
		"SCRIPT_FILENAME": filepath.Join(h.dir, name), "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
	} {
		if got.Env[variable] != want {
			t.Errorf("%s=%q, want %q", variable, got.Env[variable], want)
		}
	}
	if len(got.Argv) != 1 || !strings.HasSuffix(got.Argv[0], name) || got.Cwd != h.dir || len(got.FDs) != 3 {
		t.Errorf("arguments %q in %s, descriptors %v", got.Argv, got.Cwd, got.FDs)
	}
}

func (h *scriptHost) echo(t *testing.T, name string) {
	const size = 300_000
	data, err := io.ReadAll(noise(size))
	if err != nil {
		t.Fatal(err)
	}
	for what, body := range map[string]io.Reader{
		"with a length": strings.NewReader(string(data)), "chunked": chunkedOnly{strings.NewReader(string(data))},
	} {
		if r := h.Do("POST", h.path+"/"+name, body); r.Status != http.StatusOK || r.Body != string(data) {
			t.Errorf("%s: %d, %d bytes back", what, r.Status, len(r.Body))
		}
	}
	if r := h.Get(h.path + "/" + name); r.Status != http.StatusOK || r.Body != "" {
		t.Errorf("no body: %d %q", r.Status, r.Body)
	}
}

func (h *scriptHost) form(t *testing.T, name string) {
	const kind, posted = "application/x-www-form-urlencoded", "first=1&second=a+%26+b&third="
	want := fmt.Sprintf("POST %s %d\nfirst=1\nsecond=a+%%26+b\nthird=\n", kind, len(posted))
	for what, body := range map[string]io.Reader{
		"with a length": strings.NewReader(posted), "chunked": chunkedOnly{strings.NewReader(posted)},
	} {
		if r := h.Do("POST", h.path+"/"+name, body, "Content-Type", kind); r.Status != http.StatusOK || r.Body != want {
			t.Errorf("%s: %d %q, want %q", what, r.Status, r.Body, want)
		}
	}
}

// formPerl: CGI.pm reads fields and files by itself, and sets a cookie.
func (h *scriptHost) formPerl(t *testing.T) {
	r := h.Do("POST", h.path+"/form.pl", strings.NewReader("b=2&a=1&a=3"), "Content-Type", "application/x-www-form-urlencoded", "Cookie", "seen=yes")
	if want := "a: 1, 3\nb: 2\ncookie seen: yes\n"; r.Status != http.StatusOK || r.Body != want {
		t.Errorf("%d %q, want %q", r.Status, r.Body, want)
	}
	if cookie := r.Header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "seen=yes") {
		t.Errorf("Set-Cookie: %q", cookie)
	}
	file := strings.Repeat("\r\n--", 50_000)
	upload := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n" + file + "\r\n--b--\r\n"
	r = h.Do("POST", h.path+"/form.pl", strings.NewReader(upload), "Content-Type", "multipart/form-data; boundary=b")
	if want := fmt.Sprintf("f: file n.bin, %d bytes\ncookie seen: none\n", len(file)); r.Status != http.StatusOK || r.Body != want {
		t.Errorf("%d %q, want %q", r.Status, r.Body, want)
	}
}

// noScript: what is not a script is neither run nor shown.
func (h *scriptHost) noScript(t *testing.T) {
	for name, mode := range map[string]os.FileMode{"notes.txt": 0o644, "not-executable": 0o644, "not-executable.cgi": 0o644} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte("#!/bin/sh\nprintf '\\n\\nsecret'\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"", "notes.txt", "not-executable", "not-executable.cgi", "missing.py", "env.c"} {
		r := h.Get(h.path + "/" + name)
		if r.Status != http.StatusNotFound && r.Status != http.StatusForbidden || strings.Contains(r.Body, "secret") {
			t.Errorf("%q: %d %q", name, r.Status, r.Body)
		}
	}
}

// TestSingleScript: one program that answers every path.
func TestSingleScript(t *testing.T) {
	dir := harness.CGIDir(t)
	plain := filepath.Join(dir, "plain.sh")
	if err := os.Rename(filepath.Join(dir, "env.sh"), plain); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(plain, 0o644); err != nil {
		t.Fatal(err)
	}
	interpreted := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites:
  - routes:
      - {path: /tool, cgi: {script: %q, extensions: {.sh: /bin/sh}}}
`, plain))
	for _, s := range []struct {
		*harness.Gateway
		path, file string
	}{
		{harness.Start(t, "run", filepath.Join(dir, "env.pl"), "--access-log", "off"), "", filepath.Join(dir, "env.pl")},
		{harness.Start(t, "run", filepath.Join(dir, "env"), "--access-log", "off"), "", filepath.Join(dir, "env")},
		{harness.Start(t, "run", filepath.Join(dir, "env.py"), "--access-log", "off"), "", filepath.Join(dir, "env.py")},
		{interpreted, "/tool", plain},
	} {
		for _, info := range []string{"/", "/a/b.php/c", "/env.py", ""} {
			target := s.path + info
			if target == "" {
				continue
			}
			r := s.Get(target)
			var got struct{ Env map[string]string }
			err := json.Unmarshal([]byte(r.Body), &got)
			if err != nil || got.Env["SCRIPT_NAME"] != s.path || got.Env["PATH_INFO"] != info || got.Env["SCRIPT_FILENAME"] != s.file {
				t.Errorf("%s, %s: %d, %v: %q, %q, %q", s.file, target, r.Status, err,
					got.Env["SCRIPT_NAME"], got.Env["PATH_INFO"], got.Env["SCRIPT_FILENAME"])
			}
		}
	}
}
