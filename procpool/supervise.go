package procpool

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// own is the goroutine that owns the pool's workers. It looks at everything
// whenever something has changed or become due, and does what is to be done: no
// event carries meaning of its own, so that none can be lost.
func (p *Pool) own() {
	defer close(p.done)
	for {
		s := p.look()
		for _, act := range s.acts {
			act()
		}
		if s.finished {
			p.gen.close()
			p.zygotes.Wait()
			return
		}
		var due <-chan time.Time
		stop := func() {}
		if !s.next.IsZero() {
			due, stop = p.clk.at(s.next)
		}
		select {
		case <-p.wake:
		case <-due:
		}
		stop()
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

func (p *Pool) look() survey {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := survey{now: p.clk.now()}
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
		s.finished = len(kept) == 0
		return s
	}
	if p.aheadWatch.After(s.now) {
		s.due(p.aheadWatch)
	}
	p.resize(&s)
	p.retire(&s)
	p.launch(&s)
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
		case !w.proven && s.due(w.since.Add(provenAfter)):
			p.proven(w)
		}
		p.tendAhead(s, w)
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
	case w.condemned:
		if w.inFlight > w.capacity && w.pace.recalls == 0 {
			p.recall(s, w)
		}
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
	if !w.proven {
		p.backoff.failed(w.started, now, p.clk.random)
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
		if cancel != nil {
			cancel(errors.New("the worker is being stopped"))
		}
	})
}

// resize asks scale for the pool's size.
func (p *Pool) resize(s *survey) {
	d := demand{waiting: p.queue.len(), sinceDown: s.now.Sub(p.lastDown)}
	if d.waiting > 0 {
		d.waited = s.now.Sub(p.queue.oldest())
	}
	for _, w := range p.workers {
		if !w.serving() {
			continue
		}
		d.serving++
		switch {
		case w.state == Starting:
			d.starting++
		case w.inFlight == 0:
			d.idle++
			d.idleFor = max(d.idleFor, s.now.Sub(w.idleSince))
			fallthrough
		default:
			d.capacity = w.capacity
		}
	}
	target, why := scale(d, bounds{p.min, p.max, p.cfg.ScaleDownAfter}, p.target)
	if why != "" {
		from := p.target
		s.do(func() {
			p.log.Info("pool size", zap.Int("from", from), zap.Int("to", target), zap.String("because", why))
		})
		if target < p.target {
			p.lastDown = s.now
			d.sinceDown = 0
		}
		p.target = target
	}
	if d.waiting > 0 && p.target < p.max {
		s.due(s.now.Add(growAfter))
	}
	if d.idle > 0 && p.target > p.min {
		wait := max(p.cfg.ScaleDownAfter-d.idleFor, p.cfg.ScaleDownAfter-d.sinceDown)
		s.due(s.now.Add(max(wait, time.Second)))
	}
}

// share is how many workers may be in replacement at once.
func (p *Pool) share() int { return max(1, p.target/4) }

// retire drains ready workers that are more than the pool should have: first
// those that are worn out, whose replacements are ready by then.
func (p *Pool) retire(s *survey) {
	ready := 0
	for _, w := range p.workers {
		if w.state == Ready || w.state == Busy {
			ready++
		}
	}
	for ; ready > p.target; ready-- {
		w := p.surplus()
		reason := "not needed"
		if w.worn {
			reason = "enough requests"
			p.totals.Recycled++
		}
		p.drain(s, w, reason)
	}
}

// surplus returns the worker that can best be done without.
func (p *Pool) surplus() *worker {
	var best *worker
	for _, w := range p.workers {
		if w.state != Ready && w.state != Busy {
			continue
		}
		switch {
		case best == nil, w.worn && !best.worn:
			best = w
		case w.worn == best.worn && (w.inFlight < best.inFlight || w.inFlight == best.inFlight && w.idleSince.Before(best.idleSince)):
			best = w
		}
	}
	return best
}

// launch starts what is missing: workers up to the target, and replacements for
// a share of the worn ones.
func (p *Pool) launch(s *survey) {
	serving, starting, worn, draining := 0, 0, 0, 0
	for _, w := range p.workers {
		switch {
		case w.serving():
			serving++
			if w.state == Starting {
				starting++
			}
			if w.worn {
				worn++
			}
		case w.state == Draining && w.worn:
			draining++
		}
	}
	want := p.target + max(0, min(worn, p.share()-draining))
	if serving >= want || !s.due(p.backoff.until) {
		return
	}
	if p.backoff.failures > 0 {
		// One at a time, until one has proved itself.
		want = min(want, serving+1-min(1, starting))
	}
	for ; serving < want; serving++ {
		w := p.newWorker(s.now)
		p.workers = append(p.workers, w)
		p.totals.Started++
		s.due(s.now.Add(p.cfg.StartTimeout))
		s.do(func() { go p.run(w) })
	}
}

func (p *Pool) newWorker(now time.Time) *worker {
	taken := make(map[int]bool, len(p.workers))
	for _, w := range p.workers {
		taken[w.info.Number] = true
	}
	number := 1
	for taken[number] {
		number++
	}
	w := &worker{
		info: WorkerInfo{Pool: p.cfg.Name, Number: number, Name: p.cfg.Name + "/" + strconv.Itoa(number)},
		gen:  p.gen, state: Starting, since: now, started: now,
	}
	if p.cfg.MaxRequests > 0 {
		w.limit = p.cfg.MaxRequests + int(p.clk.random()*float64(p.cfg.MaxRequestsJitter+1))
	}
	return w
}
