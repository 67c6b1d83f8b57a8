package procpool

import (
	"testing"
	"time"
)

func TestTransitions(t *testing.T) {
	allowed := map[State][]State{
		Starting: {Ready, Stopping, Dead},
		Ready:    {Busy, Draining, Stopping, Dead},
		Busy:     {Ready, Draining, Stopping, Dead},
		Draining: {Stopping, Dead},
		Stopping: {Dead},
		Dead:     {},
	}
	for from := range stateCount {
		for to := range stateCount {
			want := false
			for _, s := range allowed[from] {
				want = want || s == to
			}
			w := worker{state: from}
			if got := w.enter(to, time.Now()); got != want {
				t.Errorf("%v to %v: allowed %v, want %v", from, to, got, want)
			}
			if (w.state == to) != (want || from == to) {
				t.Errorf("%v to %v: is %v", from, to, w.state)
			}
		}
	}
}

func TestSettle(t *testing.T) {
	for _, c := range []struct {
		state    State
		inFlight int
		want     State
	}{
		{Ready, 1, Ready}, {Ready, 2, Busy}, {Busy, 2, Busy}, {Busy, 1, Ready},
		{Draining, 0, Draining}, {Stopping, 0, Stopping}, {Dead, 0, Dead},
	} {
		w := worker{state: c.state, inFlight: c.inFlight, capacity: 2}
		w.settle(time.Now())
		if w.state != c.want {
			t.Errorf("%v with %d of 2 in flight: %v, want %v", c.state, c.inFlight, w.state, c.want)
		}
	}
}
