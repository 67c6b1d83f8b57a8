package procpool

import (
	"context"
	"strconv"
	"time"
)

// crew counts the workers for the decision whom to start.
type crew struct {
	ready    int // workers that serve
	serving  int // those, and those that start
	starting int
	worn     int // of those that serve, the ones to be replaced
	draining int // those that were replaced and end what they have begun, for no longer than GracefulTimeout
	next     int // those of the generation that a restart brings in
}

func (p *Pool) crew(s *survey) (c crew) {
	for _, w := range p.workers {
		worn := w.worn.cause != unworn
		switch {
		case w.serving():
			c.serving++
			if w.state == Starting {
				c.starting++
			} else {
				c.ready++
			}
			if worn {
				c.worn++
			}
			if p.rollout != nil && w.gen == p.rollout.gen {
				c.next++
			}
		case w.state == Draining && worn && !s.due(w.since.Add(p.cfg.GracefulTimeout)):
			// One that streams for hours holds nobody up.
			c.draining++
		}
	}
	return c
}

// launch starts what is missing: workers up to the target, replacements for a
// share of the worn ones, and the one worker with which a restart is tried.
func (p *Pool) launch(s *survey) {
	c := p.crew(s)
	gen, trying := p.gen, false
	if r := p.rollout; r != nil {
		if r.failing != nil {
			return // the end of the restart decides what is to be started
		}
		if trying = !r.proved; !trying {
			gen = r.gen
		}
	}
	room := max(0, p.share()-c.draining)
	if trying {
		// The canary has a place of its own beside those that serve.
		if c.next == 0 && c.serving < p.target+room && s.due(p.lastCanary.Add(canaryEvery)) {
			p.lastCanary = s.now
			p.begin(s, p.rollout.gen)
		}
		if c.ready == 0 && !gen.good {
			return // what does not come up needs no more company
		}
		c.serving -= c.next
		c.starting -= c.next
		room--
	}
	want := p.target + max(0, min(c.worn, room))
	if c.serving >= want || !s.due(p.backoff.until) {
		return
	}
	if p.backoff.failures > 0 || !gen.good || trying && c.ready == 0 {
		// One at a time, until one has proved itself. So the reason why none
		// can is told once, and the first is not held up by others that load
		// the application at the same time.
		want = min(want, c.serving+1-min(1, c.starting))
	}
	for ; c.serving < want; c.serving++ {
		p.begin(s, gen)
	}
}

// begin starts one worker.
func (p *Pool) begin(s *survey, gen *generation) {
	w := p.newWorker(gen, s.now)
	ctx, cancel := context.WithCancelCause(context.Background())
	w.cancel = cancel // before anybody can want to stop it
	p.workers = append(p.workers, w)
	p.totals.Started++
	s.due(s.now.Add(p.cfg.StartTimeout))
	s.do(func() { go p.run(ctx, w) })
}

func (p *Pool) newWorker(gen *generation, now time.Time) *worker {
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
		gen:  gen, state: Starting, since: now, started: now,
	}
	if p.cfg.MaxRequests > 0 {
		w.limit = p.cfg.MaxRequests + int(p.clk.random()*float64(p.cfg.MaxRequestsJitter+1))
	}
	if p.cfg.MaxAge > 0 {
		w.expires = now.Add(p.cfg.MaxAge - time.Duration(p.clk.random()*float64(p.cfg.MaxAge)/10))
	}
	return w
}
