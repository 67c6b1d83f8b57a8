package procpool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// CgroupLimits bound what the processes of a Cgroup use together. 0 is no limit.
type CgroupLimits struct {
	// Memory is in bytes. When it is exceeded the kernel kills one process.
	// Nothing is swapped to stay below it.
	Memory int64
	// CPU is how many processors may be kept busy.
	CPU float64
	// PIDs is how many processes and threads there may be; a fork fails
	// beyond it.
	PIDs int
}

// Cgroup is a control group (version 2) that processes are started in, see
// Command.Cgroup. What they start is in it as well, whatever session it moves to.
// Linux 5.14 is needed.
type Cgroup struct {
	path string
	dir  *os.File
	tree *cgroupTree

	mu   sync.Mutex
	ooms int // processes that were killed for the memory limit, as far as known
}

// NewCgroup makes a group below the one that the program is in. That one must
// have been delegated to it: by Delegate=yes of its systemd service, as the group
// of a container, or by its owner. With an error there is no group; but when only
// some of the limits can't be had there are both, and the others hold.
//
// When the limits need it, and the first time, the program moves itself and
// what it started to a group of its own beside the new one, as the kernel wants
// processes in leaves only.
func NewCgroup(name string, limits CgroupLimits) (*Cgroup, error) {
	tree, err := ownCgroups()
	if err != nil {
		return nil, err
	}
	return tree.add(name, limits)
}

var ownCgroups = sync.OnceValues(func() (*cgroupTree, error) {
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("procpool: control groups: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("procpool: control groups: %w", err)
	}
	own, dir, err := locateCgroup(string(cgroup), string(mounts))
	if err != nil {
		return nil, fmt.Errorf("procpool: control groups: %w", err)
	}
	if err := delegated(own, dir); err != nil {
		return nil, fmt.Errorf("procpool: control groups: %w", err)
	}
	return &cgroupTree{dir: dir, mkdir: os.Mkdir}, nil
})

// locateCgroup finds the group of a process in cgroups(7) /proc/PID/cgroup, and
// its folder in proc_pid_mountinfo(5).
func locateCgroup(cgroup, mountinfo string) (own, dir string, err error) {
	for line := range strings.Lines(cgroup) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			own = strings.TrimSuffix(path, "\n")
		}
	}
	if own == "" {
		return "", "", errors.New("the kernel has none of version 2")
	}
	for line := range strings.Lines(mountinfo) {
		// ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS
		place, system, _ := strings.Cut(line, " - ")
		fields := strings.Fields(place)
		if len(fields) < 5 || !strings.HasPrefix(system, "cgroup2 ") {
			continue
		}
		root, point := fields[3], fields[4]
		if below, ok := strings.CutPrefix(own, root); ok && (root == "/" || below == "" || below[0] == '/') && !strings.HasPrefix(own, "/..") {
			return own, filepath.Join(point, below), nil
		}
		err = fmt.Errorf("the group %s is not in what is mounted at %s; in a container use --cgroupns=private, or mount all of /sys/fs/cgroup and use --cgroupns=host", own, point)
	}
	if err == nil {
		err = errors.New("no file system of version 2 (cgroup2) is mounted")
	}
	return "", "", err
}

// delegated says why the group own, of the folder dir, is not ours to divide.
func delegated(own, dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		hint := "in the systemd service write Delegate=yes"
		if err == unix.EROFS {
			hint = "in a container mount it writable, as docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:rw does"
		}
		return fmt.Errorf("%s can't be written (%w): %s", dir, err, hint)
	}
	if own == "/" || os.Geteuid() != 0 {
		return nil // a container's own, or given to this user
	}
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return nil
		}
	}
	// Root may write everywhere, but systemd takes groups for its own.
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil
	}
	return fmt.Errorf("%s is managed by systemd and not delegated: in the service write Delegate=yes", dir)
}

// Names of the groups that are made: that of the program itself begins with
// leafName, all others end with a part of the instance, so that two programs in
// one group don't meet.
const leafName = "gatecrew.gateway."

// cgroupTree is the group that was delegated to this program.
type cgroupTree struct {
	dir   string
	mkdir func(string, os.FileMode) error // os.Mkdir; tests make the files as well

	mu      sync.Mutex
	leaf    string   // where the program itself has moved, "" when it has not
	enabled []string // controllers that the children have because of us
	groups  int
}

