package procpool

import "time"

const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 10 * time.Second
)

// backoff spaces the starts of workers that don't survive. The zero value lets
// all start at once.
type backoff struct {
	failures int       // in a row
	last     time.Time // when the last one was
	until    time.Time // no start before
}

// failed notes that a worker started at started died, at now, before it had
// proved itself. Workers that were started together fail together: that is one
// failure, and false is returned for the others.
func (b *backoff) failed(started, now time.Time, random func() float64) bool {
	if b.failures > 0 && !started.After(b.last) {
		return false
	}
	b.failures++
	b.last = now
	b.until = now.Add(backoffDelay(b.failures, random()))
	return true
}

// wait returns how long no worker may be started.
func (b *backoff) wait(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }

// backoffDelay doubles from 0.1 s to 10 s, and takes up to a half off by chance
// (random is in [0, 1)), so that pools that broke together don't try together.
func backoffDelay(failures int, random float64) time.Duration {
	d := backoffMax
	if shift := failures - 1; shift < 7 { // 0.1 s · 2⁷ is over the maximum
		d = backoffFirst << shift
	}
	return time.Duration(float64(d) * (1 - random/2))
}
