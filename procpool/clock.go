package procpool

import (
	"math/rand/v2"
	"time"
)

// clock is time and chance as functions, so that tests of policy need neither
// sleep nor luck. Times come from time.Now and carry the monotonic reading: a
// clock that is set does not end anything early.
type clock struct {
	now func() time.Time
	// after returns a channel that receives once, d from now, and a function
	// that gives the timer up.
	after func(d time.Duration) (<-chan time.Time, func())
	// random returns a number in [0, 1).
	random func() float64
}

var realClock = clock{
	now: time.Now,
	after: func(d time.Duration) (<-chan time.Time, func()) {
		t := time.NewTimer(d)
		return t.C, func() { t.Stop() }
	},
	random: rand.Float64,
}
