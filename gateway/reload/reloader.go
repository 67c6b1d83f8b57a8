package reload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/backend"
	"gatecrew/procpool"
	"gatecrew/protocol"
)

// Pool is what a Reloader needs of a *procpool.Pool.
type Pool interface {
	Ready() <-chan struct{}
	Failed() <-chan struct{}
	Failure() *procpool.StartFailure
	Restart(*procpool.Command) <-chan procpool.Restart
}

// Options describes a Reloader.
type Options struct {
	// Name is the pool's.
	Name string
	// Include are patterns of files to watch beside the modules, absolute:
	// * is any part of a name and ** any number of folders.
	Include []string
	// MaxWait is how long a request waits at most for a restart.
	MaxWait time.Duration
	// Log gets what has changed and what became of it.
	Log *zap.Logger
}

// Reloader looks after a pool in development. It restarts the pool when a file
// changes, and keeps the requests that come after a change until the restart has
// been decided, so that a developer never sees the code of before. While the
// application can't be loaded it answers itself: with the reason to clients on
// this machine, without it to others.
type Reloader struct {
	opts    Options
	log     *zap.Logger
	watcher *watcher
	pool    Pool

	closed sync.Once
	again  chan struct{} // has a value when a restart is asked for
	stop   chan struct{}
	done   chan struct{}

	// Of the goroutine run alone:
	restart <-chan procpool.Restart // the one in progress, nil when there is none
	outcome *fault                  // what the last start or restart ended with

	mu    sync.Mutex
	held  chan struct{} // closed when requests may go on; nil when none is held
	fault *fault        // why the application can't be loaded, nil when it is
}

// New returns a Reloader, which has to be closed. It knows the files of the
// patterns; those of the application it has to be told, see Imported.
func New(o Options) *Reloader {
	log := o.Log.With(zap.String("pool", o.Name))
	return &Reloader{opts: o, log: log, watcher: newWatcher(o.Include, log),
		again: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// Imported adds files to those that are watched. It is the pool's
// procpool.Config.Modules.
func (r *Reloader) Imported(_ procpool.WorkerInfo, files []string) { r.watcher.add(files) }

// Start begins to restart pool. It is called once, before the first request and
// before the pool is started.
func (r *Reloader) Start(pool Pool) {
	r.pool = pool
	r.hold() // until it is known how the first start ends
	go r.run()
}

// Restart restarts the pool as if a file had changed.
func (r *Reloader) Restart() {
	select {
	case r.again <- struct{}{}:
	default: // it is asked for
	}
}

// Close ends the watching, and may be called again. It leaves the pool alone.
func (r *Reloader) Close() {
	r.closed.Do(func() {
		close(r.stop)
		if r.pool != nil {
			<-r.done
		}
		r.watcher.close()
	})
}

// Before returns a backend that gives requests to next, a backend of the pool,
// when the application is loaded.
func (r *Reloader) Before(next backend.Backend) backend.Backend { return &gate{r, next} }

// gate is the way to a backend past a Reloader.
type gate struct {
	reloader *Reloader
	next     backend.Backend
}

// Open implements [backend.Backend].
func (g *gate) Open(ctx context.Context, req *protocol.Request) (protocol.Exchange, error) {
	fault, err := g.reloader.await(ctx)
	if err != nil {
		return nil, err
	}
	if fault != nil {
		return fault.answer(req), nil
	}
	return g.next.Open(ctx, req)
}

// await waits while requests are held.
func (r *Reloader) await(ctx context.Context) (*fault, error) {
	r.mu.Lock()
	held, fault := r.held, r.fault
	r.mu.Unlock()
	if held == nil {
		return fault, nil
	}
	late := time.NewTimer(r.opts.MaxWait)
	defer late.Stop()
	for held != nil {
		select {
		case <-held:
		case <-late.C:
			return nil, nil // the pool has its own ways with the late
		case <-ctx.Done():
			return nil, &protocol.Error{Kind: protocol.ClientGone, Unseen: true, Err: context.Cause(ctx)}
		}
		r.mu.Lock()
		held, fault = r.held, r.fault
		r.mu.Unlock()
	}
	return fault, nil
}

// hold keeps requests from now on.
func (r *Reloader) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(chan struct{})
	}
}

