package tuning

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of /proc/stat, the same on all systems that Go runs on
// (USER_HZ, time(7)).
const clockTick = 10 * time.Millisecond

var errNoProcessors = errors.New("/proc/stat: none of the processors that this process may run on")

// idleTime is the idle time, since the system started, of the processors that this
// process may run on (proc_stat(5)).
func idleTime() (time.Duration, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return 0, os.NewSyscallError("sched_getaffinity", err)
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return sumIdle(stat, allowed.IsSet)
}

// sumIdle adds up the idle time in the lines of a /proc/stat.
func sumIdle(stat []byte, allowed func(cpu int) bool) (time.Duration, error) {
	var ticks int64
	found := false
	for line := range bytes.Lines(stat) {
		name, ok := bytes.CutPrefix(line, []byte("cpu"))
		if !ok {
			break // those of the processors come first
		}
		fields := bytes.Fields(name)
		if len(fields) < 6 || name[0] == ' ' {
			continue // the sum of all
		}
		cpu, err := strconv.Atoi(string(fields[0]))
		if err != nil || !allowed(cpu) {
			continue
		}
		for _, field := range fields[4:6] { // idle, and idle while something waits for a disk
			n, err := strconv.ParseInt(string(field), 10, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
		found = true
	}
	if !found {
		return 0, errNoProcessors
	}
	return time.Duration(ticks) * clockTick, nil
}
