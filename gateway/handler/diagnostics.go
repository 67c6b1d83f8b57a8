package handler

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// Limits of what one request may write to the log. An application that floods
// its standard error must neither fill the disk nor wait for it.
const (
	maxDiagnosticsLine  = 8 << 10
	maxDiagnosticsTotal = 64 << 10
	diagnosticsQueue    = 4096 // lines of all requests that wait to be written
)

// diagnosticsLog writes the lines that applications send to standard error. A
// goroutine of its own writes them: those who hand lines in stand on the read
// path of a connection that many requests share, and never wait. Lines that
// find the queue full are counted and dropped.
type diagnosticsLog struct {
	log     *zap.Logger
	lines   chan diagnosticsLine
	dropped atomic.Int64
	stop    chan struct{}
	done    chan struct{}
}

// origin is where diagnostics come from.
type origin struct{ request, route, upstream string }

type diagnosticsLine struct {
	origin
	text string
}

func newDiagnosticsLog(log *zap.Logger) *diagnosticsLog {
	l := &diagnosticsLog{log: log, lines: make(chan diagnosticsLine, diagnosticsQueue),
		stop: make(chan struct{}), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *diagnosticsLog) run() {
	defer close(l.done)
	for {
		select {
		case line := <-l.lines:
			l.emit(line)
			continue
		default:
		}
		select {
		case line := <-l.lines:
			l.emit(line)
		case <-l.stop:
			return
		}
	}
}

func (l *diagnosticsLog) emit(line diagnosticsLine) {
	l.log.Warn("stderr", append(line.fields(), zap.String("line", line.text))...)
	if n := l.dropped.Swap(0); n > 0 {
		l.log.Warn("stderr lines dropped because the log could not keep up", zap.Int64("lines", n))
	}
}

func (o *origin) fields() []zap.Field {
	return []zap.Field{zap.String("request", o.request), zap.String("route", o.route), zap.String("upstream", o.upstream)}
}

func (l *diagnosticsLog) write(line diagnosticsLine) {
	select {
	case l.lines <- line:
	default:
		l.dropped.Add(1)
	}
}

// close writes what is queued; what is handed in later is dropped.
func (l *diagnosticsLog) close() {
	close(l.stop)
	<-l.done
}

// diagnostics is what the application of one request writes to its standard
// error. Write may still be called for a moment after the response has ended.
type diagnostics struct {
	log *diagnosticsLog

	mu      sync.Mutex
	origin  origin
	early   []string // lines that came before it was known who answers
	partial []byte
	total   int
	cut     int
}

// reset makes d that of another request. Nobody writes to it any more.
func (d *diagnostics) reset(log *diagnosticsLog) {
	d.log, d.origin, d.early, d.partial, d.total, d.cut = log, origin{}, nil, d.partial[:0], 0, 0
}

// from says where the lines that follow come from.
func (d *diagnostics) from(o origin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.origin = o
	if o.upstream != "" {
		d.release()
	}
}

// release hands the early lines to the log.
func (d *diagnostics) release() {
	for _, line := range d.early {
		d.log.write(diagnosticsLine{d.origin, line})
	}
	d.early = nil
}

// Write implements io.Writer; it never fails and never blocks.
func (d *diagnostics) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	written := len(p)
	if room := maxDiagnosticsTotal - d.total; len(p) > room {
		d.cut += len(p) - room
		p = p[:room]
	}
	d.total += len(p)
	for len(p) > 0 {
		line, rest, found := bytes.Cut(p, []byte{'\n'})
		if room := maxDiagnosticsLine - len(d.partial); len(line) > room {
			line, rest, found = p[:room], p[room:], true
		}
		d.partial = append(d.partial, line...)
		if found {
			d.emit()
		}
		p = rest
	}
	return written, nil
}

// emit hands the line in d.partial to the log.
func (d *diagnostics) emit() {
	line := string(bytes.TrimRight(d.partial, "\r"))
	d.partial = d.partial[:0]
	switch {
	case line == "":
	case d.origin.upstream == "":
		d.early = append(d.early, line)
	default:
		d.log.write(diagnosticsLine{d.origin, line})
	}
}

// flush writes an unfinished last line and says how much was cut.
func (d *diagnostics) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.partial) > 0 {
		d.emit()
	}
	d.release()
	if d.cut > 0 {
		d.log.write(diagnosticsLine{d.origin, fmt.Sprintf("(%d more bytes were cut off)", d.cut)})
		d.cut = 0
	}
}
