package procpool

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// A zygote dies when one of its children has begun with a request and another
// request has been taken by nobody. The first must not be taken for one that has
// not run, else it would be run twice.
func TestWarmStartedBeforeTheEnd(t *testing.T) {
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	z := &warmZygote{conn: conn, pending: make(map[uint64]chan warmPacket)}
	_, begun := z.enter()
	_, untaken := z.enter()
	if _, err := conn.Write([]byte("run")); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(theirs, []byte("started\x001\x00123")); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(theirs)
	z.listen(warmEvents{}, zap.NewNop())
	if p := <-begun; p.kind != "started" || p.pid != 123 {
		t.Errorf("%+v of the request that has begun", p)
	}
	if p := <-untaken; p.kind != "failed" {
		t.Errorf("%+v of the one that nobody has taken", p)
	}
	if _, answer := z.enter(); answer != nil {
		t.Error("takes another request")
	}
}

// A child that has taken a request is killed before it can say that it begins. It
// does not take forkPatience until that request is served cold.
func TestWarmTakenByAKilledChild(t *testing.T) {
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sleeper := func(group int) *os.Process {
		p, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true, Pgid: group}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	zygote := sleeper(0)
	waiting := sleeper(zygote.Pid)
	z := &warmZygote{conn: conn, pending: make(map[uint64]chan warmPacket), child: &child{pid: zygote.Pid}}
	go z.listen(warmEvents{}, zap.NewNop())
	go func() {
		buf := make([]byte, maxWarmPacket)
		for {
			if n, err := unix.Read(theirs, buf); n > 0 && err == nil {
				break
			}
		}
		_ = waiting.Kill()
		_, _ = zygote.Wait() // which the gateway has killed
		_ = unix.Close(theirs)
	}()
	began := time.Now()
	_, err = z.fork(Command{Argv: []string{"python3", "script"}, Script: &Script{File: "script", Arg: 1}}, []uintptr{0, 1, 2})
	if !errors.Is(err, errCold) || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("the request ended with %v", err)
	}
	if took := time.Since(began); took >= forkPatience {
		t.Errorf("it was given up after %s", took)
	}
}

// What lies in the socket will be taken by another child.
func TestWarmUntakenIsNotLost(t *testing.T) {
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer unix.Close(theirs)
	z := &warmZygote{conn: conn}
	if !z.taken() {
		t.Error("something lies in an empty socket")
	}
	if _, err := conn.Write([]byte("run")); err != nil {
		t.Fatal(err)
	}
	if z.taken() {
		t.Error("nothing lies in the socket")
	}
}
