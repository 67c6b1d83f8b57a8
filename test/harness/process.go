package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one line of the process table.
type Process struct {
	PID, PPID, PGID, Session int
	State                    byte   // 'R', 'S', 'Z', … as in proc(5)
	Start                    uint64 // clock ticks since boot: tells a reused PID from the old one
	Name                     string // the kernel's short name
}

// String says which process it is, for failure messages.
func (p Process) String() string {
	return fmt.Sprintf("%d %s (%c, parent %d, group %d)", p.PID, p.Name, p.State, p.PPID, p.PGID)
}

// Alive reports whether this same process still runs. A zombie does not.
func (p Process) Alive() bool {
	now, ok := Lookup(p.PID)
	return ok && now.Start == p.Start && now.State != 'Z' && now.State != 'X'
}

// Lookup finds a process by its number.
func Lookup(pid int) (Process, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Process{}, false
	}
	// The name stands in parentheses and may hold any byte, a ")" included.
	open, end := strings.IndexByte(string(data), '('), strings.LastIndexByte(string(data), ')')
	if open < 0 || end < open {
		return Process{}, false
	}
	field := strings.Fields(string(data[end+1:])) // field[0] is field 3 of proc(5)
	if len(field) < 20 {
		return Process{}, false
	}
	p := Process{PID: pid, State: field[0][0], Name: string(data[open+1 : end])}
	p.PPID, _ = strconv.Atoi(field[1])
	p.PGID, _ = strconv.Atoi(field[2])
	p.Session, _ = strconv.Atoi(field[3])
	p.Start, _ = strconv.ParseUint(field[19], 10, 64)
	return p, true
}

// Descendants lists the living and the zombie processes below pid, parents
// before children, without pid itself.
func Descendants(pid int) []Process {
	children := map[int][]Process{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if p, ok := Lookup(id); ok {
			children[p.PPID] = append(children[p.PPID], p)
		}
	}
	found := children[pid]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].PID]...)
	}
	return found
}

// Zombies lists the processes below pid that ended and were not reaped.
func Zombies(pid int) []Process {
	var dead []Process
	for _, p := range Descendants(pid) {
		if p.State == 'Z' {
			dead = append(dead, p)
		}
	}
	return dead
}

// OpenFiles lists what a process holds open, as the kernel names it
// ("/path", "socket:[123]", "pipe:[456]"), by descriptor number.
func OpenFiles(pid int) map[int]string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	files := make(map[int]string, len(entries))
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// One that was closed since the listing is not open.
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			files[fd] = target
		}
	}
	return files
}

// Memory is what a process uses, in bytes.
type Memory struct {
	RSS  int64 // resident now
	Peak int64 // the highest RSS so far (VmHWM)
	PSS  int64 // RSS with shared pages divided among those who share them
}

// MemoryOf reads the memory of one process; zero when it is gone.
func MemoryOf(pid int) Memory {
	return Memory{
		RSS:  kilobytes(pid, "status", "VmRSS:"),
		Peak: kilobytes(pid, "status", "VmHWM:"),
		PSS:  kilobytes(pid, "smaps_rollup", "Pss:"),
	}
}

func kilobytes(pid int, file, key string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n * 1024
		}
	}
	return 0
}
