package procpool

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stdout is the read end of a program's standard output. It is at its end when
// every writer closed it, or when the program has ended and what was in the
// pipe has been read: a process that was left behind can't keep it open.
type Stdout struct {
	f       *os.File
	process *Process
	eof     chan struct{} // closed when Read saw the end, or Close was called

	eofOnce sync.Once
	wide    bool // the pipe has its size for long outputs; the reader's

	// mu orders the caller's deadlines with those that end and hurry set.
	mu        sync.Mutex
	ended     bool
	gathering bool
	hurried   bool
}

// Read reads from the pipe. It is for one goroutine at a time.
func (s *Stdout) Read(b []byte) (int, error) {
	n, err := s.f.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) && s.hasEnded() {
		n, err = s.readRest(b)
	}
	if n >= muchOutput && !s.wide {
		s.wide = true
		s.widen()
	}
	if err == io.EOF {
		s.eofOnce.Do(func() {
			close(s.eof)
			s.process.settle()
		})
	}
	return n, err
}

// muchOutput is how much a program must have written ahead of its reader for its
// pipe to be made one of widePipe bytes: then either writes and reads more at a
// time, and waits less often for the other.
const (
	muchOutput = 32 << 10
	widePipe   = 256 << 10
)

// widen makes the pipe larger. The kernel may refuse that to a user who has many
// (pipe(7), "/proc/sys/fs/pipe-user-pages-soft").
func (s *Stdout) widen() {
	if raw, err := s.f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, widePipe) })
	}
}

// Gather is Read, but takes its time: as long as the program is young, a few
// milliseconds, it waits for more until b is full or the output has ended. So the
// whole answer of a program that soon ends comes at once, with io.EOF. No
// deadline may be set meanwhile.
func (s *Stdout) Gather(b []byte) (int, error) {
	n, err := s.Read(b)
	for err == nil && n < len(b) && s.process.isYoung() {
		var more int
		more, err = s.readYoung(b[n:])
		n += more
	}
	return n, err
}

// readYoung is Read, but ends without an error when the program isn't young any more.
func (s *Stdout) readYoung(b []byte) (n int, err error) {
	s.mu.Lock()
	s.gathering = true
	s.mu.Unlock()
	if s.process.isYoung() { // else hurry may have come before
		n, err = s.Read(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering = false
	if s.hurried {
		s.hurried = false
		if !s.ended {
			_ = s.f.SetReadDeadline(time.Time{})
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
	}
	return n, err
}

// hurry ends the patience of Gather.
func (s *Stdout) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gathering && !s.ended {
		s.hurried = true
		_ = s.f.SetReadDeadline(time.Unix(1, 0))
	}
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
