// Package accesslog writes one line for each request, in Apache's combined
// format or as JSON.
//
// A line never waits for the disk: it is appended to a buffer that a
// goroutine writes out, and when the disk can't follow, lines are dropped and
// counted. Nothing a client sends can end a line, begin another, or reach a
// terminal as a control sequence (see escape.go).
package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// flushEvery is how long a line may wait in memory.
	flushEvery = 250 * time.Millisecond
	// flushSize is how full the buffer gets before it is written early.
	flushSize = 64 << 10
	// maxPending is how much waits for a disk that does not answer; more is
	// dropped.
	maxPending = 4 << 20
	// closeWait is how long Close waits for the last write. A pipe nobody
	// reads must not keep the gateway from ending.
	closeWait = 2 * time.Second
)

// Entry is one finished request. Strings are logged as they came from the
// network; Log escapes them.
type Entry struct {
	Time       time.Time     // when the request began; its zone is the one that is logged
	Duration   time.Duration // from then to the last byte of the response
	RemoteAddr string        // the client's address without the port
	User       string        // the authenticated user
	Method     string
	URI        string // the request target as it was sent
	Proto      string // "HTTP/1.1"
	Status     int    // 0 when no answer was sent
	Bytes      int64  // of the response body
	Referer    string
	UserAgent  string
	Host       string
	RequestID  string
	Route      string        // what the gateway chose
	Upstream   string        // the worker or backend that answered
	Queue      time.Duration // how long the request waited for it
}

// Log is an open access log. Its methods are safe for concurrent use.
type Log struct {
	path   string // "" for standard output
	off    bool
	encode func([]byte, *Entry) []byte

	mu      sync.Mutex // held for an append, never during a write
	pending []byte
	closed  bool
	lost    uint64
	lastErr error

	fileMu sync.Mutex // held during a write
	file   *os.File
	spare  []byte // the other buffer
	torn   bool   // the file ends within a line

	wake chan struct{} // the buffer is no longer empty
	full chan struct{} // the buffer should be written now
	stop chan struct{}
	done chan struct{}
}

// Open opens the log that target names: a file to append to (made with mode
// 0640, for it holds personal data), "-" for standard output, "off" for none.
// format is "combined" or "json".
func Open(target, format string) (*Log, error) {
	l := &Log{
		wake: make(chan struct{}, 1),
		full: make(chan struct{}, 1),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	switch format {
	case "combined":
		l.encode = appendCombined
	case "json":
		l.encode = appendJSON
	default:
		return nil, fmt.Errorf("accesslog: format %q: not known; use combined or json", format)
	}
	switch target {
	case "off":
		l.off = true
		return l, nil
	case "-":
		l.file = os.Stdout
	case "":
		return nil, errors.New(`accesslog: no target; use a file name, "-" for standard output or "off"`)
	default:
		f, err := openFile(target)
		if err != nil {
			return nil, err
		}
		l.path, l.file = target, f
	}
	go l.run()
	return l, nil
}

func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("accesslog: %w", err)
	}
	return f, nil
}

// lines holds buffers in which single lines are encoded before they are
// appended, so that the lock is held for a copy and not for the encoding.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Write logs e. It never blocks on the disk, and keeps nothing of e.
func (l *Log) Write(e *Entry) {
	if l.off {
		return
	}
	line := lines.Get().(*[]byte)
	*line = l.encode((*line)[:0], e)
	l.append(*line)
	lines.Put(line)
}

func (l *Log) append(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.pending)+len(line) > maxPending {
		l.lost++
		return
	}
	if len(l.pending) == 0 {
		signal(l.wake)
	}
	l.pending = append(l.pending, line...)
	if len(l.pending) >= flushSize {
		signal(l.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes the buffer out until Close. An idle log has no timer running.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			l.flush()
			return
		}
		timer.Reset(flushEvery)
		select {
		case <-timer.C:
		case <-l.full:
		case <-l.stop:
		}
		l.flush()
	}
}

func (l *Log) flush() {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	l.flushLocked()
}

// flushLocked writes what is pending. A write that fails half-way leaves part
// of a line in the file; the next one then begins with a newline, so that no
// two lines grow together.
func (l *Log) flushLocked() {
	l.mu.Lock()
	batch := l.pending
	l.pending = l.spare[:0]
	l.mu.Unlock()
	defer func() { l.spare = batch }()
	if len(batch) == 0 {
		return
	}
	if l.torn {
		if _, err := l.file.WriteString("\n"); err != nil {
			l.fail(batch, err)
			return
		}
		l.torn = false
	}
	n, err := l.file.Write(batch)
	if n > 0 {
		l.torn = batch[n-1] != '\n'
	}
	if err != nil {
		l.fail(batch[n:], err)
	}
}

// fail counts the lines of rest as lost.
func (l *Log) fail(rest []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += uint64(bytes.Count(rest, []byte{'\n'}))
	l.lastErr = err
}

// Lost returns how many lines were dropped, because the disk failed or could
// not follow, and the last error of a write, nil when there was none.
func (l *Log) Lost() (lines uint64, lastErr error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost, l.lastErr
}

// Reopen writes what is pending to the old file and opens the path anew, for
// log rotation by renaming. When that fails the old file stays in use. It waits
// for a write that is under way, and does nothing for standard output and
// "off".
func (l *Log) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := openFile(l.path)
	if err != nil {
		return err
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		_ = f.Close()
		return fmt.Errorf("accesslog: reopen: %w", os.ErrClosed)
	}
	l.flushLocked()
	old := l.file
	l.file, l.torn = f, false
	if err := old.Close(); err != nil {
		return fmt.Errorf("accesslog: %w", err)
	}
	return nil
}

// Close writes what is pending and closes the file; later lines are dropped
// and counted. It waits two seconds at most for a write that hangs.
func (l *Log) Close() error {
	if l.off {
		return nil
	}
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	close(l.stop)
	select {
	case <-l.done:
	case <-time.After(closeWait):
		return errors.New("accesslog: close: the last write did not return")
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.path == "" {
		return nil // standard output is not ours to close
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("accesslog: %w", err)
	}
	return nil
}
