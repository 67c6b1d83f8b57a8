package procpool

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// simulation drives a queue before a number of slots through virtual time.
type simulation struct {
	queue  waitQueue[struct{}]
	mu     sync.Mutex // the queue's; nobody else is there
	random *rand.Rand
	free   int
	// service is how long a slot is taken on average. The lengths are
	// distributed exponentially, and so are the times between arrivals.
	service time.Duration

	start, at time.Time
	alarmed   time.Time
	releases  []time.Time
	waiting   []*arrival
	arrivals  []*arrival
}

// arrival is one request in a simulation.
type arrival struct {
	at       time.Duration // since the start
	priority Priority
	waited   time.Duration
	settled  bool
	err      error
	w        *waiter[struct{}]
}

func newSimulation(slots int, service time.Duration, length int, timeout time.Duration) *simulation {
	start := time.Unix(0, 0)
	s := &simulation{random: rand.New(rand.NewPCG(1, 2)), free: slots, service: service, start: start, at: start}
	s.queue = newWaitQueue[struct{}]("simulated", length, timeout, clock{
		now:   func() time.Time { return s.at },
		alarm: func(func()) alarm { return s },
	}, &s.mu)
	return s
}

// Reset and Stop make the simulation its queue's alarm.
func (s *simulation) Reset(d time.Duration) bool { s.alarmed = s.at.Add(d); return true }
func (s *simulation) Stop() bool                 { s.alarmed = time.Time{}; return true }

// run lets requests of a priority arrive for a time, load times as fast as they
// can be served.
func (s *simulation) run(d time.Duration, load float64, priority Priority) {
	slots := s.free + len(s.releases)
	every := float64(s.service) / float64(slots) / load
	end := s.at.Add(d)
	for next := s.at; ; {
		next = next.Add(time.Duration(s.random.ExpFloat64() * every))
		if next.After(end) {
			s.until(end)
			return
		}
		s.until(next)
		s.arrive(priority)
	}
}

// until lets everything happen that is due by t.
func (s *simulation) until(t time.Time) {
	for {
		var release time.Time
		if len(s.releases) > 0 {
			release = slices.MinFunc(s.releases, time.Time.Compare)
		}
		switch {
		case !s.alarmed.IsZero() && !s.alarmed.After(t) && (release.IsZero() || s.alarmed.Before(release)):
			s.at, s.alarmed = s.alarmed, time.Time{}
			s.queue.expire()
		case !release.IsZero() && !release.After(t):
			s.at = release
			i := slices.Index(s.releases, release)
			s.releases = slices.Delete(s.releases, i, i+1)
			s.free++
			if w := s.queue.first(); w != nil {
				s.take()
				s.queue.serve(w, struct{}{}, s.at)
			}
		default:
			s.at = t
			return
		}
		s.settle()
	}
}

func (s *simulation) take() {
	s.free--
	s.releases = append(s.releases, s.at.Add(time.Duration(s.random.ExpFloat64()*float64(s.service))))
}

func (s *simulation) arrive(priority Priority) {
	a := &arrival{at: s.at.Sub(s.start), priority: priority}
	s.arrivals = append(s.arrivals, a)
	if s.queue.len() == 0 && s.free > 0 {
		s.queue.passed()
		s.take()
		a.settled = true
		return
	}
	a.w, a.err = s.queue.join(context.Background(), priority)
	a.settled = a.err != nil
	if a.err == nil {
		s.waiting = append(s.waiting, a)
	}
	s.settle()
}

// settle notes the end of waits.
func (s *simulation) settle() {
	if len(s.waiting) == s.queue.len() { // nobody left
		return
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(a *arrival) bool {
		if a.w.queued {
			return false
		}
		a.settled, a.waited, a.err = true, s.at.Sub(s.start)-a.at, a.w.err
		return true
	})
}

// since returns what became of the requests of a priority that arrived since t.
func (s *simulation) since(t time.Duration, priority Priority) (o waits) {
	for _, a := range s.arrivals {
		switch {
		case a.at < t || a.priority != priority || !a.settled:
		case a.err == nil:
			o.served = append(o.served, a.waited)
		default:
			o.refused = append(o.refused, a.waited)
		}
	}
	slices.Sort(o.served)
	slices.Sort(o.refused)
	return o
}

// waits are how long requests waited, sorted.
type waits struct{ served, refused []time.Duration }

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

