package reload

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"gatecrew/procpool"
	"gatecrew/protocol"
)

// fakePool lets a test decide what becomes of a restart.
type fakePool struct {
	ready, failed chan struct{}
	failure       *procpool.StartFailure
	restarts      chan chan procpool.Restart
}

func newFakePool() *fakePool {
	return &fakePool{ready: make(chan struct{}), failed: make(chan struct{}), restarts: make(chan chan procpool.Restart, 10)}
}

func (p *fakePool) Ready() <-chan struct{}          { return p.ready }
func (p *fakePool) Failed() <-chan struct{}         { return p.failed }
func (p *fakePool) Failure() *procpool.StartFailure { return p.failure }
func (p *fakePool) Restart(*procpool.Command) <-chan procpool.Restart {
	result := make(chan procpool.Restart, 1)
	p.restarts <- result
	return result
}

// restart waits for the next restart.
func (p *fakePool) restart(t *testing.T) chan<- procpool.Restart {
	t.Helper()
	select {
	case r := <-p.restarts:
		return r
	case <-time.After(5 * time.Second):
		t.Fatal("no restart")
		return nil
	}
}

// fakeBackend is an application that was loaded.
type fakeBackend struct{ asked atomic.Int32 }

func (b *fakeBackend) Open(context.Context, *protocol.Request) (protocol.Exchange, error) {
	b.asked.Add(1)
	return exchange{strings.NewReader("Status: 200 OK\r\n\r\nloaded")}, nil
}

// rig is a Reloader of one file.
type rig struct {
	*tree
	*Reloader
	pool *fakePool
	app  fakeBackend
}

func newRig(t *testing.T, maxWait time.Duration) *rig {
	r := &rig{tree: newTree(t, "app.py"), pool: newFakePool()}
	r.Reloader = New(Options{Name: "web", MaxWait: maxWait, Log: zaptest.NewLogger(t)})
	t.Cleanup(r.Close)
	r.Imported(procpool.WorkerInfo{}, []string{r.path("app.py")})
	r.Start(r.pool)
	return r
}

// loaded has the pool's first start succeed.
func (r *rig) loaded() {
	r.t.Helper()
	close(r.pool.ready)
	r.answered(r.ask(r.t.Context()), "loaded")
}

// ask sends a request, and the answer when there is one.
func (r *rig) ask(ctx context.Context, params ...protocol.Param) <-chan string {
	answer := make(chan string, 1)
	go func() {
		x, err := r.Before(&r.app).Open(ctx, &protocol.Request{Params: append([]protocol.Param{{Name: "REMOTE_ADDR", Value: "127.0.0.1"}}, params...)})
		if err != nil {
			answer <- "error: " + err.Error()
			return
		}
		defer x.Close()
		text, err := io.ReadAll(x)
		if err != nil {
			answer <- "error: " + err.Error()
			return
		}
		answer <- string(text)
	}()
	return answer
}

