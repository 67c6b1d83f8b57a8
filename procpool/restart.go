package procpool

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// ErrSuperseded is the end of a restart that another one overtook.
var ErrSuperseded = errors.New("superseded by another restart")

// Restart is what became of a restart of a pool.
type Restart struct {
	// Generation counts the versions of the application, from 1, and every
	// restart as one. It is 1 while there was none.
	Generation int
	State      RestartState
	// Err is why it failed: a *StartFailure, ErrSuperseded or ErrClosed.
	Err error
	// Began and Finished say when; Finished is zero while it runs.
	Began, Finished time.Time
}

// RestartState is how far a restart has come.
type RestartState string

const (
	RestartNone    RestartState = "none"    // there was none
	RestartRunning RestartState = "running" // the new generation is being started
	RestartDone    RestartState = "done"    // it has taken over
	RestartFailed  RestartState = "failed"  // it did not come up, and the workers of before serve on
)

// rollout is a restart in progress.
//
// It has two parts. One worker of the new generation, the canary, is started
// beside the others; when it is ready the generation is proved, and every other
// worker is worn. From then on new workers are of the new generation, a share at
// a time, each ready before an old one goes. A worker that fails to start, or
// dies before it has done anything, in either part undoes all of it.
type rollout struct {
	gen     *generation
	proved  bool
	failing *worker       // the first one that failed; nothing is started until it is gone
	failure *StartFailure // what is known of it then
	began   time.Time
	result  chan<- Restart
}

// canaryEvery is how far apart the starts of canaries are at least, so that a
// storm of restarts is none of processes.
const canaryEvery = 250 * time.Millisecond

