package websocket

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"gatecrew/protocol"
)

// firstRead is how much is read at once from a client that has been silent. It
// is all the buffer that a silent connection has.
const firstRead = 160

// Conn is the connection of a client with an application.
//
// Two goroutines carry its messages, receive from the client and deliver to it.
// receive is also who ends it: it runs until the stream from the client has
// ended, which all other ends come down to.
type Conn struct {
	hub       *Hub
	transport transport
	app       protocol.Socket
	options   *Options
	bits      int // of the window to compress with, 0 without compression
	begun     []byte
	begunErr  error // what Read ended with that read begun
	ended     func(Result)

	first [firstRead]byte

	writing atomic.Int64 // when the write in progress began, by the hub's clock; 0 = none
	heard   atomic.Int64 // when the client last sent something
	spoken  atomic.Int64 // when there last was a part of a message, in either direction
	stalled atomic.Bool  // receive waits for the application
	sent    atomic.Int64

	// sendMu is held while a frame is written.
	sendMu    sync.Mutex
	closeSent bool
	over      bool // the transport is closed

	// giving is full while a message is given to the application.
	giving chan struct{}
	mute   atomic.Bool // it gets no more of them

	// mu guards what is known about the end.
	mu      sync.Mutex
	closing bool // this side has begun it
	result  Result
	told    sync.Once // the application knows
	gone    bool      // no deadline may be set any more

	// Guarded by hub.mu.
	previous, next   *Conn
	opened, lastPing int64
	pinged           bool
}

// Result is how a connection ended.
type Result struct {
	// Code and Reason are those of the close frame that began the end; 1006
	// when there was none.
	Code   uint16
	Reason string
	// Client is true when the client began it.
	Client bool
	// Err is what went wrong, nil for an orderly end.
	Err error
	// Sent is how many bytes were sent after the handshake.
	Sent int64
	// Conn is the connection that was taken over from net/http, closed by
	// now; nil over HTTP/2.
	Conn net.Conn
}

// Config is what a connection is made of.
type Config struct {
	Options   *Options
	Handshake *Handshake
	// App has answered with status 101. Its Close is the connection's. If it
	// has a method OnDrain, as backend.Drainer, the connection is closed with
	// 1012, service restart, when its worker is to end.
	App protocol.Socket
	// Begun is what has been read of App after the head, and Err what that
	// Read ended with.
	Begun []byte
	Err   error
	// Ended is called once, when all is over: Serve never fails in another way.
	Ended func(Result)
}

// Serve answers the handshake of r with the fields of header, which
// Handshake.Accept made, and begins to carry messages. Over HTTP/1 it returns
// at once: the connection then has goroutines of its own, and the handler's
// large stack can go. A stream of HTTP/2 lasts as long as its handler, so that
// Serve returns at its end.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, header http.Header, c Config) {
	conn := &Conn{hub: h, app: c.App, options: c.Options, bits: c.Handshake.bits, begun: c.Begun, begunErr: c.Err, ended: c.Ended,
		giving: make(chan struct{}, 1)}
	var err error
	h.enter()
	if r.ProtoMajor == 1 {
		var t *upgraded
		if t, err = takeOver(w, header); t != nil {
			conn.transport, conn.result.Conn = t, t.Conn
		}
	} else {
		conn.transport, err = openStream(w, r, header)
	}
	switch {
	case err != nil: // the client has gone while it was answered
		if conn.transport != nil {
			_ = conn.transport.Close()
		}
		_ = c.App.Close()
		conn.result.Code, conn.result.Client, conn.result.Err = codeAbnormal, true, err
		c.Ended(conn.result)
		h.leave()
	case r.ProtoMajor == 1:
		go conn.run()
	default:
		conn.run()
	}
}

// run carries messages until the end.
func (c *Conn) run() {
	c.hub.add(c)
	if d, ok := c.app.(interface{ OnDrain(func()) }); ok {
		d.OnDrain(func() { go c.Shut(codeServiceRestart, "the application restarts") })
	}
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		c.deliver()
	}()
	c.finish(c.receive(), delivered)
	c.hub.remove(c)
	c.result.Sent = c.sent.Load()
	c.ended(c.result) // which has its line in the log before the gateway ends
	c.hub.leave()
}

// finish ends the connection after receive has: the application is told, the
// last bytes are sent.
func (c *Conn) finish(end closeError, delivered <-chan struct{}) {
	c.mu.Lock()
	if !c.closing {
		c.closing = true
		c.result = Result{Code: end.code, Reason: end.reason, Client: end.frame || end.code == codeAbnormal, Err: end.err, Conn: c.result.Conn}
	}
	c.mu.Unlock()
	c.setWriteDeadline(time.Now().Add(closeTimeout)) // also for a write in progress
	if end.answerable {
		time.Sleep(answerTime)
	}
	switch {
	case end.frame && end.code == codeNoStatus:
		_ = c.sendClose(nil)
	case end.code != codeAbnormal:
		_ = c.sendClose(ws.NewCloseFrameBody(ws.StatusCode(end.code), end.answer()))
	}
	c.tell(end.code, end.reason)
	if !end.frame && end.code != codeAbnormal && c.transport.finish() {
		// What the client goes on sending must not turn into a reset, by
		// which it could lose the close frame.
		c.setReadDeadline(time.Now().Add(closeTimeout))
		_, _ = io.CopyN(io.Discard, c.transport, maxDiscarded)
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	_ = c.transport.Close()
	<-delivered
	c.sendMu.Lock()
	c.over = true // a ping may still be on its way
	c.sendMu.Unlock()
}

// answerTime is how long the application has for what came just before a frame
// that breaks the rules: what it has to say to that is sent before the close
// frame, as if the two had not come together.
const answerTime = 100 * time.Millisecond

// maxDiscarded is how much is read of a client that was told to stop sending.
const maxDiscarded = 1 << 20

// tell tells the application, once, that the connection has closed, and gives
// it up. Who comes second waits: it must not be given up before it was told.
func (c *Conn) tell(code uint16, reason string) {
	c.told.Do(func() {
		if c.silence() {
			c.app.WriteClose(code, reason)
		}
		_ = c.app.Close()
	})
}

// silence ends the messages to the application; false when one is stuck half
// way.
func (c *Conn) silence() bool {
	c.mute.Store(true)
	select {
	case c.giving <- struct{}{}:
		<-c.giving
		return true
	default:
	}
	patience := time.NewTimer(giveTimeout)
	defer patience.Stop()
	select {
	case c.giving <- struct{}{}:
		<-c.giving
		return true
	case <-patience.C:
		return false
	}
}

// giveTimeout is how long an application may take for a message once it is to
// learn that the connection is closed.
const giveTimeout = time.Second

// begin begins the end from this side; false when it has begun before.
func (c *Conn) begin(r Result) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	r.Conn = c.result.Conn
	c.closing, c.result = true, r
	return true
}

