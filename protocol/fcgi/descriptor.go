package fcgi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"syscall"

	"gatecrew/protocol"
)

// descriptors are the ones that came with the bytes of a connection and that
// no FILE record has taken yet. The kernel ends a read behind the bytes that a
// message with descriptors consists of, so that there is never more than one
// from a worker that keeps to the protocol; the record that it belongs to is
// the next one.
type descriptors struct {
	oob  []byte // for the control messages of one read
	fd   int
	held bool
	lost bool // the process had no number free for the last one
}

// receiveFiles has the read loop receive descriptors from here on, if the
// socket can bring any. It is called by the read loop.
func (c *Conn) receiveFiles() {
	if unix, ok := c.nc.(*net.UnixConn); ok {
		c.reader.unix = unix
		c.reader.descriptors.oob = make([]byte, syscall.CmsgSpace(4))
	}
}

// read reads from a Unix socket as nc.Read does, descriptors included.
func (d *descriptors) read(nc *net.UnixConn, p []byte) (int, error) {
	n, oobn, flags, _, err := nc.ReadMsgUnix(p, d.oob)
	if oobn > 0 || flags&syscall.MSG_CTRUNC != 0 {
		if bad := d.take(d.oob[:oobn], flags); bad != nil {
			return 0, bad
		}
	}
	return max(n, 0), err // it is -1 with an error
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
	switch {
	case err == nil && len(all) == 1 && !d.held && !d.lost && flags&syscall.MSG_CTRUNC == 0:
		d.fd, d.held = all[0], true
		return nil
	case err == nil && len(all) == 0 && !d.held && !d.lost:
		d.lost = true // cut off though there was room for one
		return nil
	}
	for _, fd := range all {
		_ = syscall.Close(fd)
	}
	return violation{errors.New("fcgi: file: more descriptors than records that take one")}
}

// close closes the one that nobody has taken.
func (d *descriptors) close() {
	if d.held {
		_ = syscall.Close(d.fd)
	}
	d.held, d.lost = false, false
}

// unused reports whether there is one that the record which begins with rest,
// what is left of the bytes that have come, can't take.
func (d *descriptors) unused(rest []byte) bool {
	return (d.held || d.lost) && (len(rest) == 0 || len(rest) > 1 && recordType(rest[1]) != typeFile)
}

var (
	errNoDescriptor = violation{errors.New("fcgi: file: record without a descriptor")}
	errUnused       = violation{errors.New("fcgi: file: descriptor without a record that takes it")}
)

// file takes the content of a FILE record, for s unless it is nil.
func (c *Conn) file(s *Stream, p []byte) error {
	d := &c.reader.descriptors
	offset, length := binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])
	switch {
	case !d.held && !d.lost:
		return errNoDescriptor
	case offset > math.MaxInt64 || length > math.MaxInt64-offset:
		return violation{fmt.Errorf("fcgi: file: %d bytes from %d on", length, offset)}
	case s == nil:
		d.close()
		return nil
	case d.lost:
		d.lost = false
		return s.append(nil, &protocol.Error{Kind: protocol.Unavailable,
			Err: errors.New("fcgi: file: the gateway has no file descriptor left (ulimit -n, or LimitNOFILE of its unit)")})
	}
	d.held = false
	f, err := openedFile(d.fd, int64(offset), int64(length))
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
