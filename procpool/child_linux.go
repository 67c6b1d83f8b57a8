package procpool

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is one process that leads a process group of its own.
//
// Its life has three parts: running; exited, when it is a zombie whose number
// still is its own, so that its group can be signalled; reaped.
type child struct {
	pid int
	// mark is what its environment says of it, "" for nothing.
	mark string
	// cgroup is what it was started in, nil for the gateway's own.
	cgroup *Cgroup

	// untold says that the guard has yet to hear of its group.
	untold bool

	// exited is closed when the process has ended, once it is attended. It has
	// not been reaped.
	exited chan struct{}

	// mu keeps signals away from a number that may be a stranger's: no
	// signal is sent after, or during, the reaping.
	mu     sync.Mutex
	reaped bool
	ended  bool        // it was told to end, or killed: strays end with it
	family []processID // then: its descendants beyond the group
}

// signal sends sig to the whole group. It does nothing when the leader has
// been reaped.
func (c *child) signal(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		if sig == syscall.SIGTERM || sig == syscall.SIGKILL {
			c.ended = true
			c.noteFamily(sig)
		}
		// ESRCH and EPERM (a member became another user) leave
		// nothing that could be done about them.
		_ = unix.Kill(-c.pid, sig)
	}
}

// signalLeader sends sig to the process itself and not to what it has started.
// It does nothing when it has been reaped. ends says that sig asks for its end.
func (c *child) signalLeader(sig syscall.Signal, ends bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return
	}
	if ends {
		c.ended = true
		c.noteFamily(0)
	}
	_ = unix.Kill(c.pid, sig)
}

// endWhole has what left the group end with the process, also when that ends by
// itself and in peace.
func (c *child) endWhole() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
}

// reap collects an exited process, after KILL to what is left of its group
// unless spare is set. To be called once, after exited was closed.
func (c *child) reap(spare bool) Exit {
	exit := c.collect(spare)
	if !spare && (c.ended || exit.Signal != 0) {
		c.killStrays()
	}
	return exit
}

func (c *child) collect(spare bool) Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !spare {
		_ = unix.Kill(-c.pid, unix.SIGKILL)
	}
	c.reaped = true
	exit := children.collect(c.pid)
	oom := c.cgroup.outOfMemory()
	exit.OutOfMemory = oom && exit.Signal == syscall.SIGKILL && !c.ended
	return exit
}

// attend puts its group on the guard's list and begins to watch it. Without that
// it has nobody but its owner, who asks hasExited. To be called once, before reap.
func (c *child) attend() {
	if c.untold {
		guards.add(groupName(c.pid))
	}
	pidfd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		pidfd = -1 // a kernel before 5.3
	}
	go c.watch(pidfd)
}

// hasExited reports whether a process that is not attended has ended.
func (c *child) hasExited() bool {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if err != unix.EINTR {
			return err == nil && info.Signo != 0 // it stays 0 while there is nothing to report
		}
	}
}

// exitsSoon is hasExited, but waits for up to a millisecond, and holds a thread
// meanwhile. It is for a process that is about to end in all likelihood.
func (c *child) exitsSoon() bool {
	if c.hasExited() {
		return true
	}
	pidfd, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pidfd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 1)
	return c.hasExited()
}

// watch closes exited when the process has ended. It parks on the poller
// when there is a pidfd, and else holds a thread.
func (c *child) watch(pidfd int) {
	defer close(c.exited)
	if pidfd >= 0 && awaitPidfd(pidfd) {
		return
	}
	var info unix.Siginfo
	for unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// awaitPidfd waits until the process has ended, without reaping it, and closes
// pidfd. It returns false when the kernel can't do that (before 5.4).
func awaitPidfd(pidfd int) bool {
	f, err := pollable(pidfd, "pidfd")
	if err != nil {
		return false
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	supported := true
	err = raw.Read(func(fd uintptr) bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
		if err == unix.EINTR || err == unix.EAGAIN {
			return false
		}
		supported = err == nil
		// Signo stays 0 while there is nothing to report.
		return err != nil || info.Signo != 0
	})
	return err == nil && supported
}

// children are the processes that this one started and has not reaped. There
// is one table, because there is one set of children for a process.
var children = childTable{running: make(map[int]*child)}

type childTable struct {
	// mu makes reaping a process and forgetting its number one step, as the
	// kernel may give the number to the next fork at once.
	mu      sync.Mutex
	running map[int]*child
	// starting counts forks whose number isn't in running yet. Meanwhile
	// nobody can tell an orphan from our own.
	starting int
	// sweep is poked when the answer to "whose is this pid?" may have
	// changed. Nil until BecomeReaper.
	sweep chan<- struct{}
	// hushed says that there is no SIGCHLD, whose handler is kept meanwhile,
	// and no need to poke.
	hushed  bool
	handler sigaction
}

// start starts a process. It is to be attended.
func (t *childTable) start(c Command, attr *syscall.ProcAttr) (*child, error) {
	argv := c.Argv
	if len(argv) == 0 {
		argv = []string{c.Path}
	}
	if attr.Sys.Pdeathsig != 0 {
		guards.ensure()
	}
	t.mu.Lock()
	t.starting++
	t.mu.Unlock()

	pid, err := forkExec(c.Path, argv, attr)

	t.mu.Lock()
	defer t.mu.Unlock()
	t.starting--
	t.poke()
	if err != nil {
		return nil, err
	}
	ch := &child{pid: pid, untold: attr.Sys.Pdeathsig != 0, exited: make(chan struct{})}
	t.running[ch.pid] = ch
	return ch, nil
}

// adopt takes over a process that another one forks for us. fork returns its
// number when its parent has ended, which makes it a child of this process
// (BecomeReaper). It may have exited already. The child's owner attends it; the
// guard knows its group.
func (t *childTable) adopt(fork func() (pid int, err error)) (*child, error) {
	guards.ensure()
	t.mu.Lock()
	t.starting++
	t.mu.Unlock()

	pid, err := fork()

	t.mu.Lock()
	defer t.mu.Unlock()
	t.starting--
	t.poke()
	if err != nil {
		return nil, err
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil); err != nil || t.running[pid] != nil {
		return nil, fmt.Errorf("procpool: %w: process %d was not forked for this one", ErrStart, pid)
	}
	// The guard is told first: until the group exists the process belongs to
	// its maker's, which the guard knows.
	guards.add(groupName(pid))
	if err := unix.Setpgid(pid, pid); err != nil {
		// EACCES after an exec, when only the process itself can do that.
		if pgid, _ := unix.Getpgid(pid); pgid != pid {
			guards.remove(groupName(pid))
			return nil, fmt.Errorf("procpool: %w: process %d: %w", ErrStart, pid, os.NewSyscallError("setpgid", err))
		}
	}
	ch := &child{pid: pid, exited: make(chan struct{})}
	t.running[pid] = ch
	return ch, nil
}

// haveReaper reports whether BecomeReaper was called.
func (t *childTable) haveReaper() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sweep != nil
}

// collect reaps pid, which has exited, and forgets it.
func (t *childTable) collect(pid int) Exit {
	t.mu.Lock()
	defer t.mu.Unlock()
	guards.remove(groupName(pid))
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	delete(t.running, pid)
	t.poke()
	return exitOf(ws)
}

func (t *childTable) poke() {
	if t.hushed {
		return
	}
	select {
	case t.sweep <- struct{}{}:
	default: // nobody sweeps, or a sweep is due anyway
	}
}
