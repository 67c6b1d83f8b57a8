package procpool

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// own is the goroutine that owns the programs' lives. As that of a pool it looks
// at everything whenever something has changed or become due.
func (ps *Programs) own() {
	defer close(ps.done)
	for {
		s := ps.look()
		for _, act := range s.acts {
			act()
		}
		if s.finished {
			ps.runs.Wait() // for their last words
			return
		}
		s.wait(ps.clk, ps.wake)
	}
}

func (ps *Programs) look() survey {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	s := survey{now: ps.clk.now()}
	if ps.phase != running {
		// Those that come after others first.
		for _, p := range slices.Backward(ps.list) {
			ps.wind(&s, p)
		}
	}
	s.finished = ps.phase != running
	for _, p := range ps.list {
		ps.tend(&s, p)
		s.finished = s.finished && p.over()
	}
	return s
}

// wind begins the end of p, as the phase wants it.
func (ps *Programs) wind(s *survey, p *program) {
	switch {
	case p.over(), ps.phase == draining && !p.mayStop():
	case !p.process:
		p.enter(ProgramEnded, s.now)
	case p.state != ProgramStopping:
		ps.stop(s, p)
	}
}

// tend does what p's state asks for at this moment.
func (ps *Programs) tend(s *survey, p *program) {
	switch p.state {
	case ProgramWaiting:
		if p.mayStart() {
			ps.launch(s, p)
		}
	case ProgramBackingOff:
		if s.due(p.backoff.until) && p.mayStart() {
			ps.launch(s, p)
		}
	case ProgramStarting:
		switch {
		case p.isReady, p.Ready == nil && p.child != nil && s.due(p.started.Add(upAfter)):
			ps.up(s, p)
		case p.Ready != nil && s.due(p.started.Add(p.StartTimeout)):
			p.failure = fmt.Errorf("not up after %v", p.StartTimeout)
			ps.stop(s, p)
		}
	case ProgramUp:
		if p.backoff.failures > 0 && s.due(p.started.Add(steadyAfter)) {
			p.backoff = backoff{}
		}
	case ProgramStopping:
		grace := p.StopTimeout
		if ps.phase == closing {
			grace = min(grace, hurriedGrace)
		}
		if !p.killed && s.due(p.since.Add(grace)) {
			ps.kill(s, p)
		}
	}
	if !p.settled() && !p.waitedFor.IsZero() && ps.phase == running && s.due(p.waitedFor) {
		ps.abandon(s, p)
	}
}

// launch starts p.
func (ps *Programs) launch(s *survey, p *program) {
	var without []string
	for _, first := range p.after {
		if first.state != ProgramUp && first.state != ProgramEnded {
			without = append(without, first.down())
		}
	}
	p.enter(ProgramStarting, s.now)
	p.started, p.process = s.now, true
	p.starts++
	if p.waitedFor.IsZero() {
		p.waitedFor = s.now.Add(p.StartTimeout)
	}
	s.due(s.now.Add(p.StartTimeout))
	s.do(func() {
		if len(without) > 0 {
			ps.log.Error("program is started although others that it comes after are not up", zap.String("program", p.Name), zap.Strings("not_up", without))
		}
		ps.runs.Go(func() { ps.run(p) })
	})
}

// up notes that p does its work.
func (ps *Programs) up(s *survey, p *program) {
	p.enter(ProgramUp, s.now)
	p.wasUp, p.waitedFor, p.abandoned, p.reason = true, time.Time{}, false, ""
	if p.backoff.failures > 0 {
		s.due(p.started.Add(steadyAfter))
	}
	pid, took := p.child.pid, s.now.Sub(p.started)
	s.do(func() {
		ps.log.Info("program up", zap.String("program", p.Name), zap.Int("pid", pid), zap.Duration("took", took))
		ps.notify()
	})
}

// abandon has nobody wait for p any longer.
func (ps *Programs) abandon(s *survey, p *program) {
	p.abandoned = true
	why := p.down()
	s.do(func() {
		ps.log.Error("program is not up in time; what comes after it is started without it",
			zap.String("program", why), zap.Duration("start_timeout", p.StartTimeout))
		ps.notify()
	})
}

