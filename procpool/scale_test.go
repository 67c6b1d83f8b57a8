package procpool

import (
	"testing"
	"time"
)

func TestScale(t *testing.T) {
	b := bounds{min: 2, max: 6, downAfter: time.Minute}
	long := time.Hour
	for _, c := range []struct {
		name   string
		d      demand
		target int
		want   int
	}{
		{"nothing to do", demand{serving: 3, capacity: 1}, 3, 3},
		{"below the minimum", demand{}, 1, 2},
		{"above the maximum", demand{serving: 9}, 9, 6},
		{"a wait that is noise", demand{serving: 2, capacity: 1, waiting: 4, waited: growAfter - 1}, 2, 2},
		{"as many as wait", demand{serving: 2, capacity: 1, waiting: 3, waited: growAfter}, 2, 5},
		{"not over the maximum", demand{serving: 2, capacity: 1, waiting: 50, waited: growAfter}, 2, 6},
		{"a worker takes several", demand{serving: 2, capacity: 4, waiting: 5, waited: growAfter}, 2, 4},
		{"those that start count", demand{serving: 4, starting: 2, capacity: 1, waiting: 2, waited: growAfter}, 4, 4},
		{"nobody serves, no noise", demand{waiting: 1}, 2, 2},
		{"one at a time down", demand{serving: 5, capacity: 1, idle: 5, idleFor: long, sinceDown: long}, 5, 4},
		{"not idle for long enough", demand{serving: 5, idle: 5, idleFor: time.Minute - 1, sinceDown: long}, 5, 5},
		{"not soon again", demand{serving: 5, idle: 5, idleFor: long, sinceDown: time.Minute - 1}, 5, 5},
		{"not while some wait", demand{serving: 5, idle: 1, idleFor: long, sinceDown: long, waiting: 1}, 5, 5},
		{"not below the minimum", demand{serving: 2, idle: 2, idleFor: long, sinceDown: long}, 2, 2},
	} {
		got, why := scale(c.d, b, c.target)
		if got != c.want {
			t.Errorf("%s: %d to %d, want %d", c.name, c.target, got, c.want)
		}
		if (why == "") != (got == c.target) {
			t.Errorf("%s: reason %q for %d to %d", c.name, why, c.target, got)
		}
	}
	if got, _ := scale(demand{waiting: 1}, bounds{min: 0, max: 3, downAfter: time.Minute}, 0); got != 1 {
		t.Errorf("on demand: %d workers, want 1 at once", got)
	}
}

func TestBackoffDelay(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 3: 400 * time.Millisecond, 7: 6400 * time.Millisecond,
		8: 10 * time.Second, 9: 10 * time.Second, 1000: 10 * time.Second,
	} {
		if got := backoffDelay(failures, 0); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
		if got := backoffDelay(failures, 0.5); got != want*3/4 {
			t.Errorf("after %d failures, half the jitter: %v, want %v", failures, got, want*3/4)
		}
	}
}

func TestBackoffCountsABatchOnce(t *testing.T) {
	var b backoff
	start := time.Now()
	for i := range 4 { // four workers started together
		b.failed(start, start.Add(time.Duration(i+1)*time.Millisecond), func() float64 { return 0 })
	}
	if b.failures != 1 {
		t.Errorf("four failures of one batch count as %d", b.failures)
	}
	b.failed(start.Add(time.Second), start.Add(2*time.Second), func() float64 { return 0 })
	if b.failures != 2 {
		t.Errorf("a later failure makes it %d, want 2", b.failures)
	}
}
