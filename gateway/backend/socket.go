package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/stdio"
)

// Socket runs one process per WebSocket: what it writes to its standard output
// are messages to the client, and the client's are its standard input. Requests
// must have the role WebSocket.
type Socket struct {
	Scripts
	// Framing is how the program tells messages apart.
	Framing stdio.Framing
	// MaxOutput is the longest message of the program, in bytes.
	MaxOutput int
	// Subprotocols are those that the program speaks. The client's first of
	// them is chosen, and told to the program as WEBSOCKET_PROTOCOL.
	Subprotocols []string
	// CloseTimeout is how long the program may take to end by itself when its
	// standard input has ended, before it gets TERM.
	CloseTimeout time.Duration
	// Log has a line for each program that fails.
	Log *zap.Logger
}

// Open implements Backend. The exchange is a protocol.Socket.
func (b *Socket) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	head := "Status: 101\r\n"
	if chosen := b.subprotocol(req.Get("HTTP_SEC_WEBSOCKET_PROTOCOL")); chosen != "" {
		head += "Sec-WebSocket-Protocol: " + chosen + "\r\n"
		req.Params = append(req.Params[:len(req.Params):len(req.Params)], protocol.Param{Name: "WEBSOCKET_PROTOCOL", Value: chosen})
	}
	command, err := b.command(req)
	if err != nil {
		return nil, err
	}
	process, err := b.Runner.Start(ctx, command, req.Stderr)
	if err != nil {
		return nil, admission(err)
	}
	program := req.Get("SCRIPT_FILENAME")
	if len(b.Command) > 0 {
		program = b.Command[0]
	}
	s := &programSocket{
		process: process, closeTimeout: b.CloseTimeout,
		head: head + "\r\n", input: stdio.NewInput(b.Framing), output: stdio.NewOutput(b.Framing, b.MaxOutput),
		stopping: make(chan struct{}),
		log:      b.Log.With(zap.String("request", req.Get("UNIQUE_ID")), zap.String("program", program), zap.Int("pid", process.Pid())),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget = context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, nil
}

// subprotocol is the first of the client's subprotocols that the program speaks.
func (b *Socket) subprotocol(offered string) string {
	for one := range strings.SplitSeq(offered, ",") {
		if one = strings.TrimSpace(one); slices.Contains(b.Subprotocols, one) {
			return one
		}
	}
	return ""
}

// Status codes of RFC 6455, section 7.4.1.
const (
	statusNormal      = 1000
	statusUnsupported = 1003
	statusFailed      = 1011
)

// programSocket is one program and its client.
//
// The program's life is the socket's: when the one ends, so does the other. A
// program is asked to end by the end of its standard input, and what it writes
// then is thrown away, so that it can finish what it is at; TERM and KILL follow.
type programSocket struct {
	process      *procpool.Process
	log          *zap.Logger
	closeTimeout time.Duration
	forget       func() bool // the context's end

	// reading is held by whoever reads the standard output. It covers what
	// stands below.
	reading sync.Mutex
	head    string // what has not been read of the response head
	output  stdio.Output
	mute    bool  // the standard output has ended
	over    error // what Read returns when output has nothing more; nil as long as more may come

	// Of the one who writes.
	input stdio.Input
	deaf  bool // the program has closed its standard input

	// mu covers how the socket is ended from this side.
	mu       sync.Mutex
	stopping chan struct{} // closed when that has begun
	closed   bool          // by Close
	code     uint16        // what the client is told then
	reason   string
}

// growth is how much longer a piece of messages can be for the program: each
// message of it brings a header that is longer than what replaces it, but for
// the first, whose header may have come before.
const growth = 4

// pieces are buffers for what goes to and comes from programs.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Read implements protocol.Socket.
func (s *programSocket) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.head != "" {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	for {
		if s.isClosed() {
			return 0, &protocol.Error{Kind: protocol.ClientGone, Err: os.ErrClosed}
		}
		if n := s.output.Read(p); n > 0 {
			return n, nil
		}
		if s.over != nil {
			return 0, s.over
		}
		s.more()
	}
}

// more waits until the program has written something, or the socket ends.
func (s *programSocket) more() {
	select {
	case <-s.stopping:
		s.concluded()
		return
	default:
	}
	if s.mute {
		s.ended()
		return
	}
	piece := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(piece)
	n, err := s.process.Stdout.Read(piece[:])
	if n > 0 {
		if err := s.output.Feed(piece[:n]); err != nil {
			s.log.Warn("program of a WebSocket is ended for what it writes", zap.Error(err))
			s.conclude(statusFailed, "a message of the program is too long")
		}
		return
	}
	// Else the socket is being ended from this side.
	s.mute = !errors.Is(err, os.ErrDeadlineExceeded)
}

