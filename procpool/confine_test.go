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
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatecrew/procpool/confine"
)

// needRoot ends a test of what only root can ask for.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes as another user or in another root folder; run it as root")
	}
}

func needLandlock(t *testing.T) {
	t.Helper()
	if err := confine.LandlockError(); err != nil {
		t.Skip("it needs a kernel with Landlock, without which the start is refused: ", err)
	}
}

// nobody is the user that has nothing.
func nobody(t *testing.T) *confine.Account {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &confine.Account{Name: "nobody", UID: uint32(uid), GID: uint32(gid), Groups: []uint32{uint32(gid), 4242}}
}

// confined runs a shell script that is confined by c and returns its output.
func confined(t *testing.T, c *confine.Confinement, script string) string {
	t.Helper()
	r := newRunner(t, RunnerConfig{})
	command := shell(t, script)
	command.Confinement, command.Dir = c, "/"
	var log strings.Builder
	p := start(t, r, command, &log)
	out := readAll(t, p)
	<-p.Done()
	if log.Len() > 0 {
		t.Logf("standard error: %s", log.String())
	}
	return out
}

// status is /proc/self/status of a process that is confined by c.
func status(t *testing.T, c *confine.Confinement) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(confined(t, c, "exec cat /proc/self/status")) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// What isn't asked for stays as it is without confinement.
func TestConfinedOtherwiseUnchanged(t *testing.T) {
	const report = `cat /proc/self/status | grep -E '^(Uid|Gid|Groups|Umask|Sig|Shd|Cap|NoNewPrivs|Seccomp|CoreDumping)' | grep -v SigQ
		ulimit -a; ulimit -Ha; nice; pwd; env | grep -v INSTANCE | sort; readlink /proc/self/root; set -- $(cat /proc/$$/stat); echo session $6; [ $5 = $$ ] && echo leader`
	// Go raises this one for itself.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 777, Max: files.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) }()
	plain := confined(t, nil, report)
	if !strings.Contains(plain, " 777") {
		t.Error(plain)
	}
	for name, c := range map[string]*confine.Confinement{
		"nothing": {}, "umask": {Umask: new(uint32(0o22))},
	} {
		want := plain
		if c.Umask != nil {
			old := syscall.Umask(0o22)
			want = confined(t, nil, report)
			syscall.Umask(old)
		}
		if got := confined(t, c, report); got != want || !strings.Contains(got, "leader") {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func TestConfinedUser(t *testing.T) {
	needRoot(t)
	account := nobody(t)
	s := status(t, &confine.Confinement{Account: account})
	ids := func(id uint32) string { return strings.TrimSpace(strings.Repeat(fmt.Sprintf("%d ", id), 4)) }
	if s["Uid"] != ids(account.UID) || s["Gid"] != ids(account.GID) {
		t.Errorf("Uid %q, Gid %q", s["Uid"], s["Gid"])
	}
	if got := strings.Fields(s["Groups"]); !slices.Contains(got, "4242") || len(got) != 2 {
		t.Errorf("Groups %q", got)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if strings.Trim(s[set], "0") != "" {
			t.Errorf("%s is %s", set, s[set])
		}
	}
}

// The last processor alone, and one that there is not.
func TestConfinedCPUs(t *testing.T) {
	have, err := confine.CPUs()
	if err != nil || len(have) == 0 {
		t.Fatalf("%v, %v", have, err)
	}
	last := have[len(have)-1]
	s := status(t, &confine.Confinement{CPUs: []int{last}})
	if got := s["Cpus_allowed_list"]; got != strconv.Itoa(last) {
		t.Errorf("it may run on %s, want %d", got, last)
	}
	r := newRunner(t, RunnerConfig{})
	command := shell(t, "true")
	command.Confinement = &confine.Confinement{CPUs: []int{1000}}
	if _, err := r.Start(t.Context(), command, nil); err == nil || !strings.Contains(err.Error(), "run on the processors [1000]") {
		t.Errorf("a processor that isn't there: %v", err)
	}
}

func TestConfinedUmaskNiceAndPrivileges(t *testing.T) {
	c := &confine.Confinement{Umask: new(uint32(0o27)), Nice: 3, NoNewPrivileges: true}
	s := status(t, c)
	if s["Umask"] != "0027" || s["NoNewPrivs"] != "1" {
		t.Errorf("Umask %s, NoNewPrivs %s", s["Umask"], s["NoNewPrivs"])
	}
	before, _ := strconv.Atoi(strings.TrimSpace(confined(t, nil, "nice")))
	if got := confined(t, c, "nice"); got != strconv.Itoa(before+3)+"\n" {
		t.Errorf("niceness %q, and %d without", got, before)
	}
}

func TestConfinedRlimits(t *testing.T) {
	for name, line := range map[string]string{
		"as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size", "fsize": "Max file size",
		"memlock": "Max locked memory", "nofile": "Max open files", "nproc": "Max processes", "stack": "Max stack size",
	} {
		value := uint64(100)
		switch name {
		case "as", "data", "stack":
			value = 16 << 20 // far less than a Go program has mapped
		case "memlock":
			value = 4096
		}
		c := &confine.Confinement{Rlimits: map[string]uint64{name: value}}
		out := confined(t, c, "exec cat /proc/self/limits")
		found := ""
		for l := range strings.Lines(out) {
			if strings.HasPrefix(l, line) {
				found = strings.Join(strings.Fields(l[len(line):])[:2], " ")
			}
		}
		if want := fmt.Sprintf("%d %d", value, value); found != want {
			t.Errorf("%s: %q, want %q", name, found, want)
		}
	}
	if got := confine.RlimitNames(); len(got) != 9 {
		t.Errorf("%d limits, 9 are tested", len(got))
	}
	if !confine.Capable(unix.CAP_SYS_RESOURCE) {
		t.Log("without CAP_SYS_RESOURCE limits can't be raised, and that is not tested")
		return
	}
	// The hard limit of the gateway is no obstacle for root, also when the
	// process is another user.
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 0, Max: 1000}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_CORE, &old) }()
	c := &confine.Confinement{Account: nobody(t), Rlimits: map[string]uint64{"core": confine.Unlimited}}
	if got := confined(t, c, "ulimit -c; ulimit -Hc"); got != "unlimited\nunlimited\n" {
		t.Errorf("raised: %q", got)
	}
}

