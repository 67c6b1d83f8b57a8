package procpool

import (
	"time"

	"go.uber.org/zap"
)

const (
	// growAfter is how long a request must have waited before the pool
	// grows: less is noise, and a new worker would not help it.
	growAfter = 20 * time.Millisecond
	// spareEvery is how far apart two steps are in which missing spare
	// workers are started. Each step is twice the one before, up to
	// spareMost, as Apache's and php-fpm's are.
	spareEvery = 100 * time.Millisecond
	spareMost  = 32
	// downSteps is into how many steps IdleTimeout is divided when several
	// workers are to be ended.
	downSteps = 10
)

// demand is what the size of a pool is decided on.
type demand struct {
	serving  int // workers that serve or will
	starting int // those of them that aren't ready
	capacity int // requests that a worker takes at once

	waiting int           // requests in the queue
	waited  time.Duration // how long the first of them has waited

	idle      int           // workers without a request
	idleFor   time.Duration // how long the one longest idle has been so
	sinceDown time.Duration // since the pool last shrank

	step      int           // how many spare workers may be started in the next step
	sinceStep time.Duration // since the last one
}

// bounds are what the size may be.
type bounds struct {
	min, max           int
	minSpare, maxSpare int           // idle workers
	idleTimeout        time.Duration // of one worker
}

// What scale gives as its reason.
const (
	becauseMin    = "below the minimum"
	becauseMax    = "above the maximum"
	becauseWaited = "requests waited"
	becauseSpare  = "too few idle workers"
	becauseIdle   = "workers idle"
)

// scale returns how many workers there should be, now that there should be
// target, and why when it is another number. Up is fast: by as many workers as
// there are requests without one to come, and by ever larger steps while spare
// workers are missing. Down is slow: one by one, those that even the quietest
// moment of late had no use for.
func scale(d demand, b bounds, target int) (int, string) {
	switch {
	case target < b.min:
		return b.min, becauseMin
	case target > b.max:
		return b.max, becauseMax
	case d.waiting > 0 && (d.waited >= growAfter || d.serving == 0):
		capacity := max(1, d.capacity)
		need := (d.waiting+capacity-1)/capacity - d.starting
		if grown := min(b.max, d.serving+need); grown > target {
			return grown, becauseWaited
		}
	}
	// Workers that are starting are idle ones to come, and so are those that
	// the target has and that are not started yet.
	spare := d.idle + d.starting + max(0, target-d.serving)
	switch {
	case spare < b.minSpare:
		if grown := min(b.max, target+min(b.minSpare-spare, d.step)); grown > target && d.sinceStep >= spareEvery {
			return grown, becauseSpare
		}
	case d.waiting == 0 && target > b.min && d.idle > b.maxSpare && d.idleFor >= b.idleTimeout && d.sinceDown >= b.idleTimeout/downSteps:
		return target - 1, becauseIdle
	}
	return target, ""
}

// ramp is the size of the steps in which spare workers are started.
type ramp struct {
	last time.Time
	size int // of the last step; 0 when none is due
}

// next returns the size that the next step may have.
func (r ramp) next() int { return max(1, min(2*r.size, spareMost)) }

// resize asks scale for the pool's size.
func (p *Pool) resize(s *survey) {
	d, b := p.demand(s.now), bounds{p.min, p.max, p.cfg.MinSpare, p.cfg.MaxSpare, p.cfg.IdleTimeout}
	target, why := scale(d, b, p.target)
	if why != "" {
		from := p.target
		s.do(func() {
			p.log.Info("pool size", zap.Int("from", from), zap.Int("to", target), zap.String("because", why),
				zap.Int("waiting", d.waiting), zap.Int("idle", d.idle))
		})
		p.target = target
	}
	switch {
	case why == becauseSpare:
		p.ramp = ramp{s.now, d.step}
	case d.idle >= b.minSpare:
		p.ramp.size = 0
	}
	if why == becauseIdle {
		p.lastDown = s.now
		d.sinceDown = 0
	}
	if d.waiting > 0 && p.target < p.max {
		s.due(s.now.Add(growAfter))
	}
	if d.idle < b.minSpare && p.target < p.max {
		s.due(s.now.Add(spareEvery))
	}
	if d.idle > b.maxSpare && p.target > p.min {
		wait := max(b.idleTimeout-d.idleFor, b.idleTimeout/downSteps-d.sinceDown)
		if wait <= 0 { // due, but some wait
			wait = growAfter
		}
		s.due(s.now.Add(wait))
	}
}

func (p *Pool) demand(now time.Time) demand {
	d := demand{waiting: p.queue.len(), sinceDown: now.Sub(p.lastDown), step: p.ramp.next(), sinceStep: now.Sub(p.ramp.last)}
	if d.waiting > 0 {
		d.waited = now.Sub(p.queue.oldest())
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
			d.idleFor = max(d.idleFor, now.Sub(w.idleSince))
			fallthrough
		default:
			d.capacity = w.capacity
		}
	}
	return d
}

// roused notes that an idle worker got work.
func (p *Pool) roused(w *worker, now time.Time) {
	w.busySince = now
	if p.cfg.MinSpare > 0 && now.After(p.spareWatch) {
		p.spareWatch = now.Add(spareEvery)
		p.poke()
	}
	p.memory.stirred()
}

// rested notes that a worker has nothing more to do.
func (p *Pool) rested(w *worker, now time.Time) {
	w.idleSince = now
	if p.target > p.min && now.After(p.idleWatch) {
		p.idleWatch = now.Add(p.cfg.IdleTimeout / downSteps)
		p.poke()
	}
}
