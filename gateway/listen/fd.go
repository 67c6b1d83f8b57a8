package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// listenFD takes over an inherited listening socket. The number comes from a
// person, so nothing is done to a descriptor before it is known to be one:
// closing the wrong one would take away a socket of ours, or the runtime's.
func listenFD(number string) (net.Listener, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 3 {
		return nil, fmt.Errorf("listen: fd://%s: write the number of an inherited descriptor, 3 or higher", number)
	}
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0)
	if err != nil {
		return nil, fmt.Errorf("listen: fd://%d: no such descriptor was inherited; check what the parent process passes on (%w)", n, err)
	}
	if flags&unix.FD_CLOEXEC != 0 {
		// It would not have survived exec: this process opened it itself.
		return nil, fmt.Errorf("listen: fd://%d: the descriptor was not inherited; check what the parent process passes on", n)
	}
	accepts, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && accepts == 0 {
		err = errors.New("it is not listening")
	}
	if err != nil {
		return nil, fmt.Errorf("listen: fd://%d is not a listening socket; check what the parent process passes on (%w)", n, err)
	}
	f := os.NewFile(uintptr(n), "fd://"+number)
	l, err := net.FileListener(f)
	// FileListener works on a copy that children don't inherit.
	if cerr := f.Close(); err == nil && cerr != nil {
		_ = l.Close()
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("listen: fd://%d: %w", n, err)
	}
	return l, nil
}
