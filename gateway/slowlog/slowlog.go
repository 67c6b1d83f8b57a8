// Package slowlog describes requests that take too long: a block of text each,
// or a JSON object, with the stacks of the worker.
//
// A block never waits for whoever reads the log, and a request is never kept
// from its end by it: blocks go through a short queue, and those that find it
// full are counted. Nothing that a client or an application chose can end a
// line or reach a terminal as a control sequence.
package slowlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

const (
	// queued is how many blocks wait for a disk that does not answer.
	queued = 64
	// maxStacks is how much of the stacks of one request is kept, in bytes.
	maxStacks = 512 << 10
	// maxURI is how much of a request's target is kept, in bytes.
	maxURI = 8 << 10
	// closeWait is how long Close waits for the last write.
	closeWait = 2 * time.Second
)

// Entry is one slow request.
type Entry struct {
	Time    time.Time     // when it was found to be slow
	Request string        // its id
	Worker  string        // "POOL/NUMBER"
	PID     int           // of the worker
	Method  string        // of the request
	URI     string        // its target, with the query
	Silent  time.Duration // how long nothing has been heard of it
	Stacks  string        // what its worker is doing, or why that isn't known
}

// Log is an open slow log. Its methods are safe for concurrent use.
type Log struct {
	path   string // "" for standard error
	asJSON bool

	entries chan *Entry
	lost    atomic.Int64
	stop    chan struct{}
	done    chan struct{}
	closed  sync.Once

	mu   sync.Mutex // held during a write
	file *os.File
}

// Open opens the log that target names: a file to append to, made with mode
// 0600 as it shows lines of the application's code, or "-" for standard error.
// format is "console", for people, or "json", an object a line.
func Open(target, format string) (*Log, error) {
	l := &Log{asJSON: format == "json", file: os.Stderr,
		entries: make(chan *Entry, queued), stop: make(chan struct{}), done: make(chan struct{})}
	if target != "-" {
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
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("slowlog: %w", err)
	}
	return f, nil
}

// Write logs e, which the log keeps. It never blocks.
func (l *Log) Write(e *Entry) {
	select {
	case l.entries <- e:
	default:
		l.lost.Add(1)
	}
}

func (l *Log) run() {
	defer close(l.done)
	for {
		select {
		case e := <-l.entries:
			l.write(e)
			continue
		default:
		}
		select {
		case e := <-l.entries:
			l.write(e)
		case <-l.stop:
			return
		}
	}
}

// write writes one block in one call, so that what others write to standard
// error stands before or behind it.
func (l *Log) write(e *Entry) {
	if len(e.Stacks) > maxStacks {
		e.Stacks = e.Stacks[:maxStacks] + "\n(the rest is left out)"
	}
	if len(e.URI) > maxURI {
		e.URI = e.URI[:maxURI] + "..."
	}
	if n := l.lost.Swap(0); n > 0 {
		e.Stacks += fmt.Sprintf("\n(%d slow requests before this one are not logged, the log could not keep up)", n)
	}
	block := e.text()
	if l.asJSON {
		block = e.json()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(block); err != nil {
		l.lost.Add(1)
	}
}

// text is a header line and the stacks, indented.
func (e *Entry) text() []byte {
	b := e.Time.AppendFormat(nil, "2006-01-02T15:04:05.000Z0700")
	b = fmt.Appendf(b, "\tslow request\t%s on %s (pid %d), silent for %.1fs: %s\n",
		printable(e.Request), e.Worker, e.PID, e.Silent.Seconds(), strconv.QuoteToASCII(e.Method+" "+e.URI))
	for line := range strings.Lines(strings.TrimRight(e.Stacks, "\n")) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			b = append(append(b, "    "...), printable(line)...)
		}
		b = append(b, '\n')
	}
	return b
}

// json is an object whose "stacks" is a list of lines.
func (e *Entry) json() []byte {
	data, err := json.Marshal(struct {
		Time    string   `json:"time"`
		Message string   `json:"msg"`
		Request string   `json:"request"`
		Worker  string   `json:"worker"`
		PID     int      `json:"pid"`
		Method  string   `json:"method"`
		URI     string   `json:"uri"`
		Elapsed int64    `json:"elapsed_ms"`
		Stacks  []string `json:"stacks"`
	}{e.Time.Format(time.RFC3339Nano), "slow request", e.Request, e.Worker, e.PID, e.Method, e.URI, e.Silent.Milliseconds(),
		strings.Split(strings.TrimRight(e.Stacks, "\n"), "\n")})
	if err != nil {
		return fmt.Appendf(nil, "{\"msg\":\"slow request\",\"error\":%q}\n", err)
	}
	// What is left that is not printable stands within strings.
	return append([]byte(printable(string(data))), '\n')
}

// printable escapes what is not printable as \uhhhh, which means the same in a
// JSON string. A tab stays.
func printable(s string) string {
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b []byte
	for _, r := range s {
		switch {
		case !hidden(r):
			b = append(b, string(r)...)
		case r > 0xffff:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return string(b)
}

func hidden(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }

// Reopen opens the file anew, for log rotation by renaming. When that fails
// the old one stays in use. It does nothing for standard error.
func (l *Log) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := openFile(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.file
	l.file = f
	return old.Close()
}

// Close writes what is queued and closes the file; what comes later is
// dropped. It waits two seconds at most for a write that hangs.
func (l *Log) Close() (err error) {
	l.closed.Do(func() {
		close(l.stop)
		select {
		case <-l.done:
		case <-time.After(closeWait):
			err = errors.New("slowlog: close: the last write did not return")
			return
		}
		if l.path != "" {
			err = l.file.Close()
		}
	})
	return err
}
