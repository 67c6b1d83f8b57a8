package procpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// of counts the workers of a generation that serve.
func (s Stats) of(generation int) (n int) {
	for _, w := range s.List {
		if w.Generation == generation && (w.State == Ready || w.State == Busy) {
			n++
		}
	}
	return n
}

func outcome(t *testing.T, c <-chan Restart) Restart {
	t.Helper()
	select {
	case r := <-c:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("the restart has not ended within 20 s")
		return Restart{}
	}
}

// load has requests done on p until the function that it returns is called,
// which returns how many were done. None may fail.
func load(t *testing.T, p *Pool, clients int) (stop func() int64) {
	var good atomic.Int64
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for !closed(over) {
				l, err := p.Lease(context.Background(), Normal)
				if err != nil {
					t.Errorf("lease: %v", err)
					return
				}
				if err := do(l, "sleep 1ms"); err != nil {
					t.Errorf("request: %v", err)
				} else {
					good.Add(1)
				}
				l.Release()
			}
		})
	}
	return sync.OnceValue(func() int64 { close(over); wg.Wait(); return good.Load() })
}

// The workers are replaced a share at a time, and no request is lost.
func TestPoolRestart(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			p := newPool(t, Config{Command: testWorker(t, ""), Min: workers})
			eventually(t, "all ready", func() bool { return p.Stats().States[Ready]+p.Stats().States[Busy] == workers })
			stop := load(t, p, workers+2)
			for generation := 2; generation <= 3; generation++ {
				result := p.Restart(nil)
				for over := false; !over; time.Sleep(time.Millisecond) {
					s := p.Stats()
					if n := s.States[Ready] + s.States[Busy]; n < workers {
						t.Fatalf("%d workers serve during the restart: %+v", n, s)
					}
					if n := s.Workers() - s.States[Stopping]; n > workers+1+s.States[Draining] || s.States[Draining] > 1 {
						t.Fatalf("%d workers during the restart: %+v", n, s)
					}
					over = s.Restart.State != RestartRunning
				}
				if r := outcome(t, result); r.State != RestartDone || r.Generation != generation || r.Err != nil || r != p.Stats().Restart {
					t.Fatalf("%+v", r)
				}
				if s := p.Stats(); s.of(generation) != workers {
					t.Errorf("after the restart: %+v", s)
				}
			}
			if n := stop(); n == 0 {
				t.Error("no request was done")
			}
			s := p.Stats()
			if s.Totals.Deaths != 0 || s.Totals.RecycledRestart != uint64(2*workers) || s.State != PoolOK {
				t.Errorf("%+v", s)
			}
			eventually(t, "one generation is left", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.gens) == 1
			})
		})
	}
}

// A generation that does not come up changes nothing.
func TestPoolRestartFails(t *testing.T) {
	good, broken := testWorker(t, ""), testWorker(t, "fail")
	p := newPool(t, Config{Command: good, Min: 3})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	before := p.Stats()
	stop := load(t, p, 4)
	r := outcome(t, p.Restart(&broken))
	var failure *StartFailure
	if r.State != RestartFailed || !errors.As(r.Err, &failure) || failure.Reason() != "traceback line 59" || len(failure.Output) != 50 {
		t.Errorf("%+v", r)
	}
	stop()
	s := p.Stats()
	for i, w := range before.List {
		if s.List[i].PID != w.PID || s.List[i].Reason != "" {
			t.Errorf("worker %+v is now %+v", w, s.List[i])
		}
	}
	if s.Restart != r || s.State != PoolOK || s.Totals.Started > 4 {
		t.Errorf("%+v", s)
	}
	// Whoever dies is replaced from the command that was good.
	l := lease(t, p)
	_ = do(l, "exit")
	l.Release()
	eventually(t, "three of the first generation", func() bool { return p.Stats().of(1) == 3 })
	if r := outcome(t, p.Restart(nil)); r.State != RestartDone || r.Generation != 3 {
		t.Errorf("the restart after: %+v", r)
	}
}

