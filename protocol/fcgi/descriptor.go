package fcgi

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"syscall"

	"gatecrew/protocol"
	"gatecrew/protocol/nonblock"
)

// descriptors are the ones that came with the bytes of a connection and that
// no FILE record has taken yet. The kernel ends a read behind the bytes that a
// message with descriptors consists of. So a read brings no more than one from a
// worker that keeps to the protocol, which belongs to the last record that
// begins in it; the one before may belong to the record that the read goes on with.
type descriptors struct {
	oob     []byte // for the control messages of one read
	waiting []int  // in their order; lost is one that there was no number for
}

const lost = -1

// receiveFiles has the read loop receive descriptors from here on, if the
// socket can bring any. It is called by the read loop.
func (c *Conn) receiveFiles() {
	if _, ok := c.nc.(*net.UnixConn); ok {
		c.reader.files = true
		c.reader.descriptors.oob = make([]byte, syscall.CmsgSpace(4))
	}
}

// read reads from a Unix socket, descriptors included.
func (d *descriptors) read(socket *nonblock.Socket, p []byte) (int, error) {
	n, oobn, flags, err := socket.ReadMessage(p, d.oob)
	if oobn > 0 || flags&syscall.MSG_CTRUNC != 0 {
		if bad := d.take(d.oob[:oobn], flags); bad != nil {
			return 0, bad
		}
	}
	return n, err
}

// take keeps the one descriptor that control messages may bring.
func (d *descriptors) take(oob []byte, flags int) error {
	var all []int
	messages, err := syscall.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, rightsErr := syscall.ParseUnixRights(&messages[i])
		all = append(all, fds...)
		err = errors.Join(err, rightsErr)
	}
	if len(all) == 0 {
		all = []int{lost} // cut off though there was room for one
	} else if flags&syscall.MSG_CTRUNC != 0 {
		all = append(all, lost)
	}
	d.waiting = append(d.waiting, all...)
	if err != nil || len(all) > 1 {
		return violation{errors.New("fcgi: file: more than one descriptor in a message")}
	}
	return nil
}

// next takes the oldest one; ok is false when there is none.
func (d *descriptors) next() (fd int, ok bool) {
	if len(d.waiting) == 0 {
		return 0, false
	}
	fd = d.waiting[0]
	d.waiting = append(d.waiting[:0], d.waiting[1:]...)
	return fd, true
}

// close closes those that nobody has taken.
func (d *descriptors) close() {
	for fd, ok := d.next(); ok; fd, ok = d.next() {
		closeDescriptor(fd)
	}
}

func closeDescriptor(fd int) {
	if fd != lost {
		_ = syscall.Close(fd)
	}
}

// unused reports whether there is one that no record can take: neither the one
// that is being read, if inFile says that it is a FILE record, nor the one that
// begins with b, which is what is left of the bytes that have come.
func (d *descriptors) unused(b []byte, inFile bool) bool {
	switch len(d.waiting) {
	case 0:
		return false
	case 1:
		return !inFile && (len(b) == 0 || len(b) > 1 && recordType(b[1]) != typeFile)
	}
	return true
}

var (
	errNoDescriptor = violation{errors.New("fcgi: file: record without a descriptor")}
	errUnused       = violation{errors.New("fcgi: file: descriptor without a record that takes it")}
)

// file takes the content of a FILE record, for s unless it is nil.
func (c *Conn) file(s *Stream, p []byte) error {
	fd, ok := c.reader.descriptors.next()
	offset, length := parseFile(p)
	switch {
	case !ok:
		return errNoDescriptor
	case offset > math.MaxInt64 || length > math.MaxInt64-offset:
		closeDescriptor(fd)
		return violation{fmt.Errorf("fcgi: file: %d bytes from %d on", length, offset)}
	case s == nil:
		closeDescriptor(fd)
		return nil
	case fd == lost:
		return s.append(nil, &protocol.Error{Kind: protocol.Unavailable,
			Err: errors.New("fcgi: file: the gateway has no file descriptor left (ulimit -n, or LimitNOFILE of its unit)")})
	}
	f, err := openedFile(fd, int64(offset), int64(length))
	return s.append(f, err)
}

// openedFile makes a file of a descriptor, which is closed when it isn't one
// that so much can be read of.
func openedFile(fd int, offset, length int64) (*protocol.File, *protocol.Error) {
	if why := unreadable(fd, offset, length); why != nil {
		_ = syscall.Close(fd)
		return nil, &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf("fcgi: file: %w", why)}
	}
	return &protocol.File{File: os.NewFile(uintptr(fd), "a worker's file"), Offset: offset, Length: length}, nil
}

func unreadable(fd int, offset, length int64) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	const path = 0x200000 // O_PATH
	switch {
	case errno != 0:
		return errno
	case st.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return errors.New("the descriptor is not of a regular file")
	case flags&syscall.O_ACCMODE == syscall.O_WRONLY || flags&path != 0:
		return errors.New("the descriptor is not open for reading")
	case offset+length > st.Size:
		return fmt.Errorf("%d bytes from %d on of a file with %d", length, offset, st.Size)
	}
	return nil
}
