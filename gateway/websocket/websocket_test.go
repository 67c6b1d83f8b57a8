package websocket

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/klauspost/compress/flate"

	"gatecrew/protocol"
)

// fakeApp is the application's side of a connection.
type fakeApp struct {
	in     *io.PipeReader // messages of the client
	toApp  *io.PipeWriter
	out    *io.PipeWriter // messages of the application
	fromIt *io.PipeReader
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	code   uint16
	reason string
	drain  func()
}

func newFakeApp() *fakeApp {
	a := &fakeApp{closed: make(chan struct{})}
	a.in, a.toApp = io.Pipe()
	a.fromIt, a.out = io.Pipe()
	return a
}

func (a *fakeApp) Read(p []byte) (int, error)  { return a.fromIt.Read(p) }
func (a *fakeApp) Write(p []byte) (int, error) { return a.toApp.Write(p) }
func (a *fakeApp) Wait()                       {}
func (a *fakeApp) OnDrain(f func())            { a.mu.Lock(); a.drain = f; a.mu.Unlock() }

func (a *fakeApp) WriteClose(code uint16, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.code, a.reason = code, reason
}

func (a *fakeApp) Close() error {
	a.once.Do(func() {
		close(a.closed)
		a.fromIt.CloseWithError(&protocol.Error{Kind: protocol.ClientGone})
		a.toApp.CloseWithError(io.ErrClosedPipe)
		a.in.CloseWithError(io.ErrClosedPipe)
	})
	return nil
}

// told waits for the end and returns the code that the application was told.
func (a *fakeApp) told(t *testing.T) uint16 {
	t.Helper()
	select {
	case <-a.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the application is not told of the end")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.code
}

func (a *fakeApp) receive() (protocol.MessageKind, []byte, error) {
	var head [protocol.MessageHeader]byte
	if _, err := io.ReadFull(a.in, head[:]); err != nil {
		return 0, nil, err
	}
	kind, n, _ := protocol.ParseMessage(head[:])
	content := make([]byte, n)
	_, err := io.ReadFull(a.in, content)
	return kind, content, err
}

func (a *fakeApp) send(kind protocol.MessageKind, content []byte) {
	_, _ = a.out.Write(append(protocol.AppendMessage(nil, kind, len(content)), content...))
}

func (a *fakeApp) echo() {
	for {
		kind, content, err := a.receive()
		if err != nil {
			return
		}
		a.send(kind, content)
	}
}

// rig is a server with one connection of a client.
type rig struct {
	net.Conn
	t       *testing.T
	in      *bufio.Reader
	app     *fakeApp
	hub     *Hub
	ended   chan Result
	answer  *http.Response
	options *Options
}

func open(t *testing.T, o Options, fields ...string) *rig {
	t.Helper()
	return openAt(t, NewHub(time.Minute, 64<<20), o, fields...)
}

func openAt(t *testing.T, hub *Hub, o Options, fields ...string) *rig {
	t.Helper()
	if o.MaxMessage == 0 {
		o.MaxMessage = 1 << 20
	}
	r := &rig{t: t, app: newFakeApp(), hub: hub, ended: make(chan Result, 1), options: &o}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		hello, err := o.Check(req)
		if err != nil {
			t.Error(err)
			return
		}
		header, _ := hello.Accept(http.Header{})
		r.hub.Serve(w, req, header, Config{Options: &o, Handshake: hello, App: r.app, Ended: func(e Result) { r.ended <- e }})
	}))
	t.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.Conn, r.in = conn, bufio.NewReader(conn)
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
		strings.Join(append(fields, ""), "\r\n"))
	if r.answer, err = http.ReadResponse(r.in, nil); err != nil {
		t.Fatal(err)
	}
	if r.answer.StatusCode != 101 || r.answer.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("answered %s %v", r.answer.Status, r.answer.Header)
	}
	return r
}

