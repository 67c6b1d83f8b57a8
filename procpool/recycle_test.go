package procpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// memoryTable tells what each process holds, in MiB, 10 unless it was said.
type memoryTable struct {
	mu sync.Mutex
	of map[int]int64
	// proportional is the part that counts with pss.
	proportional float64
}

func (m *memoryTable) set(pid int, mib int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = make(map[int]int64)
	}
	m.of[pid] = mib
}

func (m *memoryTable) measure(pid int, pss bool) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mib, ok := m.of[pid]
	if !ok {
		mib = 10
	}
	n := mib << 20
	if pss {
		n = int64(float64(n) * m.proportional)
	}
	return n, nil
}

func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.InfoLevel)
	return zap.New(core), logs
}

// reasons returns why workers ended, by the log.
func reasons(logs *observer.ObservedLogs) string {
	var all []string
	for _, e := range logs.FilterMessage("worker ended").All() {
		all = append(all, e.ContextMap()["reason"].(string))
	}
	return strings.Join(all, "\n")
}

func TestPoolRecyclesByAge(t *testing.T) {
	fake := newFakeClock()
	log, logs := observed()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 3, MaxAge: time.Hour, Log: log, clk: fake.clock()})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	fake.advance(time.Hour - 1)
	time.Sleep(5 * time.Millisecond) // time in which nothing must happen
	if n := p.Stats().Totals.Started; n != 3 {
		t.Errorf("%d were replaced before their time", n-3)
	}
	fake.advance(1)
	eventually(t, "all replaced", func() bool {
		s := p.Stats()
		if n := s.States[Starting] + s.States[Ready] + s.States[Busy]; n > 4 {
			t.Fatalf("%d workers for a pool of 3 and a share of 1", n)
		}
		return s.Totals.RecycledAge == 3 && s.Workers() == 3 && s.States[Ready] == 3
	})
	if why := reasons(logs); strings.Count(why, "1h0m0s old") != 3 {
		t.Errorf("the log says %q", why)
	}
	// The random part is taken off, so that no worker is older than it may be.
	always := Config{Command: testWorker(t, ""), MaxAge: time.Hour, Attach: attachTest, clk: &clock{now: fake.now, random: func() float64 { return 0.999 }}}
	q, err := New(always)
	if err != nil {
		t.Fatal(err)
	}
	if age := q.newWorker(q.gen, fake.now()).expires.Sub(fake.now()); age < 54*time.Minute || age > 55*time.Minute {
		t.Errorf("with the greatest jitter a worker lives for %v", age)
	}
}

// Workers of the same start aren't worn out by the same number of requests.
func TestPoolRequestJitter(t *testing.T) {
	for random, want := range map[float64]int{0: 100, 0.5: 115, 0.999: 130} {
		cfg := Config{Command: testWorker(t, ""), MaxRequests: 100, MaxRequestsJitter: 30, Attach: attachTest, clk: &clock{now: time.Now, random: func() float64 { return random }}}
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if w := p.newWorker(p.gen, time.Now()); w.limit != want {
			t.Errorf("by chance %v: %d requests, want %d", random, w.limit, want)
		}
	}
}

// A worker that has grown is replaced after its request, one that is too big
// from the start is not.
func TestPoolRecyclesByMemory(t *testing.T) {
	var memory memoryTable
	log, logs := observed()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 2, MaxMemory: 100 << 20, Log: log, memory: memory.measure})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 2 })
	l := lease(t, p)
	grown := l.Worker().PID
	memory.set(grown, 120)
	if err := do(l, "sleep 250ms"); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.Totals.Started != 2 {
		t.Errorf("replaced during its request: %+v", s)
	}
	l.Release()
	eventually(t, "it is replaced", func() bool { s := p.Stats(); return s.Totals.RecycledMemory == 1 && len(s.List) == 2 })
	for _, w := range p.Stats().List {
		if w.PID == grown {
			t.Errorf("%+v", w)
		}
	}
	if why := reasons(logs); why != "120.0 MiB of memory, over the limit of 100.0 MiB" {
		t.Errorf("the log says %q", why)
	}
}

func TestPoolTooBigFromTheStart(t *testing.T) {
	log, logs := observed()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 2, MaxMemory: 5 << 20, Log: log,
		memory: func(int, bool) (int64, error) { return 10 << 20, nil }})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 2 })
	for range 3 {
		l := lease(t, p)
		_ = do(l, "echo")
		l.Release()
		time.Sleep(memoryEvery + 20*time.Millisecond) // time in which nothing must happen
	}
	if s := p.Stats(); s.Totals.Started != 2 || s.List[0].Memory != 10<<20 {
		t.Errorf("%+v", s)
	}
	if n := logs.FilterMessageSnippet("set a higher limit").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// The one that holds too much is killed at once, the others never notice.
