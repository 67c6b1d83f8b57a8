package procpool

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestLimiterServesInOrder(t *testing.T) {
	l := NewLimiter("test", 1, 10, time.Minute)
	if err := l.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	order := make(chan int, 10)
	for i := range 10 {
		go func() {
			if err := l.Acquire(t.Context()); err != nil {
				t.Error(err)
			}
			order <- i
		}()
		eventually(t, "one more waits", func() bool { return l.Stats().Queued == i+1 })
	}
	for want := range 10 {
		l.Release()
		if got := <-order; got != want {
			t.Fatalf("waiter %d served, want %d", got, want)
		}
	}
	l.Release()
	if s := l.Stats(); s.InUse != 0 || s.Queued != 0 {
		t.Errorf("in the end: %+v", s)
	}
}

func TestLimiterBounds(t *testing.T) {
	fake := newFakeClock()
	l := newLimiter("cgi", 1, 1, 2500*time.Millisecond, *fake.clock())
	if err := l.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() { waited <- l.Acquire(t.Context()) }()
	eventually(t, "one waits", func() bool { return l.Stats().Queued == 1 })

	var refused *QueueError
	if err := l.Acquire(t.Context()); !errors.Is(err, ErrQueueFull) || !errors.As(err, &refused) {
		t.Fatalf("second in a queue of one: %v", err)
	}
	if refused.RetryAfter != time.Second || refused.Name != "cgi" || refused.Length != 1 {
		t.Errorf("refusal %+v", refused)
	}
	var err error
	eventually(t, "the wait's deadline", func() bool {
		fake.advance(100 * time.Millisecond)
		select {
		case err = <-waited:
			return true
		default:
			return false
		}
	})
	if !errors.Is(err, ErrQueueTimeout) || !errors.As(err, &refused) || refused.Waited < 2500*time.Millisecond {
		t.Errorf("after the deadline: %v", err)
	}
	if s := l.Stats(); s.Queue.Full != 1 || s.Queue.TimedOut != 1 || s.Queued != 0 || s.InUse != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestLimiterContext(t *testing.T) {
	l := NewLimiter("test", 1, 1, time.Minute)
	if err := l.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := errors.New("client gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	waited := make(chan error)
	go func() { waited <- l.Acquire(ctx) }()
	eventually(t, "one waits", func() bool { return l.Stats().Queued == 1 })
	cancel(gone)
	if err := <-waited; !errors.Is(err, gone) {
		t.Errorf("cancelled wait: %v", err)
	}
	if n := l.Stats().Queued; n != 0 {
		t.Errorf("%d still queued", n)
	}
	go func() { waited <- l.Acquire(t.Context()) }()
	eventually(t, "one waits", func() bool { return l.Stats().Queued == 1 })
	l.Close()
	if err := <-waited; !errors.Is(err, ErrClosed) {
		t.Errorf("wait at close: %v", err)
	}
	if err := l.Acquire(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("acquire after close: %v", err)
	}
}

// A slot that is handed over while its waiter leaves must not be lost.
func TestLimiterHandOverRace(t *testing.T) {
	l := NewLimiter("test", 2, 100, time.Minute)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%7)*20*time.Microsecond)
				if l.Acquire(ctx) == nil {
					if n := l.Stats().InUse; n > 2 {
						t.Errorf("%d in use", n)
					}
					l.Release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s := l.Stats(); s.InUse != 0 || s.Queued != 0 {
		t.Errorf("in the end: %+v", s)
	}
}
