package procpool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gatecrew/procpool/confine"
)

// forkExec starts a program, from whatever thread it is called on.
//
// PR_SET_PDEATHSIG fires when the *thread* that forked ends, not when its
// process does (golang.org/issue/27505). The Go runtime ends a thread when a
// goroutine that is locked to it returns, and for no other reason: so no goroutine
// of this program may do that (test/layers_test.go). Children that one thread of
// their own starts would be safe without that rule, one at a time and each for four
// switches of threads (docs/decisions/0029).
func forkExec(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	hideInheritedOnce()
	if pid, err, ok := fastForkExec(path, argv, attr); ok {
		return pid, err
	}
	return syscall.ForkExec(path, argv, attr)
}

var hideInheritedOnce = sync.OnceFunc(hideInherited)

// hideInherited keeps from children what whoever started this program left open
// in it. All that the program opens itself is close-on-exec from the start.
func hideInherited() {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // no /proc: then there is no list of them
	}
	for _, fd := range fds {
		if n, err := strconv.Atoi(fd.Name()); err == nil && n > 2 {
			unix.CloseOnExec(n)
		}
	}
}

// spawn starts c with files as its descriptors 0, 1, 2, … and nothing else,
// as the leader of a new process group. The files stay the caller's.
//
// It waits out ETXTBSY: a file that was just written is "busy" until every fork
// that copied the writer's descriptor has reached its exec
// (golang.org/issue/22315). That takes milliseconds, and a file that is busy for
// longer is being written to.
func spawn(c Command, files ...uintptr) (*child, error) {
	ch, err := spawnUnattended(c, files...)
	if err != nil {
		return nil, err
	}
	ch.attend()
	return ch, nil
}

// spawnUnattended is spawn, but for a child that its owner will attend.
func spawnUnattended(c Command, files ...uintptr) (*child, error) {
	mark, env := "", c.Env
	if !c.background {
		if mark = c.mark; mark == "" {
			mark = newMark()
		}
		env = append(env[:len(env):len(env)], instanceVar+"="+mark)
	}
	begin := spawnFree
	if c.Confinement != nil {
		begin = spawnConfined
	}
	for delay := time.Millisecond; ; delay *= 2 {
		ch, err := begin(c, env, files)
		switch {
		case err == nil:
			ch.mark, ch.cgroup = mark, c.Cgroup
			return ch, nil
		case !errors.Is(err, syscall.ETXTBSY) || delay > 128*time.Millisecond:
			return nil, fmt.Errorf("procpool: %w: %w", ErrStart, err)
		}
		time.Sleep(delay)
	}
}

// spawnFree starts a process that has the gateway's rights.
func spawnFree(c Command, env []string, files []uintptr) (*child, error) {
	ch, err := children.start(c, childAttr(c.Cgroup, env, c.Dir, files))
	if err != nil {
		return nil, &os.PathError{Op: "exec", Path: c.Path, Err: err}
	}
	return ch, nil
}

// spawnConfined starts this program's own file, which confines itself and
// becomes the command or says why it can't.
func spawnConfined(c Command, env []string, files []uintptr) (*child, error) {
	ours, theirs, err := pipe(true)
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	stage := Command{Path: "/proc/self/exe", Argv: c.Confinement.Args(c.Path, c.Argv, c.Dir, os.Getpid(), len(files))}
	ch, err := children.start(stage, childAttr(c.Cgroup, env, "", append(files[:len(files):len(files)], uintptr(theirs))))
	_ = unix.Close(theirs)
	if err != nil {
		return nil, &os.PathError{Op: "exec", Path: c.Path, Err: err}
	}
	// The end comes when the process has become the command, or has ended.
	report, err := io.ReadAll(ours)
	if failure := confine.ParseReport(report); err == nil && failure != nil {
		err = failure
	}
	if err != nil {
		ch.attend()
		ch.signal(syscall.SIGKILL)
		<-ch.exited
		ch.reap(false)
		return nil, err
	}
	return ch, nil
}

func childAttr(group *Cgroup, env []string, dir string, files []uintptr) *syscall.ProcAttr {
	sys := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if group != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, group.fd()
	}
	return &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: sys}
}

// pipe returns a pipe whose one end is a plain blocking descriptor for a
// child and whose other is ours, on the poller. reading says that we read.
func pipe(reading bool) (ours *os.File, theirs int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("procpool: %w: %w", ErrStart, os.NewSyscallError("pipe2", err))
	}
	mine, theirs := fds[0], fds[1]
	if !reading {
		mine, theirs = theirs, mine
	}
	f, err := pollable(mine, "pipe")
	if err != nil {
		_ = unix.Close(theirs)
		return nil, -1, err
	}
	return f, theirs, nil
}

// pollable makes a file of fd, on which reads and writes park a goroutine
// rather than a thread, and can have deadlines. It takes fd over.
func pollable(fd int, name string) (*os.File, error) {
	// It is new, so that it has no other flag.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("procpool: %w: %w", ErrStart, os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// devNull is /dev/null for children, opened once.
var devNull = sync.OnceValues(func() (int, error) {
	return unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
})

// noInput is an empty pipe whose other end is closed, for all children that are
// to find the end of their input at once. Its mode keeps those that could open it
// again by /proc/self/fd from writing to it.
var noInput = sync.OnceValues(func() (int, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, fmt.Errorf("procpool: %w: %w", ErrStart, os.NewSyscallError("pipe2", err))
	}
	_ = unix.Fchmod(fds[0], 0)
	_ = unix.Close(fds[1])
	return fds[0], nil
})
