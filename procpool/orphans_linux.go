package procpool

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BecomeReaper makes the process the parent of its orphaned descendants
// (PR_SET_CHILD_SUBREAPER) and reaps them: a script that forks twice leaves no
// zombie here, and none to a process 1 that doesn't care. It also starts the
// guard when the program called GuardMain. A second call does nothing.
//
// It is for a main program: after it os/exec, and everything else that starts
// processes by itself, may find that its child was reaped by somebody else.
func BecomeReaper() error { return becomeReaper() }

var becomeReaper = sync.OnceValue(func() error {
	// What runs before this has started anything is a stranger's, of whoever
	// replaced itself with this program. A process 1 gets more of them.
	strangers.Store(os.Getpid() == 1 || len(childPIDs(nil, os.Getpid())) > 0)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("procpool: become subreaper: %w", os.NewSyscallError("prctl", err))
	}
	sweep := make(chan struct{}, 1)
	children.mu.Lock()
	children.sweep = sweep
	children.mu.Unlock()
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	go func() {
		for {
			children.reapOrphans()
			select {
			case <-died:
			case <-sweep:
			}
		}
	}()
	return guards.ensure()
})

// hush has the kernel drop SIGCHLD until unhush: each one would wake a thread and
// two goroutines, which is dear when processes end by the thousand in a second.
// Whoever calls it has orphans reaped from time to time.
func (t *childTable) hush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sweep != nil && !t.hushed {
		t.hushed = true
		childAction(new(sigaction), &t.handler)
	}
}

// unhush ends that.
func (t *childTable) unhush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hushed {
		t.hushed = false
		childAction(&t.handler, nil)
		t.poke() // for what has ended meanwhile
	}
}

// sigaction has room for the kernel's struct of that name. Zeros are the default
// action, which for SIGCHLD is that nothing happens.
type sigaction [64]byte

// childAction sets the action for SIGCHLD behind the back of package os/signal,
// which would keep its handler, and have it called, also after signal.Reset.
func childAction(now, was *sigaction) {
	const setSize = 8 // of a sigset_t
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(now)), uintptr(unsafe.Pointer(was)), setSize, 0, 0)
}

// reapOrphans reaps zombies that aren't ours. One of ours, which waits for its
// owner, or a fork under way stops it: both poke when they are through.
func (t *childTable) reapOrphans() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.starting == 0 {
		pid := t.endedStranger(unix.P_ALL, 0)
		if pid == 0 {
			return
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// killedIn reports whether a process of a group died of a signal that nobody waits
// for: none that was started, and none that was adopted. Those of them that have
// ended are reaped.
func (t *childTable) killedIn(group int) (killed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		pid := t.endedStranger(unix.P_PGID, group)
		if pid == 0 {
			return killed
		}
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		killed = killed || status.Signaled()
	}
}

// endedStranger returns a zombie of those that waitid(2) is asked for which isn't
// ours; 0 when there is none, or one of ours comes first. The caller holds mu.
func (t *childTable) endedStranger(kind, id int) int {
	for {
		var info unix.Siginfo
		err := unix.Waitid(kind, id, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		pid := siginfoPid(&info)
		if err != nil || t.running[pid] != nil {
			return 0
		}
		return pid
	}
}

// siginfoPid returns si_pid, which package unix leaves unnamed: the first
// field of the union that follows three ints and is aligned to a word.
func siginfoPid(info *unix.Siginfo) int {
	const offset = (3*4 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset)))
}