// release lets them go, to the fault if there is one.
func (r *Reloader) release(f *fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
}

// sweepEvery is how far apart two looks at the files are, when nothing hints at
// a change. Where a look takes long they are further apart.
const sweepEvery = time.Second

// run is the goroutine that has the pool restarted.
func (r *Reloader) run() {
	defer close(r.done)
	defer r.release(nil)
	ready, failed := r.pool.Ready(), r.pool.Failed()
	announced := false
	next := time.NewTimer(sweepEvery)
	defer next.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-ready:
			// Also after a failure: the pool goes on trying, and what the
			// application missed may have come by itself.
			ready, failed = nil, nil
			r.outcome = nil
		case <-failed:
			failed = nil
			if r.restart == nil {
				r.outcome = r.failed(r.pool.Failure())
			}
		case result := <-r.restart:
			r.restart = nil
			if errors.Is(result.Err, procpool.ErrSuperseded) {
				r.begin() // by a stranger, who doesn't tell what became of it
			} else {
				r.outcome = r.restarted(result)
			}
		case <-r.again:
			r.begin()
		case <-r.watcher.hints:
			r.hold()
			r.watcher.settle()
			next.Reset(r.look())
		case <-next.C:
			if !announced && (ready == nil || failed == nil) {
				announced = true
				r.log.Info("watching files for changes; this is for development, not for production", zap.Int("files", r.watcher.count()))
			}
			next.Reset(r.look())
		}
		if r.restart == nil && (ready == nil || failed == nil) {
			r.release(r.outcome)
		}
	}
}

// look restarts the pool if a file has changed. It returns after which time the
// next look is due.
func (r *Reloader) look() time.Duration {
	began := time.Now()
	changed := r.watcher.sweep()
	took := time.Since(began)
	if len(changed) > 0 {
		r.log.Info("files changed, restarting", zap.Strings("files", changed[:min(len(changed), 10)]), zap.Int("changed", len(changed)))
		for _, f := range changed {
			forgetByteCode(f)
		}
		r.begin()
	}
	return max(sweepEvery, 20*took)
}

// begin restarts the pool. It supersedes a restart in progress.
func (r *Reloader) begin() {
	r.hold()
	r.restart = r.pool.Restart(nil)
}

// restarted notes the result of a restart.
func (r *Reloader) restarted(result procpool.Restart) *fault {
	if result.Err == nil || errors.Is(result.Err, procpool.ErrClosed) {
		return nil // the pool has said so
	}
	failure, _ := errors.AsType[*procpool.StartFailure](result.Err)
	if failure == nil {
		failure = &procpool.StartFailure{At: time.Now(), Err: result.Err}
	}
	return r.failed(failure)
}

func (r *Reloader) failed(failure *procpool.StartFailure) *fault {
	f := newFault(r.opts.Name, failure)
	r.log.Error("the application can't be loaded; save a file of it to try again", f.fields()...)
	return f
}

// forgetByteCode removes what Python has compiled a module to. Python takes it
// for current when the module has the same length and was modified in the same
// second, which is what a second save in a hurry looks like.
func forgetByteCode(file string) {
	name, ok := strings.CutSuffix(filepath.Base(file), ".py")
	if !ok {
		return
	}
	dir := filepath.Join(filepath.Dir(file), "__pycache__")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // none was written
	}
	for _, e := range entries {
		// NAME.cpython-311.pyc, NAME.cpython-311.opt-1.pyc
		if rest, ok := strings.CutPrefix(e.Name(), name+"."); ok && strings.HasSuffix(rest, ".pyc") {
			_ = os.Remove(filepath.Join(dir, e.Name())) // best effort: it is a cache
		}
	}
}