func (t *cgroupTree) add(name string, limits CgroupLimits) (*Cgroup, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	missing := t.enable(limits.controllers())
	path := filepath.Join(t.dir, "gatecrew."+cgroupFileName(name)+"."+instance()[:8])
	if err := t.mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("procpool: control group: %w", err)
	}
	g := &Cgroup{path: path, tree: t}
	guards.add(cgroupName(path))
	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err != nil {
		removeCgroup(path)
		guards.remove(cgroupName(path))
		return nil, errors.New("procpool: control group: Linux 5.14 or later is needed")
	}
	dir, err := os.Open(path)
	if err != nil {
		removeCgroup(path)
		guards.remove(cgroupName(path))
		return nil, fmt.Errorf("procpool: control group: %w", err)
	}
	g.dir = dir
	t.groups++
	if err := errors.Join(missing, g.limit(limits)); err != nil {
		return g, fmt.Errorf("procpool: control group %s: %w", path, err)
	}
	return g, nil
}

// cgroupFileName makes a file's name of any name.
func cgroupFileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`/ "\`, r) {
			return '_'
		}
		return r
	}, name)
	return name[:min(len(name), 100)]
}

func (l CgroupLimits) controllers() (names []string) {
	if l.Memory > 0 {
		names = append(names, "memory")
	}
	if l.CPU > 0 {
		names = append(names, "cpu")
	}
	if l.PIDs > 0 {
		names = append(names, "pids")
	}
	return names
}

// enable hands controllers on to the groups below. Its errors are those that
// can't be.
func (t *cgroupTree) enable(want []string) (err error) {
	guarded := leafEntry(t.leaf, t.enabled)
	defer func() {
		if now := leafEntry(t.leaf, t.enabled); t.leaf != "" && now != guarded {
			guards.add(now)
			guards.remove(guarded)
		}
	}()
	here, on := cgroupWords(t.dir, "cgroup.controllers"), cgroupWords(t.dir, "cgroup.subtree_control")
	var change, lacking []string
	for _, c := range want {
		switch {
		case on[c]:
		case here[c]:
			change = append(change, c)
		default:
			lacking = append(lacking, c)
		}
	}
	if lacking != nil {
		err = fmt.Errorf("it can't limit %s: the group above has no such controller; in a systemd service write Delegate=yes, and boot without version 1", strings.Join(lacking, ", "))
	}
	if len(change) == 0 {
		return err
	}
	// The root of all groups may have processes and still be divided, and
	// is the one without a type.
	if _, typeErr := os.Stat(filepath.Join(t.dir, "cgroup.type")); typeErr == nil && t.leaf == "" {
		if moveErr := t.move(); moveErr != nil {
			return errors.Join(err, moveErr)
		}
	}
	for _, c := range change {
		if onErr := writeCgroup(t.dir, "cgroup.subtree_control", "+"+c); onErr != nil {
			if errors.Is(onErr, unix.EBUSY) {
				onErr = fmt.Errorf("%w: other processes are in it (%s); start gatecrew by exec, or in a group of its own", onErr, strings.Join(cgroupLines(t.dir, "cgroup.procs"), ", "))
			}
			return errors.Join(err, onErr)
		}
		t.enabled = append(t.enabled, c)
	}
	return err
}

// move takes the program and what it has started so far to a leaf.
func (t *cgroupTree) move() error {
	leaf := filepath.Join(t.dir, leafName+instance()[:8])
	if err := t.mkdir(leaf, 0o755); err != nil {
		return err
	}
	own := map[int]bool{os.Getpid(): true}
	for _, pid := range ownDescendants() {
		own[pid] = true
	}
	for _, line := range cgroupLines(t.dir, "cgroup.procs") {
		if pid, err := strconv.Atoi(line); err != nil || !own[pid] {
			continue
		}
		if err := writeCgroup(leaf, "cgroup.procs", line); err != nil && !errors.Is(err, unix.ESRCH) {
			_ = os.Remove(leaf)
			return err
		}
	}
	t.leaf = leaf
	return nil
}

// removed notes that a group is no more. With the last one the program moves
// back to where it was, so that whoever started it there can again.
func (t *cgroupTree) removed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups--
	if t.groups > 0 || t.leaf == "" {
		return
	}
	guards.remove(leafEntry(t.leaf, t.enabled))
	leaveLeaf(t.leaf, t.enabled)
	t.leaf, t.enabled = "", nil
}

// leaveLeaf is what the guard does, too.
func leaveLeaf(leaf string, enabled []string) {
	dir := filepath.Dir(leaf)
	for _, c := range enabled {
		_ = writeCgroup(dir, "cgroup.subtree_control", "-"+c)
	}
	for _, pid := range cgroupLines(leaf, "cgroup.procs") {
		_ = writeCgroup(dir, "cgroup.procs", pid)
	}
	_ = unix.Rmdir(leaf)
}

// cpuPeriod is the kernel's own default, in microseconds.
const cpuPeriod = 100_000

func (g *Cgroup) limit(l CgroupLimits) error {
	var errs []error
	set := func(file, value string) { errs = append(errs, writeCgroup(g.path, file, value)) }
	has := cgroupWords(g.path, "cgroup.controllers")
	if l.Memory > 0 && has["memory"] {
		set("memory.max", strconv.FormatInt(l.Memory, 10))
		if err := writeCgroup(g.path, "memory.swap.max", "0"); !errors.Is(err, fs.ErrNotExist) { // without swap there is none
			errs = append(errs, err)
		}
	}
	if l.CPU > 0 && has["cpu"] {
		const least = 1000 // microseconds, which the kernel asks for
		set("cpu.max", fmt.Sprintf("%d %d", max(least, int64(l.CPU*cpuPeriod)), cpuPeriod))
	}
	if l.PIDs > 0 && has["pids"] {
		set("pids.max", strconv.Itoa(l.PIDs))
	}
	return errors.Join(errs...)
}

// fd is the folder's descriptor, for clone3(2).
func (g *Cgroup) fd() int { return int(g.dir.Fd()) }

// outOfMemory reports whether the kernel has killed a process for the memory
// limit since the last call. A nil group has no limit.
func (g *Cgroup) outOfMemory() bool {
	if g == nil {
		return false
	}
	for _, line := range cgroupLines(g.path, "memory.events") {
		count, ok := strings.CutPrefix(line, "oom_kill ")
		if !ok {
			continue
		}
		n, _ := strconv.Atoi(count)
		g.mu.Lock()
		defer g.mu.Unlock()
		more := n > g.ooms
		g.ooms = n
		return more
	}
	return false
}

// Close kills the processes of the group and removes it. A nil group is fine.
func (g *Cgroup) Close() error {
	if g == nil {
		return nil
	}
	defer g.tree.removed()
	err := removeCgroup(g.path)
	if err == nil {
		guards.remove(cgroupName(g.path))
	}
	return errors.Join(err, g.dir.Close())
}

// removeCgroup kills what is in a group and in those below it, and removes them.
// A killed process is in its group until it has been reaped by its parent or by
// whom it was left to.
func removeCgroup(path string) error {
	_ = writeCgroup(path, "cgroup.kill", "1")
	for end := time.Now().Add(guardPatience); ; time.Sleep(strayPause) {
		err := removeFolders(path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("procpool: control group: %w", err)
		}
	}
}

// removeFolders removes a folder and those in it. The files of a control group
// go with it and can't be removed.
func removeFolders(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeFolders(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(path); err != nil {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// writeCgroup writes to a file that must exist.
func writeCgroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func cgroupLines(dir, file string) []string {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return nil
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

func cgroupWords(dir, file string) map[string]bool {
	words := make(map[string]bool)
	for _, line := range cgroupLines(dir, file) {
		for word := range strings.FieldsSeq(line) {
			words[word] = true
		}
	}
	return words
}

func cgroupName(path string) string { return "cgroup " + strconv.Quote(path) }

func leafEntry(leaf string, enabled []string) string {
	return "leaf " + strings.Join(enabled, ",") + " " + strconv.Quote(leaf)
}

// killCgroup and leaveEntry are what the guard does.
func killCgroup(quoted string) {
	if path, err := strconv.Unquote(quoted); err == nil {
		_ = removeCgroup(path)
	}
}

func leaveEntry(entry string) {
	enabled, quoted, _ := strings.Cut(entry, " ")
	if leaf, err := strconv.Unquote(quoted); err == nil {
		leaveLeaf(leaf, strings.Split(enabled, ","))
	}
}
