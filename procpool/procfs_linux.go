package procpool

import (
	"bytes"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// readProc reads a file of /proc into buf, as much as fits. The kernel makes
// such a file up while it is read, so nothing is gained by an os.File.
func readProc(path string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// processID names one process for ever: the number alone may become another's.
type processID struct {
	pid   int
	start uint64 // clock ticks since boot
}

// identify returns the identity of a process that runs; a zombie does not.
func identify(pid int) (id processID, ok bool) {
	var buf [1024]byte
	text, err := readProc("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return id, false
	}
	// The name before the last parenthesis may hold anything. After it comes
	// field 3 of proc_pid_stat(5), the state; the start is field 22.
	field := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(field) < 20 || field[0][0] == 'Z' || field[0][0] == 'X' {
		return id, false
	}
	start, err := strconv.ParseUint(string(field[19]), 10, 64)
	return processID{pid, start}, err == nil
}

// signalIf sends a signal to a process for which ok holds. It asks twice: the
// second time when a descriptor keeps the number from changing its owner.
func signalIf(pid int, sig unix.Signal, ok func(pid int) bool) bool {
	if !ok(pid) {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil { // gone, or a kernel before 5.3
		return err == unix.ENOSYS && unix.Kill(pid, sig) == nil
	}
	defer unix.Close(fd)
	return ok(pid) && unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// processes returns the numbers of all processes.
func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descendants returns the processes that pid started and that their children
// started, as far as their parents are alive: an orphan belongs to whoever
// adopted it. The list is empty for a process that is gone, and on a kernel
// that doesn't tell (without CONFIG_PROC_CHILDREN).
func descendants(pid int) []int {
	list := childPIDs(nil, pid)
	for i := 0; i < len(list); i++ {
		list = childPIDs(list, list[i])
	}
	return list
}

// childPIDs appends the children of pid, which the kernel keeps by the thread
// that started them.
func childPIDs(list []int, pid int) []int {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task"
	dir, err := os.Open(tasks)
	if err != nil {
		return list
	}
	defer dir.Close()
	var buf [4096]byte
	for {
		threads, err := dir.Readdirnames(64)
		for _, tid := range threads {
			text, err := readProc(tasks+"/"+tid+"/children", buf[:])
			if err != nil {
				continue
			}
			if len(text) == len(buf) { // rare: hundreds of children
				if text, err = os.ReadFile(tasks + "/" + tid + "/children"); err != nil {
					continue
				}
			}
			for field := range bytes.FieldsSeq(text) {
				if child, err := strconv.Atoi(string(field)); err == nil {
					list = append(list, child)
				}
			}
		}
		if err == io.EOF || len(threads) == 0 {
			return list
		}
	}
}
