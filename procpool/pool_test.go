package procpool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestPoolLease(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "", "CAPACITY=2"), Min: 2})
	eventually(t, "two workers ready", func() bool { return p.Stats().States[Ready] == 2 })
	// The least busy one is next: 1, 2, 1, 2 or the other way round.
	var leases []*Lease
	load := make(map[int]int)
	for range 2 {
		leases = append(leases, lease(t, p), lease(t, p))
		for _, l := range leases[len(leases)-2:] {
			load[l.Worker().Number]++
		}
		if load[1] != load[2] {
			t.Errorf("requests by worker: %v", load)
		}
	}
	if s := p.Stats(); s.States[Busy] != 2 || s.Totals.Requests != 4 || s.List[0].InFlight != 2 || s.List[0].PID == s.List[1].PID {
		t.Errorf("stats %+v", s)
	}
	for _, l := range leases {
		if err := do(l, "echo"); err != nil {
			t.Error(err)
		}
		l.Release()
		l.Release()
	}
	if s := p.Stats(); s.States[Ready] != 2 || s.List[0].InFlight != 0 || s.List[1].InFlight != 0 {
		t.Errorf("after the release: %+v", s)
	}
}

func TestPoolQueueIsFairAndBounded(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), QueueLength: 8})
	held := lease(t, p)
	served := make(chan int, 8)
	for i := range 8 {
		go func() {
			l, err := p.Lease(t.Context(), Normal)
			if err != nil {
				t.Error(err)
				return
			}
			served <- i
			l.Release()
		}()
		eventually(t, "one more waits", func() bool { return p.Stats().Queued == i+1 })
	}
	begin := time.Now()
	if _, err := p.Lease(t.Context(), Normal); !errors.Is(err, ErrQueueFull) || time.Since(begin) > 50*time.Millisecond {
		t.Errorf("ninth in a queue of eight: %v after %v", err, time.Since(begin))
	}
	held.Release()
	for want := range 8 {
		if got := <-served; got != want {
			t.Fatalf("waiter %d served, want %d", got, want)
		}
	}
}

func TestPoolQueueDeadline(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, "unready"), QueueTimeout: 3 * time.Second, clk: fake.clock(), StopGrace: time.Hour})
	result := make(chan error)
	go func() {
		_, err := p.Lease(t.Context(), Normal)
		result <- err
	}()
	eventually(t, "one waits", func() bool { return p.Stats().Queued == 1 })
	fake.advance(2 * time.Second)
	if s := p.Stats(); s.Queued != 1 || s.OldestWait != 2*time.Second {
		t.Errorf("after 2 s: %+v", s)
	}
	var err error
	eventually(t, "the deadline", func() bool {
		fake.advance(500 * time.Millisecond)
		select {
		case err = <-result:
			return true
		default:
			return false
		}
	})
	var refused *QueueError
	if !errors.Is(err, ErrQueueTimeout) || !errors.As(err, &refused) || refused.RetryAfter != 3*time.Second {
		t.Errorf("at the deadline: %v", err)
	}
}

// A worker is told who it is, has only its six descriptors, and its output
// becomes lines.
func TestPoolWorkerSurroundings(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	p := newPool(t, Config{
		Command: Command{Path: "/bin/sh", Argv: []string{"sh", "-c",
			`echo "$GATECREW_WORKER"; echo err >&2; cat; echo ready 1 >&3; for f in /proc/$$/fd/*; do echo "fd ${f##*/}"; done; read x <&3`}},
		Output: func(w WorkerInfo, stream string, line []byte) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf("%s/%d %v %s %s", w.Pool, w.Number, w.PID > 1, stream, line))
		},
	})
	<-p.Ready()
	want := []string{"test/1 true stderr err", "test/1 true stdout test/1"}
	for fd := range 7 { // 6, the lowest that is free, is the directory that the shell reads
		want = append(want, fmt.Sprint("test/1 true stdout fd ", fd))
	}
	slices.Sort(want)
	got := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(slices.Values(lines))
	}
	eventually(t, "all lines", func() bool { return len(got()) >= len(want) })
	p.Close()
	if !slices.Equal(got(), want) {
		t.Errorf("output %q, want %q", got(), want)
	}
}

