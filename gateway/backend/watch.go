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
// application: the time that a slow client takes to read, or to send its body,
// is not the application's.
type watch struct {
	protocol.Exchange
	ctx     context.Context
	silence time.Duration // 0 means no limit
	owner   watched       // is told about silence; may be nil
	live    protocol.Live // the request's body, if it has such a one
	worry   time.Duration // silence after which owner is told for the first time; 0 means never
	worried bool          // that has happened; the watchman's

	headOnly bool        // silence counts until the head of the answer alone
	endless  atomic.Bool // it counts no longer

	waiting atomic.Int64 // when the Read in progress began, by the watchman's clock; 0 = none
	cause   atomic.Int32 // protocol.Kind of what ended the exchange, 0 = nothing did

	previous, next *watch      // in the watchman's ring; nil when it is not watched
	seen           bool        // in an earlier round
	leave          func() bool // stops waiting for the end of ctx; nil before that begins; the watchman's
}

// watched is told about silence, each time in a goroutine of its own.
type watched interface {
	slow()   // it has lasted for watch.worry; called at most once
	silent() // it was too long, and the exchange has been closed
}

// begin starts to watch x until Close.
func (w *watch) begin(ctx context.Context, x protocol.Exchange, silence time.Duration) {
	w.Exchange, w.ctx, w.silence = x, ctx, silence
	watchman.add(w)
}

// Read reads from the exchange. An error says whether the exchange was ended
// by the watchman, and why.
func (w *watch) Read(p []byte) (int, error) {
	if !w.endless.Load() {
		w.waiting.Store(watchman.clock.Load())
	}
	n, err := w.Exchange.Read(p)
	w.waiting.Store(0)
	if err == nil {
		return n, nil
	}
	switch kind := protocol.Kind(w.cause.Load()); {
	case kind == protocol.ClientGone:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the end of an application that was stopped is not its answer's
		}
		err = &protocol.Error{Kind: kind, Err: err}
	case kind == protocol.TimedOut && !errors.Is(err, io.EOF):
		err = &protocol.Error{Kind: kind, Err: fmt.Errorf("no answer for %s", w.silence)}
	}
	return n, err
}

// Notify implements protocol.Notifier: the time until f is called is silence, as
// that of a Read, which is due then.
func (w *watch) Notify(f func()) bool {
	n, ok := w.Exchange.(protocol.Notifier)
	if !ok {
		return false
	}
	w.waiting.Store(watchman.clock.Load())
	if n.Notify(f) {
		return true
	}
	w.waiting.Store(0)
	return false
}

// Answered implements Waiter.
func (w *watch) Answered() {
	if w.headOnly {
		w.endless.Store(true)
	}
}

// Close stops watching and closes the exchange.
func (w *watch) Close() error {
	watchman.remove(w)
	return w.Exchange.Close()
}

// end closes the exchange for a reason that Read then reports.
func (w *watch) end(kind protocol.Kind) {
	if w.cause.CompareAndSwap(0, int32(kind)) {
		_ = w.Exchange.Close()
		if kind == protocol.TimedOut && w.owner != nil {
			w.owner.silent()
		}
	}
}

// watchman goes round all exchanges ten times a second. A timer and a
// context's callback for each would be more exact, and cost more than all else
// that happens to a small request between here and its worker. What lasts for
// longer than that has a callback, so that its application knows at once when the client
// has gone; and where silence has no limit that is all it needs.
var watchman = &rounds{}

// roundTime is how far apart two rounds are.
const roundTime = 100 * time.Millisecond

type rounds struct {
	// clock is the time of the last round, in ns since began, never 0.
	clock atomic.Int64

	mu    sync.Mutex
	ring  watch // its next is the oldest
	afoot bool
	began time.Time
}

func (r *rounds) add(w *watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ring.next == nil {
		r.ring.next, r.ring.previous = &r.ring, &r.ring
		r.began = time.Now()
		r.clock.Store(1)
	}
	last := r.ring.previous
	w.previous, w.next = last, &r.ring
	last.next, r.ring.previous = w, w
	if !r.afoot {
		r.afoot = true
		r.clock.Store(max(1, int64(time.Since(r.began))))
		go r.walk()
	}
}

func (r *rounds) remove(w *watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unlink(w)
	if w.leave != nil {
		w.leave()
	}
}

func (r *rounds) unlink(w *watch) {
	if w.next != nil {
		w.previous.next, w.next.previous = w.next, w.previous
		w.previous, w.next = nil, nil
	}
}

// walk goes round until nothing is left to watch.
func (r *rounds) walk() {
	ticker := time.NewTicker(roundTime)
	defer ticker.Stop()
	for range ticker.C {
		if !r.round() {
			return
		}
	}
}

// round looks at each exchange once; false when there is none.
func (r *rounds) round() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := int64(time.Since(r.began))
	r.clock.Store(now)
	var next *watch
	for w := r.ring.next; w != &r.ring; w = next {
		next = w.next // it may be taken out
		since := w.waiting.Load()
		if since != 0 && w.live != nil && w.live.Waits() && w.waiting.CompareAndSwap(since, now) {
			since = now
		}
		if w.seen && w.leave == nil {
			w.leave = context.AfterFunc(w.ctx, func() { w.end(protocol.ClientGone) })
		}
		w.seen = true
		switch {
		case w.leave != nil && w.endless.Load():
			r.unlink(w)
		case w.leave == nil && w.ctx.Err() != nil:
			// In a goroutine of its own: Close may wait for the client's body.
			go w.end(protocol.ClientGone)
		case w.silence > 0 && since != 0 && time.Duration(now-since) >= w.silence+roundTime: // the clock may be a round behind
			go w.end(protocol.TimedOut)
		case w.worry > 0 && !w.worried && since != 0 && time.Duration(now-since) >= w.worry+roundTime:
			w.worried = true
			go w.owner.slow()
		}
	}
	r.afoot = r.ring.next != &r.ring
	return r.afoot
}
