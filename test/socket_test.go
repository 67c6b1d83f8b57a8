package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// binaryEcho sends each message back, by lengths.
const binaryEcho = `import struct, sys
i, o = sys.stdin.buffer, sys.stdout.buffer
while head := i.read(4):
    length, = struct.unpack(">I", head)
    o.write(head + i.read(length))
    o.flush()
`

// servePrograms serves shell scripts over WebSocket, each at /NAME, with these
// settings.
func servePrograms(t *testing.T, settings string, scripts map[string]string) (g *harness.Gateway, dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return harness.Serve(t, fmt.Sprintf(`
sites: [{routes: [{path: /, socket: {dir: %q, env: {GATECREW_TEST_MARK: %q}, %s}}]}]
`, dir, filepath.Base(filepath.Dir(dir)), settings)), dir
}

func TestProgramOverWebSocket(t *testing.T) {
	g, dir := servePrograms(t, "subprotocols: [chat]", map[string]string{
		"echo":  `while read -r line; do echo "<$line>"; done`,
		"env":   `env | grep -E "^(HTTP_|PATH_INFO|SCRIPT_NAME|UNIQUE_ID|WEBSOCKET|REQUEST_METHOD|GATEWAY_INTERFACE|SECRET)" | sort; pwd; echo "$#"`,
		"fail":  `echo last; echo for the log >&2; exit 3`,
		"greet": `echo hello; exec sleep 1000`,
	})
	w := g.WebSocket("/echo")
	for _, text := range []string{"hello", "", "ü\x00", strings.Repeat("x", 300_000)} {
		if text == "ü\x00" {
			text = "ü" // a shell has no NUL
		}
		w.Send(harness.OpText, text)
		w.Expect(harness.OpText, "<"+text+">")
	}
	w.Send(harness.OpPing, "are you there")
	if first, payload, err := w.ReadFrame(); err != nil || first != harness.Fin|harness.OpPong || string(payload) != "are you there" {
		t.Errorf("a ping is answered with %x %q, %v", first, payload, err)
	}
	w.Send(harness.OpText, "two\nlines")
	w.Expect(harness.OpText, "<two>")
	w.Expect(harness.OpText, "<lines>")
	w.Send(harness.OpBinary, "\x00")
	if reason := w.ExpectClose(1003); !strings.Contains(reason, "text") {
		t.Errorf("the reason is %q", reason)
	}

	w = g.WebSocket("/env/some/path?a+b", "Sec-WebSocket-Protocol", "other, chat", "Cookie", "a=b", "Authorization", "Basic secret")
	if got := w.Head.Header.Get("Sec-WebSocket-Protocol"); got != "chat" {
		t.Errorf("the subprotocol is %q", got)
	}
	var lines []string
	for {
		op, text, err := w.Receive()
		if err != nil || op == harness.OpClose {
			if !strings.HasPrefix(text, "\x03\xe8") {
				t.Errorf("%q, %v", text, err)
			}
			break
		}
		lines = append(lines, text)
	}
	env := "\n" + strings.Join(lines, "\n") + "\n"
	for _, want := range []string{"HTTP_COOKIE=a=b", "HTTP_SEC_WEBSOCKET_PROTOCOL=other, chat", "WEBSOCKET_PROTOCOL=chat", "PATH_INFO=/some/path", "SCRIPT_NAME=/env",
		"REQUEST_METHOD=GET", "GATEWAY_INTERFACE=CGI/1.1", "UNIQUE_ID=", dir, "0"} {
		if !strings.Contains(env, "\n"+want) {
			t.Errorf("no %q in%s", want, env)
		}
	}
	if strings.Contains(env, "secret") {
		t.Errorf("the password is told:%s", env)
	}

	w = g.WebSocket("/fail")
	w.Expect(harness.OpText, "last")
	if reason := w.ExpectClose(1011); reason != "exit status 3" {
		t.Errorf("the reason is %q", reason)
	}
	g.LogLine("for the log")
	g.LogLine("program of a WebSocket has failed")

	for _, method := range []string{"GET", "POST"} {
		if r := g.Do(method, "/echo", nil); r.Status != http.StatusUpgradeRequired || r.Header.Get("Upgrade") != "websocket" || !strings.Contains(r.Body, "WebSocket") {
			t.Errorf("%s: %+v", method, r)
		}
	}
	for path, want := range map[string]int{"/absent": 404, "/.hidden": 404, "/": 404} {
		if w, err := g.TryWebSocket(path); err != nil || w.Head.StatusCode != want {
			t.Errorf("%s: %v, %v; want %d", path, w, err, want)
		}
	}
	if w, err := g.TryWebSocket("/echo", "Origin", "https://elsewhere.example"); err != nil || w.Head.StatusCode != http.StatusForbidden {
		t.Errorf("a page from elsewhere: %v, %v", w, err)
	}
	g.WebSocket("/echo", "Origin", g.URL)

	// A stop of the gateway tells the clients, and waits for nobody.
	w = g.WebSocket("/greet")
	w.Expect(harness.OpText, "hello")
	g.Signal(syscall.SIGTERM)
	w.ExpectClose(1001)
	g.Stop()
}

