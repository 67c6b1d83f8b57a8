// Package nonblock reads from and writes to sockets with system calls of which
// the Go scheduler is not told.
package nonblock

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// Socket reads from one socket, and writes to it what that takes at once. The
// net.Conn that it was made of may be used beside it.
//
// The runtime expects of each system call that it may block: sysmon, its watching
// thread, looks every 20 µs while there are any, and takes the processor away from
// one that it has seen twice, which has another thread woken to poll in its place.
// A call on a socket that doesn't wait is over in less than that, or nearly, so that
// all this is in vain; it has cost more than the calls. These calls are like a
// function's: the processor stays. No such call moves more than MaxUntold bytes.
type Socket struct {
	in, out operation
}

// MaxUntold is how many bytes are moved at most, 20 µs or so of copying, by a system
// call that the scheduler is not told of.
const MaxUntold = 64 << 10

// operation is reading or writing, of which each has one going on at a time.
type operation struct {
	run  func(step func(fd uintptr) bool) error
	step func(fd uintptr) bool
	p    []byte
	oob  []byte // reading: for control messages
	n    int    // bytes of p that were moved
	oobn int    // and of oob
	flag int    // of recvmsg
	err  error
}

// New knows the sockets whose Read and Write are nothing but the system call; for
// every other net.Conn it returns nil.
func New(nc net.Conn) *Socket {
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
	s := &Socket{}
	s.in = operation{run: raw.Read, step: s.in.receive}
	s.out = operation{run: raw.Write, step: s.out.send}
	return s
}

// Read is the net.Conn's: it waits, up to its deadline.
func (s *Socket) Read(p []byte) (int, error) {
	n, _, _, err := s.ReadMessage(p, nil)
	return n, err
}

// ReadMessage is Read with the control messages that come with the bytes, as
// net.UnixConn.ReadMsgUnix has it. Descriptors among them are closed on exec.
func (s *Socket) ReadMessage(p, oob []byte) (n, oobn, flags int, err error) {
	o := &s.in
	o.p, o.oob, o.n, o.oobn, o.flag, o.err = p[:min(len(p), MaxUntold)], oob, 0, 0, 0, nil
	err = o.run(o.step)
	n, oobn, flags = o.n, o.oobn, o.flag
	if err == nil {
		err = o.err
	}
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	o.p, o.oob = nil, nil
	return n, oobn, flags, err
}

func (o *operation) receive(fd uintptr) bool {
	for {
		var n uintptr
		var errno syscall.Errno
		if o.oob == nil {
			n, _, errno = syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(o.p))), uintptr(len(o.p)))
		} else {
			part := syscall.Iovec{Base: unsafe.SliceData(o.p)}
			part.SetLen(len(o.p))
			message := syscall.Msghdr{Iov: &part, Iovlen: 1, Control: unsafe.SliceData(o.oob)}
			message.SetControllen(len(o.oob))
			n, _, errno = syscall.RawSyscall(syscall.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&message)), syscall.MSG_CMSG_CLOEXEC)
			if errno == 0 {
				o.oobn, o.flag = int(message.Controllen), int(message.Flags)
			}
		}
		switch errno {
		case 0:
			o.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			o.err = errno
			return true
		}
	}
}

// Write returns how many bytes of p the socket took without waiting. It is no error
// that these are not all of them. One goroutine writes at a time.
func (s *Socket) Write(p []byte) (int, error) {
	o := &s.out
	o.p, o.n, o.err = p, 0, nil
	err := o.run(o.step)
	o.p = nil
	if err == nil {
		err = o.err
	}
	return o.n, err
}

func (o *operation) send(fd uintptr) bool {
	for o.n < len(o.p) {
		p := o.p[o.n:]
		at, size := unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p))
		var n uintptr
		var errno syscall.Errno
		if size <= MaxUntold {
			n, _, errno = syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(at), size)
		} else {
			n, _, errno = syscall.Syscall(syscall.SYS_WRITE, fd, uintptr(at), size)
		}
		switch errno {
		case 0:
			o.n += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			o.err = errno
			return true
		}
	}
	return true
}
