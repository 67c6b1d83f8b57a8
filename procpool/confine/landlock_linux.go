package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// needed are the files that nearly every program reads. Name resolution keeps
// what it knows in a folder of systemd's or resolvconf's.
var needed = []string{
	"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc", "/proc", "/sys",
	"/nix/store", "/gnu/store", "/run/systemd/resolve", "/run/resolvconf",
}

// neededDevices are also written, as there is nothing in them to protect.
var neededDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// The rights to a file or folder, landlock(7), which is what has to be given
// for it once the rules are in force.
const (
	landlockRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM

	landlockDevice = unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// landlockNever is given to nobody: to make devices.
	landlockNever = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK

	landlockAll = landlockRead | landlockWrite | landlockDevice | landlockNever

	// landlockFile are those that a single file can have.
	landlockFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// LandlockError says why the kernel can't restrict which files are opened; nil
// when it can.
func LandlockError() error {
	_, err := landlockVersion()
	return err
}

func landlockVersion() (int, error) {
	version, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(version), nil
	case unix.EOPNOTSUPP:
		return 0, fmt.Errorf("the kernel's landlock is switched off (its parameter lsm= has to name it): %w", errno)
	case unix.ENOSYS:
		return 0, fmt.Errorf("the kernel has no landlock (Linux 5.13 with CONFIG_SECURITY_LANDLOCK does): %w", errno)
	}
	return 0, fmt.Errorf("the kernel doesn't answer for landlock: %w", errno)
}

// landlockKnown are the rights that a kernel's version of Landlock knows. One
// that it doesn't know can't be taken away, but for LANDLOCK_ACCESS_FS_REFER, to
// move a file to another folder, which the first version takes from everybody.
func landlockKnown(version int) uint64 {
	known := uint64(landlockAll)
	if version < 5 { // Linux 6.10
		known &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version < 3 { // Linux 6.2
		known &^= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version < 2 { // Linux 5.19
		known &^= unix.LANDLOCK_ACCESS_FS_REFER
	}
	return known
}

// restrict puts the rules in force for this thread, for good, and for what it
// executes. The library go-landlock does it for all threads, for which it needs
// /proc: docs/decisions/0014-confinement.md.
func (l *Landlock) restrict() error {
	version, err := landlockVersion()
	if err != nil {
		return at("restrict files", "", err)
	}
	// Only the first field: the others came with later versions.
	attr := unix.LandlockRulesetAttr{Handled_access_fs: landlockKnown(version)}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return at("make the landlock rules", "", errno)
	}
	ruleset := int(fd)
	defer unix.Close(ruleset)

	for _, rule := range []struct {
		paths    []string
		rights   uint64
		optional bool
	}{
		{needed, landlockRead, true},
		{neededDevices, landlockRead | landlockWrite | landlockDevice, true},
		{l.ReadOnly, landlockRead, false},
		// A file that the application wrote it may execute as well: it
		// could have its interpreter read it.
		{l.Writable, landlockRead | landlockWrite, false},
	} {
		for _, path := range rule.paths {
			err := allow(ruleset, path, rule.rights&attr.Handled_access_fs)
			if err != nil && !(rule.optional && errors.Is(err, unix.ENOENT)) {
				return at("add to the landlock rules", path, err)
			}
		}
	}
	// Else it takes CAP_SYS_ADMIN: a set-user-id program would be surprised.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return at("set no_new_privs", "", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return at("put the landlock rules in force", "", errno)
	}
	return nil
}

// allow gives rights to a file, or to a folder and all below it.
func allow(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= landlockFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
