package test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Early hints of every kind of application are with the client before the
// answer exists.
func TestEarlyHints(t *testing.T) { harness.EachReader(t, testEarlyHints) }

func testEarlyHints(t *testing.T) {
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	script := `#!/bin/sh
printf 'Status: 103 Early Hints\nLink: </a.css>; rel=preload\nSet-Cookie: early=1\n\nStatus: 103\nX-Only: 1\n\nStatus: 103\nLink: </b.js>\n\n'
while [ ! -e "$QUERY_STRING" ]; do sleep 0.01; done
printf 'Content-Type: text/plain\nLink: </c>\n\nbody'
`
	writeScript(t, filepath.Join(dir, "hints.sh"), script, 0o755)
	writeScript(t, filepath.Join(dir, "nph-hints.sh"), `#!/bin/sh
printf 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.js>\r\n\r\n'
while [ ! -e "$QUERY_STRING" ]; do sleep 0.01; done
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nLink: </c>\r\n\r\nbody'
`, 0o755)
	writeScript(t, filepath.Join(dir, "flood.sh"), `#!/bin/sh
yes 'Status: 103
Link: </a>
' | head -n 303
printf 'Content-Type: text/plain\n\nbody'
`, 0o755)
	writeScript(t, filepath.Join(dir, "switch.sh"), "#!/bin/sh\nprintf 'Status: 101 Switching\\nUpgrade: x\\n\\n'\n", 0o755)
	writeScript(t, filepath.Join(dir, "hints_app.py"), `
import os, time

def app(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Set-Cookie", "early=1")])
    environ["wsgi.early_hints"]([("Link", "</b.js>")])
    while not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Link", "</c>")])
    return [b"body"]
`, 0o644)
	s := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
pools:
  hints: {app: "hints_app:app", chdir: %[1]q, python: %[2]q, workers: 1}
sites:
  - routes:
      - {path: /, pool: hints}
      - {path: /cgi, cgi: {dir: %[1]q, extensions: {.sh: sh}}}
`, dir, harness.Python(t)))
	for i, path := range []string{"/", "/cgi/hints.sh", "/cgi/nph-hints.sh"} {
		open := fmt.Sprint(gate, i)
		var links []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code != http.StatusEarlyHints || len(header) != 1 {
				t.Errorf("%s: %d %q", path, code, header)
			}
			if links = append(links, header["Link"]...); len(links) == 2 {
				writeScript(t, open, "", 0o644) // the application has waited for this
			}
			return nil
		}}
		ctx, cancel := context.WithTimeout(httptrace.WithClientTrace(context.Background(), trace), 20*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", s.URL+path+"?"+open, nil)
		resp, err := harness.Client.Do(req)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		resp.Body.Close()
		if strings.Join(links, " ") != "</a.css>; rel=preload </b.js>" || resp.StatusCode != 200 || strings.Join(resp.Header["Link"], " ") != "</c>" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: hints %q, then %d %q", path, links, resp.StatusCode, resp.Header)
		}
		// A client of HTTP/1.0 knows no such thing.
		if answer := s.Raw("GET " + path + "?" + open + " HTTP/1.0\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.0 200 OK\r\n") || strings.Contains(answer, "a.css") || !strings.HasSuffix(answer, "body") {
			t.Errorf("%s, HTTP/1.0: %q", path, answer)
		}
	}
	if r := s.Get("/cgi/switch.sh"); r.Status != http.StatusBadGateway || r.Header.Get("Upgrade") != "" {
		t.Errorf("status 101: %d %q", r.Status, r.Header)
	}
	c := s.Dial()
	fmt.Fprint(c, rawRequest("GET", "/cgi/flood.sh"))
	in := bufio.NewReader(c)
	for n := 0; ; n++ {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusEarlyHints {
			if n != 100 || resp.StatusCode != http.StatusBadGateway {
				t.Errorf("after %d hints: %d", n, resp.StatusCode)
			}
			break
		}
	}
}