// A later worker that does not come up takes those before it along.
func TestPoolRestartFailsLate(t *testing.T) {
	var starts atomic.Int32
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 3, WarmUp: func(_ context.Context, w WorkerInfo, s Session) error {
		if starts.Add(1) == 5 { // three, a canary and the next
			return errors.New("not today")
		}
		return s.(*testSession).do("echo")
	}})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	stop := load(t, p, 4)
	r := outcome(t, p.Restart(nil))
	if r.State != RestartFailed || r.Err == nil || !errors.As(r.Err, new(*StartFailure)) {
		t.Errorf("%+v", r)
	}
	eventually(t, "three of the first generation", func() bool { s := p.Stats(); return s.of(1) == 3 && s.of(2) == 0 })
	stop()
	if s := p.Stats(); s.Totals.RecycledRestart != 2 || s.State != PoolOK {
		t.Errorf("%+v", s)
	}
}

func TestPoolRestartSuperseded(t *testing.T) {
	hangs := testWorker(t, "unready")
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 2})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 2 })
	stop := load(t, p, 3)
	first := p.Restart(&hangs)
	eventually(t, "the canary is there", func() bool { return p.Stats().States[Starting] == 1 })
	var results []<-chan Restart
	for range 50 { // a storm
		results = append(results, p.Restart(&hangs))
	}
	good := testWorker(t, "")
	last := p.Restart(&good)
	for _, c := range append(results, first) {
		if r := outcome(t, c); r.State != RestartFailed || r.Err != ErrSuperseded {
			t.Errorf("%+v", r)
		}
	}
	if r := outcome(t, last); r.State != RestartDone || r.Generation != 53 {
		t.Errorf("%+v", r)
	}
	stop()
	if s := p.Stats(); s.of(53) != 2 || s.Totals.Started > 8 || s.Totals.Deaths != 0 {
		t.Errorf("%+v", s)
	}
}

// Restarts follow each other more quickly than they can end.
func TestPoolRestartsUnderLoad(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "", "CAPACITY=2"), Min: 3})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	stop := load(t, p, 8)
	bad, good := testWorker(t, "fail", "CAPACITY=2"), testWorker(t, "", "CAPACITY=2")
	var last <-chan Restart
	for i := range 20 {
		c := &good
		if i%4 == 3 {
			c = &bad
		}
		last = p.Restart(c)
		time.Sleep(time.Duration(i*7%60) * time.Millisecond)
	}
	if r := outcome(t, last); r.State != RestartFailed {
		t.Errorf("the last, which was broken: %+v", r)
	}
	if r := outcome(t, p.Restart(&good)); r.State != RestartDone {
		t.Errorf("%+v", r)
	}
	if n := stop(); n < 100 {
		t.Errorf("%d requests", n)
	}
	eventually(t, "no worker more than there should be", func() bool { return p.Stats().Workers() == 3 })
}

// A restart is what the operator does about a pool that is down.
func TestPoolRestartEndsBackoff(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, "fail"), Min: 2, clk: fake.clock()})
	eventually(t, "down", func() bool { fake.advance(time.Second / 2); return p.Stats().State == PoolDown })
	bad, good := testWorker(t, "fail"), testWorker(t, "")
	result := p.Restart(&bad)
	if r := outcome(t, result); r.State != RestartFailed {
		t.Errorf("%+v", r)
	}
	// No generation was good: there is nothing to go back to.
	if s := p.Stats(); s.State != PoolDegraded || s.RetryIn == 0 {
		t.Errorf("after another broken one: %+v", s)
	}
	fake.advance(canaryEvery)
	served := make(chan *Lease)
	go func() { served <- lease(t, p) }()
	result = p.Restart(&good)
	if r := outcome(t, result); r.State != RestartDone {
		t.Errorf("%+v", r)
	}
	(<-served).Release()
	if s := p.Stats(); s.State != PoolOK || s.of(3) != 2 {
		t.Errorf("%+v", s)
	}
}

