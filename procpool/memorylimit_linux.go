package procpool

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MemoryLimit returns how much memory this program and what it starts may have,
// in bytes: that of the machine, or less when their control group (of version 1
// or 2) or one above it says so, as a container's does. The limit is 0 when it
// can't be told.
func MemoryLimit() (limit int64, ofGroup bool) {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		limit = int64(info.Totalram) * int64(info.Unit)
	}
	cgroup, err1 := os.ReadFile("/proc/self/cgroup")
	mounts, err2 := os.ReadFile("/proc/self/mountinfo")
	if err1 == nil && err2 == nil {
		if group := groupMemoryLimit(string(cgroup), string(mounts)); group > 0 && (limit == 0 || group < limit) {
			return group, true
		}
	}
	return limit, false
}

// groupMemoryLimit takes the texts of cgroups(7) /proc/PID/cgroup and of
// proc_pid_mountinfo(5). It returns 0 for no limit.
func groupMemoryLimit(cgroup, mountinfo string) (limit int64) {
	least := func(text string) {
		// No limit is max, or in version 1 a number that no machine has.
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 && n < 1<<60 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	if _, dir, err := locateCgroup(cgroup, mountinfo); err == nil {
		for ; len(cgroupLines(dir, "cgroup.controllers")) > 0; dir = filepath.Dir(dir) {
			for _, text := range cgroupLines(dir, "memory.max") {
				least(text)
			}
		}
	}
	for line := range strings.Lines(mountinfo) {
		place, system, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(place), strings.Fields(system)
		if len(fields) < 5 || len(kind) < 3 || kind[0] != "cgroup" || !hasWord(kind[2], "memory") {
			continue
		}
		own := ""
		for line := range strings.Lines(cgroup) {
			// ID:CONTROLLER[,…]:PATH
			if part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(part) == 3 && hasWord(part[1], "memory") {
				own = part[2]
			}
		}
		below, ok := strings.CutPrefix(own, strings.TrimSuffix(fields[3], "/"))
		if !ok {
			below = "" // a container that sees its own group as the root
		}
		for _, line := range cgroupLines(filepath.Join(fields[4], below), "memory.stat") {
			// What the groups above say is in this number.
			if text, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
				least(text)
			}
		}
	}
	return limit
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}
