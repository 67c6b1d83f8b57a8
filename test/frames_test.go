package test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// serveCat serves cat over WebSocket with these settings.
func serveCat(t *testing.T, settings string) *harness.Gateway {
	t.Helper()
	return harness.Serve(t, `
log: {access: "off"}
sites: [{routes: [{path: /, socket: {command: [cat], max: 100, `+settings+`}}]}]
`)
}

// A client that breaks the rules of frames is told so and sent away (RFC 6455,
// sections 5 and 7.4.1), whatever its program is at.
func TestHostileFrames(t *testing.T) {
	g := serveCat(t, "max_message: 1m")
	text := func(first byte, payload string) []byte { return harness.Frame(first, []byte(payload)) }
	const fin, continued = harness.Fin, 0
	length64 := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{fin | 1, 0x80 | 127}, n), 1, 2, 3, 4)
	}
	for _, test := range []struct {
		name   string
		frames []byte
		code   uint16
	}{
		{"not masked", []byte{fin | 1, 2, 'h', 'i'}, 1002},
		{"a control frame that is not masked", []byte{fin | 9, 0}, 1002},
		{"RSV1 without compression", text(fin|0x40|1, "hi"), 1002},
		{"RSV2", text(fin|0x20|1, "hi"), 1002},
		{"RSV3 on a ping", text(fin|0x10|9, "hi"), 1002},
		{"opcode 3", text(fin|3, "hi"), 1002},
		{"opcode 11", text(fin|11, "hi"), 1002},
		{"opcode 15", text(fin|15, ""), 1002},
		{"a ping of 126 bytes", text(fin|9, strings.Repeat("x", 126)), 1002},
		{"a ping in fragments", text(9, "hi"), 1002},
		{"a close in fragments", text(8, "\x03\xe8"), 1002},
		{"a continuation of nothing", text(fin|continued, "hi"), 1002},
		{"a message inside of a message", append(text(1, "a"), text(fin|1, "b")...), 1002},
		{"a close of one byte", text(fin|8, "\x03"), 1002},
		{"a close with 1005", text(fin|8, "\x03\xed"), 1002},
		{"a close with 999", text(fin|8, "\x03\xe7"), 1002},
		{"a close whose reason is not UTF-8", text(fin|8, "\x03\xe8\xff"), 1007},
		{"not UTF-8", text(fin|1, "\xff"), 1007},
		{"not UTF-8, and no end", text(1, "\xff"), 1007},
		{"half a character", append(text(1, "\xe2"), text(fin|continued, "\x82")...), 1007},
		{"a surrogate", text(fin|1, "\xed\xa0\x80"), 1007},
		{"too large", length64(1<<20 + 1), 1009},
		{"the largest length", length64(1<<63 - 1), 1009},
		{"a length with its highest bit", length64(1 << 63), 1002},
		{"all bits", length64(1<<64 - 1), 1002},
		{"too large in fragments", append(text(1, strings.Repeat("x", 1<<19)), text(0, strings.Repeat("x", 1<<19+1))...), 1009},
		{"a binary message for lines", text(fin|2, "\x00"), 1003},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := g.WebSocket("/")
			if _, err := w.Write(test.frames); err != nil {
				t.Fatal(err)
			}
			op, payload, err := w.Receive()
			if err != nil || op != harness.OpClose || len(payload) < 2 || binary.BigEndian.Uint16([]byte(payload)) != test.code {
				t.Fatalf("message %d %q, %v; want a close with %d", op, payload, err, test.code)
			}
			w.ExpectEnd()
		})
	}
	// What is only odd is served.
	for name, frames := range map[string][]byte{
		"a byte a frame":          bytes.Join([][]byte{text(1, "h"), text(0, ""), text(fin|9, "x"), text(fin|10, "y"), text(fin|continued, "i")}, nil),
		"a length in 64 bits":     append(binary.BigEndian.AppendUint64([]byte{fin | 1, 0x80 | 127}, 2), 0, 0, 0, 0, 'h', 'i'),
		"an empty last piece":     append(text(1, "hi"), text(fin|continued, "")...),
		"a pong nobody asked for": append(text(fin|10, "pong"), text(fin|1, "hi")...),
	} {
		w := g.WebSocket("/")
		if _, err := w.Write(frames); err != nil {
			t.Fatal(err)
		}
		if op, payload, err := w.Receive(); op != harness.OpText || payload != "hi" {
			t.Errorf("%s: %d %q, %v", name, op, payload, err)
		}
		w.Close()
	}
	if r := g.Get("/"); r.Status != http.StatusUpgradeRequired {
		t.Errorf("afterwards: %+v", r)
	}
}

// Ten thousand fragments are one message, and none of them costs more than what
// it holds.
func TestTinyFragments(t *testing.T) {
	g := serveCat(t, "max_message: 1m")
	before := harness.MemoryOf(g.PID).RSS
	w := g.WebSocket("/")
	frames := harness.Frame(1, []byte("x"))
	for range 9998 {
		frames = append(frames, harness.Frame(0, []byte("x"))...)
	}
	frames = append(frames, harness.Frame(harness.Fin, []byte("x"))...)
	if _, err := w.Write(frames); err != nil {
		t.Fatal(err)
	}
	w.Expect(harness.OpText, strings.Repeat("x", 10_000))
	// Empty ones have no end that a limit of bytes would know.
	w.Write(harness.Frame(1, nil))
	empty := bytes.Repeat(harness.Frame(0, nil), 10_000)
	for range 20 {
		if _, err := w.Write(empty); err != nil {
			t.Fatal(err)
		}
	}
	w.Write(harness.Frame(harness.Fin, []byte("end")))
	w.Expect(harness.OpText, "end")
	// Pings without end are answered, and a client that reads no answer waits.
	flood := bytes.Repeat(harness.Frame(harness.Fin|harness.OpPing, bytes.Repeat([]byte("p"), 125)), 1000)
	_ = w.SetWriteDeadline(time.Now().Add(2 * time.Second))
	sent := 0
	for sent < 64<<20 {
		n, err := w.Write(flood)
		if sent += n; err != nil {
			break
		}
	}
	if sent >= 64<<20 {
		t.Error("pings are taken although no answer is read")
	}
	if grown := harness.MemoryOf(g.PID).RSS - before; grown > 32<<20 {
		t.Errorf("the gateway has grown by %d bytes", grown)
	}
}

