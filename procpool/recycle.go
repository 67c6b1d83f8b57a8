package procpool

import (
	"fmt"
	"strconv"
	"time"
)

// wear is why a worker is to be replaced. A worn worker serves until its
// replacement is ready.
type wear struct {
	cause wearCause
	// figure is what the cause is measured in: requests, nanoseconds of age,
	// bytes of memory, or the generation that follows.
	figure int64
}

type wearCause uint8

const (
	unworn         wearCause = iota
	wornRequests             // it has served Config.MaxRequests
	wornAge                  // it is as old as Config.MaxAge allows
	wornMemory               // it holds more than Config.MaxMemory
	wornBudget               // it is the biggest while all hold more than Config.MemoryBudget
	wornGeneration           // it belongs to another generation than the pool now has
)

// wearOut notes that w is to be replaced. The first reason stands.
func (p *Pool) wearOut(w *worker, cause wearCause, figure int64) {
	if w.worn.cause != unworn {
		return
	}
	w.worn = wear{cause, figure}
	p.poke()
}

// why is the reason for the log.
func (p *Pool) why(w wear) string {
	switch w.cause {
	case wornRequests:
		return strconv.FormatInt(w.figure, 10) + " requests"
	case wornAge:
		return fmt.Sprintf("%v old", time.Duration(w.figure).Round(time.Second))
	case wornMemory:
		return fmt.Sprintf("%s of memory, over the limit of %s", inMiB(w.figure), inMiB(p.cfg.MaxMemory))
	case wornBudget:
		return fmt.Sprintf("the biggest with %s of memory, while all are over the budget of %s", inMiB(w.figure), inMiB(p.cfg.MemoryBudget))
	case wornGeneration:
		return fmt.Sprintf("restart, generation %d", w.figure)
	}
	return "not needed"
}

// inMiB writes a number of bytes for people.
func inMiB(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// countRetired counts w, which is drained because it was worn.
func (t *Totals) countRetired(w wear) {
	switch w.cause {
	case wornRequests:
		t.RecycledRequests++
	case wornAge:
		t.RecycledAge++
	case wornMemory:
		t.RecycledMemory++
	case wornBudget:
		t.RecycledBudget++
	case wornGeneration:
		t.RecycledRestart++
	}
}

// share is how many workers may be in replacement at once, for whatever reason.
func (p *Pool) share() int {
	if p.cfg.MaxReplacing > 0 {
		return p.cfg.MaxReplacing
	}
	return max(1, p.target/4)
}

// retire drains ready workers that are more than the pool should have: first
// those that are worn, whose replacements are ready by then.
func (p *Pool) retire(s *survey) {
	ready := 0
	for _, w := range p.workers {
		if w.state == Ready || w.state == Busy {
			ready++
		}
	}
	for ; ready > p.target; ready-- {
		w := p.surplus()
		p.totals.countRetired(w.worn)
		p.drain(s, w, p.why(w.worn))
	}
}

// surplus returns the worker that can best be done without.
func (p *Pool) surplus() *worker {
	var best *worker
	for _, w := range p.workers {
		if w.state != Ready && w.state != Busy {
			continue
		}
		worn := w.worn.cause != unworn
		switch {
		case best == nil, worn && best.worn.cause == unworn:
			best = w
		case worn == (best.worn.cause != unworn) && (w.inFlight < best.inFlight || w.inFlight == best.inFlight && w.idleSince.Before(best.idleSince)):
			best = w
		}
	}
	return best
}
