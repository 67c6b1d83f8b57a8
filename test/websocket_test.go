package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"gatecrew/test/harness"
)

func startSockets(t testing.TB, args ...string) *harness.Gateway {
	t.Helper()
	return harness.Start(t, append([]string{"run", "sockets:app", "--interface", "asgi", "--chdir", harness.App(t), "--python", harness.Python(t)}, args...)...)
}

// socketClient is a client of a WebSocket, frame by frame.
type socketClient struct {
	net.Conn
	t      testing.TB
	in     *bufio.Reader
	answer *http.Response
}

// dialSocket sends a handshake, behind it what early has, and reads the answer.
func dialSocket(t testing.TB, g *harness.Gateway, path, fields string, early ...byte) *socketClient {
	t.Helper()
	c := &socketClient{Conn: g.Dial(), t: t}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	c.in = bufio.NewReader(c.Conn)
	head := "GET " + path + " HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + fields + "\r\n"
	if _, err := c.Write(append([]byte(head), early...)); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.answer, err = http.ReadResponse(c.in, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func socketFrame(op ws.OpCode, payload []byte) []byte {
	return ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, payload)))
}

func (c *socketClient) send(op ws.OpCode, payload []byte) {
	c.t.Helper()
	if _, err := c.Write(socketFrame(op, payload)); err != nil {
		c.t.Fatal(err)
	}
}

// message reads a message; a close frame is one with its code as content.
func (c *socketClient) message() (ws.OpCode, []byte) {
	c.t.Helper()
	var op ws.OpCode
	var content []byte
	for {
		h, err := ws.ReadHeader(c.in)
		if err != nil {
			c.t.Fatal(err)
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.in, p); err != nil {
			c.t.Fatal(err)
		}
		switch {
		case h.OpCode == ws.OpClose && len(p) >= 2:
			return h.OpCode, []byte(strconv.Itoa(int(binary.BigEndian.Uint16(p))))
		case h.OpCode.IsControl():
			continue
		case h.OpCode != ws.OpContinuation:
			op = h.OpCode
		}
		if content = append(content, p...); h.Fin {
			return op, content
		}
	}
}

func (c *socketClient) wants(op ws.OpCode, content string) {
	c.t.Helper()
	gotOp, got := c.message()
	if gotOp != op || string(got) != content {
		c.t.Fatalf("the client gets %v %.100q, not %v %q", gotOp, got, op, content)
	}
}

func TestWebSocket(t *testing.T) {
	g := startSockets(t, "--workers", "1")
	c := dialSocket(t, g, "/echo", "Sec-WebSocket-Protocol: a, b\r\n", socketFrame(ws.OpText, []byte("early"))...)
	if h := c.answer.Header; c.answer.StatusCode != 101 || h.Get("Sec-WebSocket-Protocol") != "b" || h.Get("X-App") != "yes" {
		t.Fatalf("answered %s %v", c.answer.Status, h)
	}
	c.wants(ws.OpText, "early")
	for _, n := range []int{0, 125, 70_000, 3 << 20} {
		content := bytes.Repeat([]byte{'x'}, n)
		go c.Write(socketFrame(ws.OpBinary, content))
		if op, got := c.message(); op != ws.OpBinary || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes come back as %d, %v", n, len(got), op)
		}
	}
	c.send(ws.OpClose, []byte{3, 0xe9})
	c.wants(ws.OpClose, "1001")
	if _, err := c.in.ReadByte(); err != io.EOF {
		t.Errorf("behind the close frame comes %v", err)
	}
	g.LogLine("disconnected echo 1001")
	harness.Eventually(t, 5*time.Second, "line in the access log", func() bool { return strings.Contains(g.Stdout(), `"GET /echo HTTP/1.1" 101 32`) })

	closed := dialSocket(t, g, "/close", "")
	closed.wants(ws.OpClose, "4001")
	failed := dialSocket(t, g, "/fail", "")
	failed.wants(ws.OpClose, "1011")
	g.LogLine("on purpose")
	if c := dialSocket(t, g, "/refuse", "", socketFrame(ws.OpText, []byte("GET / HTTP/1.1\r\n\r\n"))...); c.answer.StatusCode != 403 || !c.answer.Close {
		t.Errorf("refused with %s, close %v", c.answer.Status, c.answer.Close)
	}
	if c := dialSocket(t, g, "/wrong", "Sec-WebSocket-Protocol: a\r\n"); c.answer.StatusCode != 500 {
		t.Errorf("a subprotocol that was not offered is answered %s", c.answer.Status)
	}
	if r := g.Do("GET", "/", nil, "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "7"); r.Status != 426 || r.Header.Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("version 7 is answered %d %v", r.Status, r.Header)
	}
	if r := g.Do("GET", "/", nil, "Upgrade", "h2c", "Connection", "Upgrade"); r.Status != 200 {
		t.Errorf("an upgrade to something else is answered %d", r.Status)
	}
}

