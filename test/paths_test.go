package test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// split demands what holds for every script that ran: what it was told is the
// decoded path of the request, cut in two, and names a file in root.
func split(t *testing.T, what string, vars map[string]string, decoded, root string) {
	t.Helper()
	if got := vars["SCRIPT_NAME"] + vars["PATH_INFO"]; got != decoded {
		t.Errorf("%s: SCRIPT_NAME %q and PATH_INFO %q make %q, want %q", what, vars["SCRIPT_NAME"], vars["PATH_INFO"], got, decoded)
	}
	file := vars["SCRIPT_FILENAME"]
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%s: SCRIPT_FILENAME %q is no file: %v", what, file, err)
	}
	if rel, err := filepath.Rel(root, file); err != nil || strings.HasPrefix(rel, "..") {
		t.Errorf("%s: SCRIPT_FILENAME %q is not in %s", what, file, root)
	}
	if info := vars["PATH_INFO"]; info != "" && vars["PATH_TRANSLATED"] != root+info {
		t.Errorf("%s: PATH_TRANSLATED = %q, want %q", what, vars["PATH_TRANSLATED"], root+info)
	}
}

// A path is split where a file on the disk ends, and nowhere else: not where
// something looks like an extension in another case, another alphabet, or
// behind a file of another kind (CVE-2026-27590, cgi.fix_pathinfo).
func TestClass04PathSplit(t *testing.T) { harness.EachReader(t, testPathSplit) }

func testPathSplit(t *testing.T) {
	s := startTyped(t)
	page, err := os.ReadFile(filepath.Join(s.php, "index.php"))
	if err != nil {
		t.Fatal(err)
	}
	// Not scripts by their names; they would say so if they were run.
	for _, name := range []string{"upload.jpg", "a.php.jpg", "a.php5", "a.phpx", "A.PHP", "a.pHp", ".php", ".hidden.php"} {
		writeScript(t, filepath.Join(s.php, name), `<?php echo "exec" . "uted";`, 0o644)
		writeScript(t, filepath.Join(s.cgi, "typed", strings.NewReplacer("php", "sh", "PHP", "SH", "pHp", "sH").Replace(name)),
			"#!/bin/sh\nprintf '\\n\\nexec''uted'\n", 0o755)
	}
	for _, name := range []string{"x.php", "dir.php/y.php", "İ.php", "ẞ.php", "K.php"} {
		writeScript(t, filepath.Join(s.php, name), string(page), 0o644)
	}
	php := mirrors[3]
	c := s.client()
	for _, path := range []string{ // the script, "|", the rest
		"/x.php|", "/x.php|/", "/x.php|/y.php", "/x.php|/İ.php/ẞ", "/x.php|//a//b", "/x.php|/.hidden", "/dir.php/y.php|/x.php",
		"/İ.php|", "/İ.php|/x.php", "/ẞ.php|/İ", "/K.php|/a.PHP", "/K.php|/%41%2E%70", "/x.php|/%252e%252e/", "/x.php|/a%2Fb", "/x%2ephp|/y",
	} {
		script, info, _ := strings.Cut(path, "|")
		got := php.see(t, c, "/php"+ascii(strings.ReplaceAll(path, "|", ""))).vars
		decoded, err := url.PathUnescape(script)
		if err != nil {
			t.Fatal(err)
		}
		if got["SCRIPT_NAME"] != "/php"+decoded {
			t.Errorf("%s: SCRIPT_NAME = %q", path, got["SCRIPT_NAME"])
		}
		if info, err = url.PathUnescape(info); err != nil {
			t.Fatal(err)
		}
		split(t, path, got, "/php"+decoded+info, s.php)
	}
	// Neither run nor shown: what is there is a script in another spelling, or
	// behind what is none.
	for _, path := range []string{
		"/upload.jpg/x.php", "/upload.jpg/.php", "/upload.jpg%2Fx.php", "/upload.jpg%00.php", "/upload.jpg/%00.php", "/upload.jpg%20.php", "/upload.jpg;.php",
		"/upload.jpg%0a.php", "/a.php.jpg/x.php", "/A.PHP", "/A.PHP/x.php", "/a.pHp", "/a.php", "/a.php.", "/a.php%20", "/.php", "/.hidden.php", "/.hidden.php/x.php",
		"/i.php", "/ß.php", "/ss.php", "/k.php", "/x.PHP", "/İ.PHP", "/x%2fphp", "/x.php%2fy", "/dir.php%2fy.php", "/nothing.php/x.php", "/upload.jpg/..;/x.php/",
	} {
		for _, path := range []string{"/php" + path, "/typed" + strings.NewReplacer("php", "sh", "PHP", "SH", "pHp", "sH").Replace(path)} {
			r := c.get(ascii(path))
			if r.Status != http.StatusBadRequest && r.Status != http.StatusForbidden && r.Status != http.StatusNotFound {
				t.Errorf("%s: status %d: %.200s", path, r.Status, r.Body)
			}
		}
	}
	// Files of other kinds are shown as they are, beside PHP, and never run;
	// one that some servers would run is not even shown.
	for name, status := range map[string]int{"/upload.jpg": 200, "/a.php5": 200, "/a.phpx": 200, "/a.php.jpg": 403} {
		if r := c.get("/php" + name); r.Status != status || strings.HasPrefix(r.Body, "<?php") != (status == 200) {
			t.Errorf("/php%s: %d %q", name, r.Status, r.Body)
		}
		if r := c.get("/typed" + strings.ReplaceAll(name, "php", "sh")); r.Status != http.StatusNotFound {
			t.Errorf("/typed%s: %d %q", name, r.Status, r.Body)
		}
	}
	s.healthy()
}