func TestPoolGrowsAndShrinks(t *testing.T) {
	fake := newFakeClock()
	log, logs := observed()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1, Max: 3, IdleTimeout: time.Minute, Log: log, clk: fake.clock()})
	<-p.Ready()
	held := []*Lease{lease(t, p)}
	more := make(chan *Lease)
	for range 4 {
		go func() {
			l, err := p.Lease(context.Background(), Normal)
			if err != nil {
				t.Error(err)
			}
			more <- l
		}()
	}
	eventually(t, "four wait", func() bool { return p.Stats().Queued == 4 })
	if n := p.Stats().Target; n != 1 {
		t.Errorf("grown to %d before anyone has waited", n)
	}
	eventually(t, "three workers", func() bool {
		fake.advance(growAfter)
		return p.Stats().Target == 3
	})
	held = append(held, <-more, <-more)
	if s := p.Stats(); s.States[Busy] != 3 || s.Queued != 2 {
		t.Errorf("at the maximum: %+v", s)
	}
	for _, l := range held {
		l.Release()
	}
	(<-more).Release()
	(<-more).Release()
	eventually(t, "one worker", func() bool {
		fake.advance(10 * time.Second)
		return p.Stats().Target == 1 && p.Stats().Workers() == 1
	})
	var sizes []string
	for _, e := range logs.FilterMessage("pool size").All() {
		m := e.ContextMap()
		sizes = append(sizes, fmt.Sprintf("%d to %d: %s", m["from"], m["to"], m["because"]))
	}
	if down := sizes[max(0, len(sizes)-2):]; !slices.Equal(down, []string{"3 to 2: " + becauseIdle, "2 to 1: " + becauseIdle}) {
		t.Errorf("the log says %q", sizes)
	}
	for range 30 {
		fake.advance(10 * time.Second)
	}
	if s := p.Stats(); s.Target != 1 || s.Workers() != 1 || s.Totals.Deaths != 0 {
		t.Errorf("in the end: %+v", s)
	}
}

func TestPoolOnDemand(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 0, Max: 1, IdleTimeout: time.Minute, clk: fake.clock()})
	<-p.Ready() // there is no need for a worker
	for range 2 {
		if s := p.Stats(); s.Workers() != 0 || s.State != PoolIdle || !s.Ready {
			t.Fatalf("without requests: %+v", s)
		}
		l := lease(t, p)
		if err := do(l, "echo"); err != nil {
			t.Error(err)
		}
		l.Release()
		if s := p.Stats(); s.Workers() != 1 || s.State != PoolOK {
			t.Errorf("after a request: %+v", s)
		}
		fake.advance(time.Minute - 1)
		time.Sleep(5 * time.Millisecond) // time in which nothing must happen
		if s := p.Stats(); s.Target != 1 {
			t.Errorf("ended before its time: %+v", s)
		}
		fake.advance(1) // nothing else wakes the pool
		eventually(t, "no worker", func() bool { return p.Stats().Workers() == 0 })
	}
}

func TestPoolResize(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1})
	ready := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " workers"), func() bool { s := p.Stats(); return s.States[Ready] == n && s.Workers() == n })
	}
	ready(1)
	p.Resize(2)
	ready(3)
	p.Resize(-1)
	ready(2)
	p.Resize(-5)
	ready(1)
	if s := p.Stats(); s.Min != 1 || s.Max != 1 || s.Totals.Deaths != 0 {
		t.Errorf("%+v", s)
	}
}

// Invariant 2: recycling loses no request, and is done a share at a time.
func TestPoolRecyclesWithoutLoss(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "", "CAPACITY=4"), Min: 3, MaxRequests: 100, MaxRequestsJitter: 30})
	var lost atomic.Int32
	var wg sync.WaitGroup
	over := make(chan struct{})
	for range 12 {
		wg.Go(func() {
			for p.Stats().Totals.RecycledRequests < 8 {
				l, err := p.Lease(context.Background(), Normal)
				if err != nil {
					t.Error(err)
					return
				}
				what := "echo"
				if rand.IntN(20) == 0 {
					what = "sleep 20ms"
				}
				if do(l, what) != nil {
					lost.Add(1)
				}
				l.Release()
			}
		})
	}
	go func() { wg.Wait(); close(over) }()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		case <-time.After(time.Millisecond):
		}
		s := p.Stats()
		if n := s.States[Starting] + s.States[Ready] + s.States[Busy]; n > 4 {
			t.Fatalf("%d workers for a pool of 3 and a share of 1: %+v", n, s)
		}
		if worn := s.States[Draining]; worn > 1 {
			t.Fatalf("%d workers retire at once", worn)
		}
	}
	if s := p.Stats(); lost.Load() != 0 || s.Totals.Deaths != 0 {
		t.Errorf("%d requests lost, %d deaths, of %d", lost.Load(), s.Totals.Deaths, s.Totals.Requests)
	}
}

