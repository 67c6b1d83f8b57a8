// Package nonblock writes to sockets without waiting for them.
package nonblock

import (
	"net"
	"syscall"
)

// Writer writes to one socket what that takes at once: it costs no deadline, and
// tells how much the socket took. One goroutine writes at a time.
type Writer struct {
	raw  syscall.RawConn
	step func(fd uintptr) bool
	p    []byte
	n    int
	err  error
}

// NewWriter knows the sockets whose Write is nothing but the system call; for
// every other net.Conn it returns nil.
func NewWriter(nc net.Conn) *Writer {
	var sc syscall.Conn
	switch nc := nc.(type) {
	case *net.UnixConn:
		sc = nc
	case *net.TCPConn:
		sc = nc
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &Writer{raw: raw}
	w.step = func(fd uintptr) bool {
		for w.n < len(w.p) {
			n, err := syscall.Write(int(fd), w.p[w.n:])
			switch err {
			case nil:
				w.n += n
			case syscall.EINTR:
			case syscall.EAGAIN:
				return true
			default:
				w.err = err
				return true
			}
		}
		return true
	}
	return w
}

// Write returns how many bytes of p the socket took. It is no error that these are
// not all of them.
func (w *Writer) Write(p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := w.raw.Write(w.step)
	w.p = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}
