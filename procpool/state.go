package procpool

import (
	"fmt"
	"time"
)

// State is where a worker is in its life.
//
//	starting ──► ready ◄──► busy
//	    │          │          │
//	    │          └────┬─────┘
//	    │               ▼
//	    │           draining
//	    │               │
//	    └──────► ▼ ◄────┘      (from any state)
//	          stopping ──► dead
//
// The rules, all of them in this file, which alone changes a worker's state:
//   - only a ready worker is given a request;
//   - a worker is ready when Attach has returned, and as long as it has a free
//     slot; it is busy while it has none;
//   - a draining worker ends what it has begun, is then told to exit, and never
//     comes back;
//   - a stopping worker has been signalled;
//   - a dead worker's process has exited: whatever was in progress on it is lost.
type State uint8

const (
	Starting State = iota
	Ready
	Busy
	Draining
	Stopping
	Dead

	stateCount
)

var stateNames = [stateCount]string{"starting", "ready", "busy", "draining", "stopping", "dead"}

func (s State) String() string {
	if s < stateCount {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// transitions[from][to] says which changes are allowed.
var transitions = [stateCount][stateCount]bool{
	Starting: {Ready: true, Stopping: true, Dead: true},
	Ready:    {Busy: true, Draining: true, Stopping: true, Dead: true},
	Busy:     {Ready: true, Draining: true, Stopping: true, Dead: true},
	Draining: {Stopping: true, Dead: true},
	Stopping: {Dead: true},
}

// enter changes the state, and returns false when the table forbids that.
func (w *worker) enter(to State, now time.Time) bool {
	if !transitions[w.state][to] {
		return false
	}
	w.state, w.since = to, now
	if to >= Draining {
		w.tellDrain()
	}
	return true
}

// settle makes a worker that takes requests ready or busy, by its free slots.
func (w *worker) settle(now time.Time) {
	switch {
	case w.state == Ready && w.inFlight >= w.capacity:
		w.enter(Busy, now)
	case w.state == Busy && w.inFlight < w.capacity:
		w.enter(Ready, now)
	}
}

// serving reports whether the worker belongs to the pool's size: it serves, or
// will.
func (w *worker) serving() bool { return w.state <= Busy }
