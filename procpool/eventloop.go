package procpool

import (
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// EventLoop is implemented by a Session whose worker may run all its requests in
// one event loop. Such a worker takes on what it is sent whenever the loop
// turns, and a request that blocks the loop holds up all others on it. So:
//
//   - a worker that has not looked at a request for slowTurn is avoided while
//     another one answers sooner;
//   - one that has not for stallAfter (waryAfter, where that has happened lately) stands still: it gets nothing more, and is asked
//     for the requests that it has not begun, which then go to other workers;
//   - it gets at most maxOwed in one turn, a quick one more: while all are at work the others
//     wait in the pool's queue, for whichever worker turns first. After a turn
//     in which it stood still it gets one, then twice as many in each turn:
//     where requests take long, most of them would but go back and forth.
type EventLoop interface {
	// Async reports whether the worker has an event loop.
	Async() bool
	// Owed is how many requests were sent that the worker has not looked
	// at, and since when it has looked at none; the zero time with 0. It is
	// called under the pool's lock, so it must not wait for anything.
	Owed() (n int, since time.Time)
	// OnBegun has f called each time after the worker has looked at
	// requests. f doesn't block for long.
	OnBegun(f func())
	// OnOwed has f called each time when Owed is no longer 0. f waits for nothing.
	OnOwed(f func())
}

const (
	slowTurn = 2 * time.Millisecond
	// maxOwed is so small that a loop is through with as many ordinary
	// requests before stallAfter, and so large that it has always some to do.
	// A loop that is through with more of them within slowTurn gets as many, up
	// to mostOwed: else it would wait for the gateway between its turns.
	maxOwed  = 16
	mostOwed = 64

	// A loop that has stood still for blocked tells of an application that
	// does so: for waryTime waryAfter is enough for all loops of the pool. It
	// would be too little at other times: on a busy machine a loop may just
	// wait for a processor, and requests would go round for nothing.
	blocked   = 2 * stallAfter
	waryAfter = 3 * time.Millisecond
	waryTime  = 2 * time.Second
)

// loop is a worker's event loop as the pool sees it.
type loop struct {
	EventLoop
	turns   atomic.Uint32 // how often it has looked at requests
	awaited atomic.Bool   // a request could have gone to it, had it turned

	// Guarded by the pool's lock.
	limit    int           // how many it gets in this turn
	given    int           // leases of this turn that were not released
	turn     uint32        // this turn
	turned   time.Time     // when the first of this turn was given
	served   int           // how many the worker had been given by then
	most     int           // how many requests it is through with within slowTurn, maxOwed to mostOwed
	owing    time.Time     // since when it stood still when it was last asked for its requests
	patience time.Duration // after which it was, or will be
	recalls  int           // how often it was asked since then
	stood    bool          // it stood still in this turn
}

// standing is how a worker takes to requests at a moment, the best first.
type standing uint8

const (
	turning standing = iota // it looks at what it gets soon, or has no event loop
	slow                    // it has not for slowTurn
	still                   // it gets nothing now
)

// loopPatience is after how long without a turn an event loop stands still. It
// takes no lock.
func (p *Pool) loopPatience(now time.Time) time.Duration {
	if now.Sub(p.born) < time.Duration(p.waryUntil.Load()) {
		return waryAfter
	}
	return stallAfter
}

// standing judges w, and has turned called when it turns if it gets nothing now.
func (w *worker) standing(now time.Time, patience time.Duration) standing {
	l := w.loop
	if l == nil {
		return turning
	}
	s := l.standing(now, patience)
	if s == still {
		l.awaited.Store(true)
		s = l.standing(now, patience) // it may have turned just before
	}
	return s
}

func (l *loop) standing(now time.Time, patience time.Duration) standing {
	n, since := l.Owed()
	switch {
	case n >= l.most, l.given >= l.limit && l.turn == l.turns.Load(), n > 0 && now.Sub(since) >= patience:
		return still
	case n > 0 && now.Sub(since) >= slowTurn:
		return slow
	}
	return turning
}

// give counts a lease; its result is for takeBack. served is how many the worker
// was given before.
func (l *loop) give(now time.Time, served int) (turn uint32) {
	if turn = l.turns.Load(); turn != l.turn {
		if took := now.Sub(l.turned); took > 0 {
			l.most = int(max(maxOwed, min(int64(slowTurn)*int64(served-l.served)/int64(took), mostOwed)))
		}
		l.turned, l.served = now, served
		l.turn, l.given, l.limit = turn, 0, min(2*l.limit, l.most)
		if l.stood {
			l.limit, l.stood = 1, false
		}
	}
	l.given++
	return turn
}

// takeBack uncounts a lease of a turn. One whose request was never sent is not
// looked at, and must not be waited for.
func (l *loop) takeBack(turn uint32) {
	if turn == l.turn && l.given > 0 {
		l.given--
	}
}

// follow has the pool know of the turns of w's event loop, if it has one. The
// caller holds the pool's lock.
func (p *Pool) follow(w *worker, session Session) {
	e, ok := session.(EventLoop)
	if !ok || !e.Async() {
		return
	}
	l := &loop{EventLoop: e, limit: maxOwed, most: maxOwed, turned: p.clk.now()}
	w.loop = l
	e.OnOwed(p.watchLoops)
	e.OnBegun(func() {
		l.turns.Add(1)
		if !l.awaited.CompareAndSwap(true, false) {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if w.serving() {
			p.dispatch(p.clk.now())
		}
	})
}

// unturned is how many requests the event loops may have beside those that they
// have. That many wait for nothing but a turn: a burst of requests that the pool has
// room for is not to be refused. The caller holds the pool's lock.
func (p *Pool) unturned() (n int) {
	for _, w := range p.workers {
		if w.loop != nil && w.state == Ready && !w.lost {
			n += w.capacity - w.inFlight
		}
	}
	return n
}

// watchLoops has the owner look after an event loop that owes. It is called when
// a request is sent, which on a busy machine may be long after its lease: looked
// at before, the loop would owe nothing, and be forgotten. It takes no lock.
func (p *Pool) watchLoops() {
	at := p.clk.now()
	now, until := at.Sub(p.born), p.loopWatch.Load()
	if now > time.Duration(until) && p.loopWatch.CompareAndSwap(until, int64(now+p.loopPatience(at))) {
		p.poke()
	}
}

// tendLoop asks an event loop that stands still for the requests that it has
// not begun, again and again but ever more rarely, as some may have been on their
// way. One that has stood still for Config.StallTimeout has to end: nothing on it can go on.
func (p *Pool) tendLoop(s *survey, w *worker) {
	n, since := w.loop.Owed()
	if n == 0 {
		return
	}
	if p.cfg.StallTimeout > 0 && s.due(since.Add(p.cfg.StallTimeout)) {
		reason := fmt.Sprintf("its event loop has stood still for %v", p.cfg.StallTimeout)
		p.stop(s, w, reason)
		s.do(func() {
			p.log.Warn("worker condemned", zap.Int("worker", w.info.Number), zap.Int("pid", w.info.PID), zap.String("reason", reason))
		})
		return
	}
	if p.phase != running && !w.condemned {
		return // there is no other worker for them
	}
	l := w.loop
	if !since.Equal(l.owing) {
		l.owing, l.recalls, l.patience = since, 0, p.loopPatience(s.now)
	}
	if s.due(since.Add(l.patience << min(l.recalls, 6))) {
		l.stood = true
		p.recall(s, w)
		// This look may be so late that the time of the next one has passed.
		for l.recalls++; s.due(since.Add(l.patience<<min(l.recalls, 6))) && l.recalls < 6; l.recalls++ {
		}
	}
	if s.now.Sub(since) >= blocked {
		p.waryUntil.Store(int64(s.now.Sub(p.born) + waryTime))
	}
}