// Requests that last, such as streams, are left to end, and hold up the others
// for no longer than the graceful timeout.
func TestPoolRestartPastLongRequests(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 3, GracefulTimeout: 7 * time.Second, clk: fake.clock()})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	long := []*Lease{lease(t, p), lease(t, p)}
	result := p.Restart(nil)
	eventually(t, "one drains", func() bool { s := p.Stats(); return s.of(2) == 2 && s.States[Draining] == 1 })
	fake.advance(6 * time.Second)
	if s := p.Stats(); s.of(1) != 1 {
		t.Errorf("the second was replaced while the first was given time: %+v", s)
	}
	fake.advance(time.Second)
	if r := outcome(t, result); r.State != RestartDone {
		t.Errorf("%+v", r)
	}
	if s := p.Stats(); s.States[Draining] != 2 {
		t.Errorf("not both are left to end: %+v", s)
	}
	for _, l := range long {
		l.Release()
	}
}

// Without a worker, one is started to see whether it can.
func TestPoolRestartOnDemand(t *testing.T) {
	fake := newFakeClock()
	broken := testWorker(t, "fail")
	p := newPool(t, Config{Command: testWorker(t, ""), Max: 2, clk: fake.clock()})
	if r := outcome(t, p.Restart(&broken)); r.State != RestartFailed {
		t.Errorf("%+v", r)
	}
	good := testWorker(t, "")
	fake.advance(canaryEvery)
	if r := outcome(t, p.Restart(&good)); r.State != RestartDone {
		t.Errorf("%+v", r)
	}
	if s := p.Stats(); s.of(3) != 1 {
		t.Errorf("%+v", s)
	}
	eventually(t, "it idles away", func() bool { fake.advance(10 * time.Second); return p.Stats().Workers() == 0 })
}

func TestPoolRestartClosed(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "unready")})
	result := p.Restart(nil)
	go p.Close()
	if r := outcome(t, result); r.State != RestartFailed || !errors.Is(r.Err, ErrClosed) {
		t.Errorf("%+v", r)
	}
	if r := outcome(t, p.Restart(nil)); !errors.Is(r.Err, ErrClosed) {
		t.Errorf("%+v", r)
	}
}

// A new generation that hangs does not keep a worker that dies meanwhile from
// being replaced by one that is known to come up.
func TestPoolRestartHangsWhileWorkersDie(t *testing.T) {
	hangs := testWorker(t, "unready")
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 2})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 2 })
	p.Restart(&hangs)
	eventually(t, "the canary is there", func() bool { return p.Stats().States[Starting] == 1 })
	first, second := lease(t, p), lease(t, p)
	_, _ = do(first, "exit"), do(second, "exit")
	first.Release()
	second.Release()
	eventually(t, "two of the first generation", func() bool { return p.Stats().of(1) == 2 })
	if s := p.Stats(); s.Restart.State != RestartRunning {
		t.Errorf("%+v", s)
	}
}

// The end of a restart is seen also when the last of the others ends by what the
// same look has decided.
func TestRestartIsLookedAfter(t *testing.T) {
	p, err := New(Config{Command: testWorker(t, ""), Attach: attachTest})
	if err != nil {
		t.Fatal(err)
	}
	result := p.Restart(nil)
	<-p.wake
	now := p.clk.now()
	p.rollout.proved = true
	p.workers = []*worker{
		{gen: p.rollout.gen, state: Ready, since: now, idleSince: now, capacity: 1},
		{gen: p.gen, state: Starting, since: now},
	}
	p.look()
	select {
	case <-p.wake:
		p.look()
	default:
		t.Error("nobody looks again")
	}
	if r := outcome(t, result); r.State != RestartDone {
		t.Errorf("%+v", r)
	}
}
