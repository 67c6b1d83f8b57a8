package confine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exitFailed is the exit status of a launch that failed, as a shell's is for a
// program that it can't execute.
const exitFailed = 127

func init() {
	if len(os.Args) > 0 && os.Args[0] == Name {
		launch(os.Args[1:])
	}
}

// launch confines this process and makes it the program. It doesn't return.
func launch(args []string) {
	// What follows is partly a matter of the thread: its user, niceness,
	// Landlock rules and parent-death signal are what the program gets.
	runtime.LockOSThread()
	o, err := parseOrders(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "this is a part of gatecrew, and not for use by hand:", err)
		unix.Exit(exitFailed)
	}
	unix.CloseOnExec(o.status)
	err = o.confine()
	if err == nil {
		err = o.become()
	}
	o.report(err)
	// Not os.Exit: a build with the race detector lingers for a second in it.
	unix.Exit(exitFailed)
}

// at says which step, about which path if any, an error came from.
func at(step, path string, err error) error {
	if err == nil {
		return nil
	}
	return &Failure{Step: step, Path: path, Err: err}
}

// confine takes the rights away in the order in which each step still has the
// right to be made: limits are raised, folders are opened and / is changed as
// root. Limits are lowered last, by become, since this program may not be able
// to live with them.
func (o *orders) confine() error {
	if o.Umask != nil {
		unix.Umask(int(*o.Umask))
	}
	steps := []func() error{o.renice, o.pin, o.raise, o.chroot, o.landlock, o.changeUser, o.noNewPrivileges, o.dieWithParent, o.chdir, o.read}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (o *orders) renice() error {
	if o.Nice == 0 {
		return nil
	}
	// The system call returns 20 less the niceness, so as to be positive.
	old, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, 20-old+o.Nice)
	}
	return at(fmt.Sprintf("change niceness by %d", o.Nice), "", err)
}

// pin chooses the processors. The kernel takes those of the list that there are.
func (o *orders) pin() error {
	if len(o.CPUs) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, n := range o.CPUs {
		set.Set(n)
	}
	return at(fmt.Sprintf("run on the processors %v", o.CPUs), "", unix.SchedSetaffinity(0, &set))
}

// raise lifts the hard limits that are to be above the present ones, for which
// the right may be gone later.
func (o *orders) raise() error {
	for name, value := range o.Rlimits {
		var limit unix.Rlimit
		err := unix.Prlimit(0, rlimits[name], nil, &limit)
		if err == nil && value > limit.Max {
			limit.Max = value
			err = unix.Prlimit(0, rlimits[name], &limit, nil)
		}
		if err != nil {
			return at(rlimitStep(name, value), "", err)
		}
	}
	return nil
}

func rlimitStep(name string, value uint64) string {
	if value == Unlimited {
		return "set rlimit " + name + "=unlimited"
	}
	return fmt.Sprintf("set rlimit %s=%d", name, value)
}

func (o *orders) chroot() error {
	if o.Chroot == "" {
		return nil
	}
	err := unix.Chroot(o.Chroot)
	if err == nil {
		err = unix.Chdir("/")
	}
	return at("chroot to", o.Chroot, err)
}

func (o *orders) landlock() error {
	if o.Landlock == nil {
		return nil
	}
	err := o.Landlock.restrict()
	o.landlocked = err == nil
	return err
}

func (o *orders) changeUser() error {
	a := o.Account
	if a == nil {
		return nil
	}
	groups := make([]int, len(a.Groups))
	for i, g := range a.Groups {
		groups[i] = int(g)
	}
	err := syscall.Setgroups(groups)
	if err == nil {
		err = syscall.Setgid(int(a.GID))
	}
	if err == nil {
		err = syscall.Setuid(int(a.UID))
	}
	return at("become user "+a.Name, "", err)
}

func (o *orders) noNewPrivileges() error {
	if !o.NoNewPrivileges {
		return nil
	}
	return at("set no_new_privs", "", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

// dieWithParent asks again for what the kernel forgets at a change of user. A
// parent that died before has sent nothing.
func (o *orders) dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return at("set the parent-death signal", "", err)
	}
	if unix.Getppid() != o.parent {
		unix.Exit(exitFailed) // there is nobody to tell
	}
	return nil
}

// chdir comes after the change of user: it is the user who works there, and a
// network file system may give root less than the user.
func (o *orders) chdir() error {
	if o.dir == "" {
		return nil
	}
	return at("change to folder", o.dir, unix.Chdir(o.dir))
}

// read opens what the program will need, as the error of a program that can't
// read its own source seldom says who is refused.
func (o *orders) read() error {
	for _, path := range o.Readable {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return at("open", path, err)
		}
		_ = unix.Close(fd)
	}
	return nil
}

// become lowers the limits and executes the program. Once the limits are in
// force nothing here may need memory, a thread or a descriptor: everything is
// made ready before, and the system is called directly.
func (o *orders) become() error {
	path, err := unix.BytePtrFromString(o.path)
	if err != nil {
		return at("exec", o.path, err)
	}
	argv, err := syscall.SlicePtrFromStrings(o.argv)
	if err != nil {
		return at("exec", o.path, err)
	}
	env, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return at("exec", o.path, err)
	}
	names := slices.Sorted(maps.Keys(o.Rlimits))
	failure := make([]report, len(names)+1)
	limits := make([]unix.Rlimit, len(names))
	resources := make([]int, len(names))
	for i, name := range names {
		value := o.Rlimits[name]
		resources[i], limits[i] = rlimits[name], unix.Rlimit{Cur: value, Max: value}
		failure[i] = o.failure(&Failure{Step: rlimitStep(name, value)})
	}
	failure[len(names)] = o.failure(&Failure{Step: "exec", Path: o.path})
	buf := make([]byte, 0, len(o.path)+256)

	// Go raises the soft limit of open files at its start and takes that back
	// in Exec alone, also in one that fails.
	_ = syscall.Exec("", nil, nil)

	for i := range limits {
		if _, _, errno := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(resources[i]), uintptr(unsafe.Pointer(&limits[i])), 0, 0, 0); errno != 0 {
			failure[i].errno = errno
			o.say(failure[i].append(buf))
		}
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	last := &failure[len(names)]
	last.errno = errno
	o.say(last.append(buf))
	return nil
}

// say writes a report and ends the process.
func (o *orders) say(b []byte) {
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(o.status), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, exitFailed, 0, 0)
}

// report writes what went wrong and ends the process.
func (o *orders) report(err error) {
	f := &Failure{Step: "launch", Err: err}
	errors.As(err, &f)
	r := o.failure(f)
	if !errors.As(f.Err, &r.errno) {
		r.text = f.Err.Error()
	}
	o.say(r.append(nil))
}

// failure adds to f in what state the process is.
func (o *orders) failure(f *Failure) report {
	r := report{step: f.Step, path: f.Path, landlock: o.landlocked}
	if o.Account != nil && unix.Geteuid() == int(o.Account.UID) {
		r.user = o.Account.Name
	}
	return r
}
