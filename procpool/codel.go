package procpool

import "time"

// codel tells a queue that absorbs a burst, which is what queues are for, from
// one that stands: more comes than can be done, everybody waits for as long as
// they may, and much of what is done is done for someone who has given up. It
// is controlled delay (CoDel, RFC 8289) as Facebook adapted it to requests, with
// adaptive newest-first service ("Fail at Scale", ACM Queue 13(8), 2015).
//
// A queue is overloaded when it stood for two intervals in a row and did not
// shrink from one to the next as if it would be gone within its timeout. It
// stands when every newcomer in an interval finds more before it than is served
// in a target. From then on the newest is served first, and only those of high
// priority wait for longer than an interval: most who are served hardly wait,
// the others hear soon that they won't be. The overload is over when the queue
// was short, in the same sense, for an interval.
//
// All times follow from the queue's timeout and from how fast it is served. An
// interval is a twentieth of the timeout, but not less than it takes to serve
// twenty requests, since the queue of a pool that has enough workers is at times
// that long by chance alone; nor more than half of the timeout, so that there is
// something to gain.
type codel struct {
	timeout time.Duration // of the queue
	turned  func()        // runs when an overload begins or ends; may be nil

	gap      time.Duration // moving average of the time from one served to the next while others wait
	gapSince time.Time     // when the present gap began
	gaps     time.Duration // how many were measured, up to gapWeight

	began  time.Time // when the present interval did
	low    int       // the least that waited in it
	before int       // the same for the interval before; 0 when the queue was short in it

	long  time.Time // when the queue was last not short
	since time.Time // of the overload; zero while there is none
}

const (
	intervalShare = 20 // of the timeout
	intervalGaps  = 20
	targetShare   = 2 // of the interval
	gapWeight     = 32
)

// interval is for how long a queue must stand, and how long one may wait in one
// that is overloaded.
func (c *codel) interval() time.Duration {
	return min(max(c.timeout/intervalShare, intervalGaps*c.gap), c.timeout/2)
}

// short reports whether so many are served within the target.
func (c *codel) short(waiting int) bool {
	return time.Duration(waiting)*c.gap <= c.interval()/targetShare
}

// arrived notes a newcomer, before whom so many wait. True means that the queue
// is overloaded from now on.
func (c *codel) arrived(waiting int, now time.Time) bool {
	if waiting == 0 {
		c.gapSince = now
	}
	c.note(waiting, now)
	interval := c.interval()
	if c.short(waiting) || now.Sub(c.began) < interval {
		return false
	}
	standing := c.before > 0 && (c.before-c.low)*int(c.timeout/interval) < c.low
	c.began, c.low, c.before = now, waiting, c.low
	if !standing || !c.since.IsZero() {
		return false
	}
	c.turn(now)
	return true
}

// note takes in how many wait now.
func (c *codel) note(waiting int, now time.Time) {
	if !c.short(waiting) {
		c.long = now
		c.low = min(c.low, waiting)
		return
	}
	c.began, c.low, c.before = now, 0, 0
	if !c.since.IsZero() && now.Sub(c.long) >= c.interval() {
		c.turn(time.Time{})
	}
}

func (c *codel) turn(since time.Time) {
	c.since = since
	if c.turned != nil {
		c.turned()
	}
}

// served notes that one who waited was served.
func (c *codel) served(now time.Time) {
	took := now.Sub(c.gapSince)
	c.gapSince = now
	c.gaps = min(c.gaps+1, gapWeight)
	c.gap += (took - c.gap) / c.gaps
}

// backlog is how long it takes to serve so many, as things are.
func (c *codel) backlog(waiting int, now time.Time) time.Duration {
	gap := c.gap
	if waiting > 0 {
		gap = max(gap, now.Sub(c.gapSince)) // nothing may have been served for long
	}
	return time.Duration(waiting) * gap
}