// A worker that is killed costs its requests; the pool is whole again after.
func TestPoolSurvivesKills(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "", "CAPACITY=2"), Min: 3})
	var failed, good atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !closed(stop) {
				l, err := p.Lease(context.Background(), Normal)
				if err != nil {
					t.Error(err)
					return
				}
				if do(l, "sleep 1ms") != nil {
					failed.Add(1)
				} else {
					good.Add(1)
				}
				l.Release()
			}
		})
	}
	kills := 0
	for kills < 12 {
		if list := p.Stats().List; len(list) > 0 {
			if w := list[rand.IntN(len(list))]; w.State == Ready || w.State == Busy {
				_ = syscall.Kill(w.PID, syscall.SIGKILL)
				kills++
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	if failed.Load() > int64(kills*2) || good.Load() < 100 {
		t.Errorf("%d requests failed and %d were good with %d kills", failed.Load(), good.Load(), kills)
	}
	eventually(t, "the pool is whole", func() bool {
		s := p.Stats()
		return s.States[Ready] == 3 && len(s.List) == 3
	})
	for _, w := range p.Stats().List {
		if w.InFlight != 0 {
			t.Errorf("%+v", w)
		}
	}
}

// Class 47: a crash loop backs off, and gets out of it by itself.
func TestPoolCrashLoop(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, "fail"), Min: 3, clk: fake.clock()})
	<-p.Failed()
	f := p.Failure()
	if f.Exit != (Exit{Code: 4}) || f.Err.Error() != "exit status 4" || len(f.Output) != 50 || f.Output[49] != "traceback line 59" {
		t.Errorf("failure %+v", f)
	}
	// One is enough to see that none can start.
	started := uint64(1)
	for _, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		want *= time.Millisecond
		s := p.Stats()
		if s.State != PoolDegraded && s.State != PoolDown || s.RetryIn != want || s.Totals.Started != started {
			t.Fatalf("after %d starts: retry in %v, want %v; %+v", started, s.RetryIn, want, s)
		}
		fake.advance(want - 1)
		time.Sleep(5 * time.Millisecond) // time in which nothing must happen
		if n := p.Stats().Totals.Started; n != started {
			t.Fatalf("%d starts before the time", n-started)
		}
		started++
		fake.advance(1)
		eventually(t, "one more failure", func() bool { return p.Stats().Totals.Deaths == started })
	}
}

// A worker that dies on each request, having been ready, backs off as well.
func TestPoolCrashOnRequest(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), clk: fake.clock()})
	for i := range 3 {
		l := lease(t, p)
		if err := do(l, "exit"); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		l.Release()
		eventually(t, "death seen", func() bool { return p.Stats().Totals.Deaths == uint64(i+1) })
		if got, want := p.Stats().RetryIn, backoffDelay(i+1, 0); got != want {
			t.Fatalf("death %d: retry in %v, want %v", i+1, got, want)
		}
		eventually(t, "another worker", func() bool { fake.advance(10 * time.Millisecond); return p.Stats().States[Ready] == 1 })
	}
	l := lease(t, p)
	if err := do(l, "echo"); err != nil {
		t.Fatal(err)
	}
	l.Release()
	if s := p.Stats(); s.State != PoolOK || s.List[0].LastExit != "exit status 7" {
		t.Errorf("after a good request: %+v", s)
	}
}

func TestPoolStartErrors(t *testing.T) {
	t.Run("no program", func(t *testing.T) {
		p := newPool(t, Config{Command: Command{Path: "/nowhere/program"}})
		<-p.Failed()
		if f := p.Failure(); !errors.Is(f.Err, ErrStart) || !errors.Is(f.Err, fs.ErrNotExist) {
			t.Errorf("%+v", f)
		}
	})
	t.Run("never ready", func(t *testing.T) {
		fake := newFakeClock()
		p := newPool(t, Config{Command: testWorker(t, "unready"), StartTimeout: 7 * time.Second, clk: fake.clock()})
		eventually(t, "failure", func() bool { fake.advance(time.Second); return closed(p.Failed()) })
		if f := p.Failure(); f.Err.Error() != "not ready after 7s" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("talks nonsense", func(t *testing.T) {
		p := newPool(t, Config{Command: Command{Path: "/bin/sh", Argv: []string{"sh", "-c", "echo nonsense >&3; exec sleep 300"}, Env: []string{mark(t)}}})
		<-p.Failed()
		if f := p.Failure(); !strings.HasPrefix(f.Err.Error(), "negotiation failed: ") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("bad configuration", func(t *testing.T) {
		for _, cfg := range []Config{{Attach: attachTest, Min: 3, Max: 2}, {Attach: attachTest, Min: -1}, {}} {
			if _, err := New(cfg); err == nil && (cfg.Attach == nil || cfg.Max != 0) {
				t.Errorf("accepted: %+v", cfg)
			}
		}
	})
}

func TestPoolDrain(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 2})
	eventually(t, "two workers ready", func() bool { return p.Stats().States[Ready] == 2 })
	var answered atomic.Int32
	for range 4 { // two run, two wait
		go func() {
			l, err := p.Lease(context.Background(), Normal)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Release()
			if do(l, "sleep 100ms") == nil {
				answered.Add(1)
			}
		}()
	}
	eventually(t, "two wait", func() bool { return p.Stats().Queued == 2 })
	drained := make(chan error)
	go func() { drained <- p.Drain(context.Background()) }()
	eventually(t, "no new lease", func() bool {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := p.Lease(ctx, Normal)
		return errors.Is(err, ErrClosed)
	})
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n := answered.Load(); n != 4 {
		t.Errorf("%d of 4 requests answered", n)
	}
	if s := p.Stats(); s.Totals.Deaths != 0 || p.lastExit[1] != "exit status 0" || p.lastExit[2] != "exit status 0" {
		t.Errorf("%+v, exits %v", s, p.lastExit)
	}
}

func TestPoolDrainTimeout(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "ignore-term grandchild"), StopGrace: 50 * time.Millisecond})
	l := lease(t, p)
	result := make(chan error)
	go func() { result <- do(l, "hang") }()
	late := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, late)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, late) {
		t.Errorf("drain: %v", err)
	}
	if err := <-result; !errors.Is(err, errDied) {
		t.Errorf("the request: %v", err)
	}
	l.Release()
}

