package reload

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// Watch calls changed, from one goroutine, when some of the files have changed,
// appeared or gone. Their paths are absolute. stop returns after the last call.
func Watch(files []string, log *zap.Logger, changed func(files []string)) (stop func()) {
	w := newWatcher(nil, log)
	w.add(files)
	end := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		next := time.NewTicker(sweepEvery)
		defer next.Stop()
		for {
			select {
			case <-end:
				return
			case <-w.hints:
				w.settle()
			case <-next.C:
			}
			if files := w.sweep(); len(files) > 0 {
				changed(files)
			}
		}
	})
	return sync.OnceFunc(func() {
		close(end)
		running.Wait()
		w.close()
	})
}
