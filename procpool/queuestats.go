package procpool

import (
	"math/bits"
	"time"
)

// QueueStats is what has become of those who asked for a slot, since the start.
type QueueStats struct {
	// Waits has how long those had waited who got one, not to wait included.
	Waits WaitHistogram
	// Full counts the refusals for want of a place in the queue, TimedOut
	// those after the whole timeout, Shed those before it, because the queue
	// was overloaded.
	Full, TimedOut, Shed uint64
	// OverloadedSince is since when the queue is overloaded: it stands, the
	// newest is served first, and who can't be served soon is refused soon.
	// The zero time means that it is not.
	OverloadedSince time.Time
}

// waitBuckets covers 1 ms to 16 s.
const waitBuckets = 16

// WaitHistogram counts waits by their length.
type WaitHistogram struct {
	// Buckets[0] counts waits of less than 1 ms, each further one those of
	// less than twice the one before, the last one all longer ones.
	Buckets [waitBuckets]uint64
	// Sum is all waits together.
	Sum time.Duration
}

// Bound is where bucket i ends, 0 for the last one, which has no end.
func (WaitHistogram) Bound(i int) time.Duration {
	if i == waitBuckets-1 {
		return 0
	}
	return time.Millisecond << i
}

// Count is the number of waits.
func (h WaitHistogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

func (h *WaitHistogram) add(wait time.Duration) {
	wait = max(wait, 0)
	h.Buckets[min(bits.Len64(uint64(wait/time.Millisecond)), waitBuckets-1)]++
	h.Sum += wait
}
