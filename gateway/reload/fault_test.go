package reload

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"gatecrew/procpool"
	"gatecrew/protocol"
)

func request(params ...string) *protocol.Request {
	req := &protocol.Request{Params: []protocol.Param{{Name: "REQUEST_METHOD", Value: "GET"}}}
	for i := 0; i < len(params); i += 2 {
		req.Params = append(req.Params, protocol.Param{Name: params[i], Value: params[i+1]})
	}
	return req
}

func TestFromHere(t *testing.T) {
	const addr, host = "REMOTE_ADDR", "HTTP_HOST"
	for _, c := range []struct {
		params []string
		want   bool
	}{
		{[]string{addr, "127.0.0.1", host, "localhost:8000"}, true},
		{[]string{addr, "127.8.9.10", host, "127.0.0.1:8000"}, true},
		{[]string{addr, "::1", host, "[::1]:8000"}, true},
		{[]string{addr, "::1", host, "[::1]"}, true},
		{[]string{addr, "::ffff:127.0.0.1", host, "LocalHost."}, true},
		{[]string{addr, "127.0.0.1", host, "shop.localhost:8000"}, true},
		{[]string{addr, "127.0.0.1", host, "localhost", "SERVER_PROTOCOL", "HTTP/1.1"}, true},
		{[]string{addr, "127.0.0.1", host, "shop.test", "SERVER_NAME", "shop.test"}, true},

		{[]string{addr, "192.0.2.7", host, "localhost"}, false},
		{[]string{addr, "::ffff:192.0.2.7", host, "localhost"}, false},
		{[]string{addr, "fe80::1%lo", host, "localhost"}, false},
		{[]string{addr, "0.0.0.0", host, "localhost"}, false},
		{[]string{addr, "", host, "localhost"}, false}, // a Unix socket
		{[]string{host, "localhost"}, false},
		{[]string{addr, "localhost", host, "localhost"}, false},
		// Who claims to be here is not.
		{[]string{addr, "192.0.2.7", host, "localhost", "HTTP_X_FORWARDED_FOR", "127.0.0.1", "HTTP_X_REAL_IP", "127.0.0.1"}, false},
		{[]string{addr, "192.0.2.7", host, "localhost", "HTTP_REMOTE_ADDR", "127.0.0.1"}, false},
		// A proxy on this machine.
		{[]string{addr, "127.0.0.1", host, "localhost", "HTTP_X_FORWARDED_FOR", "192.0.2.7"}, false},
		{[]string{addr, "127.0.0.1", host, "localhost", "HTTP_X_FORWARDED_PROTO", "https"}, false},
		{[]string{addr, "127.0.0.1", host, "localhost", "HTTP_FORWARDED", "for=192.0.2.7"}, false},
		{[]string{addr, "127.0.0.1", host, "localhost", "HTTP_VIA", "1.1 squid"}, false},
		{[]string{addr, "127.0.0.1", host, "localhost", "HTTP_X_REAL_IP", ""}, false},
		{[]string{addr, "127.0.0.1", host, "127.0.0.1:8000", "SERVER_PROTOCOL", "HTTP/1.0"}, false}, // nginx
		// DNS rebinding.
		{[]string{addr, "127.0.0.1", host, "evil.example:8000", "SERVER_NAME", "127.0.0.1"}, false},
		{[]string{addr, "127.0.0.1", host, "localhost.evil.example"}, false},
		{[]string{addr, "127.0.0.1", host, "192.0.2.2:8000"}, false},
	} {
		if got := fromHere(request(c.params...)); got != c.want {
			t.Errorf("%q: %v", c.params, got)
		}
	}
}

func answer(t *testing.T, f *fault, req *protocol.Request) (head, body string) {
	t.Helper()
	text, err := io.ReadAll(f.answer(req))
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ = strings.Cut(string(text), "\r\n\r\n")
	return head, body
}

var broken = newFault("web", &procpool.StartFailure{
	At: time.Unix(1, 0), Err: errors.New("exit status 4"),
	Output: strings.Split(`Traceback (most recent call last):
  File "/srv/app.py", line 3, in <module>
    import helper
  File "/srv/<helper>.py", line 7
    <script>alert(1)</script>
    ^
SyntaxError: invalid "syntax" & more
gatecrew: cannot load the application "app:app": importing the module 'app' failed: SyntaxError: invalid "syntax" & more
  next step: the traceback above says where`, "\n"),
})

func TestAnswers(t *testing.T) {
	const addr, accept, html = "REMOTE_ADDR", "HTTP_ACCEPT", "text/html,application/xhtml+xml,*/*;q=0.8"

	head, body := answer(t, broken, request(addr, "127.0.0.1", accept, html))
	for _, want := range []string{"Status: 503 ", "Content-Type: text/html", "Cache-Control: no-store", idHeader + ": " + broken.ID, "frame-ancestors 'none'"} {
		if !strings.Contains(head, want) {
			t.Errorf("the page's head lacks %q:\n%s", want, head)
		}
	}
	for _, want := range []string{"/srv/&lt;helper&gt;.py, line 7", "SyntaxError: invalid &#34;syntax&#34; &amp; more", "&lt;script&gt;alert(1)", `const shown = "` + broken.ID, "import helper"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q:\n%s", want, body)
		}
	}
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "://") {
		t.Errorf("the page runs or loads what it should not:\n%s", body)
	}

	req := request(addr, "127.0.0.1", accept, html)
	req.Params[0].Value = "POST"
	if _, body := answer(t, broken, req); strings.Contains(body, "location.reload") || strings.Contains(body, "refresh") {
		t.Error("the answer to a POST would reload itself")
	}

	head, body = answer(t, broken, request(addr, "127.0.0.1", accept, "*/*"))
	if !strings.Contains(head, "Content-Type: text/plain") || !strings.Contains(body, "<script>alert(1)") || !strings.Contains(body, "Look at /srv/<helper>.py, line 7") {
		t.Errorf("for a terminal:\n%s\n\n%s", head, body)
	}

	head, body = answer(t, broken, request(addr, "192.0.2.7", accept, html))
	if !strings.Contains(head, "Status: 503 ") || strings.Contains(head, idHeader) || strings.Contains(body, "srv") || strings.Contains(body, "Error") {
		t.Errorf("for others:\n%s\n\n%s", head, body)
	}
}

// Where to look is the innermost place that the developer has written.
func TestWhereTheFaultIs(t *testing.T) {
	const own, flask, std = `  File "/srv/app.py", line 3, in <module>`, `  File "/srv/venv/lib/python3.11/site-packages/flask/app.py", line 9, in route`, `  File "/usr/lib/python3.11/json/decoder.py", line 1, in x`
	for _, c := range []struct {
		output []string
		want   string
	}{
		{[]string{own}, "/srv/app.py:3"},
		{[]string{own, flask, std}, "/srv/app.py:3"},
		{[]string{flask, own}, "/srv/app.py:3"},
		{[]string{flask, std}, "/usr/lib/python3.11/json/decoder.py:1"},
		{[]string{own, `  File "/srv/b.py", line 4`, std}, "/srv/b.py:4"},
		{nil, ":"},
	} {
		f := newFault("web", &procpool.StartFailure{Err: errors.New("x"), Output: c.output})
		if got := f.File + ":" + f.Line; got != c.want {
			t.Errorf("%q: %s, want %s", c.output, got, c.want)
		}
	}
	if f := newFault("web", &procpool.StartFailure{Err: errors.New("not ready after 60s")}); f.Reason != "not ready after 60s" {
		t.Errorf("reason %q", f.Reason)
	}
}