func TestBinaryProgramOverWebSocket(t *testing.T) {
	g := harness.Start(t, "run", "--interface", "websocket", "--ws-framing", "binary", "--", harness.Python(t), harness.WriteFile(t, "echo.py", binaryEcho))
	w := g.WebSocket("/any/path")
	for _, text := range []string{"\x00\n\xff", "", strings.Repeat("\r\n", 100_000)} {
		w.Send(harness.OpBinary, text)
		w.Expect(harness.OpBinary, text)
	}
	w.Send(harness.OpText, "text is bytes too")
	w.Expect(harness.OpBinary, "text is bytes too")
	w.Send(harness.OpClose, "\x03\xe8")
	w.ExpectClose(1000)
}

// What a program has started ends with its socket, however that ends.
func TestProgramEndsWithItsSocket(t *testing.T) {
	t.Parallel()
	const family = "setsid sleep 1001 & (setsid sleep 1002 &) ; sleep 1003 & echo ready; "
	g, dir := servePrograms(t, "close_timeout: 300ms, stop_timeout: 300ms, max_age: 1m", map[string]string{
		"reads":   family + "while read -r line; do [ $line = end ] && exit 0; done",
		"deaf":    family + "exec >&- <&-; sleep 1004",
		"ignores": "trap '' TERM; " + family + "while :; do sleep 1005; done",
		"floods":  family + "exec yes",
	})
	mark := "GATECREW_TEST_MARK=" + filepath.Base(filepath.Dir(dir))
	none := func(what string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for len(marked(mark)) > 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		for _, p := range marked(mark) {
			t.Errorf("%s: still there: %v %s", what, p, commandLine(p.PID))
			_ = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	ready := func(path string) *harness.WebSocket {
		t.Helper()
		w := g.WebSocket(path)
		w.Expect(harness.OpText, "ready")
		if len(marked(mark)) < 3 {
			t.Fatalf("%s: the family is %v", path, marked(mark))
		}
		return w
	}
	for _, path := range []string{"/reads", "/deaf", "/ignores", "/floods"} {
		w := ready(path)
		w.Send(harness.OpClose, "\x03\xe8")
		none(path + " after a close")
		w = ready(path)
		w.Close()
		none(path + " after an end of the connection")
	}
	w := ready("/reads")
	w.Send(harness.OpText, "end")
	w.ExpectClose(1000)
	none("after the program's own end")

	for _, path := range []string{"/reads", "/ignores"} {
		ready(path)
	}
	g.Kill9()
	none("after a kill -9")
}

// A client that doesn't read stops the program, and a program that doesn't read
// the client; neither is held in memory.
func TestProgramBackpressure(t *testing.T) {
	g, dir := servePrograms(t, "max: 4, ping_interval: 500ms", map[string]string{
		"flood": `echo $$ > "$SCRIPT_FILENAME.pid"; exec yes`,
		"deaf":  `echo $$ > "$SCRIPT_FILENAME.pid"; exec sleep 1000`,
	})
	before := harness.MemoryOf(g.PID).RSS
	w := g.WebSocket("/flood")
	wrote := func() string {
		pid, _ := os.ReadFile(filepath.Join(dir, "flood.pid"))
		text, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/io")
		_, after, _ := strings.Cut(string(text), "wchar: ")
		line, _, _ := strings.Cut(after, "\n")
		return line
	}
	for last, deadline := "", time.Now().Add(10*time.Second); ; time.Sleep(300 * time.Millisecond) {
		now := wrote()
		if now == last && now != "" {
			break
		}
		if last = now; time.Now().After(deadline) {
			t.Fatalf("the program goes on writing: %s", now)
		}
	}
	for range 100_000 {
		w.Expect(harness.OpText, "y")
	}
	w.Close()

	w = g.WebSocket("/deaf")
	_ = w.SetWriteDeadline(time.Now().Add(time.Second))
	frame := harness.Frame(harness.Fin|harness.OpText, []byte(strings.Repeat("x", 100_000)))
	sent := 0
	for {
		n, err := w.Write(frame)
		if sent += n; err != nil {
			break
		}
		if sent > 100<<20 {
			t.Fatal("a program that reads nothing was sent 100 MB")
		}
	}
	if grown := harness.MemoryOf(g.PID).RSS - before; grown > 64<<20 {
		t.Errorf("the gateway has grown by %d bytes", grown)
	}
	w.Close()
	pid, _ := os.ReadFile(filepath.Join(dir, "deaf.pid"))
	number, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	p, ok := harness.Lookup(number)
	for deadline := time.Now().Add(15 * time.Second); ok && p.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it has not been seen that the client is gone")
		}
	}
}

func TestProgramsAreLimited(t *testing.T) {
	g, _ := servePrograms(t, "max: 2, queue_length: 1, queue_timeout: 300ms, idle_timeout: 2s", map[string]string{"cat": "exec cat"})
	first, second := g.WebSocket("/cat"), g.WebSocket("/cat")
	if w, err := g.TryWebSocket("/cat"); err != nil || w.Head.StatusCode != http.StatusServiceUnavailable || w.Head.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %+v, %v", w, err)
	}
	first.Send(harness.OpClose, "\x03\xe8")
	third := g.WebSocket("/cat")
	third.Send(harness.OpText, "x")
	third.Expect(harness.OpText, "x")
	second.ExpectClose(1001)
}
