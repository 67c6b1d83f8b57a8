package procpool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
)

// pssSupported reports whether the kernel tells the proportional set size
// (4.14 and later, with CONFIG_PROC_PAGE_MONITOR).
var pssSupported = sync.OnceValue(func() bool {
	_, err := os.Stat("/proc/self/smaps_rollup")
	return err == nil
})

// processMemory returns how much memory a process and its descendants hold, in
// bytes: what a worker starts to do its work counts as the worker's. It fails
// when the process is gone; one that ended and is not yet reaped has 0.
//
// Without pss it is the resident set size, which counts a page that processes
// share once for each of them: after a fork that is nearly everything. With
// pss it is the proportional set size, in which a page that n processes share
// counts for one n-th in each; swapped memory counts in neither. Where the
// kernel can't tell (see pssSupported), or doesn't want to, the resident set
// size takes its place.
//
// The resident set size costs a few microseconds for each process and thread.
// For the proportional one the kernel walks the page tables, about a
// millisecond for 100 MB, and keeps the process from mapping memory meanwhile:
// it is for every few seconds, not for every request.
func processMemory(pid int, pss bool) (int64, error) {
	total, err := ownMemory(pid, pss)
	if err != nil {
		return 0, fmt.Errorf("procpool: memory of process %d: %w", pid, err)
	}
	for _, p := range descendants(pid) {
		n, err := ownMemory(p, pss)
		if err == nil { // else it ended meanwhile
			total += n
		}
	}
	return total, nil
}

// ownMemory is processMemory of one process alone.
func ownMemory(pid int, pss bool) (int64, error) {
	if pss && pssSupported() {
		if n, err := proportionalMemory(pid); err == nil {
			return n, nil
		}
	}
	return residentMemory(pid)
}

var pageSize = int64(os.Getpagesize())

// residentMemory reads proc_pid_statm(5): sizes in pages, the resident one is
// the second.
func residentMemory(pid int) (int64, error) {
	var buf [128]byte
	text, err := readProc("/proc/"+strconv.Itoa(pid)+"/statm", buf[:])
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte(" "))
	resident, _, _ := bytes.Cut(rest, []byte(" "))
	pages, err := strconv.ParseInt(string(resident), 10, 64)
	if err != nil {
		return 0, err
	}
	return pages * pageSize, nil
}

var errNoPss = errors.New("no Pss in smaps_rollup")

// proportionalMemory reads the line "Pss: N kB" of proc_pid_smaps(5).
func proportionalMemory(pid int) (int64, error) {
	var buf [2048]byte
	text, err := readProc("/proc/"+strconv.Itoa(pid)+"/smaps_rollup", buf[:])
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(text, []byte("\nPss:"))
	if !found {
		return 0, errNoPss
	}
	line, _, _ := bytes.Cut(rest, []byte("kB"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return 0, err
	}
	return n << 10, nil
}
