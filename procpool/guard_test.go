package procpool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gatewayMain hosts what a gateway does, says so and stays.
func gatewayMain() {
	check := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	check(BecomeReaper())
	dir, _, err := RuntimeDir("", "procpool-test")
	check(err)
	check(os.WriteFile(filepath.Join(dir, "socket"), nil, 0o600))
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(os.Getenv("TMPDIR"), "s")})
	check(err)
	defer socket.Close()
	_, err = GuardSocket(filepath.Join(os.Getenv("TMPDIR"), "s"))
	check(err)
	mark := markVar + "=" + os.Getenv(markVar)
	path, err := os.Executable()
	check(err)
	pool, err := New(Config{
		Name: "test", Min: 2, Attach: attachTest,
		// Deaf to the end of its socket: only KILL ends it.
		Command: Command{Path: path, Env: []string{roleVar + "=worker", "WORKER=grandchild stray ignore-term deaf", mark}},
	})
	check(err)
	pool.Start()
	<-pool.Ready()
	script := Command{Path: "/bin/sh", Argv: []string{"sh", "-c", "trap '' TERM HUP; sleep 300 & setsid sleep 300 & (setsid sleep 300 &) ; wait"}, Env: []string{"PATH=/bin:/usr/bin", mark}}
	_, err = NewRunner(RunnerConfig{Name: "cgi"}).Start(context.Background(), script, nil)
	check(err)
	for len(pool.Stats().List) != pool.Stats().States[Ready] {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("guard", GuardPID(), dir)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// startGateway starts gatewayMain.
func startGateway(t *testing.T, role string, env ...string) (cmd *exec.Cmd, guard int, dir string, end io.Closer) {
	t.Helper()
	cmd = exec.Command(self(t))
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0", roleVar + "=" + role, mark(t), "TMPDIR=" + t.TempDir()}
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(line, "guard %d %s\n", &guard, &dir); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return cmd, guard, dir, stdin
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which stands in the last parentheses.
	return !strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " Z")
}

// Class 44: nothing outlives a gateway, also when it ends by kill -9.
func TestNothingOutlivesTheGateway(t *testing.T) {
	for _, how := range []string{"exit", "kill -9", "kill -9 after TERM and INT to all"} {
		t.Run(how, func(t *testing.T) {
			cmd, guard, dir, end := startGateway(t, "gateway")
			if guard == 0 || !alive(guard) {
				t.Fatal("no guard")
			}
			// Two workers and a script, each with children in its group and
			// in sessions of their own, with and without a parent.
			eventually(t, "all processes", func() bool { return len(marked(t, t.Name())) >= 11 && strays(t, t.Name()) == 4 })
			socket := filepath.Join(filepath.Dir(dir), "s")
			if _, err := os.Lstat(socket); err != nil {
				t.Fatal(err)
			}
			switch how {
			case "exit":
				_ = end.Close()
			case "kill -9":
				_ = cmd.Process.Kill()
			default:
				_ = syscall.Kill(guard, syscall.SIGTERM)
				_ = syscall.Kill(guard, syscall.SIGINT)
				_ = syscall.Kill(guard, syscall.SIGHUP)
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait()
			begin := time.Now()
			noneLeft(t, t.Name())
			eventually(t, "run-time directory removed", func() bool {
				_, err := os.Stat(dir)
				return os.IsNotExist(err)
			})
			eventually(t, "socket removed", func() bool {
				_, err := os.Lstat(socket)
				return os.IsNotExist(err)
			})
			eventually(t, "guard gone", func() bool { return !alive(guard) })
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// A guard that died or hangs is replaced, and the new one knows everything.
func TestGuardIsReplaced(t *testing.T) {
	dir, remove, err := RuntimeDir("", "procpool-test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("directory still there: %v", err)
		}
	}()
	if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	eventually(t, "a guard", func() bool { return GuardPID() != 0 })
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		old := GuardPID()
		if err := syscall.Kill(old, sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGSTOP {
			// Fill the pipe until the guard is found to hang.
			for i := 0; alive(old) && i < 1<<16; i++ {
				guards.add(groupName(1 << 30))
			}
			guards.remove(groupName(1 << 30))
		}
		eventually(t, "another guard", func() bool { now := GuardPID(); return now != 0 && now != old })
		if alive(old) {
			t.Errorf("%v: the old guard lives", sig)
		}
	}
}

// What a guard does when its pipe ends, in this process.
func TestGuardEntries(t *testing.T) {
	gone, kept := filepath.Join(t.TempDir(), "a b\n\"c"), t.TempDir()
	if err := os.MkdirAll(filepath.Join(gone, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	start := func() int {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "300"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	victim, bystander := start(), start()
	in := "+" + dirName(gone) + "\n+" + dirName(kept) + "\n" +
		"+" + groupName(victim) + "\n+" + groupName(bystander) + "\n" +
		"-" + dirName(kept) + "\n-" + groupName(bystander) + "\n" +
		"+group 0\n+group 1\n+group -1\n+group x\n+dir x\nnonsense\n\n" +
		"+" + groupName(bystander) // cut off
	guardEntries(bufio.NewReader(strings.NewReader(in)))
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("directory not removed: %v", err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("directory taken off the list: %v", err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(victim, &ws, 0, nil); err != nil || !ws.Signaled() {
		t.Errorf("group on the list: %v %v", ws, err)
	}
	if !alive(bystander) {
		t.Error("group taken off the list was killed")
	}
	_ = syscall.Kill(bystander, syscall.SIGKILL)
	_, _ = syscall.Wait4(bystander, nil, 0, nil)
}

// The guard holds its pipe and nothing else, and is small.
func TestGuardIsSmall(t *testing.T) {
	cmd, guard, _, end := startGateway(t, "gateway")
	defer func() { _ = end.Close(); _ = cmd.Wait(); noneLeft(t, t.Name()) }()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", guard))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", guard, fd.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the guard reads a file of the kernel's at its start
		}
		n, _ := strconv.Atoi(fd.Name())
		// The runtime has some of its own: events, and the CPU limits.
		if n > 2 && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			t.Errorf("descriptor %d is %s", n, target)
		}
	}
}

// orphansMain runs scripts that fork twice, and counts its zombies.
func orphansMain() {
	if err := BecomeReaper(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	r := NewRunner(RunnerConfig{Name: "cgi", KeepBackground: true})
	done := make(chan bool)
	const scripts = 100
	for range scripts {
		go func() {
			// The outer parentheses exit at once: the inner process is an
			// orphan, that ends only after the script.
			p, err := r.Start(context.Background(), Command{Path: "/bin/sh", Argv: []string{"sh", "-c", "((sleep 0.2)& ); echo x"}, Env: []string{"PATH=/bin:/usr/bin"}}, nil)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			out, _ := io.ReadAll(p.Stdout)
			<-p.Done()
			_ = p.Close()
			done <- string(out) == "x\n" && p.State().Success()
		}()
	}
	good := 0
	for range scripts {
		if <-done {
			good++
		}
	}
	fmt.Println("guard", good, "x")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// Class 42: no zombies, neither of scripts nor of what they left behind.
func TestNoZombies(t *testing.T) {
	cmd, good, _, end := startGateway(t, "orphans")
	defer func() { _ = end.Close(); _ = cmd.Wait() }()
	if good != 100 {
		t.Errorf("%d of 100 scripts answered and ended well", good)
	}
	eventually(t, "no child but the guard", func() bool { return len(childrenOf(t, cmd.Process.Pid)) == 1 })
}

// childrenOf returns the children of a process, zombies too.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}