func TestWebSocketSettings(t *testing.T) {
	g := startSockets(t, "--workers", "1", "--ws-max-message", "1k", "--ws-origin", "same", "--ws-ping-interval", "100ms", "--ws-ping-timeout", "300ms", "--ws-no-compression")
	if c := dialSocket(t, g, "/echo", "Origin: https://evil.example\r\n"); c.answer.StatusCode != 403 {
		t.Errorf("a foreign page is answered %s", c.answer.Status)
	}
	c := dialSocket(t, g, "/echo", "Origin: http://example.org\r\nSec-WebSocket-Extensions: permessage-deflate\r\n")
	if c.answer.StatusCode != 101 || c.answer.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Fatalf("answered %s %v", c.answer.Status, c.answer.Header)
	}
	c.send(ws.OpBinary, make([]byte, 1025))
	c.wants(ws.OpClose, "1009")
	silent := dialSocket(t, g, "/echo", "") // it answers no ping
	silent.wants(ws.OpClose, "1011")
	harness.Eventually(t, 5*time.Second, "the application is told", func() bool { return strings.Contains(g.Stderr(), "disconnected echo 1006") })
}

// One side that is slow must not make the gateway hold what the other sends.
func TestWebSocketSlowSides(t *testing.T) {
	g := startSockets(t, "--workers", "1", "--graceful-timeout", "1s") // the deaf one does not end
	base := residentSet(t, g.PID)
	readers := make([]*socketClient, 4)
	for i := range readers {
		readers[i] = dialSocket(t, g, "/big", "") // 32 MiB, of which nothing is read yet
	}
	flood := dialSocket(t, g, "/deaf", "")
	_ = flood.SetWriteDeadline(time.Now().Add(time.Second))
	sent := 0
	for chunk := socketFrame(ws.OpBinary, make([]byte, 60_000)); ; {
		n, err := flood.Write(chunk)
		if sent += n; err != nil {
			break
		}
	}
	if sent > 32<<20 {
		t.Errorf("%d bytes were taken for an application that reads nothing", sent)
	}
	if grown := residentSet(t, g.PID) - base; grown > 32<<20 {
		t.Errorf("the gateway has grown by %d MiB", grown>>20)
	}
	for _, c := range readers {
		if _, content := c.message(); len(content) != 32<<20 {
			t.Errorf("a slow client gets %d bytes", len(content))
		}
	}
}

func residentSet(t testing.TB, pid int) int {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
	return pages * os.Getpagesize()
}

func TestWebSocketWorkerDies(t *testing.T) {
	g := startSockets(t, "--workers", "1")
	pid, err := strconv.Atoi(g.Get("/pid").Body)
	if err != nil {
		t.Fatal(err)
	}
	clients := make([]*socketClient, 20)
	for i := range clients {
		clients[i] = dialSocket(t, g, "/echo", "")
		clients[i].send(ws.OpText, []byte("a"))
		clients[i].wants(ws.OpText, "a")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if op, code := c.message(); op != ws.OpClose || string(code) != "1011" && string(code) != "1012" {
			t.Errorf("the client gets %v %q", op, code)
		}
	}
	again := dialSocket(t, g, "/echo", "")
	again.send(ws.OpText, []byte("b"))
	again.wants(ws.OpText, "b")
}

