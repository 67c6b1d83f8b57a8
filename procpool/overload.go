package procpool

import (
	"time"

	"go.uber.org/zap"
)

// overload is what the owner has said of the queue's overload.
type overload struct {
	since  time.Time  // of the one that was logged as begun; zero when none is
	before QueueStats // at its beginning
}

// tellOverload logs the beginning and the end of an overload. The requests
// that it costs are counted, since a line for each would add to it.
func (p *Pool) tellOverload(s *survey) {
	now := p.queue.snapshot()
	if now.OverloadedSince.Equal(p.overload.since) {
		return
	}
	before := p.overload
	p.overload = overload{now.OverloadedSince, now}
	if !before.since.IsZero() {
		s.do(func() {
			p.log.Info("pool no longer overloaded", zap.Duration("after", s.now.Sub(before.since)),
				zap.Uint64("served", now.Waits.Count()-before.before.Waits.Count()),
				zap.Uint64("shed", now.Shed-before.before.Shed), zap.Uint64("full", now.Full-before.before.Full))
		})
	}
	if !now.OverloadedSince.IsZero() {
		queued, patience := p.queue.len(), p.queue.codel.interval()
		s.do(func() {
			p.log.Warn("pool overloaded: newest requests first, the others are refused",
				zap.Int("queued", queued), zap.Duration("patience", patience))
		})
	}
}