// A message that is small on the wire and large in memory ends at the limit.
func TestCompressedBomb(t *testing.T) {
	t.Parallel()
	g := serveCat(t, "max_message: 1m, framing: stream")
	w := g.WebSocket("/", "Sec-WebSocket-Extensions", "permessage-deflate")
	if got := w.Head.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(got, "permessage-deflate") {
		t.Fatalf("the extensions are %q", got)
	}
	before := harness.MemoryOf(g.PID).RSS
	var bomb bytes.Buffer
	z, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(z, zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	z.Flush()
	const compressed = 0x40
	for range 3 {
		if _, err := w.Write(harness.Frame(harness.Fin|compressed|2, bytes.TrimSuffix(bomb.Bytes(), []byte{0, 0, 0xff, 0xff}))); err != nil {
			t.Fatal(err)
		}
		w.ExpectClose(1009)
		w = g.WebSocket("/", "Sec-WebSocket-Extensions", "permessage-deflate")
	}
	if grown := harness.MemoryOf(g.PID).RSS - before; grown > 48<<20 {
		t.Errorf("the gateway has grown by %d bytes", grown)
	}
	for _, bad := range []string{"no deflate", "\xff\xff\xff", "\x07"} {
		if _, err := w.Write(harness.Frame(harness.Fin|compressed|2, []byte(bad))); err != nil {
			t.Fatal(err)
		}
		w.ExpectClose(1007)
		w = g.WebSocket("/", "Sec-WebSocket-Extensions", "permessage-deflate")
	}
	if _, err := w.Write(harness.Frame(harness.Fin|compressed|harness.OpPing, nil)); err != nil {
		t.Fatal(err)
	}
	w.ExpectClose(1002)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Handshakes that are none are answered as what they are, and no process is
// started for them.
func TestHalfHandshakes(t *testing.T) {
	g := harness.Serve(t, `
log: {access: "off"}
limits: {header_timeout: 1s}
sites: [{routes: [{path: /, socket: {command: [sh, -c, "echo started >&2; exec cat"]}}]}]
`)
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	for _, test := range []struct {
		request string
		status  int
	}{
		{"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n" + key + "Sec-WebSocket-Version: 13\r\n", 426},
		{"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n" + key + "Sec-WebSocket-Version: 13\r\n", 426},
		{"GET / HTTP/1.0\r\nHost: h\r\n" + upgrade + key + "Sec-WebSocket-Version: 13\r\n", 426},
		{"POST / HTTP/1.1\r\nHost: h\r\n" + upgrade + key + "Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n", 426},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + key, 426},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + key + "Sec-WebSocket-Version: 8\r\n", 426},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + "Sec-WebSocket-Version: 13\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + key + key + "Sec-WebSocket-Version: 13\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + "Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: h\r\n" + upgrade + key + "Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n", 400},
		{"CONNECT / HTTP/1.1\r\nHost: h\r\n" + upgrade + key + "Sec-WebSocket-Version: 13\r\n", 501},
	} {
		conn, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, test.request+"\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		line := make([]byte, 12)
		if _, err := io.ReadFull(conn, line); err != nil || string(line[9:]) != fmt.Sprint(test.status) {
			t.Errorf("%q is answered %q, %v; want %d", test.request, line, err, test.status)
		}
		conn.Close()
	}
	if strings.Contains(g.Stderr(), "started") {
		t.Errorf("a process was started:\n%s", g.Stderr())
	}

	// A head that never ends, and frames with the head in one packet.
	conn, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\n"+upgrade)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("half a head: %v", err)
	}
	conn, err = net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	early := append([]byte("GET / HTTP/1.1\r\nHost: h\r\n"+upgrade+key+"Sec-WebSocket-Version: 13\r\n\r\n"), harness.Frame(harness.Fin|1, []byte("early"))...)
	if _, err := conn.Write(early); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	want := append([]byte("\r\n\r\n"), append([]byte{harness.Fin | 1, 5}, "early"...)...)
	var got []byte
	for p := make([]byte, 1000); !bytes.Contains(got, want); {
		n, err := conn.Read(p)
		if got = append(got, p[:n]...); err != nil {
			t.Fatalf("bytes before the 101: %q, %v", got, err)
		}
	}
}

// Clients that stop in the middle of a frame are found by their silence, and
// hold up nobody.
func TestSlowFrames(t *testing.T) {
	g := serveCat(t, "ping_interval: 300ms, ping_timeout: 700ms")
	var wg sync.WaitGroup
	for _, part := range [][]byte{{0x81}, {0x81, 0xfe, 0x10}, harness.Frame(1, []byte("x")), harness.Frame(0x81, []byte("hello"))[:8]} {
		w := g.WebSocket("/")
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				first, _, err := w.ReadFrame() // pings are not answered
				if err != nil {
					if isTimeout(err) {
						t.Errorf("% x: the connection is kept", part)
					}
					return
				}
				if first&15 == harness.OpClose {
					return
				}
			}
		})
	}
	w := g.WebSocket("/")
	w.Send(harness.OpText, "hello")
	w.Expect(harness.OpText, "hello")
	wg.Wait()
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