// At three times what can be done, those who are served wait hardly at all, the
// others hear so soon, nothing that could be done is left undone, and a second
// after the rush everything is as before.
func TestOverload(t *testing.T) {
	for _, c := range []struct {
		name    string
		slots   int
		service time.Duration
		length  int
		timeout time.Duration
	}{
		{"as configured by default", 4, 20 * time.Millisecond, 100, 10 * time.Second},
		{"a long queue", 4, 20 * time.Millisecond, 5000, 10 * time.Second},
		{"a short timeout", 4, 20 * time.Millisecond, 1000, time.Second},
		{"many slots", 64, 400 * time.Millisecond, 10000, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSimulation(c.slots, c.service, c.length, c.timeout)
			s.run(5*time.Second, 0.5, Normal)
			if o := s.since(0, Normal); len(o.refused) > 0 {
				t.Errorf("%d refused at half load", len(o.refused))
			}
			const rush = time.Minute
			before := s.at.Sub(s.start)
			s.run(rush, 3, Normal)
			o := s.since(before, Normal)
			interval := s.queue.codel.interval()
			t.Logf("interval %v, target %v: %d served, wait p50 %v, p99 %v, max %v; %d refused, wait p50 %v, p99 %v, max %v; %d full, %d shed, %d timed out",
				interval, interval/targetShare, len(o.served), quantile(o.served, .5), quantile(o.served, .99), quantile(o.served, 1),
				len(o.refused), quantile(o.refused, .5), quantile(o.refused, .99), quantile(o.refused, 1),
				s.queue.stats.Full, s.queue.stats.Shed, s.queue.stats.TimedOut)
			if p99 := quantile(o.served, .99); p99 > c.timeout/4 {
				t.Errorf("p99 of the served waits is %v with a timeout of %v", p99, c.timeout)
			}
			late := s.since(before+rush/10, Normal)
			if p99 := quantile(late.served, .99); p99 > c.timeout/20 {
				t.Errorf("p99 of the served waits is %v when the overload is known, with a timeout of %v", p99, c.timeout)
			}
			if p99 := quantile(o.refused, .99); p99 > 2*interval {
				t.Errorf("refusals took %v in the 99th percentile, with an interval of %v", p99, interval)
			}
			if could := int(rush / (c.service / time.Duration(c.slots))); len(o.served) < could*97/100 {
				t.Errorf("%d served, of the %d that could have been", len(o.served), could)
			}
			after := s.at.Sub(s.start) + time.Second
			s.run(time.Minute, 0.7, Normal)
			o = s.since(after, Normal)
			if len(o.refused) > 0 || quantile(o.served, .999) > c.timeout/10 {
				t.Errorf("from a second after the rush: %d refused, %v waited", len(o.refused), quantile(o.served, .999))
			}
			if !s.queue.codel.since.IsZero() {
				t.Error("still overloaded")
			}
		})
	}
}

// A queue is there for what can be done in time: nobody is refused for a
// burst, or because of the queue that a pool has by chance when it is busy.
func TestQueueAbsorbsBursts(t *testing.T) {
	for _, c := range []struct {
		name    string
		slots   int
		service time.Duration
		timeout time.Duration
		load    float64
		burst   int
	}{
		{"a burst", 4, 20 * time.Millisecond, 10 * time.Second, 0.5, 400},
		{"a burst at slow workers", 4, time.Second, time.Minute, 0.5, 80},
		{"busy", 4, 20 * time.Millisecond, 10 * time.Second, 0.9, 0},
		{"busy and slow", 2, time.Second, 30 * time.Second, 0.8, 0},
		{"one worker", 1, 5 * time.Millisecond, 10 * time.Second, 0.9, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSimulation(c.slots, c.service, 1000, c.timeout)
			s.run(20*time.Second, c.load, Normal)
			for range c.burst {
				s.arrive(Normal)
			}
			s.run(5*time.Minute, c.load, Normal)
			if o := s.since(0, Normal); len(o.refused) > 0 {
				t.Errorf("%d of %d refused after %v", len(o.refused), len(s.arrivals), quantile(o.refused, .5))
			}
		})
	}
}

// In a rush, those of high priority are all served at the next free slot, and
// none of low priority is.
func TestOverloadByPriority(t *testing.T) {
	s := newSimulation(4, 20*time.Millisecond, 100, 10*time.Second)
	s.run(5*time.Second, 3, Normal)
	begin := s.at.Sub(s.start)
	for range 200 {
		s.run(50*time.Millisecond, 3, Normal)
		s.arrive(High)
		s.arrive(Low)
	}
	s.run(5*time.Second, 0.1, Normal)
	high, low := s.since(begin, High), s.since(begin, Low)
	if len(high.served) != 200 || quantile(high.served, 1) > 100*time.Millisecond {
		t.Errorf("high: %d of 200 served, %v waited", len(high.served), quantile(high.served, 1))
	}
	if len(low.refused) != 200 || quantile(low.refused, 1) > 0 {
		t.Errorf("low: %d of 200 refused, at the latest after %v", len(low.refused), quantile(low.refused, 1))
	}
}

// While nothing is served the queue is as patient as it was told to be: a pool
// whose workers all start anew, or all wait for a database, is not overloaded.
func TestStandstillIsNoOverload(t *testing.T) {
	s := newSimulation(4, 20*time.Millisecond, 100, 10*time.Second)
	s.run(5*time.Second, 0.5, Normal)
	s.until(s.at.Add(time.Second))
	slots := s.free
	s.free = 0
	begin := s.at.Sub(s.start)
	for range 50 {
		s.until(s.at.Add(50 * time.Millisecond))
		s.arrive(Normal)
	}
	var refused *QueueError
	if err := s.queue.refusal(ErrQueueFull, 0, s.at); !errors.As(err, &refused) || refused.RetryAfter < 2*time.Second {
		t.Errorf("nothing is served for 2.5 s: %v, retry after %v", err, refused.RetryAfter)
	}
	for range slots {
		s.releases = append(s.releases, s.at)
	}
	s.run(5*time.Second, 0.1, Normal)
	if o := s.since(begin, Normal); len(o.refused) > 0 {
		t.Errorf("%d refused", len(o.refused))
	}
}