func TestConfinedChroot(t *testing.T) {
	needRoot(t)
	root := rootFolder(t, "/bin/sh", "/bin/cat")
	if err := errors.Join(os.Mkdir(filepath.Join(root, "app"), 0o755), os.WriteFile(filepath.Join(root, "app", "file"), []byte("inside\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r := newRunner(t, RunnerConfig{})
	command := shell(t, "pwd; cat file; cat /../app/file; test -e /etc || echo nothing else")
	command.Dir = "/app"
	command.Confinement = &confine.Confinement{Chroot: root, Account: nobody(t), Readable: []string{"/app/file"}, Rlimits: map[string]uint64{"core": 0}}
	if confine.LandlockError() == nil {
		command.Confinement.Landlock = &confine.Landlock{ReadOnly: []string{"/app"}}
	}
	p := start(t, r, command, nil)
	if got, want := readAll(t, p), "/app\ninside\ninside\nnothing else\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-p.Done()
}

func TestConfinedLandlock(t *testing.T) {
	needLandlock(t)
	dir := t.TempDir()
	for _, sub := range []string{"read", "write", "other"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sub, "file"), []byte(sub+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	single := filepath.Join(dir, "other", "single")
	if err := os.WriteFile(single, []byte("single\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := &confine.Confinement{Landlock: &confine.Landlock{
		ReadOnly: []string{filepath.Join(dir, "read"), single}, Writable: []string{filepath.Join(dir, "write")},
	}}
	out := confined(t, c, `cd `+dir+`
		try() { echo "$1: $( (eval "$2") 2>/dev/null || echo refused)"; }
		try read 'cat read/file'
		try single 'cat other/single'
		try other 'cat other/file'
		try list 'ls other'
		try write 'echo x >write/new; cat write/new'
		try append 'echo x >>read/file'
		try create 'echo x >read/new'
		try truncate 'truncate -s 0 read/file'
		try remove 'rm read/file'
		try single-write 'echo x >>other/single'
		try null 'echo x >/dev/null; echo good'
		try devices 'ls /dev'
		try tmp 'echo x >/tmp/gatecrew-landlock'
		try hosts 'test -s /etc/passwd && echo good'`)
	want := "read: read\nsingle: single\nother: refused\nlist: refused\nwrite: x\nappend: refused\ncreate: refused\ntruncate: refused\n" +
		"remove: refused\nsingle-write: refused\nnull: good\ndevices: refused\ntmp: refused\nhosts: good\n"
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if got := status(t, c)["NoNewPrivs"]; got != "1" {
		t.Errorf("NoNewPrivs %s", got)
	}
}

// Class 42, on the way through the stage in which a process confines itself:
// only its own descriptors get there.
func TestConfinedDescriptors(t *testing.T) {
	c := &confine.Confinement{Umask: new(uint32(0o22)), Landlock: &confine.Landlock{}, Rlimits: map[string]uint64{"core": 0}}
	if confine.LandlockError() != nil {
		c.Landlock = nil
	}
	r := newRunner(t, RunnerConfig{})
	before := openFiles(t)
	for range 5 {
		done := make(chan string)
		for range 4 {
			go func() {
				p, err := r.Start(t.Context(), Command{Path: "/bin/ls", Argv: []string{"ls", "/proc/self/fd"}, Confinement: c}, nil)
				if err != nil {
					done <- err.Error()
					return
				}
				_ = p.Stdin.Close()
				out, _ := io.ReadAll(p.Stdout)
				<-p.Done()
				_ = p.Close()
				done <- strings.Join(strings.Fields(string(out)), " ")
			}()
		}
		for range 4 {
			if got := <-done; got != "0 1 2 3" {
				t.Errorf("descriptors %q", got)
			}
		}
	}
	// The spawner, the guard and the null device keep a few for good.
	eventually(t, "descriptors closed", func() bool { return openFiles(t) <= before+4 })
}

// What is wrong is said, and the errors are those of a process that isn't
// confined.
func TestConfinedErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	if err := os.Mkdir(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	mild := &confine.Confinement{Umask: new(uint32(0o22))}
	type test struct {
		name    string
		command Command
		want    error
		text    string
	}
	tests := []test{
		{"no program", Command{Path: "/no/such/program", Confinement: mild}, fs.ErrNotExist, "exec /no/such/program: no such file"},
		{"not executable", Command{Path: plain, Confinement: mild}, fs.ErrPermission, "exec " + plain},
		{"too long", Command{Path: "/bin/true", Env: []string{"A=" + strings.Repeat("x", 1<<20)}, Confinement: mild}, syscall.E2BIG, "argument list too long"},
		{"too long for the stack", Command{Path: "/bin/true", Env: []string{"A=" + strings.Repeat("x", 1<<17-10), "B=" + strings.Repeat("x", 1<<16)},
			Confinement: &confine.Confinement{Rlimits: map[string]uint64{"stack": 256 << 10}}}, syscall.E2BIG, "argument list too long"},
		{"no folder", Command{Path: "/bin/true", Dir: "/no/such/folder", Confinement: mild}, fs.ErrNotExist, "change to folder /no/such/folder"},
	}
	if confine.LandlockError() == nil {
		tests = append(tests,
			test{"landlock", Command{Path: "/bin/true", Confinement: &confine.Confinement{Landlock: &confine.Landlock{}, Readable: []string{secret}}},
				fs.ErrPermission, "open " + secret + " within the landlock rules: permission denied"},
			test{"landlock without the file", Command{Path: "/bin/true", Confinement: &confine.Confinement{Landlock: &confine.Landlock{Writable: []string{"/no/such"}}}},
				fs.ErrNotExist, "add to the landlock rules /no/such: no such file"})
	}
	if os.Geteuid() == 0 {
		account := nobody(t)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		private := t.TempDir()
		if err := os.Chmod(private, 0o700); err != nil {
			t.Fatal(err)
		}
		tests = append(tests,
			test{"another user's file", Command{Path: "/bin/true", Confinement: &confine.Confinement{Account: account, Readable: []string{private}}},
				fs.ErrPermission, "open " + private + " as user nobody: permission denied"},
			test{"another user's folder", Command{Path: "/bin/true", Dir: private, Confinement: &confine.Confinement{Account: account}},
				fs.ErrPermission, "change to folder " + private + " as user nobody"},
			test{"another user's program", Command{Path: plain, Confinement: &confine.Confinement{Account: account}},
				fs.ErrPermission, "exec " + plain + " as user nobody"},
			test{"no root folder", Command{Path: "/bin/true", Confinement: &confine.Confinement{Chroot: "/no/such"}},
				fs.ErrNotExist, "chroot to /no/such"},
			test{"a limit beyond the system's", Command{Path: "/bin/true", Confinement: &confine.Confinement{Rlimits: map[string]uint64{"nofile": confine.Unlimited}}},
				fs.ErrPermission, "set rlimit nofile=unlimited: operation not permitted"})
	} else {
		tests = append(tests, test{"not root", Command{Path: "/bin/true", Confinement: &confine.Confinement{Account: &confine.Account{Name: "root"}}},
			fs.ErrPermission, "become user root: operation not permitted"})
	}
	r := newRunner(t, RunnerConfig{})
	for _, c := range tests {
		p, err := r.Start(t.Context(), c.command, nil)
		if err == nil {
			_ = p.Close()
		}
		if !errors.Is(err, ErrStart) || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want %q", c.name, err, c.text)
		}
	}
}

// A file that was just written can be executed, confined or not.
func TestConfinedWaitsForTextBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(program); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(30*time.Millisecond, func() { _ = f.Close() })
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, Command{Path: path, Confinement: &confine.Confinement{NoNewPrivileges: true}}, nil)
	_ = readAll(t, p)
	<-p.Done()
	if !p.State().Success() {
		t.Error(p.State())
	}
}

func TestConfinedWorker(t *testing.T) {
	c := &confine.Confinement{Umask: new(uint32(0o77)), NoNewPrivileges: true, Rlimits: map[string]uint64{"core": 0}}
	command := testWorker(t, "")
	if os.Geteuid() == 0 {
		// Where the test binary lies nobody else may look.
		command.Path = copyProgram(t, command.Path)
		c.Account = nobody(t)
	}
	command.Confinement = c
	p := newPool(t, Config{Command: command, Min: 1})
	l := lease(t, p)
	if err := do(l, "sleep 1ms"); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Stats().List[0].PID))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); !strings.Contains(text, "NoNewPrivs:\t1") || !strings.Contains(text, "Umask:\t0077") {
		t.Error(text)
	}
	l.Release()
}

