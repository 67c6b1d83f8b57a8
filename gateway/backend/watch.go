package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"gatecrew/protocol"
)

// watch ends an exchange whose client has gone or whose application has been
// silent for too long. Silence is counted only while somebody waits for the
// application: the time that a slow client takes to read is not the
// application's.
type watch struct {
	protocol.Exchange
	silence time.Duration
	expired func() // called once, when the silence was too long

	waiting atomic.Int64 // when the Read in progress began, in ns since epoch; 0 = none
	cause   atomic.Int32 // protocol.Kind of what ended the exchange, 0 = nothing did

	timer  *time.Timer
	detach func() bool
	once   sync.Once
}

// epoch makes the monotonic clock a plain number.
var epoch = time.Now()

// newWatch starts to watch x. silence 0 means no limit.
func newWatch(x protocol.Exchange, silence time.Duration, expired func()) *watch {
	w := &watch{Exchange: x, silence: silence, expired: expired}
	if silence > 0 {
		// The field must be set before the timer can fire and read it.
		w.timer = time.AfterFunc(time.Hour, w.check)
		w.timer.Reset(silence)
	}
	return w
}

// follow ends the exchange with ctx, for one that doesn't do so itself.
func (w *watch) follow(ctx context.Context) {
	w.detach = context.AfterFunc(ctx, func() { w.end(protocol.ClientGone) })
}

// check runs when the timer fires. One timer per exchange, moved only here,
// costs less than one that is set anew at every Read.
func (w *watch) check() {
	since := w.waiting.Load()
	rest := w.silence
	if since != 0 {
		if rest -= time.Since(epoch) - time.Duration(since); rest <= 0 {
			if w.end(protocol.TimedOut) && w.expired != nil {
				w.expired()
			}
			return
		}
	}
	w.timer.Reset(rest)
}

// end closes the exchange for a reason that Read then reports; false when it
// had ended already.
func (w *watch) end(kind protocol.Kind) bool {
	if !w.cause.CompareAndSwap(0, int32(kind)) {
		return false
	}
	w.Exchange.Close()
	return true
}

func (w *watch) Read(p []byte) (int, error) {
	w.waiting.Store(int64(time.Since(epoch)))
	n, err := w.Exchange.Read(p)
	w.waiting.Store(0)
	if err != nil && !errors.Is(err, io.EOF) {
		switch kind := protocol.Kind(w.cause.Load()); kind {
		case protocol.TimedOut:
			err = &protocol.Error{Kind: kind, Err: fmt.Errorf("no answer for %s", w.silence)}
		case protocol.ClientGone:
			err = &protocol.Error{Kind: kind, Err: err}
		}
	}
	return n, err
}

// Close stops watching and closes the exchange.
func (w *watch) Close() error {
	w.once.Do(func() {
		if w.detach != nil {
			w.detach()
		}
		if w.timer != nil {
			w.timer.Stop()
		}
	})
	return w.Exchange.Close()
}