// frame makes a frame as a client sends it.
func frame(fin bool, rsv byte, op ws.OpCode, payload []byte) []byte {
	h := ws.Header{Fin: fin, Rsv: rsv, OpCode: op, Masked: true, Mask: [4]byte{1, 2, 3, 4}, Length: int64(len(payload))}
	var b bytes.Buffer
	_ = ws.WriteHeader(&b, h)
	masked := bytes.Clone(payload)
	ws.Cipher(masked, h.Mask, 0)
	b.Write(masked)
	return b.Bytes()
}

func (r *rig) send(fin bool, op ws.OpCode, payload string) {
	r.t.Helper()
	if _, err := r.Write(frame(fin, 0, op, []byte(payload))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) next() (ws.Header, []byte) {
	r.t.Helper()
	h, err := ws.ReadHeader(r.in)
	if err != nil {
		r.t.Fatal(err)
	}
	p := make([]byte, h.Length)
	if _, err := io.ReadFull(r.in, p); err != nil {
		r.t.Fatal(err)
	}
	return h, p
}

// message reads frames up to the end of a message.
func (r *rig) message() (frames int, op ws.OpCode, content []byte) {
	r.t.Helper()
	compressed := false
	for {
		h, p := r.next()
		if h.OpCode.IsControl() {
			r.t.Fatalf("a control frame %v in place of a message: %q", h.OpCode, p)
		}
		if frames++; frames == 1 {
			op, compressed = h.OpCode, h.Rsv == rsv1
		}
		content = append(content, p...)
		if h.Fin {
			break
		}
	}
	if compressed {
		plain, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(content), bytes.NewReader(readTail))))
		if err != nil {
			r.t.Fatal(err)
		}
		content = plain
	}
	return frames, op, content
}

// closeCode reads up to the close frame.
func (r *rig) closeCode() uint16 {
	r.t.Helper()
	for {
		h, p := r.next()
		switch {
		case h.OpCode != ws.OpClose:
		case len(p) == 0:
			return 0
		default:
			return binary.BigEndian.Uint16(p)
		}
	}
}

func (r *rig) end() Result {
	r.t.Helper()
	select {
	case e := <-r.ended:
		return e
	case <-time.After(15 * time.Second):
		r.t.Fatal("the connection does not end")
	}
	return Result{}
}

func TestHandshake(t *testing.T) {
	good := func() *http.Request {
		r := httptest.NewRequest("GET", "http://example.org/chat", nil)
		for name, value := range map[string]string{"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade",
			"Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
			r.Header.Set(name, value)
		}
		return r
	}
	for _, c := range []struct {
		name    string
		change  func(*http.Request)
		origins []string
		asked   bool
		status  int
	}{
		{"as it should be", func(*http.Request) {}, nil, true, 0},
		{"POST", func(r *http.Request) { r.Method = "POST" }, nil, false, 0},
		{"HTTP/1.0", func(r *http.Request) { r.ProtoMinor = 0 }, nil, false, 0},
		{"no Connection: upgrade", func(r *http.Request) { r.Header.Set("Connection", "keep-alive") }, nil, false, 0},
		{"another protocol", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, nil, false, 0},
		{"version 8", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, nil, true, 426},
		{"no version", func(r *http.Request) { r.Header.Del("Sec-WebSocket-Version") }, nil, true, 426},
		{"no key", func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, nil, true, 400},
		{"two keys", func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }, nil, true, 400},
		{"short key", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==") }, nil, true, 400},
		{"a body", func(r *http.Request) { r.ContentLength = 3 }, nil, true, 400},
		{"extended CONNECT", func(r *http.Request) {
			r.ProtoMajor, r.Method = 2, "CONNECT"
			r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}
			r.ContentLength = -1
		}, nil, true, 0},
		{"CONNECT for another protocol", func(r *http.Request) {
			r.ProtoMajor, r.Method, r.Header = 2, "CONNECT", http.Header{":protocol": {"connect-udp"}}
		}, nil, false, 0},
		{"any origin", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, nil, true, 0},
		{"all origins", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, []string{"*"}, true, 0},
		{"no browser", func(*http.Request) {}, []string{"same"}, true, 0},
		{"the same host", func(r *http.Request) { r.Header.Set("Origin", "https://Example.org") }, []string{"same"}, true, 0},
		{"another host", func(r *http.Request) { r.Header.Set("Origin", "https://example.org.evil.example") }, []string{"same"}, true, 403},
		{"a sandboxed page", func(r *http.Request) { r.Header.Set("Origin", "null") }, []string{"same"}, true, 403},
		{"a listed origin", func(r *http.Request) { r.Header.Set("Origin", "https://app.example:8443") }, []string{"same", "https://app.example:8443"}, true, 0},
		{"two origins", func(r *http.Request) { r.Header["Origin"] = []string{"http://example.org", "http://example.org"} }, []string{"same"}, true, 403},
	} {
		r := good()
		c.change(r)
		if Asked(r) != c.asked {
			t.Errorf("%s: asked is %v", c.name, !c.asked)
		}
		if !c.asked {
			continue
		}
		_, err := (&Options{Origins: c.origins}).Check(r)
		var refused *Refusal
		if status := 0; errors.As(err, &refused) {
			if status = refused.Status; status != c.status {
				t.Errorf("%s: refused with %d, not %d", c.name, status, c.status)
			}
		} else if c.status != 0 {
			t.Errorf("%s: not refused with %d", c.name, c.status)
		}
	}
}

