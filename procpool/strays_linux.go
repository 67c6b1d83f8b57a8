package procpool

import (
	"bytes"
	"crypto/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A stray is a process that an application moved into a session of its own, so
// that the signals to its process group don't reach it. What tells that it is
// ours is its parent, as long as that one lives, and then a variable in its
// environment, which no process gets but from its parent.

// instanceVar is set for every child, to INSTANCE/NUMBER: the run of the program
// that started it, and which child of it.
const instanceVar = "GATECREW_INSTANCE"

// instance is 128 bits of chance, so that no other run has the same.
var instance = sync.OnceValue(func() string {
	token := rand.Text()
	guards.add(instanceName(token))
	return token
})

var lastMark atomic.Uint64

// newMark returns a value of instanceVar that no other child has.
func newMark() string {
	return instance() + "/" + strconv.FormatUint(lastMark.Add(1), 10)
}

// hasMark reports whether the process was started with a value of instanceVar
// that begins with mark. It is false for a zombie, and for a process that has
// written over its environment to show a title.
func hasMark(pid int, mark string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false // gone, or not ours to look at
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		value, ok := strings.CutPrefix(string(entry), instanceVar+"=")
		if ok && (value == mark || strings.HasPrefix(value, mark+"/")) {
			return true
		}
	}
	return false
}

// strayPause is how far apart two looks for strays are: what is killed needs a
// moment to be gone, and may have had a child meanwhile.
const strayPause = 5 * time.Millisecond

// killAll kills those of the processes for which ours holds, until none is left
// or the patience is at its end.
func killAll(list func() []int, ours func(pid int) bool, patience time.Duration) {
	for end := time.Now().Add(patience); signalAll(list(), syscall.SIGKILL, ours) > 0 && time.Now().Before(end); {
		time.Sleep(strayPause)
	}
}

// signalAll returns how many it has reached.
func signalAll(pids []int, sig syscall.Signal, ours func(pid int) bool) (n int) {
	for _, pid := range pids {
		if signalIf(pid, sig, ours) {
			n++
		}
	}
	return n
}

// ownDescendants returns all processes below this one.
func ownDescendants() []int { return descendants(os.Getpid()) }

// noteFamily remembers the strays among c's descendants while their parents
// still live, and sends them the signal that the group gets. The caller holds
// c.mu.
func (c *child) noteFamily(sig syscall.Signal) {
	for _, pid := range descendants(c.pid) {
		if group, err := syscall.Getpgid(pid); err != nil || group == c.pid {
			continue
		}
		if id, ok := identify(pid); ok && !slices.Contains(c.family, id) {
			c.family = append(c.family, id)
		}
	}
	for _, id := range c.family {
		signalIf(id.pid, sig, id.alive)
	}
}

// alive reports whether pid is the process that was identified, and runs.
func (id processID) alive(pid int) bool {
	now, ok := identify(pid)
	return ok && now == id
}

// killStrays ends what c started and no longer is in its group. It is for a
// child that was ended, not for one that has done its work: who starts a daemon
// and exits in peace has meant it.
func (c *child) killStrays() {
	known := make(map[int]processID, len(c.family))
	for _, id := range c.family {
		known[id.pid] = id
	}
	killAll(func() []int {
		pids := ownDescendants()
		for pid := range known {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
		return pids
	}, func(pid int) bool {
		id, ok := known[pid]
		return ok && id.alive(pid) || c.mark != "" && hasMark(pid, c.mark)
	}, lingerTime)
}

// strangers is true when this process may have, or get, descendants that may
// live on when it ends. Then only those are ours that say so.
var strangers atomic.Bool

// EndStrays ends what applications moved into a session of its own and what
// still runs when all else has been ended: TERM, and after the grace KILL. It is
// for a program that called BecomeReaper, else it does nothing, and that is about
// to exit. Spared is what programs left behind under a Runner with KeepBackground.
func EndStrays(grace time.Duration) {
	mark, own := instance(), map[int]bool{}
	children.mu.Lock()
	reaper := children.sweep != nil
	for pid := range children.running {
		own[pid] = true
	}
	children.mu.Unlock()
	if !reaper {
		return
	}
	ours := func(pid int) bool {
		if own[pid] {
			return false
		}
		if strangers.Load() {
			return hasMark(pid, mark)
		}
		_, running := identify(pid)
		return running
	}
	if signalAll(ownDescendants(), syscall.SIGTERM, ours) == 0 {
		return
	}
	for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(strayPause) {
		if !slices.ContainsFunc(ownDescendants(), ours) {
			return
		}
	}
	killAll(ownDescendants, ours, time.Second)
}
