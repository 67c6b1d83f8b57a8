package procpool

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

const (
	// maxLine is how many bytes one log line has at most. A longer one is
	// split, each part but the last marked by cutMark.
	maxLine = 8 << 10
	cutMark = " [cut]"

	// A program may write bursts of a MiB, and 256 KiB a second for ever. The
	// rest is counted and dropped: it is read, so that the program never
	// blocks, but a log that takes everything is a full disk.
	outputBurst = 1 << 20
	outputRate  = 256 << 10
)

// Lines is an io.Writer that cuts a program's output into bounded lines, and
// drops what comes faster than 256 KiB a second after a burst of 1 MiB. Line
// ends (LF, CRLF) are taken off, nothing else is changed: the bytes are the
// program's and may be anything.
type Lines struct {
	emit func(line []byte)
	clk  clock

	mu      sync.Mutex
	partial []byte // a line that has not ended, shorter than maxLine
	budget  float64
	refill  time.Time
	dropped int // lines since the last one that was let through
}

// NewLines returns a Lines that calls emit for each line, from the goroutine
// that writes. emit must not keep the slice.
func NewLines(emit func(line []byte)) *Lines { return newLines(emit, realClock) }

func newLines(emit func(line []byte), clk clock) *Lines {
	return &Lines{emit: emit, clk: clk, budget: outputBurst, refill: clk.now()}
}

// Write takes the next piece of output. It never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		room := maxLine - len(l.partial)
		end := bytes.IndexByte(p[:min(len(p), room+1)], '\n')
		switch {
		case end >= 0:
			l.line(bytes.TrimSuffix(append(l.partial, p[:end]...), []byte{'\r'}))
			p = p[end+1:]
		case len(p) > room:
			l.line(append(append(l.partial, p[:room]...), cutMark...))
			p = p[room:]
		default:
			l.partial = append(l.partial, p...)
			return n, nil
		}
		l.partial = l.partial[:0]
	}
	return n, nil
}

// Flush ends a last line that has no line end, and reports what was dropped. It
// is to be called when the program has ended.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.partial) > 0 {
		l.line(l.partial)
		l.partial = nil
	}
	l.reportDropped()
}

// line lets a line through, or counts it.
func (l *Lines) line(line []byte) {
	now := l.clk.now()
	l.budget = min(outputBurst, l.budget+now.Sub(l.refill).Seconds()*outputRate)
	l.refill = now
	if cost := float64(len(line) + 1); cost <= l.budget {
		l.budget -= cost
		l.reportDropped()
		l.emit(line)
		return
	}
	l.dropped++
}

func (l *Lines) reportDropped() {
	if l.dropped > 0 {
		l.emit(fmt.Appendf(nil, "[%d lines dropped: too much output]", l.dropped))
		l.dropped = 0
	}
}

// tail keeps the last lines of a worker that is starting, so that the reason of
// a failure can be shown.
type tail struct {
	mu     sync.Mutex
	lines  []string
	closed bool
}

const tailLines = 50

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, string(line))
}

// close forgets the lines and takes no more.
func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines, t.closed = nil, true
}

// all returns the lines.
func (t *tail) all() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines
}
