package procpool

import (
	"time"

	"go.uber.org/zap"
)

// A worker that is quick gets its next requests before it has finished the
// last one: that spares it, and the gateway, a sleep and a wake-up for each.
// The price is that one request may stand behind another, so it is paid only
// while it is small:
//
//   - a worker is never given more than aheadWork of work that it can't start
//     at once, by its recent service time;
//   - a worker that has finished nothing for stallAfter while such requests
//     stand behind is asked for them back. Those that it has not started are
//     given to other workers, or go back to the queue.
const (
	aheadWork  = 4 * time.Millisecond
	stallAfter = 8 * time.Millisecond
	// measured is how many requests a worker must have finished before its
	// service time is believed.
	measured = 16
	// slowRequest is what a request must have taken for the whole pool to be
	// given none ahead for slowMemory: where one is slow the next may be, and
	// who stands behind it waits for stallAfter at least. It is more than a
	// worker on a busy machine has to wait for a processor.
	slowRequest = 20 * time.Millisecond
	slowMemory  = 500 * time.Millisecond
)

// pace is a worker's recent speed.
type pace struct {
	service  time.Duration // moving average of what a request takes, or of the time from one finished request to the next
	finished int           // up to measured
	last     time.Time     // when it last finished a request, or began to work after a pause
	recalls  int           // how often it was asked for its requests since then
	tells    bool          // it says itself what its requests take
}

// begin notes that an idle worker got work.
func (p *pace) begin(now time.Time) { p.last, p.recalls = now, 0 }

// end notes that a request was finished. A slow one counts for more than a
// quick one: what is to be avoided is to take a slow worker for a quick one.
// told is what the worker itself says that it took. A worker that has never said so
// took the time since it finished the last one. In that is whatever the gateway was
// late: with a thousand clients it comes to an answer 20 ms after that has arrived.
// Of a worker that tells, 0 means that the request was given back or not begun, which
// says nothing of its pace.
func (p *pace) end(now time.Time, told time.Duration) (took time.Duration) {
	switch {
	case told > 0:
		took, p.tells = told, true
	case p.tells:
		return 0
	default:
		took = now.Sub(p.last)
	}
	p.last, p.recalls = now, 0
	switch {
	case p.finished == 0:
		p.service = took
	case took > p.service:
		p.service += (took - p.service) / 4
	default:
		p.service -= (p.service - took) / 16
	}
	p.finished = min(p.finished+1, measured)
	return took
}

// finished notes that w finished a request, on which it has worked for so long, if
// that isn't 0. A worker with several threads was at as many requests meanwhile.
func (p *Pool) finished(w *worker, now time.Time, worked time.Duration) {
	took := w.pace.end(now, worked/time.Duration(max(1, w.capacity)))
	if max(took, worked) >= slowRequest {
		p.slowUntil = now.Add(slowMemory)
	}
}

// ahead is how many requests the worker may hold that it can't start at once.
func (w *worker) ahead(now time.Time) int {
	if w.aheadMax == 0 || w.pace.finished < measured || w.pace.recalls > 0 || now.Sub(w.pace.last) > stallAfter/2 {
		return 0
	}
	return min(w.aheadMax, int(aheadWork/max(w.pace.service, time.Microsecond)))
}

// pickAhead returns the busy worker with the fewest requests that may have one
// more. Nil when there is none.
func (p *Pool) pickAhead(now time.Time) *worker {
	var best *worker
	if now.Before(p.slowUntil) {
		return nil
	}
	for _, w := range p.workers {
		if w.state == Busy && !w.lost && !closed(w.session.Refusing()) && (best == nil || w.inFlight < best.inFlight) && w.inFlight < w.capacity+w.ahead(now) {
			best = w
		}
	}
	return best
}

// watchAhead has the owner look after requests that stand behind others, again
// and again as long as there are new ones.
func (p *Pool) watchAhead(now time.Time) {
	if now.After(p.aheadWatch) {
		p.aheadWatch = now.Add(stallAfter)
		p.poke()
	}
}

// tendAhead asks a worker that stands still for the requests that it has not
// started. A request that was on its way meanwhile comes back with the next
// asking, so it is asked again, ever more rarely, as long as it holds any. A pool
// that ends has no other worker for them.
func (p *Pool) tendAhead(s *survey, w *worker) {
	if w.loop != nil {
		p.tendLoop(s, w)
		return
	}
	if w.inFlight > w.capacity && (p.phase == running || w.condemned) && s.due(w.pace.last.Add(stallAfter<<min(w.pace.recalls, 6))) {
		w.pace.recalls++
		p.recall(s, w)
		s.due(w.pace.last.Add(stallAfter << min(w.pace.recalls, 6)))
	}
}

// recall asks for the requests that w has not started.
func (p *Pool) recall(s *survey, w *worker) {
	p.totals.Recalls++
	control := w.control
	s.do(func() {
		if err := control.send("recall"); err != nil {
			p.log.Debug("requests can't be recalled", zap.Int("worker", w.info.Number), zap.Error(err))
		}
	})
}