func TestAnswerOfTheHandshake(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header = http.Header{"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		"Sec-Websocket-Protocol": {"chat, superchat", "other"}, "Sec-Websocket-Extensions": {"x-unknown, permessage-deflate; server_max_window_bits=99, permessage-deflate; client_max_window_bits; server_max_window_bits=10"}}
	hello, err := (&Options{Compression: true}).Check(r)
	if err != nil {
		t.Fatal(err)
	}
	header, ok := hello.Accept(http.Header{"Set-Cookie": {"a=b"}, "Sec-Websocket-Accept": {"forged"}, "Sec-Websocket-Extensions": {"forged"},
		"Sec-Websocket-Protocol": {"superchat"}, "Content-Length": {"5"}})
	want := http.Header{"Set-Cookie": {"a=b"}, "Sec-Websocket-Accept": {"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}, "Upgrade": {"websocket"}, "Connection": {"Upgrade"},
		"Sec-Websocket-Protocol":   {"superchat"},
		"Sec-Websocket-Extensions": {"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"}}
	if !ok || fmt.Sprint(header) != fmt.Sprint(want) {
		t.Errorf("answered with\n%v, not\n%v", header, want)
	}
	for _, chosen := range [][]string{{"Chat"}, {"none"}, {"chat", "other"}} {
		if _, ok := hello.Accept(http.Header{"Sec-Websocket-Protocol": chosen}); ok {
			t.Errorf("the subprotocol %q was not offered, and is accepted", chosen)
		}
	}
}

func TestEcho(t *testing.T) {
	for _, extension := range []string{"", "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9"} {
		var fields []string
		if extension != "" {
			fields = append(fields, extension)
		}
		r := open(t, Options{Compression: true}, fields...)
		go r.app.echo()
		for _, n := range []int{0, 1, 125, 126, 130, 511, 512, 4090, 4096, 5000, 8192, 65530, 65531, 65535, 65536, 70000, 300000} {
			content := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
			go r.Write(frame(true, 0, ws.OpBinary, content))
			frames, op, got := r.message()
			if op != ws.OpBinary || !bytes.Equal(got, content) {
				t.Fatalf("%q: %d bytes come back as %d of kind %v", extension, n, len(got), op)
			}
			if n > largePiece && frames < 2 {
				t.Errorf("a message of %d bytes was held in memory as a whole", n)
			}
		}
		if extension != "" { // the client compresses, too
			var b bytes.Buffer
			text := strings.Repeat("Grüße ", 5000)
			_ = compress(&b, []byte(text), maxBits, true)
			r.Write(frame(false, rsv1, ws.OpText, b.Bytes()[:10]))
			r.Write(frame(true, 0, ws.OpContinuation, b.Bytes()[10:]))
			if _, _, got := r.message(); string(got) != text {
				t.Errorf("a compressed message came back as %d bytes, not %d", len(got), len(text))
			}
		}
		r.send(true, ws.OpClose, "\x03\xe8bye")
		if code := r.closeCode(); code != 1000 {
			t.Errorf("the close frame is answered with %d", code)
		}
		if e := r.end(); e.Code != 1000 || e.Reason != "bye" || !e.Client || e.Err != nil || r.app.told(t) != 1000 {
			t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
		}
	}
}

func TestFragmentsWithControlFramesBetween(t *testing.T) {
	r := open(t, Options{})
	go r.app.echo()
	r.send(false, ws.OpText, "hal")
	r.send(true, ws.OpPing, "a")
	r.send(false, ws.OpContinuation, "")
	r.send(true, ws.OpPong, "nobody asked")
	r.send(true, ws.OpContinuation, "lo")
	if h, p := r.next(); h.OpCode != ws.OpPong || string(p) != "a" {
		t.Errorf("the ping is answered with %v %q", h.OpCode, p)
	}
	if _, op, got := r.message(); op != ws.OpText || string(got) != "hallo" {
		t.Errorf("came back as %v %q", op, got)
	}
}

// A message may arrive a byte at a time, and many in one packet.
func TestCutAnywhere(t *testing.T) {
	r := open(t, Options{})
	go r.app.echo()
	var all []byte
	for i := range 50 {
		all = append(all, frame(true, 0, ws.OpText, bytes.Repeat([]byte("é"), i*3))...)
	}
	go func() {
		for i := range all[:1000] {
			r.Write(all[i : i+1])
		}
		r.Write(all[1000:])
	}()
	for i := range 50 {
		if _, _, got := r.message(); len(got) != i*6 {
			t.Fatalf("message %d has %d bytes", i, len(got))
		}
	}
}

func TestViolations(t *testing.T) {
	bomb := func() []byte {
		var b bytes.Buffer
		_ = compress(&b, make([]byte, 2<<20), maxBits, true)
		return b.Bytes()
	}()
	deflate := "Sec-WebSocket-Extensions: permessage-deflate"
	for name, c := range map[string]struct {
		bytes []byte
		code  uint16
	}{
		"not masked":              {[]byte{0x81, 1, 'a'}, 1002},
		"RSV2":                    {frame(true, 0b010, ws.OpText, nil), 1002},
		"RSV1 in a ping":          {frame(true, rsv1, ws.OpPing, nil), 1002},
		"RSV1 in a continuation":  {append(frame(false, 0, ws.OpText, nil), frame(true, rsv1, ws.OpContinuation, nil)...), 1002},
		"opcode 3":                {frame(true, 0, 3, nil), 1002},
		"opcode 11":               {frame(true, 0, 11, nil), 1002},
		"ping of 126":             {frame(true, 0, ws.OpPing, make([]byte, 126)), 1002},
		"ping in fragments":       {frame(false, 0, ws.OpPing, nil), 1002},
		"continuation of nothing": {frame(true, 0, ws.OpContinuation, nil), 1002},
		"two messages at once":    {append(frame(false, 0, ws.OpText, nil), frame(true, 0, ws.OpText, nil)...), 1002},
		"length of 64 bits":       {[]byte{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 1002},
		"close of one byte":       {frame(true, 0, ws.OpClose, []byte{3}), 1002},
		"close 1005":              {frame(true, 0, ws.OpClose, []byte{3, 0xed}), 1002},
		"close reason":            {frame(true, 0, ws.OpClose, []byte{3, 0xe8, 0xff}), 1007},
		"no UTF-8":                {frame(true, 0, ws.OpText, []byte("a\xff")), 1007},
		"a surrogate":             {frame(true, 0, ws.OpText, []byte("\xed\xa0\x80")), 1007},
		"half a character":        {frame(true, 0, ws.OpText, []byte("\xe2\x82")), 1007},
		"at once, in a fragment":  {frame(false, 0, ws.OpText, []byte("a\xf4\x90")), 1007},
		"no UTF-8, compressed":    {frame(true, rsv1, ws.OpText, []byte{0xfa, 0x0f, 0}), 1007},
		"no DEFLATE":              {frame(true, rsv1, ws.OpBinary, []byte{0xff, 0xff}), 1007},
		"too large":               {frame(true, 0, ws.OpBinary, make([]byte, 1<<20+1))[:100], 1009},
		"too large in fragments":  {append(frame(false, 0, ws.OpBinary, make([]byte, 1<<20)), frame(true, 0, ws.OpContinuation, []byte{1})...), 1009},
		"a bomb":                  {frame(true, rsv1, ws.OpBinary, bomb), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, Options{Compression: true}, deflate)
			go r.Write(c.bytes)
			if code := r.closeCode(); code != c.code {
				t.Errorf("closed with %d, not %d", code, c.code)
			}
			r.Close()
			if e := r.end(); e.Code != c.code || e.Client || e.Err == nil || r.app.told(t) != c.code {
				t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
			}
		})
	}
}

func TestTheApplicationCloses(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(a *fakeApp)
		code uint16
		err  bool
	}{
		"with a code":       {func(a *fakeApp) { a.out.Write(protocol.AppendClose(nil, 4001, "over")) }, 4001, false},
		"without a code":    {func(a *fakeApp) { a.send(protocol.Close, nil) }, 1000, false},
		"with a wrong code": {func(a *fakeApp) { a.send(protocol.Close, []byte{3, 0xee}) }, 1011, true},
		"by its end":        {func(a *fakeApp) { a.out.Close() }, 1000, false},
		"by a failure":      {func(a *fakeApp) { a.out.CloseWithError(&protocol.Error{Kind: protocol.Died}) }, 1011, true},
		"by nonsense":       {func(a *fakeApp) { a.out.Write([]byte("\x07\x00\x00\x00\x00")) }, 1011, true},
		"in a long message": {func(a *fakeApp) {
			a.out.Write(append(protocol.AppendMessage(nil, protocol.Binary, 1<<20), make([]byte, 1<<17)...))
			a.out.CloseWithError(&protocol.Error{Kind: protocol.Died})
		}, 1011, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, Options{})
			go c.end(r.app)
			if code := r.closeCode(); code != c.code {
				t.Errorf("closed with %d, not %d", code, c.code)
			}
			r.send(true, ws.OpText, "too late") // is dropped
			r.send(true, ws.OpClose, "\x0f\xa2")
			if e := r.end(); e.Code != c.code || e.Client || (e.Err != nil) != c.err {
				t.Errorf("ended with %+v", e)
			}
			if code := r.app.told(t); code != 4002 {
				t.Errorf("the application was told %d, not the client's code", code)
			}
		})
	}
}

