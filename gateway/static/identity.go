package static

import (
	"io/fs"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity tells a file from every other one, and from itself before a change:
// whatever is done to a file sets the time of its change, which no program can
// choose. The zero value is that of a file that can't be found.
type identity struct {
	device, inode     uint64
	size              int64
	modified, changed int64 // ns since 1970
	mode              uint32
}

func identityOf(info fs.FileInfo) identity {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}
	}
	return identity{device: uint64(st.Dev), inode: st.Ino, size: st.Size, mode: st.Mode,
		modified: st.Mtim.Nano(), changed: st.Ctim.Nano()}
}

// regular reports whether it is a file that could be served.
func (i identity) regular() bool { return i.mode&unix.S_IFMT == unix.S_IFREG }

// settled is how long ago a file must have changed for its identity to be relied
// upon. Many file systems note the time in steps, of some milliseconds most
// often and of two seconds at worst: what changes again within one keeps its
// identity.
const settled = 2 * time.Second

// settledAt reports whether a change at or after now would be seen.
func (i identity) settledAt(now time.Time) bool {
	return i == identity{} || i.changed <= now.Add(-settled).UnixNano()
}

// glance is one look at the disk, with the memory that it needs.
type glance struct {
	path  []byte
	stat  unix.Statx_t
	errno syscall.Errno
	look  func(dir uintptr) // calls statx; made once, as making it allocates
}

var glances = sync.Pool{New: func() any {
	g := &glance{}
	g.look = g.statx
	return g
}}

// statx is the system call by itself, since unix.Statx would copy the path.
func (g *glance) statx(dir uintptr) {
	_, _, g.errno = unix.Syscall6(unix.SYS_STATX, dir, uintptr(unsafe.Pointer(&g.path[0])),
		unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&g.stat)), 0)
}

// identity looks at the file of a path below the root, which ends with NUL. It
// opens nothing, and follows links wherever they lead: what is there is compared
// with what was found without leaving the root, and never read.
func (f *Files) identity(path []byte) (found identity) {
	g := glances.Get().(*glance)
	g.path = path
	if err := f.dir.Control(g.look); err == nil && g.errno == 0 {
		s := &g.stat
		found = identity{device: unix.Mkdev(s.Dev_major, s.Dev_minor), inode: s.Ino, size: int64(s.Size), mode: uint32(s.Mode),
			modified: nanoseconds(s.Mtime), changed: nanoseconds(s.Ctime)}
	}
	g.path = nil
	glances.Put(g)
	return found
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
