package procpool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Process is a running program with pipes to its standard descriptors.
//
// Most programs that answer a request have ended a few milliseconds later. What
// it takes to look after a process (a goroutine that waits for its exit and one
// that reads its descriptor 2, a pidfd, an entry with the guard) costs more than
// such a program itself. So a process is young at first: nobody attends it, and
// whoever reads its Stdout to the end collects it, too (settle). One that isn't
// collected within youth, or is to be stopped, is attended from then on.
type Process struct {
	// Stdin is the write end of descriptor 0. It takes deadlines, and Close
	// is the program's end of file. Writing after the program closed its end
	// fails with EPIPE. It is nil when the Command has NoInput.
	Stdin *os.File
	// Stdout is the read end of descriptor 1.
	Stdout *Stdout

	child     *child
	stderr    int       // the read end of descriptor 2
	diagnosis io.Writer // gets what is read from it
	stopGrace time.Duration
	clk       clock
	spare     bool // its group is left alone when it has ended
	log       *zap.Logger
	ended     func() // closes done

	mu    sync.Mutex
	stage stage

	stopOnce sync.Once
	stopped  chan struct{} // closed by Stop

	done chan struct{}
	exit Exit
}

// stage says who looks after a Process.
type stage uint8

const (
	young    stage = iota // nobody yet
	settling              // whoever has read its output to the end
	attended              // its own goroutine
)

// startProcess has begin start a process with what c wants for its descriptors. The
// process is to be begun.
func startProcess(c Command, begin func(files ...uintptr) (*child, error), stderr io.Writer, stopGrace time.Duration, clk clock) (_ *Process, err error) {
	var theirs [3]uintptr
	p := &Process{
		stderr: -1, diagnosis: stderr, stopGrace: stopGrace, clk: clk,
		stopped: make(chan struct{}), done: make(chan struct{}),
	}
	if stderr == nil {
		p.diagnosis = io.Discard
	}
	defer func() {
		if err != nil {
			_ = p.Stdin.Close() // a nil file is fine
			if p.Stdout != nil {
				_ = p.Stdout.f.Close()
			}
			if p.stderr >= 0 {
				_ = unix.Close(p.stderr)
			}
		}
	}()
	if c.NoInput && c.Confinement == nil {
		empty, err := noInput()
		if err != nil {
			return nil, err
		}
		theirs[0] = uintptr(empty)
	} else {
		ours, fd, err := pipe(false)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
		theirs[0] = uintptr(fd)
		if p.Stdin = ours; c.NoInput {
			p.Stdin = nil
			_ = ours.Close()
		}
	}
	output, fd, err := pipe(true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p.Stdout, theirs[1] = &Stdout{f: output, process: p, eof: make(chan struct{})}, uintptr(fd)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("procpool: %w: %w", ErrStart, os.NewSyscallError("pipe2", err))
	}
	defer unix.Close(fds[1])
	p.stderr, theirs[2] = fds[0], uintptr(fds[1])
	p.child, err = begin(theirs[:]...)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// begin is called once, when the fields are filled in.
func (p *Process) begin() {
	if p.child.mark == "" {
		// Only the guard could find what it starts when the gateway is killed.
		p.attendNow(young)
		return
	}
	nursery.add(p)
}

// attendNow has p attended if it is at that stage.
func (p *Process) attendNow(at stage) {
	p.mu.Lock()
	mine := p.stage == at
	if mine {
		p.stage = attended
	}
	p.mu.Unlock()
	if mine {
		p.child.attend()
		go p.attend()
		p.Stdout.hurry()
	}
}

func (p *Process) isYoung() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stage == young
}

// settle collects a young process whose output has ended. One that runs on, or
// whose descriptor 2 others hold, is attended instead.
func (p *Process) settle() {
	p.mu.Lock()
	if p.stage != young {
		p.mu.Unlock()
		return
	}
	p.stage = settling
	p.mu.Unlock()
	if !p.drainReady() || !p.child.exitsSoon() {
		p.attendNow(settling)
		return
	}
	p.exit = p.child.reap(p.spare)
	_ = unix.Close(p.stderr)
	p.ended()
}

// drainReady passes on what stands in stderr, and reports whether that is all:
// nobody has it open for writing any more.
func (p *Process) drainReady() bool {
	var buf []byte
	for {
		fds := [1]unix.PollFd{{Fd: int32(p.stderr), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		switch {
		case err == unix.EINTR:
			continue
		case n != 1 || fds[0].Revents&unix.POLLIN == 0:
			return n == 1 && fds[0].Revents&unix.POLLHUP != 0
		}
		if buf == nil {
			buf = make([]byte, 4<<10)
		}
		if n, _ = unix.Read(p.stderr, buf); n > 0 {
			_, _ = p.diagnosis.Write(buf[:n])
		}
	}
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
func (p *Process) attend() {
	defer p.ended()
	drained := make(chan struct{})          // closed when the last byte of stderr was written on
	stderr, _ := pollable(p.stderr, "pipe") // fails for no pipe
	go func() {
		defer close(drained)
		drain(stderr, p.diagnosis)
	}()
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
			p.log.Warn("process ignored TERM, killing its group", zap.Int("pid", p.Pid()), zap.Duration("grace", p.stopGrace))
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
	p.exit = p.child.reap(p.spare)
	p.Stdout.end()
	// The writers of stderr are dead now, but for those that left the group.
	linger, forget = p.clk.after(lingerTime)
	select {
	case <-drained:
	case <-linger:
	}
	forget()
	_ = stderr.Close()
	<-drained
}

// Pid returns the process id, which is its process group's as well.
func (p *Process) Pid() int { return p.child.pid }

// Stop sends TERM to the process group, and KILL after the grace. It doesn't
// wait for the end, may be called at any time and more than once.
func (p *Process) Stop() {
	p.stopOnce.Do(func() {
		close(p.stopped)
		p.attendNow(young)
	})
}

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
