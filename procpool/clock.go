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
	// at returns a channel that receives once, when t has come, and a
	// function that gives the timer up.
	at func(t time.Time) (<-chan time.Time, func())
	// alarm returns a timer that is not set and runs f, in a goroutine of its
	// own, each time that it goes off.
	alarm func(f func()) alarm
	// random returns a number in [0, 1).
	random func() float64
}

// alarm is what a *time.Timer is.
type alarm interface {
	Reset(d time.Duration) bool
	Stop() bool
}

var realClock = clock{
	now: time.Now,
	at: func(t time.Time) (<-chan time.Time, func()) {
		timer := time.NewTimer(time.Until(t))
		return timer.C, func() { timer.Stop() }
	},
	alarm: func(f func()) alarm {
		t := time.AfterFunc(time.Hour, f)
		t.Stop()
		return t
	},
	random: rand.Float64,
}

// endsWithin waits until done is closed, for as long as what it stands for may
// take when it was given that grace before KILL. KILL can't fail, but a process in
// uninterruptible sleep takes it late.
func (c clock) endsWithin(grace time.Duration, done <-chan struct{}) bool {
	const patience = 5 * time.Second
	late, stop := c.after(grace + patience)
	defer stop()
	select {
	case <-done:
		return true
	case <-late:
		return false
	}
}

// after is at, d from now.
func (c clock) after(d time.Duration) (<-chan time.Time, func()) { return c.at(c.now().Add(d)) }
