package procpool

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// own is the goroutine that owns the pool's workers. It looks at everything
// whenever something has changed or become due, and does what is to be done: no
// event carries meaning of its own, so that none can be lost.
func (p *Pool) own() {
	defer close(p.done)
	defer p.closeGenerations()
	if p.limitsMemory() {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { defer close(stopped); p.watchMemory(stop) }()
		defer func() { close(stop); <-stopped }()
	}
	for {
		s := p.look()
		for _, act := range s.acts {
			act()
		}
		p.mu.Lock()
		p.acting = time.Time{}
		p.mu.Unlock()
		if s.finished {
			return
		}
		s.wait(p.clk, p.wake)
	}
}

// survey is one look at the pool: what is to be done outside the lock, and when
// to look again at the latest.
type survey struct {
	now      time.Time
	acts     []func()
	next     time.Time
	finished bool
}

func (s *survey) do(act func()) { s.acts = append(s.acts, act) }

// due reports whether t has come, and has the owner look again then if not.
func (s *survey) due(t time.Time) bool {
	if !s.now.Before(t) {
		return true
	}
	if s.next.IsZero() || t.Before(s.next) {
		s.next = t
	}
	return false
}

// wait returns when it is time to look again.
func (s *survey) wait(clk clock, wake <-chan struct{}) {
	var due <-chan time.Time
	if !s.next.IsZero() {
		var stop func()
		due, stop = clk.at(s.next)
		defer stop()
	}
	select {
	case <-wake:
	case <-due:
	}
}

func (p *Pool) look() survey {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := survey{now: p.clk.now()}
	p.acting = s.now
	p.tellOverload(&s)
	if p.phase == closing {
		p.queue.fail(fmt.Errorf("procpool: %s: %w", p.cfg.Name, ErrClosed))
	}
	ending := p.phase == closing || p.phase == draining && p.queue.len() == 0
	kept := p.workers[:0]
	for _, w := range p.workers {
		if w.gone {
			continue
		}
		kept = append(kept, w)
		if ending {
			p.wind(&s, w)
		}
		p.tend(&s, w)
	}
	clear(p.workers[len(kept):])
	p.workers = kept
	if ending {
		p.endRollout(&s, RestartFailed, ErrClosed, nil)
		s.finished = len(kept) == 0
		return s
	}
	for _, watch := range []time.Time{p.aheadWatch, p.spareWatch, p.idleWatch, p.born.Add(time.Duration(p.loopWatch.Load()))} {
		if watch.After(s.now) {
			s.due(watch)
		}
	}
	if err := p.refusal(); err != nil {
		p.queue.fail(err)
	}
	p.tendRollout(&s)
	p.tendGenerations(&s)
	p.resize(&s)
	p.retire(&s)
	p.launch(&s)
	p.forgetGenerations(&s)
	p.lookAfterRollout()
	return s
}

// wind begins the end of w, as the pool's phase wants it.
func (p *Pool) wind(s *survey, w *worker) {
	switch {
	case p.phase == closing && w.state < Stopping, w.state == Starting:
		p.stop(s, w, "pool closed")
	case w.serving():
		p.drain(s, w, "pool drained")
	}
}

// tend does what w's state asks for at this moment.
func (p *Pool) tend(s *survey, w *worker) {
	switch w.state {
	case Starting:
		if w.memory.excess > 0 && w.failure == nil {
			w.failure = fmt.Errorf("%s while it was starting, over the hard limit of %s", inMiB(w.memory.excess), inMiB(p.cfg.HardMemory))
		}
		if w.failure == nil && s.due(w.since.Add(p.cfg.StartTimeout)) {
			w.failure = fmt.Errorf("not ready after %v", p.cfg.StartTimeout)
		}
		if w.failure != nil {
			p.died(w, s.now)
			p.stop(s, w, "failed to start")
		}
	case Ready, Busy:
		switch {
		case w.lost:
			p.died(w, s.now)
			p.kill(s, w, "connection lost")
			return
		case w.memory.excess > 0:
			p.killExcess(s, w)
			return
		case !w.proven && s.due(w.since.Add(provenAfter)):
			p.proven(w)
		}
		p.tendAhead(s, w)
		if !w.expires.IsZero() && s.due(w.expires) {
			p.wearOut(w, wornAge, int64(s.now.Sub(w.started)))
		}
	case Draining:
		p.tendDraining(s, w)
	case Stopping:
		if !w.killed && s.due(w.since.Add(p.stopGrace())) {
			p.kill(s, w, w.reason)
		}
	}
}

func (p *Pool) tendDraining(s *survey, w *worker) {
	switch {
	case w.memory.excess > 0:
		p.killExcess(s, w)
	case w.condemned:
		p.tendAhead(s, w)
		if w.inFlight == w.stuck || s.due(w.deadline) {
			p.stop(s, w, w.reason)
		}
	case w.told:
		// The end of its connection is what it was told to bring about.
		if s.due(w.deadline) {
			p.stop(s, w, "did not exit")
		}
	case w.lost:
		p.died(w, s.now)
		p.kill(s, w, "connection lost")
	case w.inFlight == 0:
		w.told = true
		w.deadline = s.now.Add(p.cfg.GracefulTimeout)
		s.due(w.deadline)
		s.do(func() { _ = w.session.CloseWrite() }) // a dead worker needs no telling
	default:
		p.tendAhead(s, w)
	}
}

// died counts w as a worker that ended unasked. That comes before its process
// has exited where that is known, so that the back-off holds for its replacement.
func (p *Pool) died(w *worker, now time.Time) {
	if w.counted {
		return
	}
	w.counted = true
	p.totals.Deaths++
	switch r := p.rollout; {
	case w.proven:
	case r != nil && r.proved && w.gen != r.gen: // it is on its way out
	case r == nil || w.gen != r.gen:
		if p.backoff.failed(w.started, now, p.clk.random) && w.state == Starting {
			p.stillborn++
		}
	case r.failing == nil: // the restart is undone instead
		r.failing = w
	}
}

// drain takes w out of service.
func (p *Pool) drain(s *survey, w *worker, reason string) {
	w.reason = reason
	w.enter(Draining, s.now)
	p.tendDraining(s, w)
}

// hurriedGrace is the time between TERM and KILL when all is to end at once:
// enough for a worker to run its exit handlers, not to finish a request that
// nobody waits for any more.
const hurriedGrace = time.Second

func (p *Pool) stopGrace() time.Duration {
	if p.phase == closing {
		return min(p.cfg.StopGrace, hurriedGrace)
	}
	return p.cfg.StopGrace
}

// stop asks w's process group to end.
func (p *Pool) stop(s *survey, w *worker, reason string) {
	w.reason = reason
	w.enter(Stopping, s.now)
	s.due(s.now.Add(p.stopGrace()))
	p.signal(s, w, syscall.SIGTERM)
}

// kill ends w's process group.
func (p *Pool) kill(s *survey, w *worker, reason string) {
	w.reason, w.killed = reason, true
	w.enter(Stopping, s.now)
	p.signal(s, w, syscall.SIGKILL)
}

func (p *Pool) signal(s *survey, w *worker, sig syscall.Signal) {
	child, cancel := w.child, w.cancel
	s.do(func() {
		if child != nil { // else it is being started: startWorker sees the state
			child.signal(sig)
		}
		cancel(errors.New("the worker is being stopped"))
	})
}
