package procpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// zygoteMain forks workers. A Go program can't fork itself, so that it starts
// its workers anew, by way of a process that exits at once. $ZYGOTE has the ways
// in which it misbehaves.
func zygoteMain() {
	has := func(word string) bool { return slices.Contains(strings.Fields(os.Getenv("ZYGOTE")), word) }
	if os.Args[len(os.Args)-1] != preloadFlag {
		fmt.Fprintln(os.Stderr, "arguments:", os.Args)
		syscall.Exit(1)
	}
	switch {
	case has("fail"):
		fmt.Fprintln(os.Stderr, "no application")
		syscall.Exit(4)
	case has("hang"):
		fmt.Println("connecting to the database")
		select {}
	}
	fmt.Println("loaded")
	say := func(text string) { _ = unix.Send(3, []byte(text), 0) }
	say("ready")
	buf, rights := make([]byte, 512), make([]byte, 128)
	for {
		n, oobn, _, _, err := unix.Recvmsg(3, buf, rights, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			syscall.Exit(0)
		}
		switch {
		case has("refuse"):
			say("no memory left")
			continue
		case has("stranger"):
			say(strconv.Itoa(os.Getpid() + 1<<20))
			continue
		case has("brother"): // a child of this process, not of its parent
			c := exec.Command("/bin/sleep", "100")
			_ = c.Start()
			say(strconv.Itoa(c.Process.Pid))
			continue
		case has("stuck"):
			select {}
		case has("die"):
			syscall.Exit(9)
		}
		messages, _ := unix.ParseSocketControlMessage(rights[:oobn])
		fds, _ := unix.ParseUnixRights(&messages[0])
		between := exec.Command("/proc/self/exe")
		between.Env = append(os.Environ(), roleVar+"=between", string(buf[:n]))
		for _, fd := range fds {
			between.ExtraFiles = append(between.ExtraFiles, os.NewFile(uintptr(fd), "given"))
		}
		out, _ := between.Output()
		for _, f := range between.ExtraFiles {
			_ = f.Close()
		}
		say(string(out))
	}
}

// betweenMain starts a worker and exits.
func betweenMain() {
	_ = os.Setenv(roleVar, "worker")
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 3, 4, 5, 6},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"worker"}, attr)
	if err != nil {
		fmt.Print(err)
	} else {
		fmt.Print(pid)
	}
	syscall.Exit(0)
}

// TestPreload runs the tests that need the reaper in a process that is one: its
// os/exec can no longer be relied on.
func TestPreload(t *testing.T) {
	if _, err := New(Config{Attach: attachTest, Preload: true}); err == nil || !strings.Contains(err.Error(), "BecomeReaper") {
		t.Errorf("without BecomeReaper: %v", err)
	}
	c := exec.Command(self(t), "-test.run=^TestZygote", "-test.v")
	c.Env = append(os.Environ(), roleVar+"=reaper")
	out, err := c.CombinedOutput()
	// There, none of them has a reason to be skipped.
	passed, skipped := bytes.Count(out, []byte("--- PASS: TestZygote")), bytes.Count(out, []byte("--- SKIP"))
	if err != nil || passed == 0 || skipped > 0 || testing.Verbose() {
		t.Logf("%s", out)
	}
	if err != nil || passed == 0 || skipped > 0 {
		t.Errorf("%d passed, %d were skipped: %v", passed, skipped, err)
	}
}

// needReaper leaves a test to TestPreload, which runs it in a process of its own.
func needReaper(t *testing.T) {
	t.Helper()
	if !children.haveReaper() {
		t.Skip("it needs a process that is the reaper of orphans, in which os/exec can't be relied on: TestPreload starts one and runs it there")
	}
}

// zygotePool starts a pool whose workers are forked.
func zygotePool(t *testing.T, zygote, worker string, cfg Config) *Pool {
	t.Helper()
	needReaper(t)
	t.Parallel()
	cfg.Preload = true
	cfg.Command = zygoteCommand(t, zygote, worker)
	return newPool(t, cfg)
}

func zygoteCommand(t *testing.T, zygote, worker string) Command {
	c := testWorker(t, worker, "ZYGOTE="+zygote)
	c.Env[slices.Index(c.Env, roleVar+"=worker")] = roleVar + "=zygote"
	return c
}

