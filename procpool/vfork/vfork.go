//go:build linux && (amd64 || arm64)

// Package vfork starts a program with as few system calls as Linux allows.
//
// It is what syscall.ForkExec does, less what costs: the signal handlers are
// reset by the kernel (CLONE_CLEAR_SIGHAND, Linux 5.5) and not by a system call
// for each of 64, an error comes back through the memory that the child shares
// until its exec, and not through a pipe, and no lock keeps two threads from
// starting programs at once. That lock, syscall.ForkLock, is for descriptors that
// become close-on-exec after they were opened: the caller must have none.
//
// The package imports nothing, so that it is initialized before package syscall,
// which raises the limit of open files: a program gets what the gateway was given.
package vfork

import "unsafe"

// Program is a program to start. All strings end with a NUL.
type Program struct {
	// Path is the file to execute. PATH is not searched.
	Path *byte
	// Argv and Env end with nil.
	Argv, Env []*byte
	// Dir is the working directory; nil means the caller's.
	Dir *byte
	// Files become the descriptors 0, 1, 2, …. None may have a number below
	// len(Files).
	Files []uintptr
	// UseCgroup has it start in the control group, of version 2, whose
	// directory is open as Cgroup.
	UseCgroup bool
	Cgroup    int
	// Parent is the process id of the caller.
	Parent int

	failed uintptr // the error number of what the child could not do
}

// cloneArgs is struct clone_args of clone3(2). What has no name here is 0: pidfd,
// child_tid and parent_tid; stack, stack_size, tls, set_tid and set_tid_size.
type cloneArgs struct {
	flags      uint64
	_          [3]uint64
	exitSignal uint64
	_          [5]uint64
	cgroup     uint64
}

const (
	cloneVM           = 0x100
	cloneVfork        = 0x4000
	cloneClearSighand = 0x100000000
	cloneIntoCgroup   = 0x200000000

	sigchld = 17
	sigkill = 9

	sigSetmask = 2
	setSize    = 8 // of a sigset_t

	prSetPdeathsig = 1
	rlimitNofile   = 7
)

type rlimit struct{ current, highest uint64 }

// openFiles is the limit as this process was given it.
var openFiles = func() (limit rlimit) {
	rawSyscall(sysPrlimit, 0, rlimitNofile, 0, uintptr(unsafe.Pointer(&limit)))
	return limit
}()

// givenLimit is openFiles if package syscall has raised the limit since and nobody
// has changed it after that, else nil. One less than the highest is what it sets.
func givenLimit() *rlimit {
	if openFiles.highest == 0 || openFiles.current >= openFiles.highest-1 {
		return nil
	}
	var now rlimit
	rawSyscall(sysPrlimit, 0, rlimitNofile, 0, uintptr(unsafe.Pointer(&now)))
	if now != (rlimit{openFiles.highest - 1, openFiles.highest}) {
		return nil
	}
	return &openFiles
}

// Start starts p as the leader of a new process group. The kernel kills it when
// the calling thread ends (PR_SET_PDEATHSIG).
//
// It returns 0 or the number of an error. With unsupported the kernel, or what
// filters its system calls, is not good enough, and always will be. A pid that is
// not 0 is a child to be waited for, also after an error: then it has exited.
//
//go:norace
func Start(p *Program) (pid int, errno uintptr, unsupported bool) {
	clone := cloneArgs{flags: cloneVM | cloneVfork | cloneClearSighand, exitSignal: sigchld}
	if p.UseCgroup {
		clone.flags |= cloneIntoCgroup
		clone.cgroup = uint64(p.Cgroup)
	}
	r := start(p, &clone, givenLimit())
	if int(r) < 0 {
		errno = -r
		const eperm, einval, enosys = 1, 22, 38
		return 0, errno, !p.UseCgroup && (errno == eperm || errno == einval || errno == enosys)
	}
	return int(r), p.failed, false
}

// start is the part that two processes go through, first the child, then the
// parent, on one stack. In it nothing may grow that stack, be preempted, take a
// lock or allocate: it calls assembly and nothing else. No signal may be taken by
// the child, whose handlers would be ours if the kernel hadn't reset them, nor by
// this thread before the child is gone.
//
//go:noinline
//go:norace
//go:nocheckptr
func start(p *Program, clone *cloneArgs, given *rlimit) uintptr {
	all, before := ^uint64(0), uint64(0)
	path, argv, env, dir := unsafe.Pointer(p.Path), unsafe.Pointer(&p.Argv[0]), unsafe.Pointer(&p.Env[0]), unsafe.Pointer(p.Dir)
	rawSyscall(sysSigprocmask, sigSetmask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&before)), setSize)
	pid := rawVfork(clone, unsafe.Sizeof(*clone))
	if pid != 0 {
		rawSyscall(sysSigprocmask, sigSetmask, uintptr(unsafe.Pointer(&before)), 0, setSize)
		return pid
	}
	errno := child(p, given, &before, path, argv, env, dir)
	p.failed = errno
	for {
		rawSyscall(sysExit, 253, 0, 0, 0)
	}
}

// child returns the number of an error, or does not return.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func child(p *Program, given *rlimit, mask *uint64, path, argv, env, dir unsafe.Pointer) uintptr {
	if r := rawSyscall(sysSetpgid, 0, 0, 0, 0); r != 0 {
		return -r
	}
	if dir != nil {
		if r := rawSyscall(sysChdir, uintptr(dir), 0, 0, 0); r != 0 {
			return -r
		}
	}
	if r := rawSyscall(sysPrctl, prSetPdeathsig, sigkill, 0, 0); r != 0 {
		return -r
	}
	if rawSyscall(sysGetppid, 0, 0, 0, 0) != uintptr(p.Parent) {
		// It ended before it could say so.
		rawSyscall(sysKill, rawSyscall(sysGetpid, 0, 0, 0, 0), sigkill, 0, 0)
	}
	for i := range p.Files {
		if r := rawSyscall(sysDup3, p.Files[i], uintptr(i), 0, 0); int(r) < 0 {
			return -r
		}
	}
	if given != nil {
		rawSyscall(sysPrlimit, 0, rlimitNofile, uintptr(unsafe.Pointer(given)), 0)
	}
	rawSyscall(sysSigprocmask, sigSetmask, uintptr(unsafe.Pointer(mask)), 0, setSize)
	return -rawSyscall(sysExecve, uintptr(path), uintptr(argv), uintptr(env), 0)
}

// rawVfork calls clone3, and returns twice on the same stack: 0 in the child,
// then its number, or an error's below 0, in the parent.
//
//go:noescape
func rawVfork(args *cloneArgs, size uintptr) uintptr

// rawSyscall returns what the kernel does, an error as its number below 0.
func rawSyscall(number, a1, a2, a3, a4 uintptr) uintptr
