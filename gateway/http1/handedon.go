package http1

import (
	"io"
	"net"
)

// begun is what was read of a connection before it came to net/http.
type begun struct {
	read  []byte
	taken chan struct{} // closed when net/http knows the connection
}

// arrived is called once.
func (b *begun) arrived() { close(b.taken) }

// take is the next Read; false when that is the socket's.
func (b *begun) take(p []byte) (int, bool) {
	if len(b.read) == 0 {
		return 0, false
	}
	n := copy(p, b.read)
	if b.read = b.read[n:]; len(b.read) == 0 {
		b.read = nil
	}
	return n, true
}

// withBegun is nc with what was read of it.
func withBegun(nc net.Conn, read []byte) (conn net.Conn, taken chan struct{}) {
	b := begun{read, make(chan struct{})}
	switch c := nc.(type) {
	case *net.TCPConn:
		return &begunTCP{c, b}, b.taken
	case halfCloser:
		return &begunHalf{c, b}, b.taken
	}
	return &begunOther{nc, b}, b.taken
}

// begunTCP has the methods of its socket: net/http uses sendfile(2) with what has
// them.
type begunTCP struct {
	*net.TCPConn
	begun
}

func (c *begunTCP) Read(p []byte) (int, error) {
	if n, ok := c.take(p); ok {
		return n, nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo is not the socket's, which knows nothing of what was read.
func (c *begunTCP) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(c.read)
	if c.read = c.read[n:]; err != nil {
		return int64(n), err
	}
	rest, err := c.TCPConn.WriteTo(w)
	return int64(n) + rest, err
}

// NetConn is the connection itself, as tls.Conn has it.
func (c *begunTCP) NetConn() net.Conn { return c.TCPConn }

// halfCloser is a connection whose two directions end one by one, as those of
// Unix sockets.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

type begunHalf struct {
	halfCloser
	begun
}

func (c *begunHalf) Read(p []byte) (int, error) {
	if n, ok := c.take(p); ok {
		return n, nil
	}
	return c.halfCloser.Read(p)
}

// NetConn is the connection itself, as tls.Conn has it.
func (c *begunHalf) NetConn() net.Conn { return c.halfCloser }

// begunOther is any other connection.
type begunOther struct {
	net.Conn
	begun
}

func (c *begunOther) Read(p []byte) (int, error) {
	if n, ok := c.take(p); ok {
		return n, nil
	}
	return c.Conn.Read(p)
}

// NetConn is the connection itself, as tls.Conn has it.
func (c *begunOther) NetConn() net.Conn { return c.Conn }
