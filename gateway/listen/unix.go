package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatecrew/procpool"
)

const (
	// socketMode lets the owner and the group connect, such as the front
	// server in the group of the gateway.
	socketMode = 0o660
	// probeTimeout bounds the question whether somebody accepts on a socket.
	probeTimeout = time.Second
	// claimTimeout bounds the wait for another process that is starting on
	// the same socket; it holds the claim for about as long as a probe.
	claimTimeout = 3 * time.Second
)

// maxPath is what fits into sockaddr_un with its final NUL.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// unixListener removes its socket at Close, if it is still its own. The guard
// does when the process is killed.
type unixListener struct {
	*net.UnixListener
	path    string
	inode   fs.FileInfo
	release func() // from the guard
	close   sync.Once
}

func listenUnix(path string) (net.Listener, error) {
	if path == "" || path[0] == '@' {
		return nil, fmt.Errorf("listen: unix:%s: write unix: and the path of the socket", path)
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen: unix:%s: the path has %d bytes, and a socket's may have %d; choose a shorter one", path, len(path), maxPath)
	}
	release, err := claim(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		err := c.Control(func(fd uintptr) { modeErr = narrow(fd) })
		return errors.Join(err, modeErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: unix:%s: %w", path, err)
	}
	ul := &unixListener{UnixListener: l.(*net.UnixListener), path: path}
	ul.SetUnlinkOnClose(false) // it would remove whatever has the name by then
	// Only adds what the umask took away.
	if err := os.Chmod(path, socketMode); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, fmt.Errorf("listen: %w", err)
	}
	if ul.inode, err = os.Lstat(path); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	if ul.release, err = procpool.GuardSocket(path); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, fmt.Errorf("listen: %w", err)
	}
	return ul, nil
}

// narrow sets the mode that bind gives the socket's file, less the umask.
// Before bind it is never wider than it should be; setting the umask instead
// would change it for every goroutine.
func narrow(fd uintptr) error { return unix.Fchmod(int(fd), socketMode) }

// Close stops listening and removes the socket's name, unless that belongs to
// somebody else by now.
func (l *unixListener) Close() error {
	l.close.Do(func() {
		// Before it is closed: while it still accepts, another process that
		// starts finds it in use and leaves it alone.
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.inode) {
			_ = os.Remove(l.path)
		}
		l.release()
	})
	return l.UnixListener.Close()
}

// removeStale makes way for a new socket at path: a socket on which nobody
// accepts, left by a process that was killed, is removed. Anything else is
// left alone and is an error.
func removeStale(path string) error {
	before, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if before.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen: unix:%s: the path exists and is not a socket, so it is left alone; remove it or choose another with --bind", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		_ = conn.Close()
	}
	// Only a refused connection proves that nobody listens; a full backlog,
	// a time-out or a socket of another type do not.
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("listen: unix:%s: address in use by a running server; stop it or choose another with --bind", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen: unix:%s: a stale socket can't be removed: %w", path, err)
	}
	return nil
}

// claim keeps other gatecrew processes from looking at the same path at the
// same time: between the probe and the removal, one of them could take away
// the socket that the other has just made. The claim is a name in the
// abstract namespace, which goes away with the process and leaves no file.
func claim(path string) (release func(), err error) {
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen: unix:%s: the directory of the socket: %w", path, err)
	}
	st := dir.Sys().(*syscall.Stat_t)
	name := fmt.Sprintf("@gatecrew-listen/%d:%d/%s", st.Dev, st.Ino, filepath.Base(path))
	if len(name) > maxPath {
		name = name[:maxPath] // a shared claim only means a wait
	}
	for deadline := time.Now().Add(claimTimeout); ; time.Sleep(5 * time.Millisecond) {
		l, err := net.Listen("unix", name)
		if err == nil {
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return nil, fmt.Errorf("listen: unix:%s: another process is starting there: %w", path, err)
		}
	}
}
