// Package tuning sets what the Go runtime of the gateway takes of the machine:
// processors and memory. The variables GOMAXPROCS, GOGC and GOMEMLIMIT, where
// they are set, win.
package tuning

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// gcPercent is GOGC. The gateway's heap is a few megabytes, and nearly all of it
// lives for one request: collecting it less often costs little memory.
const gcPercent = 200

// Start tunes the runtime until stop is called. forks says that a process is
// started for each request: one that is being started holds a processor of Go's
// until it has become its program, and then all of them are of use.
func Start(log *zap.Logger, forks bool) (stop func()) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if forks || os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	done := make(chan struct{})
	go govern(log, done)
	return func() { close(done) }
}

// interval is how often it is asked whether the number of processors is right.
const interval = 500 * time.Millisecond

// govern begins with one processor, and takes more only where they would be idle:
// the gateway's workers need processors as well, and each one more that Go code runs
// on costs switches between threads, also when there is little to do.
func govern(log *zap.Logger, done <-chan struct{}) {
	most := runtime.GOMAXPROCS(0)
	if most == 1 {
		return
	}
	before, err := look()
	if err != nil {
		log.Debug("it can't be told how busy the processors are: the gateway uses all of them", zap.Error(err))
		return
	}
	defer runtime.GOMAXPROCS(most)
	runtime.GOMAXPROCS(1)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for now := 1; ; {
		select {
		case <-ticker.C:
		case <-done:
			return
		}
		l, err := look()
		if err != nil {
			return
		}
		d := l.since(before)
		before = l
		if next := processors(now, most, d); next != now {
			log.Debug("processors for Go code", zap.Int("now", next), zap.Int("most", most),
				zap.Float64("used", d.used), zap.Float64("idle", d.idle), zap.Float64("waiting", d.waiting))
			runtime.GOMAXPROCS(next)
			now = next
		}
	}
}

// demand is what the load has been of late, each as an average.
type demand struct {
	used    float64 // processors, by the gateway
	idle    float64 // processors, by nobody
	waiting float64 // goroutines that could have run, if a processor had been free for Go code
}

// processors is on how many processors Go code should run: at least 1. now is on how
// many it does, and most the number that there are.
func processors(now, most int, d demand) int {
	switch {
	case now < most && d.used > 0.85*float64(now) && d.idle > 0.5 && d.waiting > 1:
		// Without anybody who waits, what takes the time are system calls that
		// need no processor of Go's, as sendfile(2).
		return min(2*now, most)
	case now > 1 && d.used < 0.5*float64(now-1):
		return now - 1
	case now > 1 && d.idle < 0.35 && d.used < 1.1*float64(now-1):
		// It would do with one less, and others may need that.
		return now - 1
	}
	return now
}

// glance is what was used until a moment.
type glance struct {
	at     time.Time
	used   time.Duration // by this process
	idle   time.Duration // of the processors that it may run on
	waited time.Duration // by goroutines that could have run
}

func look() (glance, error) {
	l := glance{at: time.Now()}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return l, err
	}
	l.used = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	l.waited = waited()
	var err error
	l.idle, err = idleTime()
	return l, err
}

// tracked is how many times a goroutine gets ready to run for each one of them that
// runtime/metrics knows of (gTrackingPeriod in the runtime). Were it another number,
// what it takes to need one more processor would be another one, and not very different:
// either nobody waits, or all that the load consists of.
const tracked = 8

// waited returns how long all goroutines together have been ready to run without running.
func waited() time.Duration {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	return total(sample[0].Value.Float64Histogram()) * tracked
}

// total is the sum of a histogram of seconds, with each at the lower end of its bucket.
func total(h *metrics.Float64Histogram) time.Duration {
	seconds := 0.0
	for i, count := range h.Counts {
		seconds += float64(count) * max(0, h.Buckets[i])
	}
	return time.Duration(seconds * float64(time.Second))
}

// since returns the averages of the time from before to l.
func (l glance) since(before glance) demand {
	took := float64(max(l.at.Sub(before.at), time.Millisecond))
	return demand{
		used:    float64(l.used-before.used) / took,
		idle:    float64(l.idle-before.idle) / took,
		waiting: float64(l.waited-before.waited) / took,
	}
}