func (k *zygoteKeeper) pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == nil {
		return 0
	}
	return k.current.child.pid
}

func (p *Pool) readyWorkers() (pids []int) {
	for _, w := range p.Stats().List {
		if w.State == Ready {
			pids = append(pids, w.PID)
		}
	}
	return pids
}

func TestZygoteForks(t *testing.T) {
	p := zygotePool(t, "", "", Config{Min: 3})
	eventually(t, "three workers", func() bool { return len(p.readyWorkers()) == 3 })
	zygote := p.gen.zygotes.pid()
	for _, pid := range p.readyWorkers() {
		if pgid, err := unix.Getpgid(pid); pgid != pid || err != nil {
			t.Errorf("worker %d is in group %d (%v)", pid, pgid, err)
		}
		if !slices.Contains(childrenOf(t, os.Getpid()), pid) {
			t.Errorf("worker %d is not a child of this process", pid)
		}
	}
	l := lease(t, p)
	if err := do(l, "print x"); err != nil {
		t.Error(err)
	}
	victim := l.Worker().PID
	if err := do(l, "exit"); !errors.Is(err, errDied) {
		t.Errorf("a request on a dying worker: %v", err)
	}
	l.Release()
	eventually(t, "another worker in its place", func() bool {
		pids := p.readyWorkers()
		return len(pids) == 3 && !slices.Contains(pids, victim)
	})
	if got := lastExits(p); !slices.Contains(got, "exit status 7") {
		t.Errorf("the exits are %q, want the worker's own status among them", got)
	}
	if pid := p.gen.zygotes.pid(); pid != zygote {
		t.Errorf("the zygote was %d and is %d", zygote, pid)
	}
	p.Close()
	if pid := p.gen.zygotes.pid(); pid != 0 {
		t.Errorf("the zygote %d has outlived the pool", pid)
	}
}

// lastExits are those of all numbers: a replacement has another number than the
// worker before it while the last words of that one are read.
func lastExits(p *Pool) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.lastExit))
}

// Workers live on without their zygote, and the next one to start gets another.
func TestZygoteDies(t *testing.T) {
	p := zygotePool(t, "", "", Config{Min: 2})
	eventually(t, "two workers", func() bool { return len(p.readyWorkers()) == 2 })
	before, zygote := p.readyWorkers(), p.gen.zygotes.pid()
	_ = unix.Kill(zygote, unix.SIGKILL)
	eventually(t, "no zygote", func() bool { return p.gen.zygotes.pid() == 0 })
	if now := p.readyWorkers(); !slices.Equal(before, now) {
		t.Errorf("the workers were %v and are %v", before, now)
	}
	_ = unix.Kill(before[0], unix.SIGKILL)
	eventually(t, "a worker from a new zygote", func() bool {
		pids := p.readyWorkers()
		return len(pids) == 2 && !slices.Contains(pids, before[0]) && p.gen.zygotes.pid() != 0
	})
}

func TestZygoteFails(t *testing.T) {
	for _, c := range []struct {
		name, zygote string
		timeout      time.Duration
		exit         Exit
		err, output  string
	}{
		{"exits", "fail", 0, Exit{Code: 4}, "exit status 4", "no application"},
		{"hangs", "hang", 500 * time.Millisecond, Exit{}, "not ready after 500ms", "connecting to the database"},
		{"refuses", "refuse", 0, Exit{}, "no memory left", ""},
		{"lies", "stranger", 0, Exit{}, "was not forked for this one", ""},
		{"keeps its child", "brother", 0, Exit{}, "was not forked for this one", ""},
		{"dies instead", "die", 0, Exit{}, "fork from the preloading process", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := zygotePool(t, c.zygote, "", Config{StartTimeout: c.timeout})
			<-p.Failed()
			f := p.Failure()
			if f.Exit != c.exit || !strings.Contains(f.Err.Error(), c.err) || !strings.Contains(strings.Join(f.Output, "\n"), c.output) {
				t.Errorf("%v, %v, %q", f.Exit, f.Err, f.Output)
			}
		})
	}
}

// A zygote that doesn't come to an end keeps nobody from ending the pool.
func TestZygoteStuck(t *testing.T) {
	for _, mode := range []string{"hang", "stuck"} {
		t.Run(mode, func(t *testing.T) {
			p := zygotePool(t, mode, "", Config{Min: 2})
			eventually(t, "a zygote", func() bool { return len(marked(t, t.Name())) == 1 })
			time.Sleep(50 * time.Millisecond) // it is asked
			began := time.Now()
			p.Close()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the pool took %v to close", took)
			}
			noneLeft(t, t.Name())
		})
	}
}