func TestTheClientGoes(t *testing.T) {
	r := open(t, Options{})
	r.send(false, ws.OpText, "hal")
	r.Close()
	if e := r.end(); e.Code != 1006 || !e.Client || r.app.told(t) != 1006 {
		t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
	}
}

func TestStopAndDrain(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*rig)
		code uint16
	}{
		"stop":  {func(r *rig) { r.hub.Stop() }, 1001},
		"drain": {func(r *rig) { r.app.mu.Lock(); defer r.app.mu.Unlock(); r.app.drain() }, 1012},
	} {
		r := open(t, Options{})
		go r.app.echo()
		r.send(true, ws.OpText, "a")
		r.message()
		c.do(r)
		if code := r.closeCode(); code != c.code {
			t.Errorf("%s: closed with %d", name, code)
		}
		if code := r.app.told(t); code != c.code {
			t.Errorf("%s: the application was told %d", name, code)
		}
		r.send(true, ws.OpClose, "\x03\xe9")
		if e := r.end(); e.Code != c.code || e.Client {
			t.Errorf("%s: ended with %+v", name, e)
		}
		if c.code == 1001 {
			if cut := r.hub.Wait(context.Background()); cut != 0 {
				t.Errorf("%d connections were cut off", cut)
			}
		}
	}
}