// ended waits for the program's end, and makes it that of the socket. A program
// that has closed its standard output may still take messages.
func (s *programSocket) ended() {
	select {
	case <-s.process.Done():
	case <-s.stopping:
		return
	}
	exit := s.process.State()
	err := s.output.End(exit.Success())
	switch {
	case err != nil:
		s.over = &protocol.Error{Kind: protocol.Died, Err: fmt.Errorf("the program ended with %s: %w", exit, err)}
	case exit.Success():
		s.say(statusNormal, "")
	default:
		s.say(statusFailed, exit.String())
	}
	if err != nil || !exit.Success() {
		s.log.Warn("program of a WebSocket has failed", zap.Stringer("exit", exit), zap.Error(err))
	}
}

// concluded makes a decision of this side the end of the socket.
func (s *programSocket) concluded() {
	s.mu.Lock()
	code, reason := s.code, s.reason
	s.mu.Unlock()
	if s.output.Inside() {
		s.over = &protocol.Error{Kind: protocol.Died, Err: fmt.Errorf("inside of a message of the program: %s", reason)}
		return
	}
	s.say(code, reason)
}

// say lets a close be the last message.
func (s *programSocket) say(code uint16, reason string) {
	s.output.Close(code, reason)
	s.over = io.EOF
}

// Wait implements protocol.Socket.
func (s *programSocket) Wait() {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.head != "" || s.output.Pending() || s.over != nil || s.isClosed() {
		return
	}
	s.output.Release()
	if !s.mute {
		s.process.Stdout.Wait()
		return
	}
	select {
	case <-s.process.Done():
	case <-s.stopping:
	}
}

// Write implements protocol.Socket. A program that doesn't read what it is sent
// is nothing special, as long as it keeps its standard input open: then it makes
// the client wait.
func (s *programSocket) Write(p []byte) (int, error) {
	piece := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(piece)
	for rest := p; len(rest) > 0 && !s.deaf; {
		part := rest[:min(len(rest), len(piece)-growth)]
		rest = rest[len(part):]
		plain, bad := s.input.Append(piece[:0], part)
		if _, err := s.process.Stdin.Write(plain); err != nil {
			s.deaf = true
			if s.isClosed() {
				return 0, &protocol.Error{Kind: protocol.ClientGone, Err: err}
			}
		}
		switch {
		case errors.Is(bad, stdio.ErrBinary):
			s.deaf = true
			s.conclude(statusUnsupported, "only text messages are taken here")
		case bad != nil:
			return 0, &protocol.Error{Kind: protocol.Malformed, Err: bad}
		}
	}
	return len(p), nil
}

// WriteClose implements protocol.Socket: the program's standard input ends.
func (s *programSocket) WriteClose(uint16, string) { s.process.Stdin.Close() }

// conclude ends the socket from this side; the client is told why, behind the
// messages that have been read of the program.
func (s *programSocket) conclude(code uint16, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopping:
		return
	default:
	}
	s.code, s.reason = code, reason
	s.stop()
}

// stop asks the program to end, and whoever reads its output to look up. The
// caller holds mu.
func (s *programSocket) stop() {
	close(s.stopping)
	s.process.Stdin.Close()
	_ = s.process.Stdout.SetReadDeadline(time.Unix(1, 0))
	go func() {
		patience := time.NewTimer(s.closeTimeout)
		defer patience.Stop()
		select {
		case <-s.process.Done():
		case <-patience.C:
			s.process.Stop()
		}
	}()
}

func (s *programSocket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close implements protocol.Exchange.
func (s *programSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.forget()
	select {
	case <-s.stopping:
	default:
		s.stop()
	}
	go s.drain()
	return nil
}

// drain throws away what the program still writes, until it has ended.
func (s *programSocket) drain() {
	s.reading.Lock() // whoever read has looked up
	defer s.reading.Unlock()
	_ = s.process.Stdout.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, s.process.Stdout)
	<-s.process.Done()
	_ = s.process.Stdout.Close()
}

// Answerer implements the interface of that name.
func (s *programSocket) Answerer() string { return fmt.Sprintf("pid/%d", s.process.Pid()) }
