package procpool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func guarded(p *Process) bool {
	guards.mu.Lock()
	defer guards.mu.Unlock()
	return guards.entries[groupName(p.Pid())]
}

// A program that soon ends is collected by whoever reads its output to the end:
// when that is seen, everything is over.
func TestYoungIsSettledByItsReader(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	settled := 0
	for range 50 { // how long a program lives is the machine's business, too
		var stderr bytes.Buffer
		c := shell(t, "echo oops >&2; echo hello; exit 3")
		c.NoInput = true
		p := start(t, r, c, &stderr)
		if got := readAll(t, p); got != "hello\n" {
			t.Errorf("stdout %q", got)
		}
		p.mu.Lock()
		if p.stage == settling {
			settled++
			if !closed(p.Done()) || guarded(p) {
				t.Errorf("not over at the end of the output, or known to the guard")
			}
		}
		p.mu.Unlock()
		<-p.Done()
		if p.State() != (Exit{Code: 3}) || stderr.String() != "oops\n" {
			t.Errorf("state %v, stderr %q", p.State(), stderr.String())
		}
	}
	if settled == 0 {
		t.Error("none of 50 was collected by its reader")
	}
}

// One that lives on is attended: the guard knows it, its diagnostics are read and
// its exit is seen without anybody who reads.
func TestYoungGrowsUp(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, shell(t, "head -c 200000 /dev/zero >&2; read line; exit 4"), nil)
	eventually(t, "the guard to know it", func() bool { return guarded(p) })
	_ = p.Stdin.Close()
	<-p.Done()
	if guarded(p) || p.State() != (Exit{Code: 4}) {
		t.Errorf("guarded %v, state %v", guarded(p), p.State())
	}
}

// What others hold open keeps neither the end nor the collection from coming.
func TestYoungWithOpenDescriptors(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	for _, script := range []string{
		"exec >&-; echo late >&2; sleep 0.05; exit 5", // it works on after its output
		"sleep 300 >&- & echo late >&2; exit 5",       // in its group, with its stderr
	} {
		var stderr bytes.Buffer
		p := start(t, r, shell(t, script), &stderr)
		if got := readAll(t, p); got != "" {
			t.Errorf("%s: stdout %q", script, got)
		}
		<-p.Done()
		if p.State() != (Exit{Code: 5}) || stderr.String() != "late\n" {
			t.Errorf("%s: state %v, stderr %q", script, p.State(), stderr.String())
		}
	}
}

// Gather gives up its patience when the program isn't young any more, and what
// comes after that comes by Read.
func TestGather(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	p := start(t, r, shell(t, "echo first; read line; echo second; sleep 0.05; echo third"), nil)
	b := make([]byte, 100)
	n, err := p.Stdout.Gather(b)
	if string(b[:n]) != "first\n" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
	_ = p.Stdin.Close()
	if rest, err := io.ReadAll(p.Stdout); string(rest) != "second\nthird\n" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}

	whole := 0
	for range 50 {
		p = start(t, r, shell(t, "echo first; echo second"), nil)
		n, err := p.Stdout.Gather(b)
		if err == io.EOF {
			whole++
			if string(b[:n]) != "first\nsecond\n" {
				t.Errorf("all of it: %q", b[:n])
			}
		} else if err != nil {
			t.Error(err)
		}
		rest, _ := io.ReadAll(p.Stdout)
		if got := string(b[:n]) + string(rest); got != "first\nsecond\n" {
			t.Errorf("%q", got)
		}
	}
	if whole == 0 {
		t.Error("none of 50 answers came as one")
	}
	p = start(t, r, shell(t, "echo 0123456789"), nil)
	if n, err := p.Stdout.Gather(b[:4]); string(b[:n]) != "0123" || err != nil {
		t.Errorf("a full buffer: %q, %v", b[:n], err)
	}
	_ = p.Close()
}

