package config

import (
	"strings"
	"testing"
)

func TestAutoWorkers(t *testing.T) {
	const mib, gib = Size(1 << 20), Size(1 << 30)
	for _, c := range []struct {
		processors int
		memory     Size
		threads    int
		min, max   int
		reason     string
	}{
		{2, 8 * gib, 1, 2, 5, "2 processors"},
		{64, 256 * gib, 1, 16, 129, "64 processors"},
		{1, 2 * gib, 2, 2, 2, "1 processor, 2 threads"},
		{8, 16 * gib, 1, 2, 17, "8 processors"},
		// A thread waits as well as a process does.
		{8, 16 * gib, 2, 2, 9, "2 threads"},
		{8, 16 * gib, 4, 2, 8, "4 threads"},
		{8, 16 * gib, 100, 2, 8, "100 threads"},
		// Small containers, on machines of any size.
		{2, 512 * mib, 1, 2, 3, "512m has room for 3 workers of 128m"},
		{64, 512 * mib, 1, 3, 3, "512m"},
		{64, 256 * mib, 1, 1, 1, "room for 1 worker of"},
		{2, 64 * mib, 1, 1, 1, "64m"},
		{64, 4 * gib, 1, 16, 24, "4g"},
		// What isn't known is no limit, and nothing is below one.
		{4, 0, 1, 2, 9, "4 processors"},
		{0, 0, 0, 2, 3, "1 processor"},
	} {
		w := autoWorkers(c.processors, c.memory, c.threads)
		if w.Min != c.min || w.Max != c.max || !strings.Contains(w.Reason, c.reason) {
			t.Errorf("%d processors, %v, %d threads: %+v, want %d:%d", c.processors, c.memory, c.threads, w, c.min, c.max)
		}
		if w.Min < 1 || w.Min > w.Max {
			t.Errorf("%+v", w)
		}
	}
}
