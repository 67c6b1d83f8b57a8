package http1

import "net"

// begun is what was read of a connection before it came to net/http.
type begun struct{ read []byte }

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

// begunTCP and begunUnix are two, so that each has the methods of its socket:
// net/http uses sendfile(2) with what has them.
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

// NetConn is the connection itself, as tls.Conn has it.
func (c *begunTCP) NetConn() net.Conn { return c.TCPConn }

type begunUnix struct {
	*net.UnixConn
	begun
}

func (c *begunUnix) Read(p []byte) (int, error) {
	if n, ok := c.take(p); ok {
		return n, nil
	}
	return c.UnixConn.Read(p)
}

// NetConn is the connection itself, as tls.Conn has it.
func (c *begunUnix) NetConn() net.Conn { return c.UnixConn }