// The workers of one pool are replaced; the sockets of the other stay.
func TestWebSocketReloadAndStop(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile(filepath.Join(harness.App(t), "sockets.py"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sockets.py"), source, 0o644); err != nil {
		t.Fatal(err)
	}
	g := harness.Serve(t, fmt.Sprintf(`
graceful_timeout: 10s
pools:
  one: {app: "sockets:app", chdir: %[1]q, python: %[2]q, workers: 1, interface: asgi, reload: true}
  two: {app: "sockets:app", chdir: %[3]q, python: %[2]q, workers: 1, interface: asgi}
sites:
  - routes:
      - {path: /one, pool: one}
      - {path: /two, pool: two}
`, dir, harness.Python(t), harness.App(t)))
	one, two := dialSocket(t, g, "/one/echo", ""), dialSocket(t, g, "/two/echo", "")
	for _, c := range []*socketClient{one, two} {
		c.send(ws.OpText, []byte("a"))
		c.wants(ws.OpText, "a")
	}
	if err := os.WriteFile(filepath.Join(dir, "sockets.py"), append(source, "\n# another version\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	one.wants(ws.OpClose, "1012")
	two.send(ws.OpText, []byte("still here"))
	two.wants(ws.OpText, "still here")
	began := time.Now()
	g.Signal(syscall.SIGTERM)
	two.wants(ws.OpClose, "1001")
	two.send(ws.OpClose, []byte{3, 0xe9})
	if !g.Wait(8*time.Second) || g.ExitCode() != 0 {
		t.Errorf("the gateway has not stopped after %s", time.Since(began))
	}
	if !strings.Contains(g.Stdout(), `"GET /two/echo HTTP/1.1" 101`) {
		t.Error("the last socket is not in the access log")
	}
}

// Upgraded connections count.
func TestWebSocketConnectionsAreLimited(t *testing.T) {
	config := fmt.Sprintf("limits: {max_connections: 3}\npools: {web: {app: 'sockets:app', chdir: %q, python: %q, workers: 1, interface: asgi}}\nsites: [{routes: [{path: /, pool: web}]}]\n",
		harness.App(t), harness.Python(t))
	g := harness.Serve(t, config)
	var open []*socketClient
	for range 3 {
		open = append(open, dialSocket(t, g, "/echo", ""))
	}
	fourth := g.Dial()
	defer fourth.Close()
	fmt.Fprint(fourth, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	_ = fourth.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := fourth.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatal("there is a fourth connection")
	}
	open[1].Close() // half-open no longer: its place is free
	_ = fourth.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := fourth.Read(make([]byte, 1)); err != nil {
		t.Errorf("the place of a closed WebSocket stays taken: %v", err)
	}
}

// WebSockets over HTTP/2 (RFC 8441), several on one connection, and no trace of
// how they were switched on.
func TestWebSocketHTTP2(t *testing.T) {
	g := harness.New(t, "run", "sockets:app", "--interface", "asgi", "--chdir", harness.App(t), "--python", harness.Python(t), "--workers", "1", "--h2c", "--pass-env", "GODEBUG")
	g.Env = append(g.Env, "GODEBUG=madvdontneed=1")
	g.Start()
	pid := g.Get("/pid").Body
	if environ, err := os.ReadFile("/proc/" + pid + "/environ"); err != nil || !bytes.Contains(environ, []byte("GODEBUG=madvdontneed=1\x00")) {
		t.Errorf("a worker's GODEBUG is not the gateway's: %q, %v", environ, err)
	}
	out, err := exec.Command(harness.Python(t), "-c", http2Client, g.Addr).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "as it should be" {
		t.Errorf("the client: %v\n%s", err, out)
	}
}

// http2Client opens ten WebSockets on one connection; net/http's client refuses
// to send :protocol.
const http2Client = `
import socket, sys
import h2.config, h2.connection, h2.events

host, port = sys.argv[1].rsplit(":", 1)
s = socket.create_connection((host, int(port)), 10)
s.settimeout(10)
c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
c.initiate_connection()
s.sendall(c.data_to_send())

def events():
    data = s.recv(65536)
    assert data, "the connection has ended"
    found = c.receive_data(data)
    s.sendall(c.data_to_send())
    return found

def frame(op, payload):
    return bytes([0x80 | op, 0x80 | len(payload)]) + b"\0\0\0\0" + payload

while not c.remote_settings.enable_connect_protocol:
    events()
streams = range(1, 21, 2)
got = {i: b"" for i in streams}
status, ended = {}, set()
for i in streams:
    c.send_headers(i, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https" if len(sys.argv) > 2 else "http"), (":path", "/scope"),
                       (":authority", "a.example"), ("sec-websocket-version", "13")])
s.sendall(c.data_to_send())
while len(ended) < 10:
    for e in events():
        if isinstance(e, h2.events.ResponseReceived):
            status[e.stream_id] = dict(e.headers)[b":status"]
            c.send_data(e.stream_id, frame(1, b"text %d" % e.stream_id) + frame(8, b"\x03\xe8"))
            s.sendall(c.data_to_send())
        elif isinstance(e, h2.events.DataReceived):
            got[e.stream_id] += e.data
            c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
        elif isinstance(e, h2.events.StreamEnded):
            ended.add(e.stream_id)
        elif isinstance(e, h2.events.StreamReset):
            assert e.stream_id in ended and e.error_code == 0, e
for i in streams:
    assert status[i] == b"200", status
    assert got[i].endswith(b"\x88\x02\x03\xe8") and (b"- 2 wss" if len(sys.argv) > 2 else b"- 2 ws") in got[i], got[i]
print("as it should be")
`