// awaitClose lets receive wait for the client's close frame, not for ever.
func (c *Conn) awaitClose() {
	c.setWriteDeadline(time.Now().Add(closeTimeout))
	c.setReadDeadline(time.Now().Add(closeTimeout))
}

// Shut closes the connection from the gateway's side: client and application
// are told why. It does not wait for either of them to answer.
func (c *Conn) Shut(code uint16, reason string) {
	if !c.begin(Result{Code: code, Reason: reason}) {
		return
	}
	c.awaitClose()
	c.tell(code, reason)
	_ = c.sendClose(ws.NewCloseFrameBody(ws.StatusCode(code), reason))
}

// expire ends a connection whose client did not answer a ping.
func (c *Conn) expire() {
	const reason = "keepalive ping timeout"
	if !c.begin(Result{Code: codeInternalError, Reason: reason, Err: errors.New(reason)}) {
		return
	}
	c.setWriteDeadline(time.Now().Add(time.Second))
	_ = c.sendClose(ws.NewCloseFrameBody(codeInternalError, reason))
	c.tell(codeAbnormal, reason)
	c.cut()
}

// abandon ends a connection at once.
func (c *Conn) abandon(reason string) {
	c.begin(Result{Code: codeAbnormal, Reason: reason, Err: errors.New("websocket: the client is given up: " + reason)})
	c.setWriteDeadline(time.Unix(1, 0))
	c.tell(codeAbnormal, reason)
	c.cut()
}

// cut ends the stream from the client, and by it all the rest.
func (c *Conn) cut() { c.setReadDeadline(time.Unix(1, 0)) }

func (c *Conn) setReadDeadline(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		_ = c.transport.SetReadDeadline(at)
	}
}

func (c *Conn) setWriteDeadline(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		_ = c.transport.SetWriteDeadline(at)
	}
}

// errClosed means that a close frame has been sent: nothing follows it.
var errClosed = errors.New("websocket: the connection is closed")

// send writes whole frames.
func (c *Conn) send(frames []byte) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.closeSent || c.over {
		return errClosed
	}
	return c.write(frames)
}

func (c *Conn) write(p []byte) error {
	c.writing.Store(c.hub.clock.Load())
	n, err := c.transport.Write(p)
	c.writing.Store(0)
	c.sent.Add(int64(n))
	return err
}

// sendControl writes a control frame, of at most 125 bytes.
func (c *Conn) sendControl(op ws.OpCode, payload []byte) error {
	return c.send(appendControl(op, payload))
}

// sendClose writes the close frame, if none was.
func (c *Conn) sendClose(payload []byte) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.closeSent || c.over {
		return nil
	}
	c.closeSent = true
	return c.write(appendControl(ws.OpClose, payload))
}

func appendControl(op ws.OpCode, payload []byte) []byte {
	return append(append(make([]byte, 0, 2+len(payload)), 0x80|byte(op), byte(len(payload))), payload...)
}

// ping sends a ping. One that can't be sent is the end, also while the stream
// from the client is not read.
func (c *Conn) ping() {
	if err := c.sendControl(ws.OpPing, nil); err != nil && err != errClosed {
		c.abandon("a ping can't be sent")
	}
}

// sendable reports whether a close frame may have the code (RFC 6455, section
// 7.4, with what has been registered since).
func sendable(code uint16) bool {
	switch {
	case code >= 3000 && code < 5000, code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	}
	return false
}

// closeError is how the stream from the client ended.
type closeError struct {
	code   uint16
	reason string
	frame  bool  // by a close frame
	err    error // what was wrong with it, or with the network
	// answerable is true when the application has just been given a message.
	answerable bool
}

// answer is the reason that a close frame of this side has.
func (e *closeError) answer() string {
	if e.frame {
		return ""
	}
	return e.reason
}

func violation(code uint16, reason string) *closeError {
	return &closeError{code: code, reason: reason, err: errors.New("websocket: the client: " + reason)}
}

// parseClose reads the content of a close frame.
func parseClose(p []byte) closeError {
	if len(p) == 0 {
		return closeError{code: codeNoStatus, frame: true}
	}
	if len(p) == 1 {
		return *violation(codeProtocolError, "a close frame of one byte")
	}
	code, reason := uint16(p[0])<<8|uint16(p[1]), p[2:]
	if !sendable(code) {
		return *violation(codeProtocolError, "a close code that is not allowed")
	}
	if !utf8.Valid(reason) {
		return *violation(codeInvalidData, "a close reason that is not UTF-8")
	}
	return closeError{code: code, reason: string(reason), frame: true}
}
