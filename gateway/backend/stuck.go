package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gatecrew/gateway/slowlog"
)

// slow implements watched.
func (x *localExchange) slow() { x.describe(x.local.SlowTimeout) }

// silent implements watched.
func (x *localExchange) silent() {
	x.giveUp(fmt.Sprintf("no answer for %s", x.local.Timeout))
}

// giveUp ends a request that nobody waits for any more, at the least cost for
// the others: what it is doing is logged, then it is interrupted, and when it
// doesn't end its worker has to.
func (x *localExchange) giveUp(reason string) {
	x.mu.Lock()
	again := x.givenUp || x.done
	x.givenUp = true
	if x.alarm != nil {
		x.alarm.Stop()
	}
	x.mu.Unlock()
	if again {
		return
	}
	x.describe(x.local.Timeout)
	if patience := x.local.InterruptTimeout; patience > 0 && x.lease.Interrupt(x.label.ID, reason, patience) {
		return
	}
	x.lease.Condemn(reason)
}

// describe has the request described once. It returns when that has been done.
func (x *localExchange) describe(silent time.Duration) {
	if x.local.Slow != nil {
		x.described.Do(func() { x.local.Slow.describe(x, silent) })
	}
}

// Slow describes the slow requests of one pool in the slow log. The zero value
// is of no use; a nil one describes nothing.
//
// A description stops the worker's interpreter for some milliseconds, so a
// worker is asked at most once a second, and a pool ten times: a storm of slow
// requests must not make them slower. One of a worker shows all its requests.
type Slow struct {
	log *slowlog.Log

	mu     sync.Mutex
	began  time.Time          // the second that is counted
	asked  int                // workers that were asked in it
	latest map[int]describing // by process id, of this second and the one before
}

type describing struct {
	at      time.Time
	request string
}

const (
	describeEvery = time.Second
	describeMost  = 10
)

// NewSlow makes the Slow of a pool.
func NewSlow(log *slowlog.Log) *Slow {
	return &Slow{log: log, latest: make(map[int]describing)}
}

// admit says whether the worker may be asked now about a request that has been
// where it is for silent, and if not, why.
func (s *Slow) admit(now time.Time, silent time.Duration, pid int, request string) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.began) >= describeEvery {
		s.began, s.asked = now, 0
		for pid, d := range s.latest {
			if now.Sub(d.at) >= describeEvery {
				delete(s.latest, pid)
			}
		}
	}
	if d, ok := s.latest[pid]; ok && now.Sub(d.at) < describeEvery {
		if now.Sub(d.at) > silent {
			return "its stack is left out: its worker has been described less than a second ago, with request " + d.request
		}
		return "its stack is shown with request " + d.request
	}
	if s.asked == describeMost {
		return fmt.Sprintf("its stack is left out: the pool had more than %d slow requests within a second", describeMost)
	}
	s.asked++
	s.latest[pid] = describing{now, request}
	return ""
}

// describe logs one slow request.
func (s *Slow) describe(x *localExchange, silent time.Duration) {
	worker := x.lease.Worker()
	e := &slowlog.Entry{Time: time.Now(), Request: x.label.ID, Worker: worker.Name, PID: worker.PID,
		Method: x.label.Method, URI: x.label.Target, Silent: silent}
	if e.Stacks = s.admit(e.Time, silent, e.PID, e.Request); e.Stacks == "" {
		var err error
		if e.Stacks, err = x.lease.Stacks(context.Background(), e.Request); err != nil {
			e.Stacks = err.Error()
		}
	}
	s.log.Write(e)
}
