package listen

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// serveBounded serves handler with a Conns, and returns where.
func serveBounded(t *testing.T, addr string, limit int, patience time.Duration, handler http.HandlerFunc) net.Listener {
	t.Helper()
	l, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	conns := NewConns(limit, patience)
	server := &http.Server{Handler: handler, ConnState: conns.State}
	done := make(chan error, 1)
	go func() { done <- server.Serve(conns.Listener(l)) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		conns.Close()
	})
	return l
}

func ask(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStalledClientIsCutOff(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "s")} {
		gaveUp := make(chan struct{}, 8)
		l := serveBounded(t, addr, 10, 300*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
			chunk := make([]byte, 64<<10)
			for range 4 << 10 { // 256 MiB, more than any kernel's buffers
				if _, err := w.Write(chunk); err != nil {
					gaveUp <- struct{}{}
					return
				}
			}
		})
		ask(t, l) // and read nothing
		slow := ask(t, l)
		stop := time.Now().Add(1500 * time.Millisecond)
		buf := make([]byte, 256<<10)
		for time.Now().Before(stop) { // slow, but never still
			if _, err := slow.Read(buf); err != nil {
				t.Fatalf("%s: the slow client was cut off too: %v", addr, err)
			}
			time.Sleep(10 * time.Millisecond) // the client's pace, not the server's policy
		}
		select {
		case <-gaveUp:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the client that reads nothing still holds its connection", addr)
		}
	}
}

// TestQuickClientOfAUnixSocket takes what it gets so quickly that whoever looks
// now and then sees the same number of bytes left, all that there is room for.
func TestQuickClientOfAUnixSocket(t *testing.T) {
	l, err := Listen("unix:" + filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	const patience = time.Hour
	conns := NewConns(1, patience)
	defer conns.Close()
	l = conns.Listener(l)
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conns.State(server, http.StateNew)
	chunk := make([]byte, 8<<10)
	fill := func() {
		_ = server.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		for err == nil {
			_, err = server.Write(chunk)
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the quick client was cut off: %v", err)
		}
		err = nil
	}
	now := time.Now()
	for range 12 {
		fill()
		conns.check(now)
		now = now.Add(patience / 4)
		if _, err := io.ReadFull(client, chunk); err != nil {
			t.Fatalf("the quick client was cut off: %v", err)
		}
	}
	fill()
	for range 6 { // from here on it takes nothing
		conns.check(now)
		now = now.Add(patience / 4)
	}
	if _, err := server.Write(chunk); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a client that stands still was not cut off: %v", err)
	}
}

func TestIdleClientIsNoStalledOne(t *testing.T) {
	l := serveBounded(t, "127.0.0.1:0", 10, 50*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {})
	c := ask(t, l)
	buf := make([]byte, 4096)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(buf); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("an idle connection ended: %v", err)
	}
}

func TestNoMoreConnectionsThanAllowed(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 8)
	l := serveBounded(t, "127.0.0.1:0", 2, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
	})
	first := ask(t, l)
	ask(t, l)
	<-entered
	<-entered
	third := ask(t, l)
	select {
	case <-entered:
		t.Fatal("a third connection was accepted beside two")
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	if _, err := first.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := third.Read(make([]byte, 4096)); err != nil {
		t.Errorf("the third connection was not served when there was a place again: %v", err)
	}
}

// TestStalledTLSClientIsCutOff: what is watched is the connection beneath, with
// HTTP/1 and HTTP/2.
func TestStalledTLSClientIsCutOff(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	for _, proto := range []string{"http/1.1", "h2"} {
		gaveUp := make(chan struct{}, 8)
		l, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conns := NewConns(10, 300*time.Millisecond)
		server := &http.Server{ConnState: conns.State, TLSConfig: &tls.Config{Certificates: certified.TLS.Certificates},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				chunk := make([]byte, 64<<10)
				for range 4 << 10 { // 256 MiB, more than any kernel's buffers
					if _, err := w.Write(chunk); err != nil {
						gaveUp <- struct{}{}
						return
					}
				}
			})}
		done := make(chan error, 1)
		go func() { done <- server.ServeTLS(conns.Listener(l), "", "") }()
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
		if err != nil {
			t.Fatal(err)
		}
		request := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		if proto == "h2" { // SETTINGS with the largest window for streams, one for the connection, a GET
			request = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x06\x04\x00\x00\x00\x00\x00" + "\x00\x04\x7f\xff\xff\xff" +
				"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + "\x7f\xff\x00\x00" + "\x00\x00\x03\x01\x05\x00\x00\x00\x01" + "\x82\x84\x87"
		}
		if _, err := io.WriteString(c, request); err != nil { // and read nothing
			t.Fatal(err)
		}
		select {
		case <-gaveUp:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the client that reads nothing still holds its connection", proto)
		}
		c.Close()
		server.Close()
		<-done
		conns.Close()
	}
}