// TestCutOff has two clients that do not answer: one that is there, and one
// whose connection is counted and not carried yet when all are cut off.
func TestCutOff(t *testing.T) {
	hub := NewHub(time.Minute, 64<<20)
	there := openAt(t, hub, Options{})
	hub.first()
	hub.enter()
	hub.Stop()
	hurry, cancel := context.WithCancel(context.Background())
	cancel()
	cut := make(chan int)
	go func() { cut <- hub.Wait(hurry) }()
	there.end()

	late := carry(t, hub, Options{})
	if n := <-cut; n != 2 {
		t.Errorf("%d connections were cut off, not two", n)
	}
	if code := late.app.told(t); code != codeAbnormal {
		t.Errorf("the application of the late one was told %d", code)
	}
	if e := late.end(); e.Code != codeAbnormal {
		t.Errorf("the late one ended with %+v", e)
	}
}

// still makes the hub's clock one that only the test moves.
func still(h *Hub) func(time.Duration) {
	h.mu.Lock()
	h.afoot = true
	h.mu.Unlock()
	now := int64(1)
	return func(d time.Duration) {
		now += int64(d)
		h.round(now)
	}
}

func openStill(t *testing.T, o Options) (*rig, func(time.Duration)) {
	hub := NewHub(time.Minute, 64<<20)
	pass := still(hub)
	hub.enter()
	r := carry(t, hub, o)
	hub.first()
	return r, pass
}

