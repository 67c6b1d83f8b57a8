package procpool

import (
	"errors"
	"testing"
	"time"
)

// testLoop is a session with an event loop that turns when the test says so.
type testLoop struct {
	neverRefusing
	sent, begun int
	since       time.Time
	told, owes  func()
}

func (l *testLoop) Async() bool           { return true }
func (l *testLoop) OnBegun(f func())      { l.told = f }
func (l *testLoop) OnOwed(f func())       { l.owes = f }
func (l *testLoop) Done() <-chan struct{} { return nil }

func (l *testLoop) Owed() (int, time.Time) {
	if l.sent == l.begun {
		return 0, time.Time{}
	}
	return l.sent - l.begun, l.since
}

// send is what a lease leads to.
func (l *testLoop) send(now time.Time) {
	first := l.sent == l.begun
	if first {
		l.since = now
	}
	l.sent++
	if first {
		l.owes()
	}
}

// turns has the loop look at all that was sent.
func (l *testLoop) turns(now time.Time) {
	l.begun, l.since = l.sent, now
	l.told()
}

// loopPool is a pool whose workers have event loops, and no processes. Its clock
// is the test's.
func loopPool(t *testing.T, n int) (*Pool, *fakeClock, []*testLoop) {
	t.Helper()
	clk := newFakeClock()
	p, err := New(Config{Name: "test", Min: n, Attach: attachTest, clk: clk.clock()})
	if err != nil {
		t.Fatal(err)
	}
	var loops []*testLoop
	for i := range n {
		l := &testLoop{}
		w := &worker{info: WorkerInfo{Number: i + 1}, gen: p.gen, state: Ready, capacity: 1000, session: l}
		p.follow(w, l)
		p.workers = append(p.workers, w)
		loops = append(loops, l)
	}
	return p, clk, loops
}

// give takes a lease and sends its request; nil when it would have to wait.
func give(p *Pool, clk *fakeClock) *Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.pick(clk.now())
	if w == nil {
		return nil
	}
	l := p.assign(w, clk.now())
	w.session.(*testLoop).send(clk.now())
	return l
}

func number(l *Lease) int {
	if l == nil {
		return 0
	}
	return l.w.info.Number
}

func TestEventLoopThatTurnsLateIsAvoided(t *testing.T) {
	p, clk, loops := loopPool(t, 2)
	for _, step := range []struct {
		what string
		do   func()
		want int
	}{
		{"the first", func() {}, 1},
		{"the least busy", func() {}, 2},
		{"equals", func() { loops[1].turns(clk.now()) }, 1},
		{"slow to turn, though less busy", func() { clk.advance(slowTurn); loops[1].turns(clk.now()) }, 2},
		{"slow as well", func() { clk.advance(slowTurn) }, 1},
		{"one stands still", func() { clk.advance(stallAfter - 2*slowTurn) }, 2},
		{"both stand still", func() { clk.advance(stallAfter) }, 0},
		{"it turned", func() { loops[0].turns(clk.now()) }, 1},
	} {
		step.do()
		if got := number(give(p, clk)); got != step.want {
			t.Errorf("%s: worker %d, want %d", step.what, got, step.want)
		}
	}
}

// Requests that no event loop would look at wait in the pool, and go to the first that
// turns, which gets no more than one turn's worth.
func TestRequestsWaitForAnEventLoopThatTurns(t *testing.T) {
	p, clk, loops := loopPool(t, 2)
	give(p, clk)
	give(p, clk)
	clk.advance(stallAfter)
	const waiting = maxOwed + 4
	leased := make(chan *Lease, waiting)
	for range waiting {
		go func() {
			l, err := p.Lease(t.Context(), Normal)
			if err != nil {
				t.Error(err)
			}
			leased <- l
		}()
	}
	eventually(t, "all wait", func() bool { return p.Stats().Queued == waiting })
	loops[1].turns(clk.now())
	var leases []*Lease
	for range maxOwed {
		l := <-leased
		leases = append(leases, l)
		if number(l) != 2 {
			t.Errorf("a request went to worker %d, which stands still", number(l))
		}
	}
	if n := p.Stats().Queued; n != waiting-maxOwed {
		t.Errorf("%d wait, want %d", n, waiting-maxOwed)
	}
	// A request that was never sent leaves its place to another.
	leases[0].Release()
	if l := <-leased; number(l) != 2 {
		t.Errorf("the next went to worker %d", number(l))
	}
	loops[0].turns(clk.now())
	for range waiting - maxOwed - 1 {
		if l := <-leased; number(l) != 1 {
			t.Errorf("one that still waited went to worker %d", number(l))
		}
	}
}