func (r *rig) answered(answer <-chan string, want string) {
	r.t.Helper()
	select {
	case got := <-answer:
		if !strings.Contains(got, want) {
			r.t.Fatalf("answer %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		r.t.Fatalf("no answer, want %q", want)
	}
}

func (r *rig) waits(answer <-chan string) {
	r.t.Helper()
	select {
	case got := <-answer:
		r.t.Fatalf("answered %q before the restart was decided", got)
	case <-time.After(3 * quiet):
	}
}

// save changes the file in one step: written in place, it could be looked at
// when it is empty, which is a change of its own.
func (r *rig) save(text string) {
	r.t.Helper()
	r.write("app.py.new", text)
	r.do(os.Rename(r.path("app.py.new"), r.path("app.py")))
}

// change saves the file and returns when requests are held for it.
func (r *rig) change() {
	r.t.Helper()
	r.save(time.Now().String())
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		r.Reloader.mu.Lock()
		held := r.held != nil
		r.Reloader.mu.Unlock()
		if held {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("requests are not held")
		}
	}
}

func failure(text string) *procpool.StartFailure {
	return &procpool.StartFailure{At: time.Now(), Err: errors.New("exit status 4"), Output: []string{`gatecrew: cannot load the application "app": ` + text}}
}

func TestRequestsWaitForTheRestart(t *testing.T) {
	r := newRig(t, time.Minute)
	r.loaded()

	r.change()
	a, b := r.ask(t.Context()), r.ask(t.Context())
	restart := r.pool.restart(t)
	r.waits(a)
	restart <- procpool.Restart{}
	r.answered(a, "loaded")
	r.answered(b, "loaded")

	// A change in the middle of a restart begins another one; the result of
	// the first means nothing any more.
	r.change()
	first := r.pool.restart(t)
	r.save("changed once more")
	second := r.pool.restart(t)
	a = r.ask(t.Context())
	first <- procpool.Restart{Err: failure("superseded")}
	r.waits(a)
	second <- procpool.Restart{}
	r.answered(a, "loaded")
}

func TestFaultIsShownUntilItIsRepaired(t *testing.T) {
	r := newRig(t, time.Minute)
	r.loaded()
	r.change()
	a := r.ask(t.Context())
	asked := r.app.asked.Load()
	r.pool.restart(t) <- procpool.Restart{Err: failure("a typo")}
	r.answered(a, "a typo")
	r.answered(r.ask(t.Context()), "a typo")

	r.do(os.Chmod(r.path("app.py"), 0o600)) // a hint that comes to nothing
	r.answered(r.ask(t.Context()), "a typo")
	if r.app.asked.Load() != asked {
		t.Error("the application of before was asked")
	}

	r.change()
	a = r.ask(t.Context())
	r.pool.restart(t) <- procpool.Restart{}
	r.answered(a, "loaded")
}

func TestRestartOnDemand(t *testing.T) {
	r := newRig(t, time.Minute)
	r.loaded()
	r.Restart()
	r.pool.restart(t) <- procpool.Restart{Err: failure("no database")}
	for !strings.Contains(<-r.ask(t.Context()), "no database") {
		time.Sleep(time.Millisecond)
	}
	r.Restart()
	r.pool.restart(t) <- procpool.Restart{}
	for !strings.Contains(<-r.ask(t.Context()), "loaded") {
		time.Sleep(time.Millisecond)
	}
}

func TestFaultAtTheStart(t *testing.T) {
	r := newRig(t, time.Minute)
	early := r.ask(t.Context())
	r.waits(early)
	r.pool.failure = failure("broken from the start")
	close(r.pool.failed)
	r.answered(early, "broken from the start")
	r.answered(r.ask(t.Context()), "broken from the start")
	t.Run("and what it missed comes by itself", func(t *testing.T) {
		close(r.pool.ready)
		for end := time.Now().Add(5 * time.Second); !strings.Contains(<-r.ask(t.Context()), "loaded"); {
			if time.Now().After(end) {
				t.Fatal("the fault is still shown")
			}
		}
	})
}

func TestWaitIsBounded(t *testing.T) {
	r := newRig(t, 2*quiet)
	r.loaded()
	r.change()
	r.answered(r.ask(t.Context()), "loaded")

	ctx, cancel := context.WithCancelCause(t.Context())
	r.opts.MaxWait = time.Minute
	answer := r.ask(ctx)
	r.waits(answer)
	cancel(errors.New("left"))
	r.answered(answer, "client went away: left")

	answer = r.ask(t.Context())
	r.waits(answer)
	r.Close()
	r.answered(answer, "loaded")
}

func TestByteCodeOfAChangedModuleIsForgotten(t *testing.T) {
	tr := newTree(t, "__pycache__/app.cpython-311.pyc", "__pycache__/app.cpython-311.opt-1.pyc", "__pycache__/apple.cpython-311.pyc", "__pycache__/app.txt")
	forgetByteCode(tr.path("app.py"))
	forgetByteCode(tr.path("nothing/app.py"))
	forgetByteCode(tr.path("app.html"))
	left, err := filepath.Glob(tr.path("__pycache__/*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left: %q, %v", left, err)
	}
}
