package procpool

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Process is a running program with pipes to its standard descriptors.
type Process struct {
	// Stdin is the write end of descriptor 0. It takes deadlines, and Close
	// is the program's end of file. Writing after the program closed its end
	// fails with EPIPE.
	Stdin *os.File
	// Stdout is the read end of descriptor 1.
	Stdout *Stdout

	child     *child
	stderr    *os.File
	drained   chan struct{} // closed when the last byte of stderr was written on
	stopGrace time.Duration
	clk       clock

	stopOnce sync.Once
	stopped  chan struct{} // closed by Stop

	done chan struct{}
	exit Exit
}

// startProcess has begin start a process, with files as its descriptors, and
// begins to read its descriptor 2.
func startProcess(begin func(files ...uintptr) (*child, error), stderr io.Writer, stopGrace time.Duration, clk clock) (_ *Process, err error) {
	var ours [3]*os.File
	var theirs [3]uintptr
	defer func() {
		if err != nil {
			for _, f := range ours {
				_ = f.Close() // a nil file is fine
			}
		}
	}()
	for i := range ours {
		f, fd, err := pipe(i != 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		ours[i], theirs[i] = f, uintptr(fd)
	}
	ch, err := begin(theirs[:]...)
	if err != nil {
		return nil, err
	}
	p := &Process{
		Stdin: ours[0], Stdout: newStdout(ours[1]),
		child: ch, stderr: ours[2], drained: make(chan struct{}),
		stopGrace: stopGrace, clk: clk,
		stopped: make(chan struct{}), done: make(chan struct{}),
	}
	if stderr == nil {
		stderr = io.Discard
	}
	go func() {
		defer close(p.drained)
		drain(p.stderr, stderr)
	}()
	return p, nil
}

// drain copies until the end of src. An error of dst doesn't end it: a program
// must not block on its diagnostics.
func drain(src *os.File, dst io.Writer) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			_, _ = dst.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// attend sees the process to its end: signals when asked, then the remains of
// its group, its zombie and its pipes.
func (p *Process) attend(keepBackground bool, log *zap.Logger) {
	stopped := p.stopped
	var kill <-chan time.Time
	forget := func() {}
	for running := true; running; {
		select {
		case <-p.child.exited:
			running = false
		case <-stopped:
			stopped = nil
			p.child.signal(syscall.SIGTERM)
			kill, forget = p.clk.after(p.stopGrace)
		case <-kill:
			log.Warn("process ignored TERM, killing its group", zap.Duration("grace", p.stopGrace))
			p.child.signal(syscall.SIGKILL)
		}
	}
	forget()
	// The program's exit ends the request. What it left running may hold
	// the pipes open for ever (golang.org/issue/23019), so that end of file
	// can't be waited for.
	linger, forget := p.clk.after(lingerTime)
	select {
	case <-p.Stdout.eof:
	case <-linger:
	}
	forget()
	p.exit = p.child.reap(keepBackground)
	p.Stdout.end()
	// The writers of stderr are dead now, but for those that left the group.
	linger, forget = p.clk.after(lingerTime)
	select {
	case <-p.drained:
	case <-linger:
	}
	forget()
	_ = p.stderr.Close()
	<-p.drained
}

// Pid returns the process id, which is its process group's as well.
func (p *Process) Pid() int { return p.child.pid }

// Stop sends TERM to the process group, and KILL after the grace. It doesn't
// wait for the end, may be called at any time and more than once.
func (p *Process) Stop() { p.stopOnce.Do(func() { close(p.stopped) }) }

// Done is closed when the program has been reaped, its group killed and all it
// said on descriptor 2 delivered.
func (p *Process) Done() <-chan struct{} { return p.done }

// State returns how the program ended. It is valid after Done only.
func (p *Process) State() Exit { return p.exit }

// Close stops the process if it runs and gives up both pipes. It does not wait.
func (p *Process) Close() error {
	p.Stop()
	return errors.Join(ignoreClosed(p.Stdin.Close()), ignoreClosed(p.Stdout.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Stdout is the read end of a program's standard output. It is at its end when
// every writer closed it, or when the program has ended and what was in the
// pipe has been read: a process that was left behind can't keep it open.
type Stdout struct {
	f   *os.File
	eof chan struct{} // closed when Read saw the end, or Close was called

	eofOnce sync.Once

	// mu orders the caller's deadlines with the one that end sets.
	mu    sync.Mutex
	ended bool
}

func newStdout(f *os.File) *Stdout { return &Stdout{f: f, eof: make(chan struct{})} }

// Read reads from the pipe. It is for one goroutine at a time.
func (s *Stdout) Read(b []byte) (int, error) {
	n, err := s.f.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && s.hasEnded() {
		n, err = s.readRest(b)
	}
	if err == io.EOF {
		s.eofOnce.Do(func() { close(s.eof) })
	}
	return n, err
}

// Wait waits until a Read would not: there is something to read, or the end, or
// the deadline has passed. It is a Read in that only one goroutine may be at it.
func (s *Stdout) Wait() {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return // closed
	}
	_ = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && err != unix.EINTR
	})
}

// SetReadDeadline sets the time at which a pending or future Read fails with
// os.ErrDeadlineExceeded; the zero time means none. When the program has ended
// no Read waits any more and the call does nothing.
func (s *Stdout) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	return s.f.SetReadDeadline(t)
}

// Close gives the pipe up. The program gets SIGPIPE or EPIPE when it writes.
func (s *Stdout) Close() error {
	s.eofOnce.Do(func() { close(s.eof) })
	return s.f.Close()
}

// end makes an empty pipe the end of file, also for a Read under way.
func (s *Stdout) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	_ = s.f.SetReadDeadline(time.Unix(1, 0))
}

func (s *Stdout) hasEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// readRest reads without waiting, and without the deadline that end set.
func (s *Stdout) readRest(b []byte) (n int, err error) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		for {
			n, err = unix.Read(int(fd), b)
			if err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case ctlErr != nil:
		return 0, ctlErr
	case err == unix.EAGAIN || err == nil && n == 0 && len(b) > 0:
		return 0, io.EOF
	case err != nil:
		return 0, &os.PathError{Op: "read", Path: "pipe", Err: err}
	}
	return n, nil
}