// A worker that fails is told from a zygote that does.
func TestZygoteForksWhatFails(t *testing.T) {
	p := zygotePool(t, "", "fail", Config{})
	<-p.Failed()
	if f := p.Failure(); f.Exit != (Exit{Code: 4}) || len(f.Output) != tailLines || f.Worker.Number != 1 {
		t.Errorf("%+v", f)
	}
}

// What a generation has beside its workers ends with close.
func TestZygoteEndsWithItsGeneration(t *testing.T) {
	p := zygotePool(t, "", "", Config{})
	<-p.Ready()
	p.gen.close()
	eventually(t, "no zygote", func() bool { return p.gen.zygotes.pid() == 0 })
	if _, err := p.preloaded(context.Background(), p.gen); !errors.Is(err, ErrClosed) {
		t.Errorf("a worker of a generation that has ended: %v", err)
	}
}

// Until a restart has succeeded the generation of before keeps its zygote, so that
// its workers can be replaced.
func TestZygoteOfEachGeneration(t *testing.T) {
	p := zygotePool(t, "", "", Config{Min: 2, Max: 2})
	eventually(t, "two workers", func() bool { return len(p.readyWorkers()) == 2 })
	old := p.gen.zygotes.pid()

	broken := zygoteCommand(t, "fail", "")
	r := <-p.Restart(&broken)
	var f *StartFailure
	if r.State != RestartFailed || !errors.As(r.Err, &f) || f.Exit.Code != 4 || !slices.Equal(f.Output, []string{"no application"}) {
		t.Fatalf("a restart with what can't be loaded: %+v", r)
	}
	victim := p.readyWorkers()[0]
	_ = unix.Kill(victim, unix.SIGKILL)
	eventually(t, "another worker", func() bool {
		pids := p.readyWorkers()
		return len(pids) == 2 && !slices.Contains(pids, victim)
	})
	if pid := p.zygotePIDs(); !slices.Equal(pid, []int{old}) {
		t.Errorf("the zygotes are %v, want %d alone", pid, old)
	}

	if r := <-p.Restart(nil); r.State != RestartDone {
		t.Fatalf("a restart: %+v", r)
	}
	eventually(t, "the new zygote alone", func() bool {
		pids := p.zygotePIDs()
		return len(pids) == 1 && pids[0] != old && syscall.Kill(old, 0) == syscall.ESRCH
	})

	hanging := zygoteCommand(t, "hang", "")
	p.Restart(&hanging)
	eventually(t, "a zygote that hangs", func() bool { return len(p.zygotePIDs()) == 2 })
}

// zygotePIDs are those of all generations.
func (p *Pool) zygotePIDs() (pids []int) {
	p.mu.Lock()
	gens := slices.Clone(p.gens)
	p.mu.Unlock()
	for _, g := range gens {
		if pid := g.zygotes.pid(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A worker that is to end before its life has begun doesn't wait for an
// application that hangs while it is loaded.
func TestZygoteOfWorkerStoppedBeforeItsStart(t *testing.T) {
	needReaper(t)
	t.Parallel()
	p, err := New(Config{Name: "test", Command: zygoteCommand(t, "hang", ""), Preload: true, Attach: attachTest})
	if err != nil {
		t.Fatal(err)
	}
	begun := p.look()
	w := p.workers[0]
	p.phase = closing
	for _, s := range []survey{p.look(), begun} {
		for _, act := range s.acts {
			act()
		}
	}
	eventually(t, "it has gone", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return w.gone
	})
	p.closeGenerations()
	noneLeft(t, t.Name())
}

// A zygote is not ended because one of those who wait for it no longer do.
func TestZygoteOutlivesWhoGivesUp(t *testing.T) {
	p := zygotePool(t, "", "", Config{})
	<-p.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	z := p.gen.zygotes.current
	if _, err := z.fork(ctx, "", []int{0, 0, 0, 0}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	time.Sleep(50 * time.Millisecond) // time in which nothing must happen
	if !alive(z.info.PID) {
		t.Error("it was ended")
	}
}