// carry begins to carry a connection that has entered the hub.
func carry(t *testing.T, hub *Hub, o Options) *rig {
	client, server := net.Pipe()
	r := &rig{Conn: client, t: t, in: bufio.NewReader(client), app: newFakeApp(), hub: hub, ended: make(chan Result, 1), options: &o}
	o.MaxMessage = 1 << 20
	conn := &Conn{hub: hub, transport: &upgraded{Conn: server}, app: r.app, options: &o, giving: make(chan struct{}, 1),
		ended: func(e Result) { r.ended <- e }}
	go conn.run()
	t.Cleanup(func() { client.Close(); r.app.Close() })
	return r
}

// first waits for the first connection.
func (h *Hub) first() *Conn {
	for {
		h.mu.Lock()
		c := h.ring.next
		h.mu.Unlock()
		if c != &h.ring {
			return c
		}
		time.Sleep(time.Millisecond)
	}
}

// settled waits until what was read on either side is known to be written.
func (c *Conn) settled() {
	for c.writing.Load() != 0 || c.stalled.Load() {
		time.Sleep(time.Millisecond)
	}
}

func TestPings(t *testing.T) {
	r, pass := openStill(t, Options{PingInterval: 20 * time.Second, PingTimeout: 10 * time.Second})
	conn := r.hub.first()
	go r.app.echo()
	pass(19 * time.Second)
	for range 2 {
		pass(time.Second)
		if h, _ := r.next(); h.OpCode != ws.OpPing {
			t.Fatalf("%v in place of a ping", h.OpCode)
		}
		conn.settled()
		pass(9 * time.Second)
		r.send(true, ws.OpPong, "")
		r.send(true, ws.OpText, "a") // once it is back the pong has been read
		r.message()
		conn.settled()
		pass(10 * time.Second)
	}
	pass(time.Second)
	r.next()
	conn.settled()
	pass(9 * time.Second)
	pass(time.Second)
	if h, p := r.next(); h.OpCode != ws.OpClose || string(p) != "\x03\xf3keepalive ping timeout" {
		t.Errorf("%v %q in place of the close frame", h.OpCode, p)
	}
	if e := r.end(); e.Code != 1011 || e.Client || r.app.told(t) != 1006 {
		t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
	}
}

