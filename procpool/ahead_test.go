package procpool

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	start := time.Now()
	for _, test := range []struct {
		name  string
		took  []time.Duration // of the requests before
		pause time.Duration   // since the last one
		want  int
	}{
		{"too few requests to tell", repeat(10*time.Microsecond, measured-1), 0, 0},
		{"as quick as can be", repeat(10*time.Microsecond, measured), 0, 15},
		{"little work", repeat(400*time.Microsecond, 100), 0, 10},
		{"just not quick", repeat(4400*time.Microsecond, 100), 0, 0},
		{"slow", repeat(60*time.Millisecond, 100), 0, 0},
		{"one slow request is enough", append(repeat(10*time.Microsecond, 100), 60*time.Millisecond), 0, 0},
		{"quick again", append(append(repeat(10*time.Microsecond, 100), 60*time.Millisecond), repeat(10*time.Microsecond, 200)...), 0, 15},
		{"standing still", repeat(10*time.Microsecond, 100), stallAfter, 0},
	} {
		w := &worker{aheadMax: 15}
		now := start
		w.pace.begin(now)
		for _, took := range test.took {
			now = now.Add(took)
			w.pace.end(now, 0)
		}
		if got := w.ahead(now.Add(test.pause)); got != test.want {
			t.Errorf("%s: %d requests ahead, want %d", test.name, got, test.want)
		}
		w.aheadMax = 0
		if got := w.ahead(now); got != 0 {
			t.Errorf("%s: %d requests ahead of a worker that takes none", test.name, got)
		}
	}
}

func TestPaceAfterRecall(t *testing.T) {
	w := &worker{aheadMax: 15}
	now := time.Now()
	w.pace.begin(now)
	for range measured {
		now = now.Add(time.Microsecond)
		w.pace.end(now, 0)
	}
	w.pace.recalls = 1
	if got := w.ahead(now); got != 0 {
		t.Errorf("%d requests ahead of a worker that was just asked for them back", got)
	}
	w.pace.end(now.Add(time.Microsecond), 0)
	if got := w.ahead(now.Add(time.Microsecond)); got != 15 {
		t.Errorf("%d requests ahead after it moved on, want 15", got)
	}
}

func repeat(d time.Duration, n int) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = d
	}
	return all
}

// Where one request was slow the next may be: none is given ahead for a while,
// not on any worker of the pool.
func TestNothingAheadBesideSlowRequests(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1})
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	quick := &worker{state: Busy, capacity: 1, inFlight: 1, aheadMax: 15, session: neverRefusing{}}
	quick.pace.begin(now)
	for range measured {
		now = now.Add(time.Microsecond)
		quick.pace.end(now, 0)
	}
	slow := &worker{state: Busy, capacity: 1, inFlight: 1, session: neverRefusing{}}
	slow.pace.begin(now.Add(-slowRequest))
	own := p.workers
	p.workers = []*worker{quick, slow}
	defer func() { p.workers = own }()
	if p.pickAhead(now) != quick {
		t.Fatal("nothing is given ahead to a quick worker")
	}
	p.finished(slow, now, 0)
	if p.pickAhead(now) != nil {
		t.Error("a request is given ahead although another was slow just now")
	}
	quick.pace.begin(now.Add(slowMemory))
	if p.pickAhead(now.Add(slowMemory)) != quick {
		t.Error("nothing is given ahead long after the slow request")
	}
}

// A gateway that has much to do sees an answer late. What the worker says of its
// time counts, and what it has not begun doesn't.
func TestWorkersTellTheirTime(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1})
	p.mu.Lock()
	defer p.mu.Unlock()
	const late = 2 * slowRequest
	now := time.Now()
	w := &worker{state: Busy, capacity: 1, inFlight: 1, aheadMax: 15, session: neverRefusing{}}
	own := p.workers
	p.workers = []*worker{w}
	defer func() { p.workers = own }()
	w.pace.begin(now)
	for range measured {
		now = now.Add(late)
		p.finished(w, now, 10*time.Microsecond)
	}
	if got := w.ahead(now); got != 15 || p.pickAhead(now) != w {
		t.Errorf("%d requests ahead of a quick worker whose answers are seen late, want 15", got)
	}
	w.pace.recalls = 1
	p.finished(w, now.Add(late), 0)
	if w.pace.recalls != 1 || w.ahead(now) != 0 || now.Before(p.slowUntil) {
		t.Errorf("a request that was given back counts as one that was finished: %+v", w.pace)
	}
	w.capacity, w.pace.recalls = 4, 0
	for range measured * 4 {
		p.finished(w, now, 4*time.Millisecond)
	}
	if got := w.ahead(now); got != 4 {
		t.Errorf("%d requests ahead of four threads with 4 ms for each request", got)
	}
	p.finished(w, now, slowRequest)
	if p.pickAhead(now) != nil {
		t.Error("a request is given ahead although a thread was slow just now")
	}
}

type neverRefusing struct{ Session }

func (neverRefusing) Refusing() <-chan struct{} { return nil }

// What stands behind a long request doesn't wait for that because the worker is
// being replaced or condemned meanwhile.
func TestRecallFromDrainingWorker(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, ""), Min: 1})
	p.mu.Lock()
	defer p.mu.Unlock()
	start := time.Now()
	for _, condemned := range []bool{false, true} {
		w := &worker{state: Draining, since: start, capacity: 1, inFlight: 3, session: neverRefusing{}, condemned: condemned, deadline: start.Add(time.Hour)}
		if condemned {
			w.stuck = 1
		}
		w.pace.begin(start)
		// The second time is for those that were on their way at the first.
		for i, now := range []time.Time{start.Add(stallAfter), start.Add(2 * stallAfter), start.Add(4 * stallAfter)} {
			s := survey{now: now}
			p.tend(&s, w)
			if w.pace.recalls != i+1 || s.next.IsZero() {
				t.Errorf("condemned %v: %d recalls after %v, next look at %v", condemned, w.pace.recalls, now.Sub(start), s.next)
			}
		}
	}
}
