package harness

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Opcodes of frames (RFC 6455, section 5.2), and the bit of a last fragment.
const (
	OpText   = 1
	OpBinary = 2
	OpClose  = 8
	OpPing   = 9
	OpPong   = 10
	Fin      = 0x80
)

// WebSocket is the client's side of a WebSocket connection, over a plain socket:
// it can send what no library would. It speaks without compression.
type WebSocket struct {
	net.Conn
	In   *bufio.Reader
	Head *http.Response // the answer to the opening handshake
	t    testing.TB
}

// frameWait is how long a frame may take to come.
const frameWait = 20 * time.Second

// WebSocket opens a connection; header fields are given as name, value. An answer
// other than 101 fails the test.
func (g *Gateway) WebSocket(path string, header ...string) *WebSocket {
	g.t.Helper()
	w, err := g.TryWebSocket(path, header...)
	if err != nil {
		g.t.Fatalf("harness: %v%s", err, g.transcript())
	}
	if w.Head.StatusCode != http.StatusSwitchingProtocols {
		g.t.Fatalf("harness: the handshake is answered %s%s", w.Head.Status, g.transcript())
	}
	return w
}

// TryWebSocket makes the opening handshake, whatever the answer.
func (g *Gateway) TryWebSocket(path string, header ...string) (*WebSocket, error) {
	conn, err := net.DialTimeout("tcp", g.Addr, frameWait)
	if err != nil {
		return nil, err
	}
	g.t.Cleanup(func() { conn.Close() })
	head := "GET " + path + " HTTP/1.1\r\nHost: " + g.Addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for i := 0; i+1 < len(header); i += 2 {
		head += header[i] + ": " + header[i+1] + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return nil, err
	}
	w := &WebSocket{Conn: conn, In: bufio.NewReader(conn), t: g.t}
	_ = conn.SetReadDeadline(time.Now().Add(frameWait))
	w.Head, err = http.ReadResponse(w.In, &http.Request{Method: http.MethodGet})
	return w, err
}

// Frame makes a frame as a client has to send it, masked. first has the opcode,
// Fin and the reserved bits.
func Frame(first byte, payload []byte) []byte {
	b := []byte{first}
	const masked = 0x80
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	key := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// Send sends a whole message, or a control frame.
func (w *WebSocket) Send(opcode byte, payload string) {
	w.t.Helper()
	if _, err := w.Write(Frame(Fin|opcode, []byte(payload))); err != nil {
		w.t.Fatalf("harness: %v", err)
	}
}

// ReadFrame reads one frame, as the gateway has to send it: not masked and
// without reserved bits.
func (w *WebSocket) ReadFrame() (first byte, payload []byte, err error) {
	_ = w.SetReadDeadline(time.Now().Add(frameWait))
	var head [2]byte
	if _, err := io.ReadFull(w.In, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0x70 != 0 || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("a frame begins with % x", head)
	}
	length := uint64(head[1])
	long := make([]byte, 8)
	switch length {
	case 126:
		_, err = io.ReadFull(w.In, long[6:])
		length = binary.BigEndian.Uint64(long)
	case 127:
		_, err = io.ReadFull(w.In, long)
		length = binary.BigEndian.Uint64(long)
	}
	if err != nil || length > 1<<30 {
		return 0, nil, fmt.Errorf("a frame of %d bytes: %w", length, err)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(w.In, payload)
	return head[0], payload, err
}

// Receive reads the next message or close, answers pings and passes over pongs.
func (w *WebSocket) Receive() (opcode byte, payload string, err error) {
	var content []byte
	for {
		first, part, err := w.ReadFrame()
		if err != nil {
			return 0, "", err
		}
		switch op := first & 15; op {
		case OpPing:
			_, _ = w.Write(Frame(Fin|OpPong, part))
			continue
		case OpPong:
			continue
		case OpClose:
			return OpClose, string(part), nil
		case 0:
		default:
			opcode = op
		}
		content = append(content, part...)
		if first&Fin != 0 {
			return opcode, string(content), nil
		}
	}
}

// Expect fails the test unless this message comes next.
func (w *WebSocket) Expect(opcode byte, payload string) {
	w.t.Helper()
	if op, got, err := w.Receive(); err != nil || op != opcode || got != payload {
		w.t.Fatalf("harness: message %d %.100q (%v), want %d %.100q", op, got, err, opcode, payload)
	}
}

// ExpectClose fails the test unless a close with this code comes next, and after
// the answer to it the end of the connection. It returns the reason.
func (w *WebSocket) ExpectClose(code uint16) (reason string) {
	w.t.Helper()
	op, got, err := w.Receive()
	if err != nil || op != OpClose || len(got) < 2 || binary.BigEndian.Uint16([]byte(got)) != code {
		w.t.Fatalf("harness: message %d %.100q (%v), want a close with %d", op, got, err, code)
	}
	_, _ = w.Write(Frame(Fin|OpClose, []byte(got[:2])))
	w.ExpectEnd()
	return got[2:]
}

// ExpectEnd fails the test unless the connection ends now.
func (w *WebSocket) ExpectEnd() {
	w.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(frameWait))
	if n, err := io.Copy(io.Discard, w.In); n > 0 || isTimeout(err) {
		w.t.Fatalf("harness: the connection goes on with %d bytes, %v", n, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
