package nonblock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair is the two ends of a connection.
func pair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func both(t *testing.T, test func(t *testing.T, socket *Socket, mine, peer net.Conn)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			mine, peer := pair(t, network)
			socket := New(mine)
			if socket == nil {
				t.Fatal("not known")
			}
			test(t, socket, mine, peer)
		})
	}
}

func TestOtherConns(t *testing.T) {
	a, _ := net.Pipe()
	if New(a) != nil || New(struct{ net.Conn }{a}) != nil {
		t.Error("a connection without a descriptor of its own is taken for a socket")
	}
}

func TestRead(t *testing.T) {
	both(t, func(t *testing.T, socket *Socket, mine, peer net.Conn) {
		got := make(chan error, 1)
		buf := make([]byte, 10)
		go func() { // it waits
			_, err := io.ReadFull(readerFunc(socket.Read), buf[:6])
			got <- err
		}()
		peer.Write([]byte("abc"))
		peer.Write([]byte("def"))
		if err := <-got; err != nil || string(buf[:6]) != "abcdef" {
			t.Fatalf("%q, %v", buf[:6], err)
		}
		mine.SetReadDeadline(time.Unix(1, 0))
		if n, err := socket.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("deadline: %d, %v", n, err)
		}
		mine.SetReadDeadline(time.Time{})
		if n, err := socket.Read(nil); n != 0 || err != nil {
			t.Errorf("of nothing: %d, %v", n, err)
		}
		peer.Write([]byte("last"))
		peer.Close()
		if n, err := socket.Read(buf); string(buf[:n]) != "last" || err != nil {
			t.Errorf("last: %q, %v", buf[:n], err)
		}
		for range 2 {
			if n, err := socket.Read(buf); n != 0 || err != io.EOF {
				t.Errorf("end: %d, %v", n, err)
			}
		}
		mine.Close()
		if _, err := socket.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

func TestReset(t *testing.T) {
	mine, peer := pair(t, "tcp")
	socket := New(mine)
	peer.(*net.TCPConn).SetLinger(0)
	peer.Close()
	if n, err := socket.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %d, %v", n, err)
	}
	if n, err := socket.Write([]byte("x")); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %d, %v", n, err)
	}
}

// What the socket doesn't take at once is left, be it in one large call or many.
func TestWrite(t *testing.T) {
	both(t, func(t *testing.T, socket *Socket, mine, peer net.Conn) {
		whole := bytes.Repeat([]byte("0123456789abcde\n"), 1<<20)
		for _, size := range []int{1000, MaxUntold, len(whole)} {
			sent := 0
			for {
				n, err := socket.Write(whole[:size])
				if err != nil {
					t.Fatal(err)
				}
				if sent += n; n < size {
					break
				}
			}
			if n, err := socket.Write(whole[:1]); n > 1 || err != nil {
				t.Errorf("full: %d, %v", n, err)
			} else {
				sent += n
			}
			if _, err := io.CopyN(io.Discard, peer, int64(sent)); err != nil {
				t.Fatal(err)
			}
		}
		go mine.Write([]byte("behind"))
		b := make([]byte, 6)
		if _, err := io.ReadFull(peer, b); string(b) != "behind" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestDescriptors(t *testing.T) {
	mine, peer := pair(t, "unix")
	socket := New(mine)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rights := syscall.UnixRights(int(null.Fd()))
	if _, _, err := peer.(*net.UnixConn).WriteMsgUnix([]byte("with"), rights, nil); err != nil {
		t.Fatal(err)
	}
	p, oob := make([]byte, 10), make([]byte, syscall.CmsgSpace(4))
	n, oobn, flags, err := socket.ReadMessage(p, oob)
	if string(p[:n]) != "with" || flags&syscall.MSG_CTRUNC != 0 || err != nil {
		t.Fatalf("%q, flags %x, %v", p[:n], flags, err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	defer syscall.Close(fds[0])
	if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Error("the descriptor is inherited by every process that is started")
	}
	peer.Write([]byte("without"))
	if n, oobn, _, err := socket.ReadMessage(p, oob); string(p[:n]) != "without" || oobn != 0 || err != nil {
		t.Errorf("%q, %d, %v", p[:n], oobn, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
