package test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"gatecrew/test/harness"
)

// Sockets that end in every way leave nothing behind: no descriptor, no place at
// their worker, and one line each in the access log.
func TestWebSocketEnds(t *testing.T) {
	t.Parallel()
	const at = 128 // at once, and all places that there are
	g := harness.Serve(t, fmt.Sprintf("pools: {web: {app: 'sockets:app', chdir: %q, python: %q, workers: 2, concurrency: %d, queue_timeout: 5s, websocket: {max_message: 1k, idle_timeout: 500ms}}}\nsites: [{routes: [{path: /, pool: web}]}]\n",
		harness.App(t), harness.Python(t), at/2))
	ends := map[string]struct {
		path string
		end  func(c *socketClient)
	}{
		"the client closes":      {"/echo", func(c *socketClient) { c.send(ws.OpClose, []byte{3, 0xe8}); c.message() }},
		"the client says no bye": {"/echo", func(c *socketClient) {}},
		"a reset":                {"/echo", func(c *socketClient) { _ = c.Conn.(*net.TCPConn).SetLinger(0) }},
		"inside a frame":         {"/echo", func(c *socketClient) { _, _ = c.Write(socketFrame(ws.OpBinary, make([]byte, 900))[:500]) }},
		"a violation":            {"/echo", func(c *socketClient) { c.send(3, nil); c.message() }},
		"too large":              {"/echo", func(c *socketClient) { c.send(ws.OpText, make([]byte, 1025)); c.message() }},
		"idle":                   {"/echo", func(c *socketClient) { c.wants(ws.OpClose, "1001") }},
		"the application closes": {"/close", func(c *socketClient) { c.message() }},
		"both close":             {"/close", func(c *socketClient) { _, _ = c.Write(socketFrame(ws.OpClose, []byte{3, 0xe8})); c.message() }},
		"the application fails":  {"/fail", func(c *socketClient) { c.message() }},
		"nobody reads":           {"/big", func(c *socketClient) {}},
	}
	opened := 0
	wave := func() {
		var clients sync.WaitGroup
		free := make(chan struct{}, at/4)
		for range scaled(at/8, 100) {
			for _, how := range ends {
				opened++
				free <- struct{}{}
				clients.Go(func() {
					defer func() { <-free }()
					c := dialSocket(t, g, how.path, "")
					if c.answer.StatusCode != 101 {
						t.Errorf("%s is answered %s: its place is still taken", how.path, c.answer.Status)
						return
					}
					how.end(c)
					c.Close()
				})
			}
		}
		clients.Wait()
	}
	lines := func() int { return strings.Count(g.Stdout(), `HTTP/1.1" 101 `) }
	wave()
	harness.Eventually(t, 15*time.Second, "a line in the access log for each socket", func() bool { return lines() == opened })
	files := len(harness.OpenFiles(g.PID))
	for range 2 {
		wave()
	}
	harness.Eventually(t, 15*time.Second, "a line in the access log for each socket", func() bool { return lines() >= opened })
	if n := lines(); n != opened {
		t.Errorf("%d sockets have %d lines in the access log", opened, n)
	}
	harness.Eventually(t, 5*time.Second, "no descriptor is left open", func() bool { return len(harness.OpenFiles(g.PID)) <= files })
	var all []*socketClient // the places are free, all of them
	for range at {
		c := dialSocket(t, g, "/echo", "")
		if c.answer.StatusCode != 101 {
			t.Fatalf("socket %d of %d is answered %s", len(all)+1, at, c.answer.Status)
		}
		all = append(all, c)
	}
}

// WebSockets over TLS, of HTTP/1.1 with a client of others, and of HTTP/2.
func TestWebSocketTLS(t *testing.T) {
	s := startTLS(t, fmt.Sprintf(`
pools:
  web: {app: "sockets:app", chdir: %q, python: %q, workers: 1}
sites:
  - hosts: [a.example]
    tls: {certificate: "%%DIR%%/a.example.pem", key: "%%DIR%%/a.example.key"}
    routes: [{path: /, pool: web}]
`, harness.App(t), harness.Python(t)), "a.example")
	for name, client := range map[string]string{"websockets": secureClient, "h2": secureHead + http2Client} {
		out, err := exec.Command(harness.Python(t), "-c", client, s.secure, s.authority.File).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "as it should be" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

const secureClient = `
import asyncio, ssl, sys
import websockets

async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    host, port = sys.argv[1].rsplit(":", 1)
    async with websockets.connect("wss://a.example/echo", host=host, port=int(port), ssl=context, subprotocols=["a", "b"], max_size=None) as c:
        assert c.subprotocol == "b", c.subprotocol
        for message in ["", "text", "x" * 1000000, b"", b"bytes" * 100000]:
            await c.send(message)
            assert await c.recv() == message
        await (await c.ping())
    assert c.close_code == 1000, c.close_code
    async with websockets.connect("wss://a.example/scope", host=host, port=int(port), ssl=context) as c:
        assert await c.recv() == "- 1.1 wss"
    async with websockets.connect("wss://a.example/close", host=host, port=int(port), ssl=context) as c:
        try:
            await c.recv()
        except websockets.ConnectionClosed as e:
            assert e.rcvd.code == 4001 and e.rcvd.reason == "over", e

asyncio.run(asyncio.wait_for(main(), 30))
print("as it should be")
`

// secureHead makes http2Client connect over TLS.
const secureHead = `
import socket, ssl, sys
plain = socket.create_connection
def secure(address, timeout):
    context = ssl.create_default_context(cafile=sys.argv[2])
    context.set_alpn_protocols(["h2"])
    s = context.wrap_socket(plain(address, timeout), server_hostname="a.example")
    assert s.selected_alpn_protocol() == "h2"
    return s
socket.create_connection = secure
`
