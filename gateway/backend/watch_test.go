package backend

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatecrew/protocol"
)

// mute is an exchange whose application says nothing.
type mute struct {
	once   sync.Once
	closed chan struct{}
}

func (m *mute) Read([]byte) (int, error) { <-m.closed; return 0, errors.New("closed") }
func (m *mute) Close() error             { m.once.Do(func() { close(m.closed) }); return nil }

func watchOf(t *testing.T, ctx context.Context, silence time.Duration, headOnly bool) (*watch, chan error) {
	t.Helper()
	w := &watch{headOnly: headOnly}
	w.begin(ctx, &mute{closed: make(chan struct{})}, silence)
	t.Cleanup(func() { w.Close() })
	result := make(chan error, 1)
	return w, result
}

// Silence has a limit until the head, and none afterwards where the application has an event loop.
func TestSilenceAfterTheHead(t *testing.T) {
	for _, test := range []struct {
		name               string
		headOnly, answered bool
		ends               bool
	}{
		{"before the head", true, false, true},
		{"after it", true, true, false},
		{"without an event loop", false, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old := watchman
				watchman = &rounds{}
				defer func() { watchman = old }()
				w, result := watchOf(t, t.Context(), time.Second, test.headOnly)
				if test.answered {
					w.Answered()
				}
				go func() { _, err := w.Read(make([]byte, 1)); result <- err }()
				time.Sleep(time.Minute)
				select {
				case err := <-result:
					if !test.ends || protocol.KindOf(err) != protocol.TimedOut {
						t.Errorf("Read: %v", err)
					}
				default:
					if test.ends {
						t.Error("silence without an end")
					}
				}
				w.Close()
				time.Sleep(2 * roundTime) // the watchman goes home
			})
		})
	}
}

// The application of an exchange that lasts knows at once that its client has gone.
func TestClientGoneIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := watchman
		watchman = &rounds{}
		defer func() { watchman = old }()
		ctx, cancel := context.WithCancel(t.Context())
		w, result := watchOf(t, ctx, 0, true)
		w.Answered()
		go func() { _, err := w.Read(make([]byte, 1)); result <- err }()
		time.Sleep(10 * roundTime)
		before := time.Now()
		cancel()
		if err := <-result; protocol.KindOf(err) != protocol.ClientGone || time.Since(before) > 0 {
			t.Errorf("%v after %v", err, time.Since(before))
		}
		w.Close()
		time.Sleep(2 * roundTime) // the watchman goes home
	})
}
