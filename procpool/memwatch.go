package procpool

import (
	"time"

	"go.uber.org/zap"
)

const (
	// memoryEvery is how far apart two rounds of measuring are while the pool
	// works, memoryQuiet while it doesn't.
	memoryEvery = 100 * time.Millisecond
	memoryQuiet = 5 * time.Second
	// memoryShare is how small a part of the time a worker is measured:
	// measuring costs it page faults, and the gateway processor time.
	memoryShare = 20
)

// memoryWatch is what the goroutine that measures and the rest of the pool
// tell each other.
type memoryWatch struct {
	stir   chan struct{} // a hint to measure again
	parked bool          // nothing was done since the last round: it waits for stir
	warned bool          // that the limits can't be kept
}

// memoryOf is what is known of a worker's memory.
type memoryOf struct {
	bytes  int64 // the last time it was measured
	fresh  int64 // when it was ready
	excess int64 // what it had when it was found above the hard limit
	after  int   // how many requests it had finished then
	next   time.Time
}

func (p *Pool) limitsMemory() bool {
	return p.cfg.MaxMemory > 0 || p.cfg.HardMemory > 0 || p.cfg.MemoryBudget > 0
}

// stirred has the workers measured again when nobody does that.
func (w *memoryWatch) stirred() {
	if !w.parked {
		return
	}
	w.parked = false
	select {
	case w.stir <- struct{}{}:
	default: // it will measure anyway
	}
}

// measureFresh returns what w holds when it is ready, 0 when nobody asks.
func (p *Pool) measureFresh(w *worker) int64 {
	if !p.limitsMemory() {
		return 0
	}
	n, err := p.cfg.memory(w.info.PID, p.cfg.MemoryPSS)
	if err != nil {
		return 0 // it ended
	}
	if p.cfg.MaxMemory > 0 && n > p.cfg.MaxMemory && p.warnOnce() {
		p.log.Warn("a worker that has served nothing is over max_memory already, so replacing it would not help: set a higher limit",
			zap.String("memory", inMiB(n)), zap.String("max_memory", inMiB(p.cfg.MaxMemory)))
	}
	return n
}

func (p *Pool) warnOnce() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := !p.memory.warned
	p.memory.warned = true
	return first
}

// watchMemory measures the workers until stop is closed. It has a goroutine of
// its own, because reading what a big process holds takes milliseconds.
func (p *Pool) watchMemory(stop <-chan struct{}) {
	if p.cfg.MemoryPSS && !pssSupported() {
		p.log.Warn("the kernel does not tell how much memory processes share, so that each is counted with all of it (rss): "+
			"set the limits for that", zap.String("missing", "/proc/self/smaps_rollup"))
	}
	for {
		due, cancel := p.clk.after(p.measureAll())
		select {
		case <-stop:
			cancel()
			return
		case <-p.memory.stir:
		case <-due:
			p.mu.Lock()
			p.memory.parked = false
			p.mu.Unlock()
			select { // sent while the time was up
			case <-p.memory.stir:
			default:
			}
		}
		cancel()
	}
}

// measurement is one worker to be measured.
type measurement struct {
	w          *worker
	pid        int
	hard, soft bool // for which limits
	rested     bool // it has finished a request since the last time, or has none
	after      int  // how many it has finished in all

	bytes  int64 // 0 when it was not measured
	excess int64
	took   time.Duration
}

// measureAll measures those of whom something new may be known, and returns
// how long to wait for the next time.
func (p *Pool) measureAll() time.Duration {
	list, pause := p.toMeasure()
	for i := range list {
		m := &list[i]
		began := p.clk.now()
		p.measure(m)
		m.took = p.clk.now().Sub(began)
	}
	p.measured(list)
	return pause
}

