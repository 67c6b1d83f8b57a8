package backend

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
	"gatecrew/protocol/fcgi"
)

// What is kept of a warm-up's answer, in bytes.
const (
	warmUpHead    = 64 << 10
	warmUpExcerpt = 200
)

// WarmUp returns what asks a new worker for a path of its application, query
// included, before it gets its first request. An answer of 500 or more, none,
// or a broken one is an error. Nil when path is "".
func WarmUp(path string) func(ctx context.Context, w procpool.WorkerInfo, s procpool.Session) error {
	if path == "" {
		return nil
	}
	return func(ctx context.Context, _ procpool.WorkerInfo, s procpool.Session) error {
		if err := warmUp(ctx, s.(*fcgi.Conn), path); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		return nil
	}
}

func warmUp(ctx context.Context, conn *fcgi.Conn, path string) error {
	r, err := http.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "gatecrew-warm-up")
	target := &cgi.Target{PathInfo: r.URL.Path}
	var said excerpt
	stream, err := conn.Open(&protocol.Request{Role: protocol.Responder, Params: cgi.AppendParams(nil, r, target), Stderr: &said}, nil)
	if err != nil {
		return err
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stop()
	head, body, err := readWarmUp(stream)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%w%s", err, said.last())
	case head.Status >= http.StatusInternalServerError:
		return fmt.Errorf("%d %s: %q%s", head.Status, http.StatusText(head.Status), body, said.last())
	}
	return nil
}

// readWarmUp reads a whole answer, and returns its head and the beginning of
// its body.
func readWarmUp(r io.Reader) (*cgi.Head, []byte, error) {
	buf, err := io.ReadAll(io.LimitReader(r, warmUpHead))
	if err != nil {
		return nil, nil, err
	}
	head, n, err := cgi.ParseHead(buf, true)
	for err == nil && head.Status == http.StatusEarlyHints {
		buf = buf[n:]
		head, n, err = cgi.ParseHead(buf, true)
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, nil, err
	}
	body := buf[n:]
	return head, body[:min(len(body), warmUpExcerpt)], nil
}

// excerpt keeps the end of what an application writes to its error stream.
type excerpt struct {
	mu  sync.Mutex
	buf []byte
}

func (e *excerpt) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf = append(e.buf, p...)
	if over := len(e.buf) - 4<<10; over > 0 {
		e.buf = append(e.buf[:0], e.buf[over:]...)
	}
	return len(p), nil
}

// last returns the last line, ready to stand at the end of an error.
func (e *excerpt) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := bytes.TrimSpace(e.buf)
	if len(text) == 0 {
		return ""
	}
	return "; it wrote " + strings.TrimSpace(string(text[bytes.LastIndexByte(text, '\n')+1:]))
}
