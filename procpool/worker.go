package procpool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"
)

// worker is one process of a pool. The pool's lock guards its fields, but for
// those set before the process is started or, as info and session, before the
// worker is ready.
type worker struct {
	info    WorkerInfo
	gen     *generation
	state   State
	since   time.Time // of the state
	started time.Time
	limit   int       // requests after which it is worn; 0 is never
	expires time.Time // when it is worn by age; zero is never

	child   *child // nil until started
	session Session
	cancel  context.CancelCauseFunc // of its start and Attach

	control   *control
	capacity  int
	aheadMax  int // requests beyond capacity that it takes before it can start them
	pace      pace
	loop      *loop  // nil when it has no event loop
	draining  *Lease // the first of those that want to know when it begins to end
	inFlight  int
	stuck     int // those of inFlight that were condemned
	served    int
	idleSince time.Time
	busySince time.Time // since when it has had requests without a pause

	memory memoryOf
	worn   wear // why it is to be replaced

	proven    bool // it has done its work, or stood ready for long enough
	lost      bool // its connection ended
	counted   bool // among the pool's deaths
	condemned bool
	told      bool // CloseWrite was called
	killed    bool
	gone      bool // dead, and its goroutine is through

	deadline time.Time // in Draining: when patience ends
	reason   string    // why it was drained or stopped
	failure  error     // why it never became ready
}

// run is a worker's life as its own goroutine sees it. ctx ends with w.cancel,
// which is called when the worker is to be stopped.
func (p *Pool) run(ctx context.Context, w *worker) {
	cancel := w.cancel
	defer cancel(nil)
	var last tail
	conn, output, err := p.startWorker(ctx, w, func(stream string, line []byte) {
		last.add(line)
		p.cfg.Output(w.info, stream, line)
	})
	if err != nil {
		exit, output := startFailed(err)
		p.exited(w, exit, err)
		p.buried(w, exit, output)
		return
	}
	attached := make(chan struct{})
	go func() {
		defer close(attached)
		if p.attach(ctx, w, conn) {
			last.close()
			p.watch(w)
		}
	}()
	<-w.child.exited
	cancel(errors.New("the worker exited"))
	exit := w.child.reap(false)
	p.exited(w, exit, nil)
	_ = conn.Close()
	w.control.finish()
	<-attached
	if w.session != nil {
		_ = w.session.Close()
	}
	output.finish()
	p.buried(w, exit, last.all())
}

// attach makes a started worker ready. It returns false when that failed.
func (p *Pool) attach(ctx context.Context, w *worker, conn net.Conn) bool {
	session, err := p.cfg.Attach(ctx, w.info, conn)
	if err != nil {
		_ = conn.Close()
		p.attachFailed(w, fmt.Errorf("negotiation failed: %w", err))
		return false
	}
	p.mu.Lock()
	w.session = session // run closes it
	p.mu.Unlock()
	if p.cfg.WarmUp != nil {
		if err := p.cfg.WarmUp(ctx, w.info, session); err != nil {
			p.attachFailed(w, fmt.Errorf("warm-up failed: %w", err))
			return false
		}
	}
	return p.attached(w, session)
}

// watch waits for the end of w's connection.
func (p *Pool) watch(w *worker) {
	select {
	case <-w.session.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		w.lost = true
		p.poke()
	case <-w.child.exited:
	}
}

// attached makes w ready, unless it was stopped meanwhile.
func (p *Pool) attached(w *worker, session Session) bool {
	now := p.clk.now()
	// Before the first request can write its own lines.
	p.log.Info("worker ready", zap.Int("worker", w.info.Number), zap.Int("pid", w.info.PID), zap.Int("generation", w.gen.number),
		zap.Int("capacity", session.Capacity()), zap.Duration("took", now.Sub(w.started)))
	fresh := p.measureFresh(w)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.memory = memoryOf{bytes: fresh, fresh: fresh, next: now}
	w.capacity, w.aheadMax = max(1, session.Capacity()), session.Ahead()
	p.follow(w, session)
	if !w.enter(Ready, now) {
		return false
	}
	w.idleSince = now
	p.stillborn = 0
	w.gen.good = true
	if !closed(p.ready) {
		close(p.ready)
	}
	p.dispatch(now)
	p.poke()
	return true
}

// attachFailed stops w. A worker that failed for a reason of its own is about
// to exit with a status that says more, so it gets a moment for that.
func (p *Pool) attachFailed(w *worker, err error) {
	moment, stop := p.clk.after(lingerTime)
	defer stop()
	select {
	case <-w.child.exited:
		return
	case <-moment:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == Starting {
		w.failure = err
		p.poke()
	}
}

// exited notes the end of w's process, or that there never was one (startErr).
func (p *Pool) exited(w *worker, exit Exit, startErr error) {
	p.mu.Lock()
	now := p.clk.now()
	expected := !w.counted && (w.state == Stopping || w.state == Draining && w.inFlight == w.stuck)
	if w.state == Starting {
		w.failure = startErr
		if startErr == nil {
			w.failure = errors.New(exit.String())
		}
	}
	if !expected {
		p.died(w, now)
	}
	w.enter(Dead, now)
	p.lastExit[w.info.Number] = exit.String()
	failed, reason, served, inFlight := w.failure != nil, w.reason, w.served, w.inFlight
	if !expected && !failed {
		p.trouble = exit.String()
	}
	p.poke()
	p.mu.Unlock()

	log := p.log.With(zap.Int("worker", w.info.Number), zap.Int("pid", w.info.PID), zap.Int("served", served))
	switch {
	case failed: // buried tells
	case w.info.PID == 0: // it was stopped before it had a process: nothing has ended
	case expected:
		log.Info("worker ended", zap.Stringer("exit", exit), zap.String("reason", reason))
	default:
		log.Warn("worker died", zap.Stringer("exit", exit), zap.String("reason", reason), zap.Int("lost", inFlight))
	}
}

// buried is the last word on w, when all its output has been read.
func (p *Pool) buried(w *worker, exit Exit, output []string) {
	p.mu.Lock()
	failure := w.failure
	undoes := p.rollout != nil && p.rollout.failing == w
	if failure == nil && (undoes || w.counted && !w.proven) {
		failure = fmt.Errorf("died after its start: %s", exit)
	}
	var f *StartFailure
	if failure != nil {
		f = &StartFailure{Worker: w.info, At: p.clk.now(), Err: failure, Exit: exit, Output: output}
		p.trouble = f.Reason()
	}
	retry := p.backoff.wait(p.clk.now())
	p.mu.Unlock()
	if w.failure != nil {
		fields := []zap.Field{zap.Int("worker", w.info.Number), zap.Int("generation", w.gen.number), zap.Error(failure)}
		if w.info.PID != 0 {
			fields = append(fields, zap.Int("pid", w.info.PID))
		}
		if reason := f.Reason(); reason != failure.Error() {
			fields = append(fields, zap.String("reason", reason))
		}
		// Before anybody can hear of it elsewhere.
		p.log.Error("worker failed to start", append(fields, zap.Duration("retry", retry))...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.gone = true
	if r := p.rollout; r != nil && r.failing == w {
		r.failure = f
	}
	if w.failure != nil {
		p.failure = f
		if !closed(p.ready) && !closed(p.failed) {
			close(p.failed)
		}
	}
	p.poke()
}
