package procpool

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// GuardSocket has the guard remove the file of a listening Unix socket when the
// program ends without doing so. It removes that very file, and nothing that has
// taken its name since. Release ends that.
func GuardSocket(path string) (release func(), err error) {
	id, err := socketID(path)
	if err != nil {
		return nil, fmt.Errorf("procpool: socket to be removed: %w", err)
	}
	if err := guards.ensure(); err != nil {
		return nil, err
	}
	entry := "socket " + id + " " + strconv.Quote(path)
	guards.add(entry)
	return func() { guards.remove(entry) }, nil
}

// socketID names a file for ever: device, inode and the time it was made, as
// inodes are used again at once.
func socketID(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return "", &os.PathError{Op: "lstat", Path: path, Err: unix.ENOTSOCK}
	}
	return fmt.Sprintf("%d:%d:%d.%d", st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec), nil
}

// removeSocket is the guard's part. Another gateway may be replacing the file at
// this moment, so that the file is first taken aside and then looked at: what
// turns out to be somebody else's is put back.
func removeSocket(entry string) {
	id, quoted, _ := strings.Cut(entry, " ")
	path, err := strconv.Unquote(quoted)
	if err != nil {
		return
	}
	if now, err := socketID(path); err != nil || now != id {
		return
	}
	aside := path + "." + strconv.Itoa(os.Getpid())
	if os.Rename(path, aside) != nil {
		return
	}
	if now, err := socketID(aside); err == nil && now != id {
		_ = unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
		return
	}
	_ = os.Remove(aside)
}