func TestRecallFromAnEventLoop(t *testing.T) {
	p, clk, loops := loopPool(t, 1)
	give(p, clk)
	p.mu.Lock()
	defer p.mu.Unlock()
	w, start := p.workers[0], clk.now()
	recalls := func(after time.Duration) int {
		s := survey{now: start.Add(after)}
		p.tendLoop(&s, w)
		if p.phase == running && loops[0].sent != loops[0].begun && s.next.IsZero() {
			t.Errorf("after %v: there is no next look", after)
		}
		return int(p.totals.Recalls)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{stallAfter - 1, 0}, {stallAfter, 1}, {stallAfter + 1, 1}, {2 * stallAfter, 2}, {3 * stallAfter, 2}, {4 * stallAfter, 3}} {
		if got := recalls(step.after); got != step.want {
			t.Errorf("%v after the request: asked %d times, want %d", step.after, got, step.want)
		}
	}
	loops[0].begun = loops[0].sent
	if recalls(time.Second) != 3 {
		t.Error("asked for requests although it owes nothing")
	}
	loops[0].send(start.Add(time.Second))
	if recalls(time.Second+stallAfter) != 4 {
		t.Error("not asked at once when it stands still again")
	}
	p.phase = draining
	if recalls(time.Hour) != 4 {
		t.Error("asked for requests that have nowhere to go")
	}
}

// Where a loop was blocked the next one may be: for a while requests are soon
// asked back.
func TestBlockedEventLoopMakesWary(t *testing.T) {
	p, clk, loops := loopPool(t, 2)
	stillAfter := func(want time.Duration) {
		t.Helper()
		for range 4 { // those that stood still get few at first
			give(p, clk)
			give(p, clk)
			for _, l := range loops {
				l.turns(clk.now())
			}
		}
		start := clk.now()
		give(p, clk)
		give(p, clk)
		for _, step := range []struct {
			at   time.Duration
			free bool
		}{{want - 1, true}, {want, false}} {
			clk.advance(start.Add(step.at).Sub(clk.now()))
			p.mu.Lock()
			before := p.totals.Recalls
			for _, w := range p.workers {
				p.tendLoop(&survey{now: clk.now()}, w)
			}
			free, asked := p.pick(clk.now()) != nil, p.totals.Recalls != before
			p.mu.Unlock()
			if free != step.free || asked == step.free {
				t.Errorf("%v after the requests: a loop is free: %v; asked for its requests: %v", step.at, free, asked)
			}
		}
		for _, l := range loops {
			l.turns(clk.now())
		}
	}
	stillAfter(stallAfter)
	give(p, clk)
	clk.advance(blocked)
	p.mu.Lock()
	p.tendLoop(&survey{now: clk.now()}, p.workers[0])
	p.mu.Unlock()
	loops[0].turns(clk.now())
	stillAfter(waryAfter)
	clk.advance(waryTime)
	stillAfter(stallAfter)
}

// A loop that is through with more than maxOwed requests within slowTurn gets so
// many in a turn, and no longer when it has become slower.
func TestQuickEventLoopGetsMore(t *testing.T) {
	p, clk, loops := loopPool(t, 1)
	p.workers[0].capacity = 100_000
	fill := func() (n int) {
		for give(p, clk) != nil {
			n++
		}
		return n
	}
	for _, c := range []struct {
		turn time.Duration // how long the one before took
		want int
	}{
		{0, maxOwed},
		{time.Millisecond, 2 * maxOwed}, // 16 in 1 ms
		{time.Millisecond, mostOwed},
		{time.Millisecond, mostOwed},
		{2 * slowTurn, mostOwed / 2},
		{4 * slowTurn, maxOwed},
	} {
		if c.turn > 0 {
			clk.advance(c.turn)
			loops[0].turns(clk.now())
		}
		if n := fill(); n != c.want {
			t.Errorf("%d after a turn of %v, want %d", n, c.turn, c.want)
		}
	}
}

// A loop that stood still gets one request in its next turn, and twice as many in
// each one after.
func TestEventLoopThatStoodStillGetsFew(t *testing.T) {
	p, clk, loops := loopPool(t, 1)
	fill := func() (n int) {
		for give(p, clk) != nil {
			n++
		}
		return n
	}
	if n := fill(); n != maxOwed {
		t.Errorf("%d in the first turn", n)
	}
	for _, want := range []int{1, 2, 1, 2, 4, 8, maxOwed, maxOwed} {
		if want == 1 {
			clk.advance(stallAfter)
			p.look()
		}
		loops[0].turns(clk.now())
		if n := fill(); n != want {
			t.Errorf("%d in a turn, want %d", n, want)
		}
	}
}

