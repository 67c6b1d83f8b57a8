// Package tuning sets what the Go runtime of the gateway takes of the machine:
// processors and memory. The variables GOMAXPROCS, GOGC and GOMEMLIMIT, where
// they are set, win.
package tuning

import (
	"os"
	"runtime"
	"runtime/debug"
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
		used, idle := l.since(before)
		before = l
		if next := processors(now, most, used, idle); next != now {
			log.Debug("processors for Go code", zap.Int("now", next), zap.Int("most", most), zap.Float64("used", used), zap.Float64("idle", idle))
			runtime.GOMAXPROCS(next)
			now = next
		}
	}
}

// processors is on how many processors Go code should run: at least 1. now is on how
// many it does, and most the number that there are. used is how many the gateway
// has used of late, and idle how many nobody has.
func processors(now, most int, used, idle float64) int {
	switch {
	case now < most && used > 0.85*float64(now) && idle > 0.5:
		return min(2*now, most)
	case now > 1 && used < 0.5*float64(now-1):
		return now - 1
	case now > 1 && idle < 0.35 && used < 1.1*float64(now-1):
		// It would do with one less, and others may need that.
		return now - 1
	}
	return now
}

// glance is what was used until a moment.
type glance struct {
	at   time.Time
	used time.Duration // by this process
	idle time.Duration // of the processors that it may run on
}

func look() (glance, error) {
	l := glance{at: time.Now()}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return l, err
	}
	l.used = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	var err error
	l.idle, err = idleTime()
	return l, err
}

// since returns how many processors were used, and idle, from before to l.
func (l glance) since(before glance) (used, idle float64) {
	took := float64(max(l.at.Sub(before.at), time.Millisecond))
	return float64(l.used-before.used) / took, float64(l.idle-before.idle) / took
}
