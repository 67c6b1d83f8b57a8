package backend

import (
	"fmt"
	"testing"
	"time"
)

// A worker is asked once a second at most, and the workers of a pool ten times
// together; who is left out is told why.
func TestSlowAdmit(t *testing.T) {
	s := NewSlow(nil)
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const full = "its stack is left out: the pool had more than 10 slow requests within a second"
	for _, c := range []struct {
		after   time.Duration
		silent  time.Duration
		pid     int
		request string
		want    string
	}{
		{0, time.Second, 1, "a", ""},
		{0, time.Second, 1, "b", "its stack is shown with request a"},
		{999 * time.Millisecond, time.Second, 1, "c", "its stack is shown with request a"},
		{999 * time.Millisecond, 998 * time.Millisecond, 1, "c2", "its stack is left out: its worker has been described less than a second ago, with request a"},
		{999 * time.Millisecond, time.Second, 2, "d", ""},
		{time.Second, time.Second, 1, "e", ""},
		{time.Second, time.Second, 2, "f", "its stack is shown with request d"}, // of the second before
		{1998 * time.Millisecond, time.Second, 2, "g", "its stack is shown with request d"},
		{1999 * time.Millisecond, time.Second, 2, "h", ""},
		{time.Hour, time.Second, 2, "i", ""},
	} {
		if got := s.admit(began.Add(c.after), c.silent, c.pid, c.request); got != c.want {
			t.Errorf("%s of worker %d after %v: %q, want %q", c.request, c.pid, c.after, got, c.want)
		}
	}

	s = NewSlow(nil)
	for pid := range 12 {
		want := ""
		if pid >= describeMost {
			want = full
		}
		if got := s.admit(began, time.Second, pid, fmt.Sprint("r", pid)); got != want {
			t.Errorf("worker %d: %q, want %q", pid, got, want)
		}
	}
	// One that was left out refers to nobody, and is asked when there is room.
	if got := s.admit(began.Add(describeEvery), time.Second, 11, "later"); got != "" {
		t.Errorf("a second later: %q", got)
	}
}

// What is remembered of workers doesn't grow with those that have gone.
func TestSlowAdmitForgets(t *testing.T) {
	s := NewSlow(nil)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for pid := range 1000 {
		now = now.Add(describeEvery / 4)
		s.admit(now, time.Second, pid, "r")
		if len(s.latest) > 2*describeMost {
			t.Fatalf("%d workers are remembered", len(s.latest))
		}
	}
}