// confinedGatewayMain hosts processes that ran as another user by the time
// their parent dies, and says so.
func confinedGatewayMain() {
	check := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	if os.Getenv("GUARD") == "" {
		guards.enabled.Store(false)
	}
	c := &confine.Confinement{Umask: new(uint32(0o22)), NoNewPrivileges: true}
	if os.Geteuid() == 0 {
		c.Account = &confine.Account{Name: "65534", UID: 65534, GID: 65534}
	}
	script := Command{Path: "/bin/sh", Argv: []string{"sh", "-c", "trap '' TERM HUP; echo ready; " + os.Getenv("SCRIPT")},
		Env: []string{"PATH=/bin:/usr/bin", markVar + "=" + os.Getenv(markVar)}, Confinement: c}
	r := NewRunner(RunnerConfig{Name: "cgi"})
	for range 3 {
		p, err := r.Start(context.Background(), script, nil)
		check(err)
		_, err = bufio.NewReader(p.Stdout).ReadString('\n')
		check(err)
	}
	fmt.Println("guard", GuardPID(), "-")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// The change of user makes the kernel forget the parent-death signal.
func TestConfinedProcessesDieWithTheGateway(t *testing.T) {
	for _, c := range []struct{ name, guard, script string }{
		// One process in the group, and nobody but the kernel to kill it.
		{"parent-death signal", "", "while :; do read x </dev/zero; done"},
		// A grandchild, which only the guard knows of.
		{"guard", "1", "sleep 300 & wait"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, _, _, _ := startGateway(t, "confined gateway", "GUARD="+c.guard, "SCRIPT="+c.script)
			eventually(t, "all processes", func() bool { return len(marked(t, t.Name())) >= 4 })
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			noneLeft(t, t.Name())
		})
	}
}

// rootFolder makes a folder that can be a process's /, with programs in it and
// the libraries that they need.
func rootFolder(t *testing.T, programs ...string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	files := programs
	for _, program := range programs {
		out, err := exec.Command("ldd", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// copyProgram copies a program to where every user can execute it.
func copyProgram(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "procpool-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "program")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return to
}
