package procpool

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// control is the second connection to a worker, descriptor 4 there: what is
// said about the requests rather than by them. It works while every thread of
// the worker is busy.
//
// Both directions are lines. The pool writes commands, a word and its
// arguments, of which a worker passes over those that it doesn't know. The
// worker writes messages, a JSON object each:
//
//	to the worker                     from the worker
//	recall                            (the requests come back as records)
//	                                  {"modules": ["/srv/app.py"]}
//	                                  {"dump_signal": 62}
//	stacks N REQUEST                  {"answer": N, "text": "thread …"}
//	interrupt N REQUEST TIME REASON   {"answer": N, "text": "why it can't be done"}
//
// REQUEST and REASON are text in the encoding of query strings, TIME is in
// seconds. The signal that the worker has named has it write a dump of its
// stacks to descriptor 5, a pipe: a dump comes in pieces at any moment, which
// would tear a message.
type control struct {
	conn  *net.UnixConn
	dumps *os.File // nil when there are none
	sends sync.Mutex
	rest  []byte // of a command that the socket has taken in part
	// heard gets each line from the worker, without its end, from one
	// goroutine. It must not keep it.
	heard func(line []byte)
	ended chan struct{} // closed when listen has returned

	dialogue
}

// maxControlLine is the longest line that is taken from a worker, in bytes.
const maxControlLine = 4 << 20

func newControl(conn *net.UnixConn, dumps *os.File, heard func(line []byte)) *control {
	return &control{conn: conn, dumps: dumps, heard: heard, ended: make(chan struct{})}
}

// send writes one command. It doesn't wait: a worker that reads nothing leaves room
// for 9,000 lines. Nor has it a deadline, which would be over, on a machine that is
// busy enough, before the system call is made.
func (c *control) send(format string, args ...any) error {
	c.sends.Lock()
	defer c.sends.Unlock()
	if _, err := c.push(); err != nil {
		return err
	}
	c.rest = fmt.Appendf(c.rest, format+"\n", args...)
	n, err := c.push()
	if err != nil && n == 0 {
		c.rest = c.rest[:0] // else the line has begun, and must end
	}
	return err
}

// push writes c.rest as far as the socket takes it at once. An error leaves the rest.
func (c *control) push() (n int, err error) {
	if len(c.rest) == 0 {
		return 0, nil
	}
	var failure error
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			for n < len(c.rest) && (failure == nil || failure == unix.EINTR) {
				var sent int
				if sent, failure = unix.Write(int(fd), c.rest[n:]); failure == nil {
					n += sent
				}
			}
			return true
		})
	}
	c.rest = c.rest[:copy(c.rest, c.rest[n:])]
	switch {
	case err == nil && failure == unix.EAGAIN:
		err = errors.New("it reads nothing of what it is told")
	case err == nil:
		err = failure
	}
	if err != nil {
		err = fmt.Errorf("procpool: the worker can't be reached: %w", err)
	}
	return n, err
}

// listen hands on what the worker says until it ends.
func (c *control) listen() {
	defer close(c.ended)
	if c.dumps != nil {
		go drain(c.dumps, dumpWriter{c}) // always: a worker must not wait for a reader
	}
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(make([]byte, 0, 512), maxControlLine)
	for lines.Scan() {
		c.heard(lines.Bytes())
	}
}

func (c *control) close() {
	_ = c.conn.Close()
	if c.dumps != nil {
		_ = c.dumps.Close()
	}
}

// finish hears the last words of a worker that has exited. A process that holds
// on to its end of the connection is not waited for.
func (c *control) finish() {
	_ = c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	<-c.ended
	c.close()
}

// message is what a worker says over its control connection. Each kind of
// message has a field of its own.
type message struct {
	// Modules are files that the application has imported, each told once.
	Modules []string `json:"modules"`
	// DumpSignal is a signal that has the worker write the stacks of its
	// threads, as lines of text. 0 means none.
	DumpSignal int `json:"dump_signal"`
	// Answer is the number of the question that Text answers.
	Answer int    `json:"answer"`
	Text   string `json:"text"`
}

// hear takes in one line of w.
func (p *Pool) hear(w *worker, line []byte) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		p.log.Debug("worker says what can't be understood", zap.Int("worker", w.info.Number), zap.Error(err))
		return
	}
	w.control.answered(m)
	if len(m.Modules) > 0 && p.cfg.Modules != nil {
		p.cfg.Modules(w.info, m.Modules)
	}
}
