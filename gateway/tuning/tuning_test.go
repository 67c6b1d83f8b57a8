package tuning

import (
	"math"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"
)

func TestProcessors(t *testing.T) {
	for _, c := range []struct {
		about               string
		now, most           int
		used, idle, waiting float64
		want                int
	}{
		{"nothing to do", 1, 8, 0, 8, 9, 1},
		{"one is enough", 1, 8, 0.6, 5, 9, 1},
		{"more to do than one can, and others idle", 1, 8, 0.95, 5, 9, 2},
		{"more to do for the kernel, as it sends files", 1, 8, 0.95, 5, 0.2, 1},
		{"and still more", 2, 8, 1.9, 4, 9, 4},
		{"not beyond what there are", 4, 6, 4, 2, 9, 6},
		{"more to do, but the workers need the rest", 1, 2, 0.98, 0.1, 9, 1},
		{"all are needed and used", 2, 2, 1.7, 0, 9, 2},
		{"one less would do, and nobody needs it", 2, 2, 1, 0.6, 9, 2},
		{"one less would do, and others need it", 2, 2, 1, 0.2, 9, 1},
		{"far less to do", 4, 8, 0.5, 7, 9, 3},
		{"one remains", 1, 8, 0, 0, 9, 1},
	} {
		if got := processors(c.now, c.most, demand{c.used, c.idle, c.waiting}); got != c.want {
			t.Errorf("%s: processors(%d, %d, %v, %v, %v) = %d; want %d", c.about, c.now, c.most, c.used, c.idle, c.waiting, got, c.want)
		}
	}
}

// Whatever the load is, the number settles.
func TestProcessorsSettle(t *testing.T) {
	for load := 0.0; load <= 8; load += 0.1 {
		for others := 0.0; others <= 4; others += 0.25 {
			const most = 4
			now, changes := 1, 0
			for range 50 {
				used := min(load, float64(now), max(most-others, 0.5))
				next := processors(now, most, demand{used, max(0, most-used-others), 9})
				if next != now {
					changes++
				}
				now = next
			}
			if changes > 6 {
				t.Errorf("a load of %.1f beside %.2f of others: %d changes", load, others, changes)
			}
		}
	}
}

func TestTotal(t *testing.T) {
	h := &metrics.Float64Histogram{Counts: []uint64{7, 2, 3, 1}, Buckets: []float64{math.Inf(-1), 0, 0.5, 1, math.Inf(1)}}
	if got, want := total(h), 2500*time.Millisecond; got != want {
		t.Errorf("%v; want %v", got, want)
	}
}

// TestWaited has goroutines that run all the time share one processor.
func TestWaited(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	before := glance{at: time.Now(), waited: waited()}
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 1000 {
				runtime.Gosched()
				for end := time.Now().Add(20 * time.Microsecond); time.Now().Before(end); {
				}
			}
		})
	}
	running.Wait()
	if d := (glance{at: time.Now(), waited: waited()}).since(before); d.waiting < 2 || d.waiting > 12 {
		t.Errorf("%v goroutines wait; want about 7", d.waiting)
	}
}

func TestSumIdle(t *testing.T) {
	stat := []byte("cpu  9 9 9 999 9 0 0 0 0 0\ncpu0 1 2 3 100 5 0 0 0 0 0\ncpu1 1 2 3 200 7 0 0 0 0 0\ncpu12 1 2 3 400 1 0 0 0 0 0\nintr 5 cpu0\n")
	only := func(cpus ...int) func(int) bool {
		return func(cpu int) bool {
			for _, c := range cpus {
				if c == cpu {
					return true
				}
			}
			return false
		}
	}
	for _, c := range []struct {
		allowed func(int) bool
		want    time.Duration
	}{{only(0, 1, 12), 713 * clockTick}, {only(1), 207 * clockTick}, {only(12), 401 * clockTick}} {
		if got, err := sumIdle(stat, c.allowed); got != c.want || err != nil {
			t.Errorf("%v, %v; want %v", got, err, c.want)
		}
	}
	if got, err := sumIdle(stat, only(3)); err == nil {
		t.Errorf("no processor: %v", got)
	}
	if _, err := sumIdle([]byte("cpu0 1 2 3 x 5 0\n"), only(0)); err == nil {
		t.Error("a number that is none was taken")
	}
}

func FuzzSumIdle(f *testing.F) {
	f.Add([]byte("cpu  9 9 9 999 9 0\ncpu0 1 2 3 100 5 0\n"))
	f.Add([]byte("cpu\ncpu0\ncpu"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		sumIdle(stat, func(int) bool { return true })
	})
}

func TestLook(t *testing.T) {
	l, err := look()
	if err != nil || l.idle <= 0 || l.used <= 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	before := glance{at: l.at.Add(-time.Second), used: l.used - 500*time.Millisecond, idle: l.idle - 3*time.Second, waited: l.waited - 250*time.Millisecond}
	if got, want := l.since(before), (demand{used: 0.5, idle: 3, waiting: 0.25}); got != want {
		t.Errorf("%+v; want %+v", got, want)
	}
}
