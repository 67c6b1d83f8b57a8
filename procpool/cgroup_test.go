package procpool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestLocateCgroup(t *testing.T) {
	const v1 = "36 24 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	for _, c := range []struct {
		name, cgroup, mounts, own, dir, err string
	}{
		{"service", "0::/system.slice/gatecrew.service\n", v1 + "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
			"/system.slice/gatecrew.service", "/sys/fs/cgroup/system.slice/gatecrew.service", ""},
		{"container", "0::/\n", "30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/", "/sys/fs/cgroup", ""},
		{"hybrid", "4:memory:/x\n0::/y\n", v1 + "31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/y", "/sys/fs/cgroup/unified/y", ""},
		{"part of the tree", "0::/docker/abc/sub\n", "30 24 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "/docker/abc/sub", "/sys/fs/cgroup/sub", ""},
		{"another part", "0::/docker/abcd\n", "30 24 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "", "", "--cgroupns"},
		{"outside of the namespace", "0::/../x\n", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "", "", "--cgroupns"},
		{"not mounted", "0::/x\n", v1, "", "", "mounted"},
		{"version 1", "4:memory:/x\n", v1, "", "", "version 2"},
	} {
		own, dir, err := locateCgroup(c.cgroup, c.mounts)
		if own != c.own || dir != c.dir || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q %q %v", c.name, own, dir, err)
		}
	}
}

// fakeCgroups is a tree of plain files. What the kernel would make in a new
// group mkdir makes.
func fakeCgroups(t *testing.T, files map[string]string) *cgroupTree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &cgroupTree{dir: dir, mkdir: func(path string, mode os.FileMode) error {
		for _, name := range []string{"cgroup.procs", "cgroup.kill", "memory.max", "memory.swap.max", "cpu.max", "pids.max"} {
			if err := errors.Join(os.MkdirAll(path, mode), os.WriteFile(filepath.Join(path, name), nil, 0o600)); err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(path, "cgroup.controllers"), []byte(files["cgroup.controllers"]), 0o600)
	}}
}

