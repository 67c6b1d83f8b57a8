package procpool

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guardName is argv[0] of a guard process.
const guardName = "gatecrew-guard"

// guardPatience is how long a line to the guard may take before the guard
// counts as stuck, and how far apart two starts of it are.
const guardPatience = time.Second

// GuardMain is the first thing that a main program, or a TestMain, calls. In a
// process that was started as the guard it does the guard's work and does not
// return. In every other it notes that the program's own file can be used as the
// guard; without that call there is no guard.
//
// The guard holds the read end of a pipe whose only writer is the gateway, and a
// list of what it is told over it. End of file means that the gateway is gone,
// however it ended: the guard then kills the process groups and what has left
// them, removes control groups, directories and sockets, and exits.
func GuardMain() {
	if len(os.Args) == 0 || os.Args[0] != guardName {
		guards.enabled.Store(true)
		return
	}
	// Whoever stops the gateway's whole terminal or service by signal must
	// not stop the guard before its work.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP)
	_ = os.Chdir("/") // holds no file system busy
	guardEntries(bufio.NewReader(os.Stdin))
	// Not os.Exit, which lingers for a second in a race-detecting build: the
	// guard is the last process, and whoever waits for all of them waits for it.
	unix.Exit(0)
}

// guardEntries keeps the list that comes from r and clears up what is on it
// when r ends.
func guardEntries(r *bufio.Reader) {
	entries := make(map[string]bool)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break // a line without its end was cut by the gateway's death
		}
		line = line[:len(line)-1]
		if entry, ok := strings.CutPrefix(line, "+"); ok {
			entries[entry] = true
		} else if entry, ok := strings.CutPrefix(line, "-"); ok {
			delete(entries, entry)
		}
	}
	// Processes first: one may still be writing into a directory. Groups
	// before what is looked for, which takes longer.
	for _, step := range []struct {
		kind string
		do   func(string)
	}{
		{"group ", killGroup},
		{"instance ", killInstance},
		{"cgroup ", killCgroup},
		{"leaf ", leaveEntry},
		{"socket ", removeSocket},
		{"dir ", removeDir},
	} {
		for entry := range entries {
			if what, ok := strings.CutPrefix(entry, step.kind); ok {
				step.do(what)
			}
		}
	}
}

func killGroup(number string) {
	if pgid, err := strconv.Atoi(number); err == nil && pgid > 1 {
		_ = unix.Kill(-pgid, unix.SIGKILL)
	}
}

// killInstance kills what left its process group.
func killInstance(token string) {
	if token != "" {
		killAll(processes, func(pid int) bool { return hasMark(pid, token) }, guardPatience)
	}
}

// removeDir removes a directory into which a dying process may still write.
func removeDir(quoted string) {
	path, err := strconv.Unquote(quoted)
	for range 10 {
		if err != nil || os.RemoveAll(path) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func groupName(pgid int) string        { return "group " + strconv.Itoa(pgid) }
func instanceName(token string) string { return "instance " + token }
func dirName(path string) string       { return "dir " + strconv.Quote(path) }

// guards is the gateway's side of the guard.
var guards = guardKeeper{entries: make(map[string]bool)}

type guardKeeper struct {
	enabled atomic.Bool

	// startMu makes starts one at a time. It is not mu, since a start
	// takes the child table's lock, under which entries are added.
	startMu   sync.Mutex
	lastStart time.Time

	// mu guards the rest; it is the innermost lock.
	mu      sync.Mutex
	entries map[string]bool
	proc    *child   // nil when no guard is running
	pipe    *os.File // the write end; nil when the guard no longer reads
}

// GuardPID returns the process id of the guard, 0 when there is none.
func GuardPID() int {
	guards.mu.Lock()
	defer guards.mu.Unlock()
	if guards.proc == nil {
		return 0
	}
	return guards.proc.pid
}

// ensure starts a guard unless there is one, and tells it everything. It gives
// up at once when the last start was less than guardPatience ago.
func (g *guardKeeper) ensure() error {
	if !g.enabled.Load() || GuardPID() != 0 {
		return nil
	}
	g.startMu.Lock()
	defer g.startMu.Unlock()
	if GuardPID() != 0 || time.Since(g.lastStart) < guardPatience {
		return nil
	}
	g.lastStart = time.Now()
	null, err := devNull()
	if err != nil {
		return fmt.Errorf("procpool: guard: %w", err)
	}
	ours, theirs, err := pipe(false)
	if err != nil {
		return err
	}
	proc, err := children.start(Command{Path: "/proc/self/exe", Argv: []string{guardName}}, &syscall.ProcAttr{
		Files: []uintptr{uintptr(theirs), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	_ = unix.Close(theirs)
	if err != nil {
		_ = ours.Close()
		return fmt.Errorf("procpool: guard: %w: %w", ErrStart, err)
	}
	proc.attend()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.proc, g.pipe = proc, ours
	for entry := range g.entries {
		g.tell("+" + entry)
	}
	go g.attend(proc, ours)
	return nil
}

// attend replaces a guard that died.
func (g *guardKeeper) attend(proc *child, pipe *os.File) {
	<-proc.exited
	proc.reap(true)
	g.mu.Lock()
	g.proc, g.pipe = nil, nil
	g.mu.Unlock()
	_ = pipe.Close()
	time.Sleep(guardPatience)
	_ = g.ensure() // when it fails the next start of a process tries again
}

// add puts an entry on the list.
func (g *guardKeeper) add(entry string) {
	if !g.enabled.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries[entry] = true
	g.tell("+" + entry)
}

// remove takes an entry off the list.
func (g *guardKeeper) remove(entry string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entries[entry] {
		delete(g.entries, entry)
		g.tell("-" + entry)
	}
}

// tell sends a line. A guard that doesn't read is killed and replaced. The pipe
// must not be closed instead: to the guard that would be our death.
func (g *guardKeeper) tell(line string) {
	if g.pipe == nil {
		return
	}
	_ = g.pipe.SetWriteDeadline(time.Now().Add(guardPatience))
	if _, err := g.pipe.WriteString(line + "\n"); err != nil {
		g.pipe = nil // attend closes it
		// Not under this lock: reaping takes the child's before it.
		go g.proc.signal(syscall.SIGKILL)
	}
}
