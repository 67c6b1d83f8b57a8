package procpool

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Lease is the right to have one request on a worker. Its methods may be called
// from any goroutine.
type Lease struct {
	pool *Pool
	w    *worker

	// Guarded by the pool's lock.
	released, condemned bool
	over                chan struct{} // closed by Release; nil until somebody waits for it
	turn                uint32        // of the worker's event loop, in which this was given
	onDrain             func()
	previous, next      *Lease // those of the worker with an onDrain
}

// Lease takes a slot of the least busy ready worker, or waits in the queue for
// one, behind those of higher priority. It fails with a *QueueError, with
// ErrClosed, or with ctx's cause; a nil error obliges to Release.
func (p *Pool) Lease(ctx context.Context, priority Priority) (*Lease, error) {
	p.mu.Lock()
	if p.phase != running {
		p.mu.Unlock()
		return nil, fmt.Errorf("procpool: %s: %w", p.cfg.Name, ErrClosed)
	}
	// Whoever waits comes first; when someone does, no slot is free.
	if p.queue.len() == 0 {
		now := p.clk.now()
		if w := p.pick(now); w != nil {
			p.queue.passed()
			l := p.assign(w, now)
			p.mu.Unlock()
			return l, nil
		}
	}
	if err := p.refusal(); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	if p.queue.len() >= p.queue.max {
		p.queue.beyond = p.unturned()
	}
	waiter, err := p.queue.join(ctx, priority)
	if err == nil && p.queue.len() == 1 && p.target < p.max {
		p.poke() // to see whether to grow
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	l, err := p.queue.wait(waiter)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.phase == draining && p.queue.len() == 0 {
			p.poke()
		}
	}
	return l, err
}

// pick returns the ready worker with the fewest requests, the oldest of equals
// so that the others can idle away; without one, a quick worker that may have a
// request ahead. Nil when there is neither. Of event loops one that is slow
// to turn comes last, whatever it has, and one that stands still is none.
func (p *Pool) pick(now time.Time) *worker {
	var best *worker
	bestStanding, patience := turning, p.loopPatience(now)
	for _, w := range p.workers {
		if w.state != Ready || w.lost || best != nil && bestStanding == turning && w.inFlight >= best.inFlight {
			continue
		}
		if closed(w.session.Refusing()) { // its end has not been seen yet
			continue
		}
		s := w.standing(now, patience)
		if s == still || best != nil && (s > bestStanding || s == bestStanding && w.inFlight >= best.inFlight) {
			continue
		}
		best, bestStanding = w, s
	}
	if best == nil {
		best = p.pickAhead(now)
	}
	return best
}

// assign gives w one more request.
func (p *Pool) assign(w *worker, now time.Time) *Lease {
	p.totals.Requests++
	w.served++
	if w.inFlight == 0 {
		w.pace.begin(now)
		p.roused(w, now)
	}
	w.inFlight++
	l := &Lease{pool: p, w: w}
	if w.loop != nil {
		l.turn = w.loop.give(now, w.served)
	}
	if w.inFlight > w.capacity {
		p.watchAhead(now)
	}
	w.settle(now)
	if w.limit > 0 && w.served >= w.limit {
		p.wearOut(w, wornRequests, int64(w.served))
	}
	return l
}

// dispatch gives free slots to those who wait.
func (p *Pool) dispatch(now time.Time) {
	for {
		waiter := p.queue.first()
		if waiter == nil {
			return
		}
		w := p.pick(now)
		if w == nil {
			return
		}
		p.queue.serve(waiter, p.assign(w, now), now)
	}
}

// Session returns the connection to the worker.
func (l *Lease) Session() Session { return l.w.session }

// Worker names the worker.
func (l *Lease) Worker() WorkerInfo { return l.w.info }

// Release is ReleaseAfter for who knows nothing of the worker's time.
func (l *Lease) Release() { l.ReleaseAfter(0) }

// ReleaseAfter gives the slot back, to the one whose turn it is. Further calls do
// nothing. worked is how long the worker has had the request in progress, by its own
// clock; 0 when it has not said so.
func (l *Lease) ReleaseAfter(worked time.Duration) {
	p, w := l.pool, l.w
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	l.forgetDrain()
	if w.loop != nil {
		w.loop.takeBack(l.turn)
	}
	if l.over != nil {
		close(l.over)
	}
	if l.condemned {
		w.stuck--
	}
	w.inFlight--
	now := p.clk.now()
	p.finished(w, now, worked)
	if w.inFlight == 0 {
		p.rested(w, now)
	}
	if !w.serving() {
		p.poke() // it may have been the last one
		return
	}
	if !w.proven && !closed(w.session.Done()) {
		p.proven(w)
	}
	w.settle(now)
	p.dispatch(now)
	if p.phase == draining {
		p.poke()
	}
}

// Condemn says that the request is stuck. The worker gets no new one. Its other
// requests have GracefulTimeout to end, then, or at once when there are none,
// its process group gets TERM, and after StopGrace KILL. Release is still due.
func (l *Lease) Condemn(reason string) {
	p, w := l.pool, l.w
	if p.condemn(l, reason) {
		p.log.Warn("worker condemned", zap.Int("worker", w.info.Number), zap.Int("pid", w.info.PID), zap.String("reason", reason))
	}
}

// condemn returns false when l's worker is going anyway.
func (p *Pool) condemn(l *Lease, reason string) bool {
	w := l.w
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.released || l.condemned {
		return false
	}
	l.condemned = true
	w.stuck++
	p.poke()
	if w.condemned || w.state >= Stopping {
		return false
	}
	w.condemned, w.reason = true, reason
	now := p.clk.now()
	w.deadline = now.Add(p.cfg.GracefulTimeout)
	w.enter(Draining, now)
	return true
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// proven notes that w does its work, which ends a back-off.
func (p *Pool) proven(w *worker) {
	w.proven = true
	if p.backoff.failures > 0 {
		p.backoff = backoff{}
		p.poke()
	}
}

// provenAfter is how long a worker without requests must have been ready to
// count as proven.
const provenAfter = 10 * time.Second