func TestCgroupLimits(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	tree := fakeCgroups(t, map[string]string{
		"cgroup.type": "domain\n", "cgroup.controllers": "cpu memory pids\n", "cgroup.subtree_control": "",
		"cgroup.procs": self + "\n1\n",
	})
	content := func(dir, file string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	g, err := tree.add("we/b", CgroupLimits{Memory: 1 << 30, CPU: 1.5, PIDs: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer g.dir.Close()
	for file, want := range map[string]string{"memory.max": "1073741824", "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "100"} {
		if got := content(g.path, file); got != want {
			t.Errorf("%s has %q, want %q", file, got, want)
		}
	}
	if base := filepath.Base(g.path); !strings.HasPrefix(base, "gatecrew.we_b.") {
		t.Errorf("the folder is %s", base)
	}
	// The kernel wants processes in leaves: ours goes, a stranger stays.
	leaf := content(tree.leaf, "cgroup.procs")
	if leaf != self {
		t.Errorf("the leaf was given %q", leaf)
	}
	if on := strings.Join(tree.enabled, " "); on != "memory cpu pids" || content(tree.dir, "cgroup.subtree_control") != "+pids" {
		t.Errorf("handed on: %s", on)
	}

	// Killed for the limit: as often as the kernel counts, and known once.
	if err := os.WriteFile(filepath.Join(g.path, "memory.events"), []byte("low 0\noom 3\noom_kill 2\noom_group_kill 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !g.outOfMemory() || g.outOfMemory() {
		t.Error("a kill for the memory limit is not seen once")
	}
	if (*Cgroup)(nil).outOfMemory() || (*Cgroup)(nil).Close() != nil {
		t.Error("no group")
	}
}

// The guard knows of the leaf once, also when groups are made one by one.
func TestCgroupLeafIsGuardedOnce(t *testing.T) {
	tree := fakeCgroups(t, map[string]string{
		"cgroup.type": "domain\n", "cgroup.controllers": "cpu memory\n", "cgroup.subtree_control": "", "cgroup.procs": "",
	})
	guarded := func() (n int) {
		guards.mu.Lock()
		defer guards.mu.Unlock()
		for entry := range guards.entries {
			if strings.HasPrefix(entry, "leaf ") && strings.Contains(entry, tree.dir) {
				n++
			}
		}
		return n
	}
	for i, limits := range []CgroupLimits{{Memory: 1 << 30}, {CPU: 1}} {
		g, err := tree.add(fmt.Sprint("web", i), limits)
		if err != nil {
			t.Fatal(err)
		}
		defer guards.remove(cgroupName(g.path))
		defer g.dir.Close()
		if n := guarded(); n != 1 {
			t.Errorf("%d entries after %d groups", n, i+1)
		}
	}
	tree.removed()
	tree.removed()
	if n := guarded(); n != 0 {
		t.Errorf("%d entries in the end", n)
	}
}

// What can't be limited is said, and the rest is.
func TestCgroupLacksControllers(t *testing.T) {
	tree := fakeCgroups(t, map[string]string{"cgroup.controllers": "pids\n", "cgroup.subtree_control": "pids\n", "cgroup.procs": ""})
	g, err := tree.add("web", CgroupLimits{Memory: 1 << 30, PIDs: 5})
	if g == nil || err == nil || !strings.Contains(err.Error(), "memory") || strings.Contains(err.Error(), "pids:") {
		t.Fatalf("%v, %v", g, err)
	}
	defer g.dir.Close()
	if data, _ := os.ReadFile(filepath.Join(g.path, "pids.max")); string(data) != "5" {
		t.Errorf("pids.max has %q", data)
	}
	if tree.leaf != "" {
		t.Error("moved for nothing")
	}
}

func TestExitOutOfMemory(t *testing.T) {
	if s := (Exit{Signal: syscall.SIGKILL, OutOfMemory: true}).String(); !strings.Contains(s, "memory limit") {
		t.Error(s)
	}
}

// writableCgroups skips a test where no group can be made.
func writableCgroups(t *testing.T) {
	t.Helper()
	g, err := NewCgroup("probe", CgroupLimits{})
	if err != nil {
		t.Skip("it needs a control group that this process may divide, which only who runs the tests can give it: ", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

// What is started in a group is in it, with all that it starts, and ends with it.
func TestCgroup(t *testing.T) {
	writableCgroups(t)
	g, err := NewCgroup("test", CgroupLimits{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, RunnerConfig{})
	c := shell(t, "(env -i setsid sleep 300 >/dev/null 2>&1 &); sleep 0.1; mkdir -p "+g.path+"/own; echo x; cat")
	c.Cgroup = g
	p := start(t, r, c, nil)
	one := make([]byte, 1)
	if _, err := io.ReadFull(p.Stdout, one); err != nil {
		t.Fatal(err)
	}
	var inside []string
	eventually(t, "the shell, cat and the daemon are in the group", func() bool {
		inside = cgroupLines(g.path, "cgroup.procs")
		return len(inside) == 3
	})
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	for _, line := range inside {
		if pid, _ := strconv.Atoi(line); pid != p.Pid() {
			if _, runs := identify(pid); runs {
				t.Errorf("%d has outlived its group", pid)
			}
		}
	}
	if _, err := os.Stat(g.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group is left: %v", err)
	}
}

// cgroupMain runs a script in a group, says its path and hangs.
func cgroupMain() {
	if err := BecomeReaper(); err != nil {
		panic(err)
	}
	g, err := NewCgroup("test", CgroupLimits{})
	if err != nil {
		panic(err)
	}
	p, err := NewRunner(RunnerConfig{Name: "cgi"}).Start(context.Background(), Command{
		Path: "/bin/sh", Argv: []string{"sh", "-c", "(env -i setsid sleep 300 >/dev/null 2>&1 &); sleep 0.1; echo x; cat"},
		Env: []string{"PATH=/bin:/usr/bin"}, Cgroup: g,
	}, nil)
	if err != nil {
		panic(err)
	}
	_, _ = io.ReadFull(p.Stdout, make([]byte, 1))
	fmt.Println(g.path)
	select {}
}

// The guard removes the groups of a gateway that was killed, with those who
// have hidden everything else about themselves.
func TestCgroupAfterKill(t *testing.T) {
	writableCgroups(t)
	cmd := exec.Command(self(t))
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0", roleVar + "=cgroup"}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(line)
	var inside []string
	eventually(t, "the shell, cat and the daemon are in the group", func() bool {
		inside = cgroupLines(path, "cgroup.procs")
		return len(inside) == 3
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	eventually(t, "no group", func() bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
	for _, line := range inside {
		pid, _ := strconv.Atoi(line)
		if _, runs := identify(pid); runs {
			t.Errorf("%d has outlived its gateway", pid)
		}
	}
}