// measure measures one worker. The resident size is never smaller than the
// proportional one and much cheaper to get, so for the hard limit it comes first.
// A size of 0 is that of a worker that has just ended.
func (p *Pool) measure(m *measurement) {
	pss := p.cfg.MemoryPSS
	if m.hard {
		m.bytes, _ = p.cfg.memory(m.pid, false)
	}
	over := m.hard && m.bytes > p.cfg.HardMemory
	if pss && (over || m.soft) || m.soft && !m.hard {
		m.bytes, _ = p.cfg.memory(m.pid, pss)
	}
	if over && m.bytes > p.cfg.HardMemory {
		m.excess = m.bytes
	}
	if !m.soft {
		m.bytes = 0
	}
}

func (p *Pool) toMeasure() (list []measurement, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clk.now()
	soft := p.cfg.MaxMemory > 0 || p.cfg.MemoryBudget > 0
	active := false
	for _, w := range p.workers {
		if w.child == nil || w.state >= Stopping {
			continue
		}
		finished := w.served - w.inFlight
		working := w.inFlight > 0 || w.state == Starting
		news := finished != w.memory.after
		active = active || working || news
		m := measurement{w: w, pid: w.info.PID, after: finished, rested: news || w.inFlight == 0}
		quiet := now.Sub(w.memory.next) >= memoryQuiet
		m.hard = p.cfg.HardMemory > 0 && (working || quiet)
		m.soft = w.state != Starting && (soft && news && !now.Before(w.memory.next) || quiet)
		if m.hard || m.soft {
			list = append(list, m)
		}
	}
	if active {
		return list, memoryEvery
	}
	p.memory.parked = true
	return list, memoryQuiet
}

// measured draws the conclusions.
func (p *Pool) measured(list []measurement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clk.now()
	for i := range list {
		m := &list[i]
		w := m.w
		if m.excess > 0 {
			w.memory.excess = m.excess
			p.poke()
		}
		if m.bytes == 0 {
			continue
		}
		w.memory.bytes, w.memory.after = m.bytes, m.after
		w.memory.next = now.Add(max(memoryEvery, m.took*memoryShare))
		if p.cfg.MaxMemory > 0 && m.bytes > p.cfg.MaxMemory && w.memory.fresh <= p.cfg.MaxMemory && m.rested && w.serving() {
			p.wearOut(w, wornMemory, m.bytes)
		}
	}
	if p.cfg.MemoryBudget > 0 {
		p.keepBudget(now)
	}
}

// keepBudget has the biggest worker replaced when all together hold too much.
// The next one has to wait until that one has gone.
func (p *Pool) keepBudget(now time.Time) {
	var sum int64
	var biggest *worker
	for _, w := range p.workers {
		if w.state == Dead {
			continue
		}
		if w.worn.cause == wornBudget && !(w.state == Draining && now.Sub(w.since) >= p.cfg.GracefulTimeout) {
			return // its end may be enough; but one that streams for hours holds nobody up
		}
		sum += w.memory.bytes
		grown := w.memory.bytes - w.memory.fresh
		if (w.state == Ready || w.state == Busy) && w.worn.cause == unworn && grown > w.memory.fresh/16 &&
			(biggest == nil || w.memory.bytes > biggest.memory.bytes) {
			biggest = w
		}
	}
	if sum > p.cfg.MemoryBudget && biggest != nil {
		p.wearOut(biggest, wornBudget, biggest.memory.bytes)
	}
}

// killExcess ends w, which holds more than the hard limit, before it takes the
// memory of others.
func (p *Pool) killExcess(s *survey, w *worker) {
	p.totals.KilledMemory++
	reason := inMiB(w.memory.excess) + " of memory, over the hard limit of " + inMiB(p.cfg.HardMemory)
	lost, info := w.inFlight, w.info
	p.kill(s, w, reason)
	s.do(func() {
		p.log.Error("worker killed", zap.Int("worker", info.Number), zap.Int("pid", info.PID), zap.String("reason", reason), zap.Int("lost", lost))
	})
}