// stop asks p to end.
func (ps *Programs) stop(s *survey, p *program) {
	p.enter(ProgramStopping, s.now)
	s.due(s.now.Add(p.StopTimeout))
	child := p.child
	if child == nil {
		return // being started: run sees the state
	}
	s.do(func() { child.signalLeader(p.StopSignal, true) })
}

// kill ends p's process group.
func (ps *Programs) kill(s *survey, p *program) {
	p.killed = true
	child := p.child
	if child == nil {
		return
	}
	after := s.now.Sub(p.since)
	s.do(func() {
		ps.log.Warn("program did not end when it was told to, killing its process group",
			zap.String("program", p.Name), zap.String("signal", unix.SignalName(p.StopSignal)), zap.Duration("after", after))
		child.signal(syscall.SIGKILL)
	})
}

// fleetingHint is for what is most likely a daemon.
const fleetingHint = "it ends with status 0 right after its start, as a program does that puts itself into the background: " +
	"run it in the foreground, as in redis-server --daemonize no"

// startHint is for a command that was good when the configuration was checked.
const startHint = "see that the program, its interpreter and its folder are there and that its user may use them"

// ended notes the end of p's process, now, or that there never was one (startErr).
func (ps *Programs) ended(p *program, now time.Time, exit Exit, startErr error, last string) {
	ps.mu.Lock()
	told := p.state == ProgramStopping && p.failure == nil
	success := exit.Success() && startErr == nil && p.failure == nil
	ran, pid := now.Sub(p.started), 0
	if p.child != nil {
		pid = p.child.pid
	}
	switch {
	case startErr != nil:
		p.lastExit = startErr.Error()
	case p.failure != nil:
		p.lastExit = p.failure.Error() + ", " + exit.String()
	default:
		p.lastExit = exit.String()
	}
	if p.state == ProgramUp {
		p.waitedFor = now.Add(p.StartTimeout)
	}
	if p.fleeting++; !success || ran >= upAfter {
		p.fleeting = 0
	}
	p.process, p.child, p.isReady, p.killed, p.failure = false, nil, false, false, nil
	p.reason = ""
	if !told {
		p.reason = last
	}
	switch {
	case told || ps.phase != running || success && p.staysEnded(success):
		p.enter(ProgramEnded, now)
	case p.staysEnded(success):
		p.enter(ProgramFailed, now)
	default:
		if ran >= steadyAfter {
			p.backoff = backoff{}
		}
		p.backoff.failed(p.started, now, ps.clk.random)
		p.enter(ProgramBackingOff, now)
	}
	state, retry, fleeting, lastExit := p.state, p.backoff.wait(now), p.fleeting, p.lastExit
	failed := !p.wasUp && state != ProgramEnded
	ps.mu.Unlock()

	log := ps.log.With(zap.String("program", p.Name))
	if startErr == nil {
		log = log.With(zap.Int("pid", pid), zap.String("exit", lastExit), zap.Duration("ran", ran))
	}
	switch {
	case startErr != nil && state == ProgramBackingOff:
		log.Error("program could not be started", zap.Error(startErr), zap.Duration("retry", retry), zap.String("hint", startHint))
	case startErr != nil && state == ProgramFailed:
		log.Error("program could not be started, and is not tried again", zap.Error(startErr), zap.String("hint", startHint))
	case startErr != nil: // it is no longer wanted
	case state == ProgramEnded:
		log.Info("program ended")
	case state == ProgramFailed:
		log.Error("program failed, and is not started again", zap.String("last_output", last))
	case fleeting == 2:
		log.Error("program ended by itself", zap.Duration("retry", retry), zap.String("hint", fleetingHint))
	default:
		log.Warn("program ended by itself", zap.Duration("retry", retry), zap.String("last_output", last))
	}
	// After the line about it: others follow with lines of their own.
	if failed {
		ps.failedOnce.Do(func() { close(ps.failed) })
	}
	ps.notify()
}
