package handler

import (
	"net/http"
	"sync"
	"time"
)

// stall resets an HTTP/2 stream whose client takes nothing of what is being
// written to it. Flow control (RFC 9113, section 5.2) lets a client stop one
// stream while its connection goes on, which listen.Conns can't see.
type stall struct {
	conn     *http.ResponseController
	patience time.Duration

	mu    sync.Mutex
	since time.Time // when the write in progress began; zero when there is none
	timer *time.Timer
}

// begin is called before a write that may block, end after it, both by the
// handler's goroutine. A nil stall does nothing.
func (s *stall) begin() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.patience, s.expired)
	} else {
		s.timer.Reset(s.patience)
	}
}

func (s *stall) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	s.timer.Stop()
}

// expired holds the lock all the time: once the handler has returned its
// response writer must not be used.
func (s *stall) expired() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.since.IsZero() && time.Since(s.since) >= s.patience {
		_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	}
}

// last bounds what net/http has left to write when the handler has returned.
func (s *stall) last() {
	if s != nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.patience))
	}
}
