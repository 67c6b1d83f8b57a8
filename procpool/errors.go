package procpool

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrQueueFull means that the queue had no place left. It comes at once
	// and wrapped in a *QueueError.
	ErrQueueFull = errors.New("queue full")
	// ErrQueueTimeout means that no slot became free in time. It comes
	// wrapped in a *QueueError.
	ErrQueueTimeout = errors.New("queue timeout")
	// ErrOverloaded means that more comes than can be done, so that the
	// request was refused before its time was up. It comes wrapped in a
	// *QueueError.
	ErrOverloaded = errors.New("overloaded")
	// ErrClosed means that the pool, runner or limiter no longer takes work.
	ErrClosed = errors.New("closed")
	// ErrStart means that a process could not be started. It wraps the
	// system's reason: fs.ErrNotExist, fs.ErrPermission, syscall.E2BIG,
	// syscall.ENOEXEC and so on can be asked for with errors.Is.
	ErrStart = errors.New("can't start process")
)

// QueueError is a refusal by a queue.
type QueueError struct {
	// Name is the pool's, runner's or limiter's.
	Name string
	// Err is ErrQueueFull, ErrQueueTimeout or ErrOverloaded.
	Err error
	// Length is how many were waiting when the request was refused.
	Length int
	// Waited is how long the request itself had waited.
	Waited time.Duration
	// RetryAfter is when another try makes sense: when those who waited at
	// that moment will have been served, by how fast that goes at present.
	// It is a second at least, and else the queue's timeout at most.
	RetryAfter time.Duration
}

func (e *QueueError) Error() string {
	if e.Waited > 0 {
		return fmt.Sprintf("procpool: %s: %v after %v with %d waiting", e.Name, e.Err, e.Waited.Round(time.Millisecond), e.Length)
	}
	return fmt.Sprintf("procpool: %s: %v with %d waiting", e.Name, e.Err, e.Length)
}

func (e *QueueError) Unwrap() error { return e.Err }
