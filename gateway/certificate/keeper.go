package certificate

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/reload"
)

// Keeper loads sets again when their files change, and warns of certificates
// that are about to expire.
type Keeper struct {
	sets []*Set
	log  *zap.Logger

	again     chan struct{} // has a value when a look is due
	stop      chan struct{}
	done      sync.WaitGroup
	stopWatch func()
}

// Times of a Keeper. Whoever renews a certificate writes two files one after the
// other: a pair that doesn't match is looked at again before it is called
// broken.
const (
	secondLook = time.Second
	warnEvery  = 24 * time.Hour
)

// Keep begins to keep sets up to date, until Close.
func Keep(sets []*Set, log *zap.Logger) *Keeper {
	k := &Keeper{sets: sets, log: log, again: make(chan struct{}, 1), stop: make(chan struct{}), stopWatch: func() {}}
	if len(sets) == 0 {
		return k
	}
	var files []string
	for _, s := range sets {
		files = append(files, s.Files()...)
	}
	slices.Sort(files)
	k.stopWatch = reload.Watch(slices.Compact(files), log, func([]string) { k.Reload() })
	k.Reload() // what has changed since they were loaded
	k.done.Go(k.run)
	return k
}

// Reload has the files looked at again, without waiting for it.
func (k *Keeper) Reload() {
	select {
	case k.again <- struct{}{}:
	default: // it is due already
	}
}

// Close ends the keeping; the sets stay as they are.
func (k *Keeper) Close() {
	k.stopWatch()
	close(k.stop)
	k.done.Wait()
}

func (k *Keeper) run() {
	k.warn(time.Now())
	daily := time.NewTicker(warnEvery)
	defer daily.Stop()
	var second <-chan time.Time
	for {
		select {
		case <-k.stop:
			return
		case now := <-daily.C:
			k.warn(now)
		case <-k.again:
			second = nil
			if !k.load(false) {
				second = time.After(secondLook)
			}
		case <-second:
			second = nil
			k.load(true)
		}
	}
}

// load reads all sets again; false when one of them can't be used. last says
// that no other look follows by itself.
func (k *Keeper) load(last bool) (ok bool) {
	ok = true
	changed := false
	for _, s := range k.sets {
		switch fresh, err := s.Reload(); {
		case err != nil:
			ok = false
			if last {
				k.log.Error("a changed certificate can't be used, the one before stays in use; repair the files, they are read again by themselves", zap.Error(err))
			}
		case fresh:
			changed = true
			for _, e := range s.Expires() {
				k.log.Info("certificate was read again", zap.String("file", e.File), zap.Time("expires", e.At))
			}
		}
	}
	if changed {
		k.warn(time.Now())
	}
	return ok
}

// warn says which certificates have expired or soon will.
func (k *Keeper) warn(now time.Time) {
	for _, s := range k.sets {
		for _, e := range s.Expires() {
			fields := []zap.Field{zap.String("file", e.File), zap.Time("expires", e.At)}
			switch e.due(now) {
			case expired:
				k.log.Error("a certificate has expired; browsers refuse it", fields...)
			case soon:
				k.log.Warn("a certificate expires soon and was not renewed", append(fields, zap.Duration("in", e.At.Sub(now).Round(time.Minute)))...)
			}
		}
	}
}