// What an application leaves unread holds back the client's pong, too.
func TestASlowApplicationIsNotTheClientsSilence(t *testing.T) {
	r, pass := openStill(t, Options{PingInterval: 20 * time.Second, PingTimeout: 10 * time.Second})
	r.send(true, ws.OpText, "a")   // nobody reads it
	go io.Copy(io.Discard, r.Conn) // the client takes the pings
	conn := r.hub.first()
	for !conn.stalled.Load() {
		time.Sleep(time.Millisecond)
	}
	for range 10 {
		pass(30 * time.Second)
		for conn.writing.Load() != 0 { // the ping; the hub's time goes on without it
			time.Sleep(time.Millisecond)
		}
	}
	if _, content, err := r.app.receive(); err != nil || string(content) != "a" {
		t.Errorf("the application reads %q, %v", content, err)
	}
}

func TestAClientThatTakesNothing(t *testing.T) {
	r, pass := openStill(t, Options{})
	go r.app.send(protocol.Text, []byte("hallo"))
	conn := r.hub.first()
	for conn.writing.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	pass(59 * time.Second)
	select {
	case e := <-r.ended:
		t.Fatalf("ended too soon, with %+v", e)
	default:
	}
	pass(2 * time.Second)
	if e := r.end(); e.Code != 1006 || e.Err == nil || r.app.told(t) != 1006 {
		t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
	}
}

// A client that is slow to take what is sent to it can't answer a ping that
// stands behind it.
func TestASlowClientIsNotSilent(t *testing.T) {
	r, pass := openStill(t, Options{PingInterval: 2 * time.Second, PingTimeout: 2 * time.Second})
	conn := r.hub.first()
	for range 10 { // frames of which each takes almost too long
		go r.app.send(protocol.Binary, make([]byte, 1000))
		for conn.writing.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		pass(25 * time.Second)
		pass(25 * time.Second)
		if _, op, content := r.message(); op != ws.OpBinary || len(content) != 1000 {
			t.Fatalf("the client gets %v, %d bytes", op, len(content))
		}
		conn.settled()
	}
	conn.settled()
	pass(2 * time.Second)
	if h, _ := r.next(); h.OpCode != ws.OpPing {
		t.Errorf("%v in place of a ping", h.OpCode)
	}
}

func TestIdleAndOld(t *testing.T) {
	r, pass := openStill(t, Options{IdleTimeout: time.Minute, PingInterval: 50 * time.Second})
	conn := r.hub.first()
	go r.app.echo()
	pass(49 * time.Second)
	r.send(true, ws.OpText, "a") // counts, and so does what comes back
	r.message()
	conn.settled()
	for range 2 {
		pass(29 * time.Second)
	}
	if h, _ := r.next(); h.OpCode != ws.OpPing {
		t.Fatalf("%v in place of a ping", h.OpCode)
	}
	conn.settled()
	r.send(true, ws.OpPong, "") // does not
	pass(2 * time.Second)
	if h, p := r.next(); h.OpCode != ws.OpClose || string(p) != "\x03\xe9nothing was said for 1m0s" {
		t.Errorf("%v %q in place of the close frame", h.OpCode, p)
	}
	r.send(true, ws.OpClose, "\x03\xe9")
	if e := r.end(); e.Code != 1001 || e.Client || r.app.told(t) != 1001 {
		t.Errorf("ended with %+v, the application was told %d", e, r.app.code)
	}

	r, pass = openStill(t, Options{MaxAge: time.Hour, IdleTimeout: 2 * time.Hour})
	pass(59 * time.Minute)
	pass(time.Minute)
	if h, p := r.next(); h.OpCode != ws.OpClose || string(p) != "\x03\xe9it has lasted for 1h0m0s" {
		t.Errorf("%v %q in place of the close frame", h.OpCode, p)
	}
}

// What came before a frame that breaks the rules is answered, though both came
// together.
func TestAnswerBeforeTheViolation(t *testing.T) {
	for range 20 {
		r := open(t, Options{})
		go r.app.echo()
		_, _ = r.Write(append(frame(true, 0, ws.OpText, []byte("a")), frame(true, 0, 3, nil)...))
		if _, op, got := r.message(); op != ws.OpText || string(got) != "a" {
			t.Fatalf("came back as %v %q", op, got)
		}
		if code := r.closeCode(); code != 1002 {
			t.Fatalf("closed with %d", code)
		}
		r.Close()
	}
}

