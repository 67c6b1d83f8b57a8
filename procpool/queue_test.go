package procpool

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
)

// servedOrder serves all who wait, and returns when they had come.
func servedOrder(s *simulation) (order []time.Duration) {
	for w := s.queue.first(); w != nil; w = s.queue.first() {
		order = append(order, w.since.Sub(s.start))
		s.queue.serve(w, struct{}{}, s.at)
	}
	return order
}

func TestQueueOrder(t *testing.T) {
	s := newSimulation(0, 0, 10, time.Minute)
	for i, p := range []Priority{Low, Normal, High, Normal, Low, High} {
		s.at = s.start.Add(time.Duration(i))
		s.arrive(p)
	}
	if got, want := servedOrder(s), []time.Duration{2, 5, 1, 3, 0, 4}; !slices.Equal(got, want) {
		t.Errorf("served in the order %v, want %v", got, want)
	}

	for i := range 5 {
		s.at = s.start.Add(time.Duration(i))
		s.arrive(Normal)
		s.arrive(High)
	}
	s.queue.codel.since, s.queue.codel.long = s.at, s.at // overloaded
	if got, want := servedOrder(s), []time.Duration{0, 1, 2, 3, 4, 4, 3, 2, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("overloaded: served in the order %v, want %v", got, want)
	}
}

// A queue full of normal requests has places for high ones, and takes those of
// low ones for normal ones.
func TestQueuePlaces(t *testing.T) {
	s := newSimulation(0, 0, 3, time.Minute)
	s.arrive(Low)
	s.arrive(Normal)
	s.arrive(Low)
	full := func(p Priority) bool {
		s.arrive(p)
		return errors.Is(s.arrivals[len(s.arrivals)-1].err, ErrQueueFull)
	}
	if !full(Low) {
		t.Error("a low one found a place in a full queue")
	}
	if full(Normal) || s.arrivals[2].err == nil || s.arrivals[0].err != nil {
		t.Error("a normal one did not get the place of the last low one")
	}
	if full(Normal) || !full(Normal) || s.queue.stats.Full != 4 {
		t.Errorf("%d refused, want the low ones, and the normal one that is too many", s.queue.stats.Full)
	}
	for i := range highPlaces {
		if full(High) {
			t.Fatalf("the %d. high one refused", i+1)
		}
	}
	if !full(High) {
		t.Error("a high one more than there are places for found one")
	}
	if n := s.queue.len(); n != 3+highPlaces {
		t.Errorf("%d wait", n)
	}
}

// Whose turn had come before is served first and never refused.
func TestQueueReturned(t *testing.T) {
	s := newSimulation(0, 0, 1, time.Minute)
	for i, p := range []Priority{Normal, High, Returned, Returned} {
		s.at = s.start.Add(time.Duration(i))
		s.arrive(p)
	}
	s.queue.codel.since, s.queue.codel.long = s.at, s.at // overloaded
	s.at = s.at.Add(1)
	s.arrive(Returned)
	if got, want := servedOrder(s), []time.Duration{2, 3, 4, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("served in the order %v, want %v", got, want)
	}
}

// Who has gone is not served, also when it was not yet noticed.
func TestQueueSkipsTheGone(t *testing.T) {
	s := newSimulation(0, 0, 10, time.Minute)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	first, err := s.queue.join(ctx, Normal)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.queue.join(t.Context(), Normal)
	if err != nil {
		t.Fatal(err)
	}
	cancel(gone)
	if w := s.queue.first(); w != second {
		t.Error("the one that has gone is first")
	}
	if _, err := s.queue.wait(first); !errors.Is(err, gone) {
		t.Errorf("its wait ended with %v", err)
	}
}

func TestWaitHistogram(t *testing.T) {
	var h WaitHistogram
	for _, d := range []time.Duration{-1, 0, 999 * time.Microsecond, time.Millisecond, 3 * time.Millisecond, 4 * time.Millisecond, 16 * time.Second, 17 * time.Second, time.Hour} {
		h.add(d)
	}
	if want := [waitBuckets]uint64{0: 3, 1: 1, 2: 1, 3: 1, 14: 1, 15: 2}; h.Buckets != want {
		t.Errorf("%v, want %v", h.Buckets, want)
	}
	if h.Count() != 9 || h.Bound(0) != time.Millisecond || h.Bound(14) != 16384*time.Millisecond || h.Bound(15) != 0 {
		t.Errorf("%d waits; bounds %v, %v, %v", h.Count(), h.Bound(0), h.Bound(14), h.Bound(15))
	}
}

// What it costs to wait for a slot.
func BenchmarkLimiterHandOver(b *testing.B) {
	l := NewLimiter("bench", 1, 1000, time.Minute)
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Acquire(context.Background()); err != nil {
				b.Error(err)
				return
			}
			runtime.Gosched() // so that the others come to wait
			l.Release()
		}
	})
}