func TestPoolKillsAtHardLimit(t *testing.T) {
	for _, pss := range []bool{false, true} {
		t.Run(fmt.Sprint("pss ", pss), func(t *testing.T) {
			memory := memoryTable{proportional: 0.5}
			log, logs := observed()
			p := newPool(t, Config{Command: testWorker(t, ""), Min: 2, HardMemory: 100 << 20, MemoryPSS: pss, Log: log, memory: memory.measure})
			eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 2 })
			greedy, neighbour := lease(t, p), lease(t, p)
			answer, other := make(chan error, 1), make(chan error, 1)
			go func() { other <- do(neighbour, "sleep 600ms") }()
			go func() { answer <- do(greedy, "hang") }()
			figure := int64(150)
			if pss { // 150 are 75 by this measure
				memory.set(greedy.Worker().PID, figure)
				select {
				case err := <-answer:
					t.Fatalf("killed below the limit: %v", err)
				case <-time.After(3 * memoryEvery):
				}
				figure = 300
			}
			memory.set(greedy.Worker().PID, figure)
			select {
			case err := <-answer:
				if !errors.Is(err, errDied) {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("it was not killed")
			}
			greedy.Release()
			if err := <-other; err != nil {
				t.Errorf("the neighbour: %v", err)
			}
			neighbour.Release()
			eventually(t, "the pool is whole", func() bool { return p.Stats().States[Ready] == 2 })
			if s := p.Stats(); s.Totals.KilledMemory != 1 || s.State != PoolOK {
				t.Errorf("%+v", s)
			}
			if lines := logs.FilterMessage("worker killed").All(); len(lines) != 1 || lines[0].ContextMap()["reason"] != "150.0 MiB of memory, over the hard limit of 100.0 MiB" {
				t.Errorf("the log says %+v", lines)
			}
		})
	}
}

// Over the budget the biggest goes, and then the next biggest, one at a time.
func TestPoolKeepsBudget(t *testing.T) {
	var memory memoryTable
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 3, MaxReplacing: 3, MemoryBudget: 100 << 20, memory: memory.measure})
	eventually(t, "all ready", func() bool { return p.Stats().States[Ready] == 3 })
	var order []int
	for i, w := range p.Stats().List {
		memory.set(w.PID, []int64{60, 30, 80}[i]) // 170
		order = append(order, w.PID)
	}
	for range 3 { // each has to be measured
		var all []*Lease
		for range 3 {
			all = append(all, lease(t, p))
		}
		for _, l := range all {
			_ = do(l, "echo")
			l.Release()
		}
		time.Sleep(memoryEvery)
	}
	// 60 + 30 + 10 is as much as there may be.
	eventually(t, "one is replaced", func() bool { return p.Stats().Totals.RecycledBudget == 1 && p.Stats().Workers() == 3 })
	time.Sleep(3 * memoryEvery)
	left := make(map[int]bool)
	s := p.Stats()
	for _, w := range s.List {
		left[w.PID] = true
	}
	if s.Totals.RecycledBudget != 1 || !left[order[0]] || !left[order[1]] || left[order[2]] {
		t.Errorf("of %v are left %v: %+v", order, left, s.Totals)
	}
}

// Nothing measures while there is nothing to measure.
func TestPoolMeasuresOnlyWork(t *testing.T) {
	var mu sync.Mutex
	measured := 0
	p := newPool(t, Config{Command: testWorker(t, ""), HardMemory: 1 << 40, memory: func(int, bool) (int64, error) {
		mu.Lock()
		defer mu.Unlock()
		measured++
		return 1, nil
	}})
	<-p.Ready()
	count := func() int { mu.Lock(); defer mu.Unlock(); return measured }
	time.Sleep(2 * memoryEvery)
	before := count()
	time.Sleep(4 * memoryEvery)
	if n := count() - before; n > 1 {
		t.Errorf("an idle worker was measured %d times in %v", n, 4*memoryEvery)
	}
	l := lease(t, p)
	before = count()
	if err := do(l, "sleep 500ms"); err != nil {
		t.Error(err)
	}
	l.Release()
	if n := count() - before; n < 3 || n > 8 {
		t.Errorf("a busy worker was measured %d times in 500 ms", n)
	}
}

func TestPoolKeepsSpareWorkers(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1, Max: 12, MinSpare: 3, MaxSpare: 4, IdleTimeout: time.Minute, clk: fake.clock()})
	idle := func() int { s := p.Stats(); return s.States[Ready] }
	settle := func(what string, n int) {
		t.Helper()
		eventually(t, what, func() bool { fake.advance(spareEvery); return idle() == n })
	}
	settle("three idle", 3)
	var held []*Lease
	for range 3 {
		held = append(held, lease(t, p))
	}
	settle("three more", 3)
	if s := p.Stats(); s.Workers() != 6 {
		t.Errorf("%+v", s)
	}
	for _, l := range held {
		l.Release()
	}
	eventually(t, "as many idle as may stay", func() bool { fake.advance(10 * time.Second); return idle() == 4 && p.Stats().Workers() == 4 })
	for range 20 {
		fake.advance(10 * time.Second)
	}
	if s := p.Stats(); s.Target != 4 || s.Totals.Deaths != 0 {
		t.Errorf("%+v", s)
	}
}

