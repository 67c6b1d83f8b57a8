// Package listen opens the sockets that clients connect to.
//
// Accept errors that pass, such as running out of descriptors, are for the
// accept loop to wait out; net/http's does, from 5 ms to a second.
package listen

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Listen opens the listener that addr names:
//
//	HOST:PORT   TCP; a port of 0 lets the system choose
//	:PORT       TCP on every interface, IPv4 and IPv6
//	unix:PATH   a Unix socket, mode 0660, removed at Close
//	fd://N      a listening socket that was inherited as descriptor N
//
// TCP connections have keep-alive probes, and the backlog is the system's
// maximum (net.core.somaxconn), as always in Go.
//
// The error is for the person who chose addr: it says what is wrong and what
// to do about it.
func Listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(path)
	}
	if n, ok := strings.CutPrefix(addr, "fd://"); ok {
		return listenFD(n)
	}
	return listenTCP(addr)
}

func listenTCP(addr string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("listen: %q is not an address to listen on: write HOST:PORT, :PORT, unix:PATH or fd://N", addr)
	}
	l, err := net.Listen("tcp", addr)
	if err == nil {
		return l, nil
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("listen: %s is in use: another process listens there; choose another address with --bind, or stop that process (%w)", addr, err)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("listen: %s is not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one with --bind (%w)", addr, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen: %s is not an address of this machine; :PORT listens on every interface (%w)", addr, err)
	case errors.As(err, &dns):
		return nil, fmt.Errorf("listen: the host name in %s can't be resolved; use an IP address of this machine, or :PORT for every interface (%w)", addr, err)
	}
	return nil, fmt.Errorf("listen: %s: %w", addr, err)
}

// URL returns how a client on this machine reaches l: a URL for TCP, with
// 127.0.0.1 for a listener on every interface, "unix:PATH" for a Unix socket.
func URL(l net.Listener, tls bool) string {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return l.Addr().Network() + ":" + l.Addr().String()
	}
	u := url.URL{Scheme: "http", Path: "/"}
	if tls {
		u.Scheme = "https"
	}
	host := tcp.IP.String()
	if tcp.IP.IsUnspecified() {
		host = "127.0.0.1" // Go's [::] accepts IPv4 as well
	} else if tcp.Zone != "" {
		host += "%" + tcp.Zone
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	return u.String()
}
