package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// wait is how long a connection may take to open.
const wait = 30 * time.Second

// socket is a client's side of a WebSocket connection that is good for one
// thing: sending the same message again and again and reading it back.
type socket struct {
	net.Conn
	in *bufio.Reader
	*sample
}

// sample is a message, the same for all connections.
type sample struct {
	frame   []byte // as a client sends it, masked
	content []byte
	opcode  byte
}

// message makes the sample: a masking key that is always the same costs
// nothing per message, and the server can't know.
func message(size int, bin bool) *sample {
	const fin, masked = 0x80, 0x80
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	s := &sample{opcode: 1, content: bytes.Repeat([]byte("gatecrew"), size/8+1)[:size]}
	if bin {
		s.opcode = 2
	}
	s.frame = []byte{fin | s.opcode}
	if size < 126 {
		s.frame = append(s.frame, masked|byte(size))
	} else {
		s.frame = binary.BigEndian.AppendUint16(append(s.frame, masked|126), uint16(size))
	}
	s.frame = append(s.frame, key[:]...)
	for i, b := range s.content {
		s.frame = append(s.frame, b^key[i%4])
	}
	return s
}

// dial makes the opening handshake. A loopback address has some 28,000 ports:
// connection number i has one of its own range of 127.0.0.0/8.
func dial(target *url.URL, offer string, i int, s *sample) (*socket, error) {
	d := net.Dialer{Timeout: wait}
	if ip := net.ParseIP(target.Hostname()); ip.IsLoopback() && ip.To4() != nil {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/20_000))}
		// The port is chosen when the other end is known, so that it may be one
		// that another connection uses too.
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			const bindAddressNoPort = 24
			if e := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1) }); e != nil {
				return e
			}
			return err
		}
	}
	conn, err := d.Dial("tcp", target.Host)
	if err != nil {
		return nil, plain(err)
	}
	conn.SetDeadline(time.Now().Add(wait))
	c := &socket{conn, bufio.NewReaderSize(conn, max(512, len(s.frame)+16)), s}
	if err := c.handshake(target, offer); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return c, nil
}

func (c *socket) handshake(target *url.URL, offer string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", target.RequestURI(), target.Host)
	if offer != "" {
		b.WriteString("Sec-WebSocket-Extensions: " + offer + "\r\n")
	}
	if _, err := io.WriteString(c, b.String()+"\r\n"); err != nil {
		return plain(err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return plain(err)
	}
	// The sample handshake of RFC 6455, section 1.3.
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// trip sends the message and waits until it is back.
func (c *socket) trip() error {
	if _, err := c.Write(c.frame); err != nil {
		return plain(err)
	}
	return c.read()
}

// echo makes trips for so long, and tells what each took, in microseconds.
func (c *socket) echo(d time.Duration) (trips []uint32, err error) {
	for end := time.Now().Add(d); ; {
		began := time.Now()
		if began.After(end) {
			return trips, nil
		}
		if err := c.trip(); err != nil {
			return trips, err
		}
		trips = append(trips, uint32(time.Since(began).Microseconds()))
	}
}

// idle answers pings.
func (c *socket) idle() error {
	if err := c.read(); err != nil {
		return err
	}
	return errors.New("a message that nobody asked for")
}

// read reads one message, which must be the sample, uncompressed or not looked
// at, and answers the pings before it.
func (c *socket) read() error {
	for {
		head, err := c.in.Peek(2)
		if err != nil {
			return plain(err)
		}
		first, length, header := head[0], int(head[1]), 2
		switch length {
		case 126:
			header = 4
			if head, err = c.in.Peek(header); err != nil {
				return plain(err)
			}
			length = int(binary.BigEndian.Uint16(head[2:]))
		case 127:
			return errors.New("a frame that is too long")
		}
		frame, err := c.in.Peek(header + length)
		if err != nil {
			return plain(err)
		}
		content := frame[header:]
		const compressed = 0x40
		switch first &^ compressed {
		case 0x80 | c.opcode:
			if first&compressed == 0 && !bytes.Equal(content, c.content) {
				return errors.New("another message came back")
			}
			_, err = c.in.Discard(header + length)
			return err
		case 0x89: // ping: answered with a mask of zeros
			if _, err := c.Write(append([]byte{0x8a, 0x80 | byte(length), 0, 0, 0, 0}, content...)); err != nil {
				return plain(err)
			}
		case 0x8a: // pong
		case 0x88:
			if length < 2 {
				return errors.New("closed without a code")
			}
			return fmt.Errorf("closed: %d %s", binary.BigEndian.Uint16(content), content[2:])
		default:
			return fmt.Errorf("a frame that begins with %#x", first)
		}
		if _, err := c.in.Discard(header + length); err != nil {
			return err
		}
	}
}

// plain takes the addresses out of an error, so that errors can be counted.
func plain(err error) error {
	var call *net.OpError
	if errors.As(err, &call) {
		return fmt.Errorf("%s: %w", call.Op, call.Err)
	}
	return err
}