// ascii escapes what can't stand in a request-target as it is.
func ascii(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c < 0x80 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// startTyped starts a gate with a second folder of CGI scripts, of
// which only those ending in .sh and .py are run.
func startTyped(t *testing.T) *gate {
	t.Helper()
	s := newGate(t, "", `- {path: /typed, cgi: {dir: "@CGI@/typed", extensions: {".sh": "", ".py": ""}}}`, "")
	if err := os.Mkdir(filepath.Join(s.cgi, "typed"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

// oddNames are names of files that programs have stumbled over.
var oddNames = []string{
	"with space", "percent%41", "question?mark", "hash#mark", "semi;colon", "plus+sign", "amper&sand=", "quote'\"s", "back\\slash", "star*", "$HOME", "`id`",
	"-option", "--", "~tilde", "colon:80", "comma,", "a..b", "trailing.", "line\nfeed", "return\rcr", "tab\t", "escape\x1b[2J", "delete\x7f",
	"grüße", "gru\u0308ße", "日本語", "עברית", "🐙", "İstanbul", "ẞ", "K", "ﬃ", "\u202etxt", "zero\u200bwidth", "\xff\xfe", "latin\xe9", strings.Repeat("n", 240),
}

// Whatever a script is called, its program is told the name and the rest of
// the path as they were meant.
func TestScriptNames(t *testing.T) {
	t.Parallel()
	s := startTyped(t)
	page, err := os.ReadFile(filepath.Join(s.php, "index.php"))
	if err != nil {
		t.Fatal(err)
	}
	c := s.client()
	for _, name := range oddNames {
		writeScript(t, filepath.Join(s.php, name, name+".php"), string(page), 0o644)
		program := filepath.Join(s.cgi, "typed", name, name+".sh")
		writeScript(t, program, "", 0o755)
		if err := os.Remove(program); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(s.cgi, "env.sh"), program); err != nil {
			t.Fatal(err)
		}
		for _, info := range []string{"", "/", "/" + name, "//" + name + "//x"} {
			for _, at := range []struct {
				route, ext, root string
				mirror
			}{{"/typed/", ".sh", filepath.Join(s.cgi, "typed"), mirrors[0]}, {"/php/", ".php", s.php, mirrors[3]}} {
				decoded := at.route + name + "/" + name + at.ext + info
				escaped := (&url.URL{Path: decoded}).EscapedPath()
				got := at.see(t, c, escaped).vars
				if at.route == "/php/" && !strings.Contains(name, "\xff") && !strings.Contains(name, "\xe9") || at.route != "/php/" {
					split(t, decoded, got, decoded, at.root)
				}
				differ(t, decoded, got, map[string]string{"REQUEST_URI": escaped})
			}
		}
	}
}

// A line end in a path arrives as it was sent, and php-fpm, whose arithmetic
// with such paths went wrong once, lives (CVE-2019-11043).
func TestClass05PathInfoUnderflow(t *testing.T) {
	t.Parallel()
	harness.EachReader(t, testPathInfoUnderflow)
}

func testPathInfoUnderflow(t *testing.T) {
	s := startGate(t, "", "", "")
	php, c := mirrors[3], s.client()
	for n := 0; n <= 2000; n += 5 {
		query := strings.Repeat("Q", n)
		for _, info := range []string{"/PHP%0Ainfo.php", "/PHP%0Dinfo.php", "/%0A", "%0A/x"} {
			decoded, _ := url.PathUnescape(info)
			r := c.get("/php/index.php" + info + "?" + query)
			if info[0] != '/' { // another file's name, which isn't there
				if r.Status != http.StatusNotFound {
					t.Fatalf("%s, %d Q: status %d", info, n, r.Status)
				}
				continue
			}
			got, err := php.read(r.Body)
			if err != nil || r.Status != http.StatusOK {
				t.Fatalf("%s, %d Q: status %d: %v", info, n, r.Status, err)
			}
			differ(t, info, got.vars, map[string]string{"SCRIPT_NAME": "/php/index.php", "PATH_INFO": decoded, "QUERY_STRING": query,
				"SCRIPT_FILENAME": s.php + "/index.php"})
		}
	}
	if log := s.fpm.Log(); strings.Contains(log, "exited") || strings.Contains(log, "WARNING") {
		t.Error("php-fpm is not well")
	}
}

// executions counts how often the applications of a gate were run.
type executions struct{ s *gate }

// newExecutions adds a script to each folder that counts its runs.
func newExecutions(t *testing.T, s *gate) executions {
	t.Helper()
	writeScript(t, filepath.Join(s.cgi, "mark"), "#!/bin/sh\necho >>'"+s.dir+"/marks'\nprintf 'Content-Type: text/plain\\n\\nmarked'\n", 0o755)
	writeScript(t, filepath.Join(s.php, "mark.php"), "<?php file_put_contents('"+s.dir+"/marks', \"\\n\", FILE_APPEND); echo 'marked';", 0o644)
	return executions{s}
}

// counting are the targets that are counted.
var counting = []string{"/cgi/mark", "/php/mark.php", "/pool/pid"}

func (e executions) count(t *testing.T, c *rawClient) int {
	t.Helper()
	var served int
	body := c.get("/pool/pid").Body
	if _, err := fmt.Sscanf(body[strings.LastIndexByte(body, ':')+1:], "%d", &served); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return served + lineCount(t, filepath.Join(e.s.dir, "marks"))
}

// refused sends requests that must be answered 400 and reach no application.
func refused(t *testing.T, s *gate, requests func(target string) []string) {
	t.Helper()
	e, c := newExecutions(t, s), s.client()
	before := e.count(t, c)
	sent := 0
	for _, target := range counting {
		for _, request := range requests(target) {
			sent++
			if r := c.send(request); r.Status != http.StatusBadRequest {
				t.Errorf("%q: status %d, want 400", request, r.Status)
			}
		}
	}
	if after := e.count(t, c); after != before+1 { // the count itself is one
		t.Errorf("%d of %d requests reached an application", after-before-1, sent)
	}
	for i, target := range counting {
		if r := c.get(target); r.Status != http.StatusOK {
			t.Errorf("%s: status %d", target, r.Status)
		}
		if after := e.count(t, c); after != before+3+2*i {
			t.Errorf("%s is not counted", target)
		}
	}
	s.healthy()
}

// NUL ends a string in C: a path with one is two paths.
func TestClass06NULInPath(t *testing.T) { harness.EachReader(t, testNULInPath) }

func testNULInPath(t *testing.T) {
	refused(t, startGate(t, "", "", ""), func(target string) (requests []string) {
		for _, nul := range []string{"\x00", "%00"} {
			for _, bad := range []string{target + nul, target + nul + ".jpg", target + "/" + nul, "/x" + nul + target, nul + target, target + "/%2e" + nul, target + nul + "?a=b",
				"http://gateway.test" + target + nul} {
				requests = append(requests, rawRequest("GET", bad))
			}
		}
		return append(requests, rawRequest("GET", target+"?a=\x00"), rawRequest("GET", target, "X-A: \x00"), rawRequest("GET\x00", target),
			rawRequest("GET", target, "X\x00A: b"), strings.Replace(rawRequest("GET", target), "gateway.test", "gateway.test\x00", 1))
	})
}

// A request line has two spaces and printable ASCII; whatever else stands in
// it is read in different ways by different programs.
func TestClass09ControlsInRequestLine(t *testing.T) { harness.EachReader(t, testControlsInRequestLine) }

func testControlsInRequestLine(t *testing.T) {
	refused(t, startGate(t, "", "", ""), func(target string) (requests []string) {
		for c := 1; c < 256; c++ {
			if c > ' ' && c < 0x7f {
				continue
			}
			bad := string([]byte{byte(c)})
			for _, t := range []string{target + "/" + bad + "x", target + "?a" + bad + "b"} {
				requests = append(requests, rawRequest("GET", t))
			}
		}
		return append(requests, rawRequest("GET", target+" "), rawRequest("GET", " "+target), rawRequest("GET", target+"#x"), rawRequest("GET", target+"\r"),
			rawRequest("GET", target+" HTTP/1.1 x"), rawRequest("GET", target+"%"), rawRequest("GET", target+"/%4"), rawRequest("GET", target+"/%zz"),
			rawRequest("G ET", target), rawRequest("G\tET", target), rawRequest("G(T", target), rawRequest("", target),
			strings.Replace(rawRequest("GET", target), "HTTP/1.1", "HTTP/1.1 ", 1), strings.Replace(rawRequest("GET", target), "HTTP/1.1", "http/1.1", 1))
	})
}

// The words of a query are a script's arguments only where the site says so,
// and never an option of an interpreter (CVE-2012-1823, CVE-2024-4577).
func TestClass08QueryArguments(t *testing.T) {
	t.Parallel()
	s := newGate(t, "", `
      - {path: /words, cgi: {dir: "@CGI@", query_arguments: true}}
      - {path: /php-cgi, cgi: {dir: "@PHP@", extensions: {".php": /usr/bin/php-cgi}, query_arguments: true}}
      - {path: /perl, cgi: {dir: "@CGI@", extensions: {".pl": /usr/bin/perl}, query_arguments: true}}`, "")
	const source = "source of a script"
	writeScript(t, filepath.Join(s.php, "source.php"), "<?php /* "+source+" */ echo 'ran';", 0o644)
	s.Start()
	attacks := []string{"-s", "-d+allow_url_include%3d1", "-d+allow_url_include%3D1+-d+auto_prepend_file%3dphp://input", "%ADd+x", "%2ds", "-s+a", "a+-s",
		"a+%2Ds", "+-s", "--version", "-", "%2d", "\xads"}
	harmless := []string{"a+b", "word", "a%20b+c", "*", "%60id%60", ""}
	c := s.client()
	for _, script := range []string{"env", "env.pl"} {
		for _, query := range append(attacks, harmless...) {
			if strings.Contains(query, "\xad") {
				continue // refused as what it is: a byte that no target has
			}
			if got := mirrors[0].see(t, c, "/cgi/"+script+"?"+query); len(got.argv) != 1 {
				t.Errorf("/cgi/%s?%s: arguments %q", script, query, got.argv)
			}
			for _, arg := range mirrors[0].see(t, c, "/words/"+script+"?"+query).argv[1:] {
				if strings.HasPrefix(arg, "-") {
					t.Errorf("/words/%s?%s: argument %q", script, query, arg)
				}
			}
		}
		if got := mirrors[0].see(t, c, "/words/"+script+"?a%20b+c").argv[1:]; fmt.Sprintf("%q", got) != `["a b" "c"]` {
			t.Errorf("/words/%s: arguments %q", script, got)
		}
	}
	for _, query := range append(attacks, harmless...) {
		for _, path := range []string{"/php-cgi/source.php", "/php/source.php", "/perl/env.pl"} {
			r := c.get(path + "?" + query)
			if strings.Contains(r.Body, source) || strings.Contains(r.Body, "<code>") || strings.Contains(r.Body, "This is perl") {
				t.Errorf("%s?%s: %.300s", path, query, r.Body)
			}
			if want := http.StatusOK; r.Status != want && !strings.Contains(query, "\xad") {
				t.Errorf("%s?%s: status %d", path, query, r.Status)
			}
		}
	}
}