// A pool that is down refuses at once and says why; another one never notices.
func TestPoolDown(t *testing.T) {
	fake := newFakeClock()
	sound := testWorker(t, "", markVar+"=the other pool")
	sound.Env = slices.DeleteFunc(sound.Env, func(v string) bool { return v == mark(t) })
	other := newPool(t, Config{Command: sound})
	p := newPool(t, Config{Command: testWorker(t, "fail"), Min: 2, clk: fake.clock()})
	waits := make(chan error)
	go func() {
		_, err := p.Lease(context.Background(), Normal)
		waits <- err
	}()
	eventually(t, "one waits", func() bool { return p.Stats().Queued == 1 })
	eventually(t, "down", func() bool { fake.advance(50 * time.Millisecond); return p.Stats().State == PoolDown })
	refused := func(err error) {
		t.Helper()
		var down *DownError
		if !errors.Is(err, ErrDown) || !errors.As(err, &down) || down.Reason != "traceback line 59" || down.RetryAfter != time.Second {
			t.Errorf("%v", err)
		}
	}
	refused(<-waits)
	began := time.Now()
	_, err := p.Lease(t.Context(), Normal)
	refused(err)
	if took := time.Since(began); took > 50*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	if s := p.Stats(); s.Ready || !s.Live || s.Reason != "traceback line 59" {
		t.Errorf("%+v", s)
	}
	if s := other.Stats(); s.State != PoolOK || !s.Ready {
		t.Errorf("the other pool: %+v", s)
	}
	l := lease(t, other)
	if err := do(l, "echo"); err != nil {
		t.Error(err)
	}
	l.Release()
	// One at a time is tried, ever more rarely, and told by Retry-After.
	eventually(t, "six failures", func() bool {
		s := p.Stats()
		if n := s.States[Starting]; n > 1 {
			t.Fatalf("%d starts at once", n)
		}
		if s.RetryIn < 3*time.Second {
			fake.advance(50 * time.Millisecond)
			return false
		}
		return true
	})
	_, err = p.Lease(t.Context(), Normal)
	var down *DownError
	if !errors.As(err, &down) || down.RetryAfter < 2*time.Second {
		t.Errorf("%v", err)
	}
	// It comes back by itself.
	p.mu.Lock()
	p.gen.command = testWorker(t, "")
	p.mu.Unlock()
	eventually(t, "a worker", func() bool { fake.advance(100 * time.Millisecond); return p.Stats().States[Ready] > 0 })
	l = lease(t, p)
	if err := do(l, "echo"); err != nil {
		t.Error(err)
	}
	l.Release()
	eventually(t, "whole", func() bool {
		s := p.Stats()
		return s.State == PoolOK && s.States[Ready] == 2 && s.Ready && s.Reason == ""
	})
}

// Requests that kill their workers, however many, don't make a pool refuse the
// others.
func TestPoolIsNotDownByRequests(t *testing.T) {
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1, clk: fake.clock()})
	for range 2 * downAfter {
		l := leaseOf(t, p, fake)
		if err := do(l, "exit 1"); err == nil {
			t.Error("the worker did not die")
		}
		l.Release()
		if s := p.Stats(); s.State == PoolDown {
			t.Fatalf("%+v", s)
		}
	}
	l := leaseOf(t, p, fake)
	if err := do(l, "echo"); err != nil {
		t.Error(err)
	}
	l.Release()
}

// leaseOf is lease for a pool whose clock has to be advanced for it.
func leaseOf(t *testing.T, p *Pool, fake *fakeClock) *Lease {
	t.Helper()
	got := make(chan *Lease)
	go func() { got <- lease(t, p) }()
	for {
		select {
		case l := <-got:
			return l
		case <-time.After(5 * time.Millisecond):
			fake.advance(10 * time.Millisecond)
		}
	}
}

// The hard limit holds for a worker that loads its application, from the first.
func TestPoolHardLimitAtTheStart(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "unready"), HardMemory: 100 << 20,
		memory: func(int, bool) (int64, error) { return 150 << 20, nil }})
	select {
	case <-p.Failed():
	case <-time.After(3 * time.Second): // less than an idle pool is measured in
		t.Fatal("it was not killed")
	}
	if err := p.Failure().Err; !strings.Contains(err.Error(), "150.0 MiB while it was starting") {
		t.Error(err)
	}
}

// And for one that grows while it has no request.
func TestPoolHardLimitOfIdleWorkers(t *testing.T) {
	var memory memoryTable
	fake := newFakeClock()
	p := newPool(t, Config{Command: testWorker(t, ""), HardMemory: 100 << 20, memory: memory.measure, clk: fake.clock()})
	eventually(t, "ready", func() bool { return p.Stats().States[Ready] == 1 })
	memory.set(p.Stats().List[0].PID, 150)
	eventually(t, "it is killed", func() bool { fake.advance(time.Second); return p.Stats().Totals.KilledMemory == 1 })
}