// Restart replaces all workers without losing a request, by workers that c
// starts; nil means the command of before. If the first new one does not become
// ready nothing else has happened, and if a later one does not, those that are
// new are replaced back. Either is a failed restart.
//
// The channel gets the result. A Restart in the meantime supersedes this one: it
// begins anew with its own command. Waiting requests and a back-off that holds
// up the pool are helped by it: it starts a worker at once. A pool on demand
// without a worker starts one to see whether it can.
//
// A pool whose workers were never ready has nothing to go back to, and keeps
// trying with the new command.
func (p *Pool) Restart(c *Command) <-chan Restart {
	result := make(chan Restart, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clk.now()
	if p.phase != running {
		result <- Restart{Generation: p.restart.Generation, State: RestartFailed, Err: ErrClosed, Began: now, Finished: now}
		return result
	}
	command := p.gen.command
	if r := p.rollout; r != nil {
		command = r.gen.command
		if r.proved {
			p.gen = r.gen
		}
		p.settleRollout(RestartFailed, ErrSuperseded, now)
	}
	if c != nil {
		command = *c
	}
	gen := &generation{number: p.restart.Generation + 1, command: command}
	p.gens = append(p.gens, gen)
	p.rollout = &rollout{gen: gen, began: now, result: result}
	p.restart = Restart{Generation: gen.number, State: RestartRunning, Began: now}
	p.backoff, p.stillborn = backoff{}, 0
	p.poke()
	return result
}

// settleRollout notes how the restart in progress ended.
func (p *Pool) settleRollout(state RestartState, err error, now time.Time) {
	r := p.rollout
	p.rollout = nil
	p.restart.State, p.restart.Err, p.restart.Finished = state, err, now
	r.result <- p.restart // has room for it
}

// endRollout is settleRollout with a line in the log. It does nothing when
// there is no restart.
func (p *Pool) endRollout(s *survey, state RestartState, err error, failure *StartFailure) {
	if p.rollout == nil {
		return
	}
	log := p.log.With(zap.Int("generation", p.rollout.gen.number), zap.Duration("took", s.now.Sub(p.rollout.began)))
	p.settleRollout(state, err, s.now)
	s.do(func() {
		switch {
		case failure != nil:
			log.Error("restart failed, the workers of before serve on", zap.String("reason", failure.Reason()))
		case err == nil:
			log.Info("restart done")
		}
	})
}

// tendRollout sees how far the restart has come.
func (p *Pool) tendRollout(s *survey) {
	r := p.rollout
	if r == nil {
		return
	}
	if f := r.failure; f != nil {
		if !p.gen.good {
			p.gen = r.gen // there is nothing to go back to
			p.backoff.failed(r.began, s.now, p.clk.random)
			p.stillborn++
		}
		p.endRollout(s, RestartFailed, f, f)
		return
	}
	if r.failing != nil {
		return
	}
	ready, _ := p.progress()
	if !r.proved && ready > 0 {
		r.proved = true
		p.backoff = backoff{} // that was of others
		if p.target == 0 {    // it may serve, or idle away, now that it is there
			p.target, p.lastDown = 1, s.now
		}
	}
	if p.takenOver() {
		p.gen = r.gen
		p.endRollout(s, RestartDone, nil, nil)
	}
}

// takenOver reports whether the generation that a restart brings in does all the
// work.
func (p *Pool) takenOver() bool {
	r := p.rollout
	if r == nil || !r.proved || r.failing != nil {
		return false
	}
	ready, others := p.progress()
	return others == 0 && ready >= p.target
}

// progress counts the workers that serve for the generation that the restart
// brings in, and those of others that do or will.
func (p *Pool) progress() (ready, others int) {
	for _, w := range p.workers {
		switch {
		case !w.serving():
		case w.gen != p.rollout.gen:
			others++
		case w.state != Starting:
			ready++
		}
	}
	return ready, others
}

// lookAfterRollout has the owner look again when what it has just decided on is
// what the restart had been waiting for.
func (p *Pool) lookAfterRollout() {
	if p.takenOver() {
		p.poke()
	}
}

// tendGenerations has the workers go that are not of the generation that the
// pool should have. As long as a new one has not proved itself it is not known
// which that will be.
func (p *Pool) tendGenerations(s *survey) {
	current, next := p.gen, (*generation)(nil)
	if r := p.rollout; r != nil {
		if r.proved {
			current = r.gen
		} else {
			next = r.gen
		}
	}
	for _, w := range p.workers {
		wrong := w.gen != current && w.gen != next
		switch {
		case !w.serving():
		case wrong && w.state == Starting:
			p.stop(s, w, "a restart overtook its start")
		case wrong && next == nil:
			p.wearOut(w, wornGeneration, int64(current.number))
		case w.worn.cause == wornGeneration:
			w.worn = wear{}
		}
	}
}

// forgetGenerations closes those that nothing will be started from any more.
func (p *Pool) forgetGenerations(s *survey) {
	kept := p.gens[:0]
	for _, g := range p.gens {
		if p.needed(g) {
			kept = append(kept, g)
		} else {
			s.do(g.close)
		}
	}
	clear(p.gens[len(kept):])
	p.gens = kept
}

func (p *Pool) needed(g *generation) bool {
	if g == p.gen || p.rollout != nil && g == p.rollout.gen {
		return true
	}
	for _, w := range p.workers {
		if w.gen == g {
			return true
		}
	}
	return false
}

// closeGenerations closes all, when the pool has ended, and waits for their end.
func (p *Pool) closeGenerations() {
	p.mu.Lock()
	gens := p.gens
	p.gens = nil
	p.mu.Unlock()
	for _, g := range gens {
		g.close()
	}
	p.zygotes.Wait()
}

// Error says what was wrong, in one line.
func (f *StartFailure) Error() string {
	if reason := f.Reason(); reason != f.Err.Error() {
		return fmt.Sprintf("procpool: worker %s failed to start: %v: %s", f.Worker.Name, f.Err, reason)
	}
	return fmt.Sprintf("procpool: worker %s failed to start: %v", f.Worker.Name, f.Err)
}

func (f *StartFailure) Unwrap() error { return f.Err }
