package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// The semantics are the subject of scripts/tests/test_warm_perl.py, which runs
// a hundred scripts cold and warm. This is Perl behind the real gateway.

// startWarmPerl serves a folder of scripts, by name, that are kept warm.
func startWarmPerl(t *testing.T, scripts map[string]string) *scriptHost {
	t.Helper()
	dir := harness.CGIDir(t)
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &scriptHost{Gateway: harness.Start(t, "run", dir, "--warm", "--access-log", "off"), dir: dir}
}

// awaitWarm asks for a script until its zygote serves it.
func (h *scriptHost) awaitWarm(t *testing.T, name string) {
	t.Helper()
	line := regexp.MustCompile(`script is warm.*` + regexp.QuoteMeta(filepath.Join(h.dir, name)))
	harness.Eventually(t, 30*time.Second, name+" is warm", func() bool {
		h.Get("/" + name)
		return line.MatchString(h.Stderr())
	})
}

// zygotes returns the processes that have a Perl script loaded.
func (h *scriptHost) zygotes(script string) (pids []int) {
	for _, p := range harness.Descendants(h.PID) {
		words, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if strings.Contains(string(words), "-MGatecrewWarm") && strings.Contains(string(words), script) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// TestWarmPerl: what legacy sites consist of, unchanged.
func TestWarmPerl(t *testing.T) {
	h := startWarmPerl(t, nil)
	for _, name := range []string{"env.pl", "echo.pl", "form.pl"} {
		h.awaitWarm(t, name)
	}
	h.env(t, "env.pl")
	h.echo(t, "echo.pl")
	h.formPerl(t)
	if strings.Contains(h.Stderr(), "cold") {
		t.Errorf("served cold:\n%s", h.Stderr())
	}
}

// TestWarmPerlEdits: an edit of the script or of a module of its own is seen by
// the next request.
func TestWarmPerlEdits(t *testing.T) {
	const script = "#!/usr/bin/perl -T\nuse lib '.'; use Own; use POSIX;\nprint qq(Content-Type: text/plain\\n\\nfirst ), Own::name();\n"
	h := startWarmPerl(t, map[string]string{"own.pl": script, "Own.pm": "package Own; sub name { 'one' } 1;"})
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.awaitWarm(t, "own.pl")
	for i, want := range []string{"first one", "first two", "second two"} {
		switch i {
		case 1:
			write("Own.pm", "package Own; sub name { 'two' } 1;")
		case 2:
			write("own.pl", strings.Replace(script, "first", "second", 1))
		}
		for range 3 {
			if r := h.Get("/own.pl"); r.Body != want {
				t.Fatalf("%q, want %q", r.Body, want)
			}
		}
	}
}

// TestWarmPerlCold: what can't be warm is served cold, and the log says why, once.
func TestWarmPerlCold(t *testing.T) {
	const head = "print qq(Content-Type: text/plain\\n\\n);"
	h := startWarmPerl(t, map[string]string{
		"query.pl": "#!/usr/bin/perl\nour $q; BEGIN { $q = $ENV{QUERY_STRING} } " + head + " print $q;",
		"print.pl": "#!/usr/bin/perl\nBEGIN { " + head + " } print $ENV{QUERY_STRING};",
		"port.pl":  "#!/usr/bin/perl\nour $q; BEGIN { $q = $ENV{SERVER_PORT} // '' } " + head + " print $ENV{QUERY_STRING};",
	})
	for name, reason := range map[string]string{
		"query.pl": `look at $ENV{QUERY_STRING}`, "print.pl": `its BEGIN blocks or its modules print`, "port.pl": `look at $ENV{SERVER_PORT}`,
	} {
		harness.Eventually(t, 30*time.Second, "the reason", func() bool {
			if r := h.Get("/" + name + "?a=" + name); r.Body != "a="+name {
				t.Fatalf("%s: %d %q", name, r.Status, r.Body)
			}
			return strings.Contains(h.Stderr(), reason)
		})
		for range 5 {
			if r := h.Get("/" + name + "?b"); r.Body != "b" {
				t.Errorf("%s: %d %q", name, r.Status, r.Body)
			}
		}
		if n := strings.Count(h.Stderr(), reason); n != 1 {
			t.Errorf("%s: the reason is logged %d times:\n%s", name, n, h.Stderr())
		}
	}
}

// TestWarmPerlKilled: the end of a zygote loses no request, neither one that is
// under way nor the next.
func TestWarmPerlKilled(t *testing.T) {
	h := startWarmPerl(t, map[string]string{
		"slow.pl": "#!/usr/bin/perl\nuse POSIX; $| = 1; print qq(Content-Type: text/plain\\n\\n$$ ); select undef, undef, undef, 0.5 if $ENV{QUERY_STRING}; print 'done';",
	})
	h.awaitWarm(t, "slow.pl")
	answer := make(chan string, 1)
	go func() { answer <- h.Get("/slow.pl?1").Body }()
	pids := h.zygotes("slow.pl")
	if len(pids) == 0 {
		t.Fatal("no zygote")
	}
	time.Sleep(200 * time.Millisecond) // the request is in the script
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		if r := h.Get("/slow.pl"); !strings.HasSuffix(r.Body, "done") {
			t.Errorf("%d %q", r.Status, r.Body)
		}
	}
	if body := <-answer; !strings.HasSuffix(body, "done") {
		t.Errorf("under way: %q", body)
	}
}