func TestNoInput(t *testing.T) {
	r := newRunner(t, RunnerConfig{})
	for range 2 { // the first must not take anything from the second
		c := shell(t, "cat; test -p /dev/stdin && echo pipe")
		c.NoInput = true
		p := start(t, r, c, nil)
		if p.Stdin != nil {
			t.Error("there is something to write to")
		}
		if out, err := io.ReadAll(p.Stdout); string(out) != "pipe\n" || err != nil {
			t.Errorf("%q, %v", out, err)
		}
	}
}

// Orphans are reaped also while no signal tells of them.
func TestOrphansWhileHushed(t *testing.T) {
	cmd, good, _, end := startGateway(t, "orphans")
	defer func() { _ = end.Close(); _ = cmd.Wait() }()
	if good == 0 {
		t.Error("no script answered")
	}
	eventually(t, "SIGCHLD to be caught again", func() bool { return caught(t, cmd.Process.Pid)&(1<<(syscall.SIGCHLD-1)) != 0 })
}

func caught(t *testing.T, pid int) (set uint64) {
	t.Helper()
	return statusSet(t, fmt.Sprintf("/proc/%d/status", pid), "SigCgt")
}

func statusSet(t *testing.T, file, name string) (set uint64) {
	t.Helper()
	status, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), name+":")
	if _, err := fmt.Sscanf(after, "%x", &set); err != nil {
		t.Fatal(err)
	}
	return set
}

// A program finds what syscall.ForkExec would have given it: no blocked or caught
// signal, and the limit of open files that this process had at its start.
func TestStartStateOfPrograms(t *testing.T) {
	const again = "PROCPOOL_TEST_LIMITED"
	if os.Getenv(again) == "" { // with a limit that package syscall raises
		cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 200; exec "$0" -test.run='^TestStartStateOfPrograms$'`, self(t))
		cmd.Env = append(os.Environ(), again+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	const script = "ulimit -n; ulimit -Hn; grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$"
	state := func(given int) []string {
		var fds [2]int
		if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		attr := childAttr(nil, []string{"PATH=/usr/bin:/bin"}, "/", []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[1])})
		var pid int
		var err error
		if given == 0 {
			pid, err = syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, attr)
		} else {
			pid, err = forkExec("/bin/sh", []string{"sh", "-c", script}, attr)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Close(fds[1])
		f := os.NewFile(uintptr(fds[0]), "pipe")
		defer f.Close()
		out, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if n := len(lines); n < 7 || lines[n-1] != lines[n-2] || lines[n-1] != fmt.Sprint(pid) {
			t.Errorf("not the leader of its group: %q", lines)
			return nil
		}
		return lines[:5]
	}
	want, got := state(0), state(1)
	if len(want) == 0 || want[0] != "200" {
		t.Errorf("limit %q", want)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", got, want)
	}
}

// The kernel kills a child when the thread that started it ends. The Go runtime
// must keep threads that have nothing to do.
func TestChildrenOutliveIdleThreads(t *testing.T) {
	r := newRunner(t, RunnerConfig{Max: 16})
	var wg, all sync.WaitGroup
	all.Add(16)
	processes := make([]*Process, 16)
	for i := range processes {
		wg.Go(func() {
			runtime.LockOSThread() // so that there are as many threads
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
			var err error
			if processes[i], err = r.Start(t.Context(), shell(t, "read line"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for range 3 {
		runtime.GC()
		time.Sleep(100 * time.Millisecond)
	}
	for _, p := range processes {
		if closed(p.Done()) {
			t.Errorf("it has ended: %v", p.State())
		}
		_ = p.Stdin.Close()
		<-p.Done()
		if p.State() == (Exit{Signal: syscall.SIGKILL}) {
			t.Error("it was killed")
		}
		_ = p.Close()
	}
}

func TestForkExecErrors(t *testing.T) {
	// A descriptor that would be overwritten takes the other way.
	null, err := devNull()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := forkExec("/bin/true", []string{"true"}, childAttr(nil, nil, "", []uintptr{uintptr(null), 1, 2}))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	if _, err := forkExec("/bin/true", []string{"true"}, childAttr(nil, nil, "", []uintptr{uintptr(null), uintptr(null), 1 << 20})); !errors.Is(err, syscall.EBADF) {
		t.Errorf("no such descriptor: %v", err)
	}
}
