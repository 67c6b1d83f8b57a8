package procpool

import "time"

// growAfter is how long a request must have waited before the pool grows: less
// is noise, and a new worker would not help it.
const growAfter = 20 * time.Millisecond

// demand is what the size of a pool is decided on.
type demand struct {
	serving  int // workers that serve or will
	starting int // those of them that aren't ready
	capacity int // requests that a worker takes at once

	waiting int           // requests in the queue
	waited  time.Duration // how long the first of them has waited

	idle      int           // workers without a request
	idleFor   time.Duration // how long the one longest idle has been so
	sinceDown time.Duration // since the pool last shrank
}

// bounds are what the size may be.
type bounds struct {
	min, max  int
	downAfter time.Duration
}

// scale returns how many workers there should be, now that there should be
// target, and why when it is another number. Up is fast, by as many workers as
// there are requests without one to come; down is slow, one by one, when even
// the quietest moment needs fewer.
func scale(d demand, b bounds, target int) (int, string) {
	switch {
	case target < b.min:
		return b.min, "below the minimum"
	case target > b.max:
		return b.max, "above the maximum"
	case d.waiting > 0 && (d.waited >= growAfter || d.serving == 0):
		capacity := max(1, d.capacity)
		need := (d.waiting+capacity-1)/capacity - d.starting
		if grown := min(b.max, d.serving+need); grown > target {
			return grown, "requests waited"
		}
	case d.waiting == 0 && target > b.min && d.idle > 0 && d.idleFor >= b.downAfter && d.sinceDown >= b.downAfter:
		return target - 1, "workers idle"
	}
	return target, ""
}