func TestMemoryOfMessages(t *testing.T) {
	const deflate = "Sec-WebSocket-Extensions: permessage-deflate"
	var small, bomb bytes.Buffer
	_ = compress(&small, make([]byte, 100<<10), maxBits, true)
	_ = compress(&bomb, make([]byte, 900<<10), maxBits, true)
	for name, c := range map[string]struct {
		first, second []byte // of two clients
		refused       bool
	}{
		"two that fit":              {frame(false, 0, ws.OpBinary, make([]byte, 200<<10)), frame(true, 0, ws.OpBinary, make([]byte, 200<<10)), false},
		"a second that doesn't":     {frame(false, 0, ws.OpBinary, make([]byte, 600<<10)), frame(true, 0, ws.OpBinary, make([]byte, 600<<10)), true},
		"a promise is nothing":      {frame(true, 0, ws.OpBinary, make([]byte, 1<<20))[:1000], frame(true, 0, ws.OpBinary, make([]byte, 600<<10)), false},
		"one not taken counts":      {frame(true, 0, ws.OpBinary, make([]byte, 600<<10)), frame(true, 0, ws.OpBinary, make([]byte, 600<<10)), true},
		"compressed, and it fits":   {frame(false, 0, ws.OpBinary, make([]byte, 600<<10)), frame(true, rsv1, ws.OpBinary, small.Bytes()), false},
		"compressed, and it grows":  {frame(false, 0, ws.OpBinary, make([]byte, 600<<10)), frame(true, rsv1, ws.OpBinary, bomb.Bytes()), true},
		"short ones are always let": {frame(false, 0, ws.OpBinary, make([]byte, 1000<<10)), frame(true, 0, ws.OpBinary, make([]byte, 4<<10)), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hub := NewHub(time.Minute, 1<<20)
			first := openAt(t, hub, Options{}, deflate)
			second := openAt(t, hub, Options{Compression: true}, deflate)
			go first.Write(c.first)
			// All of it has been read when the hub's memory no longer changes.
			for before := int64(-1); before != hub.memory.Load(); time.Sleep(50 * time.Millisecond) {
				before = hub.memory.Load()
			}
			go second.app.echo()
			go second.Write(c.second)
			if c.refused {
				if code := second.closeCode(); code != 1013 {
					t.Errorf("closed with %d", code)
				}
				second.Close()
				if e := second.end(); e.Code != 1013 || e.Client || second.app.told(t) != 1013 {
					t.Errorf("ended with %+v, the application was told %d", e, second.app.code)
				}
			} else {
				second.message()
				second.Close()
				second.end()
			}
			first.Close()
			first.app.Close()
			first.end()
			if left := hub.memory.Load(); left != 1<<20 {
				t.Errorf("of the memory %d bytes are not given back", 1<<20-left)
			}
		})
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(frame(true, 0, ws.OpText, []byte("hallo")))
	f.Add(append(frame(false, rsv1, ws.OpText, []byte{0xca, 0, 0}), frame(true, 0, ws.OpContinuation, nil)...))
	f.Add(frame(true, 0, ws.OpClose, []byte{3, 0xe8}))
	f.Fuzz(func(t *testing.T, data []byte) {
		app := newFakeApp()
		defer app.Close()
		go io.Copy(io.Discard, app.in)
		client, server := net.Pipe()
		defer client.Close()
		go io.Copy(io.Discard, client)
		c := &Conn{hub: NewHub(time.Minute, 64<<20), transport: &upgraded{Conn: server, early: data}, app: app, bits: maxBits,
			options: &Options{MaxMessage: 1 << 16}, giving: make(chan struct{}, 1)}
		server.SetReadDeadline(time.Unix(1, 0)) // behind data there is nothing
		if end := c.receive(); end.code == 0 {
			t.Error("no code says how it ended")
		}
	})
}
