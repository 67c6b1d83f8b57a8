package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// CGI runs one process per request (RFC 3875).
type CGI struct {
	Scripts
	// Timeout is the longest silence of the script; 0 means no limit.
	Timeout time.Duration
	// QueryArguments passes the words of a query like ?a+b as command-line
	// arguments (RFC 3875, section 4.4). Dangerous with many interpreters.
	QueryArguments bool
	// KeepBackground lets a script that has closed its output go on working.
	KeepBackground bool
	// IgnoreExitStatus takes an answer for complete although the script
	// exited with a status other than 0.
	IgnoreExitStatus bool
}

// Open implements Backend.
func (c *CGI) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	command, err := c.command(req)
	if err != nil {
		return nil, err
	}
	if c.QueryArguments {
		command.Argv = append(command.Argv, cgi.QueryArgs(req.Get("REQUEST_METHOD"), req.Get("QUERY_STRING"))...)
	}
	command.NoInput = req.Stdin == nil
	process, err := c.Runner.Start(ctx, command, req.Stderr)
	if err != nil {
		return nil, admission(err)
	}
	x := &cgiExchange{process: process, strict: !c.IgnoreExitStatus, keep: c.KeepBackground}
	if req.Stdin != nil {
		x.feeding.Add(1)
		x.live, _ = req.Stdin.(protocol.Live)
		go x.feed(req.Stdin)
	}
	w := &cgiWatch{process: process}
	w.begin(ctx, x, c.Timeout)
	return w, nil
}

// cgiWatch names the process to the access log.
type cgiWatch struct {
	watch
	process *procpool.Process
}

func (w *cgiWatch) Answerer() string { return "pid/" + strconv.Itoa(w.process.Pid()) }

// exitGrace is how long a script may take to exit after it closed its output.
const exitGrace = 500 * time.Millisecond

// cgiExchange is one script at work.
type cgiExchange struct {
	process *procpool.Process
	strict  bool // an exit status other than 0 makes the answer incomplete
	keep    bool // a script that works on after its answer is left alone
	begun   bool // something of the answer has been read
	ended   bool // the answer is complete
	feeding sync.WaitGroup
	live    protocol.Live // what is fed, where nobody waits for it
	closed  sync.Once
}

// feed copies the request body to the script. A script that doesn't read its
// input to the end is nothing special.
func (x *cgiExchange) feed(body io.Reader) {
	defer x.feeding.Done()
	_, err := io.Copy(x.process.Stdin, body)
	x.process.Stdin.Close()
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		// The client's part broke: the script must not take what it got for
		// the whole.
		x.process.Stop()
	}
}

func (x *cgiExchange) Read(p []byte) (int, error) {
	read := x.process.Stdout.Read
	if !x.begun {
		// The answer of a script that soon ends comes as one, so that its
		// length is known before its head is sent.
		read, x.begun = x.process.Stdout.Gather, true
	}
	n, err := read(p)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		if n > 0 {
			return n, nil // it comes again
		}
		return 0, &protocol.Error{Kind: protocol.Died, Err: err}
	case n > 0 && !x.over():
		return n, nil
	}
	if err := x.verdict(); err != nil {
		if n > 0 {
			return n, nil
		}
		return 0, err
	}
	x.ended = true
	return n, io.EOF
}

func (x *cgiExchange) over() bool {
	select {
	case <-x.process.Done():
		return true
	default:
		return false
	}
}

// verdict says whether the end of the output is the end of the answer. It is
// only if the script meant it: how it exited tells. One that closes its output
// and works on has said that the answer is complete.
func (x *cgiExchange) verdict() error {
	if !x.over() {
		patience := time.NewTimer(exitGrace)
		defer patience.Stop()
		select {
		case <-x.process.Done():
		case <-patience.C:
			return nil
		}
	}
	if exit := x.process.State(); exit.Signal != 0 || x.strict && exit.Code != 0 {
		return &protocol.Error{Kind: protocol.Died, Err: fmt.Errorf("the script ended with %s", exit)}
	}
	return nil
}

func (x *cgiExchange) Close() error {
	x.closed.Do(func() {
		if !x.ended || !x.keep {
			x.process.Stop() // does nothing to a process that has ended
		}
		x.process.Stdin.Close() // a nil file is fine
		x.process.Stdout.Close()
		if x.live != nil {
			x.live.Detach()
			return
		}
		x.feeding.Wait()
	})
	return nil
}