// A worker that does not exit when it has been told gets TERM.
func TestPoolDrainDeafWorker(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "deaf"), GracefulTimeout: 50 * time.Millisecond})
	<-p.Ready()
	if err := p.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if exit := p.lastExit[1]; exit != "signal: terminated" {
		t.Errorf("exit %q", exit)
	}
}

func TestPoolCloseUnstarted(t *testing.T) {
	for _, end := range []func(*Pool){(*Pool).Close, func(p *Pool) { _ = p.Drain(context.Background()) }} {
		p, err := New(Config{Attach: attachTest})
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan error)
		go func() {
			_, err := p.Lease(context.Background(), Normal)
			waited <- err
		}()
		eventually(t, "one waits", func() bool { return p.Stats().Queued == 1 })
		end(p)
		if err := <-waited; !errors.Is(err, ErrClosed) {
			t.Errorf("lease: %v", err)
		}
		p.Start() // has no effect any more
		p.Close()
	}
}

// A condemned worker ends with its whole group; its other request has time.
func TestPoolCondemn(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "ignore-term grandchild", "CAPACITY=2"), StopGrace: 100 * time.Millisecond})
	stuck, sibling := lease(t, p), lease(t, p)
	old := stuck.Worker().PID
	hung := make(chan error)
	go func() { hung <- do(stuck, "hang") }()
	fine := make(chan error)
	go func() { fine <- do(sibling, "sleep 200ms") }()
	stuck.Condemn("too slow")
	stuck.Condemn("too slow")
	stuck.Release()
	// The replacement doesn't wait for the end of the old one.
	l := lease(t, p)
	if l.Worker().PID == old {
		t.Error("a condemned worker was given a request")
	}
	l.Release()
	if err := <-fine; err != nil {
		t.Errorf("sibling: %v", err)
	}
	sibling.Release()
	if err := <-hung; !errors.Is(err, errDied) {
		t.Errorf("stuck request: %v", err)
	}
	eventually(t, "one worker and its child", func() bool {
		left := marked(t, t.Name())
		return p.Stats().Workers() == 1 && !slices.Contains(left, old) && len(left) <= 3 // the shell may have a sleep
	})
	if s := p.Stats(); s.State == PoolDegraded {
		t.Errorf("condemning degrades the pool: %+v", s)
	}
}

func TestPoolCondemnOutlastsSibling(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, "", "CAPACITY=2"), GracefulTimeout: 10 * time.Second, clk: fake.clock()})
	stuck, sibling := lease(t, p), lease(t, p)
	stuck.Condemn("too slow")
	result := make(chan error)
	go func() { result <- do(sibling, "hang") }()
	fake.advance(10*time.Second - 1)
	select {
	case err := <-result:
		t.Fatalf("sibling ended early: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	fake.advance(1)
	if err := <-result; !errors.Is(err, errDied) {
		t.Errorf("sibling: %v", err)
	}
	stuck.Release()
	sibling.Release()
}

// To take a worker from a pool on demand doesn't make it one that always has one.
func TestPoolResizeOnDemand(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Max: 2})
	for _, step := range []struct{ delta, low, high int }{{-1, 0, 1}, {-1, 0, 1}, {1, 1, 2}, {-1, 0, 1}} {
		p.Resize(step.delta)
		if s := p.Stats(); s.Min != step.low || s.Max != step.high {
			t.Errorf("by %d: %d to %d workers, want %d to %d", step.delta, s.Min, s.Max, step.low, step.high)
		}
	}
}
