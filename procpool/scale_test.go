package procpool

import (
	"slices"
	"testing"
	"time"
)

func TestScale(t *testing.T) {
	b := bounds{min: 2, max: 6, idleTimeout: time.Minute}
	onDemand := bounds{min: 0, max: 3, idleTimeout: time.Minute}
	spare := bounds{min: 2, max: 40, minSpare: 10, maxSpare: 12, idleTimeout: time.Minute}
	long := time.Hour
	for _, c := range []struct {
		name   string
		d      demand
		b      bounds
		target int
		want   int
		why    string
	}{
		{"nothing to do", demand{serving: 3, capacity: 1}, b, 3, 3, ""},
		{"below the minimum", demand{}, b, 1, 2, becauseMin},
		{"above the maximum", demand{serving: 9}, b, 9, 6, becauseMax},
		{"a wait that is noise", demand{serving: 2, capacity: 1, waiting: 4, waited: growAfter - 1}, b, 2, 2, ""},
		{"as many as wait", demand{serving: 2, capacity: 1, waiting: 3, waited: growAfter}, b, 2, 5, becauseWaited},
		{"not over the maximum", demand{serving: 2, capacity: 1, waiting: 50, waited: growAfter}, b, 2, 6, becauseWaited},
		{"a worker takes several", demand{serving: 2, capacity: 4, waiting: 5, waited: growAfter}, b, 2, 4, becauseWaited},
		{"those that start count", demand{serving: 4, starting: 2, capacity: 1, waiting: 2, waited: growAfter}, b, 4, 4, ""},
		{"nobody serves, the pool has a size", demand{waiting: 1}, b, 2, 2, ""},
		{"one at a time down", demand{serving: 5, capacity: 1, idle: 5, idleFor: long, sinceDown: long}, b, 5, 4, becauseIdle},
		{"not idle for long enough", demand{serving: 5, idle: 5, idleFor: time.Minute - 1, sinceDown: long}, b, 5, 5, ""},
		{"the next one a little later", demand{serving: 5, idle: 5, idleFor: long, sinceDown: 6*time.Second - 1}, b, 5, 5, ""},
		{"and then", demand{serving: 5, idle: 5, idleFor: long, sinceDown: 6 * time.Second}, b, 5, 4, becauseIdle},
		{"not while some wait", demand{serving: 5, idle: 1, idleFor: long, sinceDown: long, waiting: 1}, b, 5, 5, ""},
		{"not below the minimum", demand{serving: 2, idle: 2, idleFor: long, sinceDown: long}, b, 2, 2, ""},

		{"on demand, at once", demand{waiting: 1}, onDemand, 0, 1, becauseWaited},
		{"on demand, all at once", demand{waiting: 9}, onDemand, 0, 3, becauseWaited},
		{"on demand, down to none", demand{serving: 1, idle: 1, idleFor: time.Minute, sinceDown: long}, onDemand, 1, 0, becauseIdle},

		{"spare, the first step", demand{serving: 5, idle: 2, step: 1, sinceStep: long}, spare, 5, 6, becauseSpare},
		{"spare, a later step", demand{serving: 5, idle: 2, step: 4, sinceStep: spareEvery}, spare, 5, 9, becauseSpare},
		{"spare, no more than are missing", demand{serving: 5, idle: 2, step: 32, sinceStep: spareEvery}, spare, 5, 13, becauseSpare},
		{"spare, not so soon", demand{serving: 5, idle: 2, step: 4, sinceStep: spareEvery - 1}, spare, 5, 5, ""},
		{"spare, those that start will be idle", demand{serving: 12, starting: 8, idle: 2, step: 4, sinceStep: long}, spare, 12, 12, ""},
		{"spare, so will those that are not started", demand{serving: 4, idle: 2, step: 4, sinceStep: long}, spare, 12, 12, ""},
		{"spare, not over the maximum", demand{serving: 39, step: 32, sinceStep: long}, spare, 39, 40, becauseSpare},
		{"spare, and requests wait", demand{serving: 5, capacity: 1, waiting: 20, waited: growAfter, step: 1, sinceStep: long}, spare, 5, 25, becauseWaited},
		{"spare, too many", demand{serving: 20, idle: 13, idleFor: long, sinceDown: long}, spare, 20, 19, becauseIdle},
		{"spare, as many as may stay", demand{serving: 20, idle: 12, idleFor: long, sinceDown: long}, spare, 20, 20, ""},
	} {
		if got, why := scale(c.d, c.b, c.target); got != c.want || why != c.why {
			t.Errorf("%s: %d to %d (%q), want %d (%q)", c.name, c.target, got, why, c.want, c.why)
		}
	}
}

func TestRamp(t *testing.T) {
	var r ramp
	var steps []int
	for range 8 {
		steps = append(steps, r.next())
		r.size = r.next()
	}
	if want := []int{1, 2, 4, 8, 16, 32, 32, 32}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
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