// A burst that the workers have room for waits for their turns, however short
// the queue is.
func TestBurstForAnEventLoop(t *testing.T) {
	p, clk, loops := loopPool(t, 1)
	p.workers[0].capacity = maxOwed + p.cfg.QueueLength + 50
	for give(p, clk) != nil {
	}
	const beyond = 10
	room := 2*p.cfg.QueueLength + 50
	results := make(chan error, room+beyond)
	for range room + beyond {
		go func() {
			_, err := p.Lease(t.Context(), Normal)
			results <- err
		}()
	}
	for range beyond {
		if err := <-results; !errors.Is(err, ErrQueueFull) {
			t.Errorf("one too many: %v", err)
		}
	}
	for n := 0; n < room-p.cfg.QueueLength; {
		loops[0].turns(clk.now())
		for range min(maxOwed, room-p.cfg.QueueLength-n) {
			if err := <-results; err != nil {
				t.Errorf("one that there is room for: %v", err)
			}
			n++
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue.fail(ErrClosed)
}

// The owner looks after a request that is sent long after it got its lease, however
// often it has looked before, and is not called for every request.
func TestEventLoopIsWatchedFromWhenItOwes(t *testing.T) {
	p, clk, loops := loopPool(t, 1)
	poked := func() bool { return len(p.wake) > 0 }
	look := func() time.Time {
		for len(p.wake) > 0 {
			<-p.wake
		}
		s := p.look()
		return s.next
	}
	p.mu.Lock()
	p.assign(p.workers[0], clk.now())
	p.mu.Unlock()
	for range 3 {
		look()
		clk.advance(stallAfter)
	}
	loops[0].send(clk.now())
	if !poked() {
		t.Fatal("the owner isn't told that a request was sent")
	}
	if next := look(); next.After(clk.now().Add(stallAfter)) || next.IsZero() {
		t.Errorf("the next look is at %v, now it is %v", next, clk.now())
	}
	loops[0].turns(clk.now())
	clk.advance(stallAfter / 2)
	loops[0].send(clk.now())
	if poked() {
		t.Error("the owner is told although it will look by itself")
	}
	clk.advance(stallAfter / 2)
	look() // as it was due
	clk.advance(stallAfter)
	look()
	if got := p.Stats().Totals.Recalls; got != 1 {
		t.Errorf("asked %d times for what stands before an event loop", got)
	}
}

// One that stands still for good is stopped.
func TestEventLoopThatStandsStill(t *testing.T) {
	p, clk, _ := loopPool(t, 1)
	p.cfg.StallTimeout = time.Minute
	give(p, clk)
	p.mu.Lock()
	defer p.mu.Unlock()
	w, start := p.workers[0], clk.now()
	w.cancel = func(error) {}
	for _, after := range []time.Duration{time.Second, time.Minute - 1} {
		p.tendLoop(&survey{now: start.Add(after)}, w)
		if w.state != Ready {
			t.Fatalf("%v after %v", w.state, after)
		}
	}
	p.tendLoop(&survey{now: start.Add(time.Minute)}, w)
	if w.state != Stopping || w.reason == "" {
		t.Errorf("%v, reason %q, after a minute", w.state, w.reason)
	}
}

func TestOnDrain(t *testing.T) {
	p, clk, _ := loopPool(t, 2)
	told := make(chan int, 10)
	tell := func(n int) func() { return func() { told <- n } }
	var leases []*Lease
	for i := range 6 {
		l := give(p, clk) // odd numbers: worker 1
		leases = append(leases, l)
		l.OnDrain(tell(i))
	}
	leases[0].Release()
	leases[4].Release()
	leases[0].OnDrain(tell(0))
	leases[2].OnDrain(tell(102)) // in the place of the first
	p.mu.Lock()
	p.workers[0].enter(Draining, clk.now())
	p.mu.Unlock()
	if n := <-told; n != 102 {
		t.Errorf("%d is told", n)
	}
	leases[2].OnDrain(tell(2))
	if n := <-told; n != 2 {
		t.Errorf("%d is told, not the one that asks of a worker that ends", n)
	}
	p.mu.Lock()
	p.workers[0].enter(Stopping, clk.now())
	p.workers[1].enter(Dead, clk.now())
	p.mu.Unlock()
	for sum, i := 0, 0; i < 3; i++ {
		if sum += <-told; i == 2 && sum != 1+3+5 {
			t.Errorf("of worker 2 other leases are told than its own")
		}
	}
	select {
	case n := <-told:
		t.Errorf("%d is told as well", n)
	default:
	}
}

// What the rules for event loops cost a lease.
func BenchmarkLeaseOfEventLoops(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(map[int]string{1: "1", 16: "16"}[n], func(b *testing.B) {
			p, err := New(Config{Name: "test", Min: n, Attach: attachTest})
			if err != nil {
				b.Fatal(err)
			}
			for i := range n {
				l := &testLoop{}
				w := &worker{info: WorkerInfo{Number: i + 1}, gen: p.gen, state: Ready, capacity: 1000, session: l}
				p.follow(w, l)
				p.workers = append(p.workers, w)
			}
			b.ReportAllocs()
			for b.Loop() {
				l, err := p.Lease(b.Context(), Normal)
				if err != nil {
					b.Fatal(err)
				}
				p.mu.Lock()
				l.w.served = 0
				p.mu.Unlock()
				l.w.loop.turns.Add(1)
				l.Release()
			}
		})
	}
}
