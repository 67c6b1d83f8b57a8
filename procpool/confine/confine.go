// Package confine is what a process may not do, and the stage of its start
// that takes the rights away.
//
// Go can have a new process change its user before it executes a program, but
// neither its umask, niceness or resource limits nor what the kernel's Landlock
// lets it open. So a confined process starts in two steps: the gateway's own
// file is executed under the name Name, sets itself up as it was told on its
// command line, and executes the program. Process number, process group and
// descriptors stay what they are.
//
// The stage runs in this package's init, not in main, because Go initialises
// packages in the order of their import paths: what a gateway has to set up for
// itself (its command line, regular expressions, TLS) is not waited for by each
// CGI script. For that reason the package imports little.
package confine

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Confinement is what a process may not do. Each zero field leaves things as
// they are with the gateway. A protection that can't be had is an error of the
// start: nothing runs with less than was asked for.
type Confinement struct {
	// Account runs the process as another user. Only as root. Nil means the
	// gateway's own.
	Account *Account
	// Umask is the mode bits that new files don't get. Nil means the
	// gateway's own.
	Umask *uint32
	// Nice is added to the niceness.
	Nice int
	// CPUs are the processors that the process may run on, by the kernel's
	// numbers from 0. Empty means the gateway's own.
	CPUs []int
	// Rlimits are soft and hard limits, by a name of RlimitNames.
	Rlimits map[string]uint64
	// Chroot is the folder that the process takes for /. All paths of its
	// command, and of Landlock and Readable, are taken inside of it. Only as
	// root. "" means none.
	Chroot string
	// NoNewPrivileges keeps set-user-id programs from giving rights
	// (PR_SET_NO_NEW_PRIVS). Landlock sets it too.
	NoNewPrivileges bool
	// Landlock says which files can be opened; nil means any.
	Landlock *Landlock
	// Readable are files and folders without which there is no point in
	// starting. That one of them can't be opened by the process, by another
	// user's rights or Landlock's rules, is an error that names it. They are
	// looked at only when the user changes or with Landlock.
	Readable []string
}

// Inside returns the path by which the process will know what is at path outside
// of Chroot. What isn't inside, and everything without Chroot, stays as it is. A
// nil Confinement is none.
func (c *Confinement) Inside(path string) string {
	if c == nil || c.Chroot == "" {
		return path
	}
	root := strings.TrimSuffix(c.Chroot, "/")
	switch {
	case path == root:
		return "/"
	case strings.HasPrefix(path, root+"/"):
		return path[len(root):]
	}
	return path
}

// Account is whom a process runs as.
type Account struct {
	// Name stands in errors.
	Name     string
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
}

// Landlock are the files that a process can open, beside those that nearly
// every program needs (/usr, /etc and the like, and /dev/null and its like). A
// folder stands for all below it.
type Landlock struct {
	// ReadOnly may be read and executed.
	ReadOnly []string
	// Writable may be written, made and removed as well.
	Writable []string
}

// Unlimited is the value of a limit that is none.
const Unlimited = uint64(math.MaxUint64)

// rlimits are the resources of setrlimit(2) that make sense for an application.
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "stack": unix.RLIMIT_STACK,
}

// RlimitNames returns the names of Confinement.Rlimits, sorted.
func RlimitNames() []string { return slices.Sorted(maps.Keys(rlimits)) }

// CPUs returns the numbers of the processors that this process may run on.
func CPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("confine: the processors of the gateway: %w", err)
	}
	numbers := make([]int, 0, set.Count())
	for n := 0; len(numbers) < cap(numbers); n++ {
		if set.IsSet(n) {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// HardLimit is the most that a limit can be raised to without CAP_SYS_RESOURCE.
func HardLimit(name string) (uint64, error) {
	resource, ok := rlimits[name]
	if !ok {
		return 0, fmt.Errorf("confine: no resource limit is called %q", name)
	}
	var limit unix.Rlimit
	err := unix.Prlimit(0, resource, nil, &limit)
	return limit.Max, err
}

// Capable reports whether this process has a capability, as
// unix.CAP_SYS_CHROOT. Root may lack some, in a container.
func Capable(capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
