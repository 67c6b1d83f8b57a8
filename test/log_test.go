package test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"gatecrew/test/harness"
)

// garbage is about n bytes of anything for which not returns false, with more of
// what means something to a log, a terminal or a parser than chance would give.
func garbage(r *rand.Rand, n int, not func(byte) bool) string {
	special := []string{`"`, `\`, "\x1b[2J", "\x1b]0;x\a", "\r", "\x00", "\x7f", "\xc2\x9b", "\xe2\x80\xae", "\xe2\x80\xa8",
		"\xff", "\xc3", "%0a", "%", `","status":200,"x":"`, `" 200 1 "`, "\n"}
	var b []byte
	for len(b) < n {
		if r.IntN(4) == 0 {
			b = append(b, special[r.IntN(len(special))]...)
		} else {
			b = append(b, byte(r.IntN(256)))
		}
	}
	return string(slices.DeleteFunc(b, not))
}

// control reports bytes that HTTP does not allow in a field's value.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// combinedLine is one line of Apache's combined format.
var combinedLine = regexp.MustCompile(`^(\S+) - (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d{3}|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"$`)

// Whatever a client sends, it is one line of the access log, and one that can be
// read again.
func TestClass59AccessLog(t *testing.T) {
	for _, format := range []string{"combined", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeScript(t, filepath.Join(dir, "index.html"), "page\n", 0o644)
			access := filepath.Join(t.TempDir(), "access.log")
			g := harness.Serve(t, fmt.Sprintf(`
log: {access: %q, access_format: %s}
sites: [{routes: [{path: /, static: {dir: %q}}]}]
`, access, format, dir))

			random := rand.New(rand.NewPCG(59, uint64(len(format))))
			agents := map[int]string{} // of the requests that the gateway answered
			c := newCaller(g)
			defer c.close()
			for n := range scaled(600, 10_000) {
				target := fmt.Sprintf("/index.html?id=%d&%s", n, garbage(random, random.IntN(60), func(c byte) bool {
					return c <= ' ' || c == 0x7f || c == '#'
				}))
				not := control
				if n%10 == 0 { // what HTTP itself doesn't allow
					not = func(c byte) bool { return c == '\n' }
				}
				agent := strings.Trim(garbage(random, 1+random.IntN(100), not), " \t\r")
				referer := strings.Trim(garbage(random, random.IntN(100), not), " \t\r")
				r, err := c.call("GET", target, "", "User-Agent: "+agent, "Referer: "+referer, "X-"+strconv.Itoa(n)+": "+garbage(random, 20, not))
				if err != nil {
					t.Fatalf("%q: %v", target, err)
				}
				// What net/http refuses by itself never was a request; its
				// answers have no Date.
				if r.Header.Get("Date") != "" {
					agents[n] = agent
				} else if r.Status != http.StatusBadRequest {
					t.Errorf("%q: %+v", target, r)
				}
			}
			if len(agents) < 400 {
				t.Fatalf("only %d requests were answered", len(agents))
			}

			var log []byte
			harness.Eventually(t, 5*time.Second, "the access log has all lines", func() bool {
				log, _ = os.ReadFile(access)
				return strings.Count(string(log), "\n") >= len(agents)
			})
			if lines := strings.Count(string(log), "\n"); lines != len(agents) {
				t.Errorf("%d lines for %d requests", lines, len(agents))
			}
			for line := range strings.Lines(string(log)) {
				if t.Failed() {
					break // one bad line tells as much as a thousand
				}
				line = strings.TrimSuffix(line, "\n")
				checkPrintable(t, line)
				parse := parseCombined
				if format == "json" {
					parse = parseJSON
				}
				target, agent, err := parse(line)
				if err != nil {
					t.Errorf("%q: %v", line, err)
					continue
				}
				var id int
				if _, err := fmt.Sscanf(target, "/index.html?id=%d&", &id); err != nil {
					t.Errorf("%q: the target is %q", line, target)
					continue
				}
				want, known := agents[id]
				if !known {
					t.Errorf("a second line for request %d, or one for none: %q", id, line)
				}
				delete(agents, id)
				if format == "json" {
					want = string([]rune(want)) // every byte that is no UTF-8 is U+FFFD
				}
				if want == "" && format == "combined" {
					want = "-"
				}
				if agent != want {
					t.Errorf("request %d: the log says %q, sent was %q", id, agent, want)
				}
			}
		})
	}
}

func parseCombined(line string) (target, agent string, err error) {
	m := combinedLine.FindStringSubmatch(line)
	if m == nil {
		return "", "", fmt.Errorf("not in the combined format")
	}
	request, err := unescape(m[4])
	if err != nil {
		return "", "", err
	}
	_, target, _ = strings.Cut(request, " ")
	agent, err = unescape(m[8])
	return target, agent, err
}

// unescape reads what Apache's log escapes mean, which are those of C.
func unescape(s string) (string, error) { return strconv.Unquote(`"` + s + `"`) }

func parseJSON(line string) (target, agent string, err error) {
	var entry struct {
		URI       string `json:"uri"`
		UserAgent string `json:"user_agent"`
	}
	err = json.Unmarshal([]byte(line), &entry)
	return entry.URI, entry.UserAgent, err
}

// checkPrintable fails for a line that could do something to a terminal.
func checkPrintable(t *testing.T, line string) {
	t.Helper()
	if !utf8.ValidString(line) {
		t.Errorf("not UTF-8: %q", line)
		return
	}
	for _, c := range line {
		if c != '\t' && !unicode.IsPrint(c) {
			t.Errorf("%U stands in a line: %q", c, line)
			return
		}
	}
}

// noisy is a WSGI application that writes the request body, line by line, where
// the query says.
const noisy = `
import os
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    how = environ["QUERY_STRING"]
    if how == "errors":
        environ["wsgi.errors"].write(body.decode("latin-1"))
    elif how == "print":
        print(body.decode("latin-1"), end="", flush=True)
    else:
        os.write(int(how), body)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"said\n"]
`

// requestOf finds the request that a line of the log is about.
var requestOf = regexp.MustCompile(`"request": ?"([^"]+)"`)

// Whatever a program writes to its standard error or output, each of its lines
// is one line of the gateway's log, which says who wrote it.
func TestClass59ProgramOutput(t *testing.T) {
	dir, app := t.TempDir(), t.TempDir()
	script(t, dir, "noisy.sh", "#!/bin/sh\ncat >&2\nprintf 'Content-Type: text/plain\\n\\nsaid\\n'\n")
	writeScript(t, filepath.Join(app, "noisy.py"), noisy, 0o644)
	for _, format := range []string{"console", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			g := harness.Serve(t, fmt.Sprintf(`
log: {format: %s, access_format: json}
pools:
  noise: {app: "noisy:application", chdir: %q, python: %q, workers: 1}
sites: [{routes: [{path: /cgi, cgi: {dir: %q}}, {path: /pool, pool: noise}]}]
`, format, app, harness.Python(t), dir))

			// What is said about a request says which.
			ways := []struct {
				target string
				whose  *regexp.Regexp
			}{
				{"/cgi/noisy.sh", regexp.MustCompile(`"request": ?"[^"]+", ?"route": ?"cgi /cgi", ?"upstream": ?"pid/\d+"`)},
				{"/pool?errors", regexp.MustCompile(`"request": ?"[^"]+", ?"route": ?"pool noise", ?"upstream": ?"noise/1"`)},
				{"/pool?2", regexp.MustCompile(`\bnoise/1\b`)},
				{"/pool?1", regexp.MustCompile(`\bnoise/1\b`)},
				{"/pool?print", regexp.MustCompile(`\bnoise/1\b`)},
			}
			random := rand.New(rand.NewPCG(59, uint64(len(format))))
			whose := map[string]*regexp.Regexp{}
			for n := range scaled(100, 1000) {
				way := ways[n%len(ways)]
				body := ""
				for i := range 10 {
					name := fmt.Sprintf("line-%d-%d:", n, i)
					body += name + garbage(random, random.IntN(120), func(c byte) bool { return c == '\n' }) + "\n"
					whose[name] = way.whose
				}
				if r := g.Do("POST", way.target, strings.NewReader(body)); r.Status != http.StatusOK || r.Body != "said\n" {
					t.Fatalf("%s: %+v", way.target, r)
				}
			}
			total := len(whose)
			name := regexp.MustCompile(`line-\d+-\d+:`)
			harness.Eventually(t, 5*time.Second, "the log has all lines", func() bool {
				return len(name.FindAllString(g.Stderr(), -1)) >= total
			})
			g.Stop()
			for line := range strings.Lines(g.Stderr()) {
				if t.Failed() {
					break // one bad line tells as much as a thousand
				}
				line = strings.TrimSuffix(line, "\n")
				checkPrintable(t, line)
				if format == "json" {
					var entry struct{ Level, TS, Msg string }
					if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" || entry.TS == "" || entry.Msg == "" {
						t.Errorf("%q: %v", line, err)
					}
				}
				said := name.FindAllString(line, -1)
				switch {
				case len(said) > 1:
					t.Errorf("several lines in one: %q", line)
				case len(said) == 1 && whose[said[0]] == nil:
					t.Errorf("twice, or never said: %q", line)
				case len(said) == 1:
					if !whose[said[0]].MatchString(line) {
						t.Errorf("whose line is this: %q", line)
					}
					if m := requestOf.FindStringSubmatch(line); m != nil && !strings.Contains(g.Stdout(), `"request_id":"`+m[1]+`"`) {
						t.Errorf("the access log has no request %s", m[1])
					}
					delete(whose, said[0])
				}
			}
			if len(whose) > 0 && !t.Failed() {
				t.Errorf("%d of %d lines are missing", len(whose), total)
			}
		})
	}
}
