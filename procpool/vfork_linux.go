//go:build amd64 || arm64

package procpool

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"gatecrew/procpool/vfork"
)

// noVfork is set when package vfork turned out not to work here.
var noVfork atomic.Bool

// fastForkExec is syscall.ForkExec for what childAttr returns. ok is false when
// that has to do the work: for other attributes, and for an old kernel.
func fastForkExec(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error, ok bool) {
	if noVfork.Load() || attr.Sys.Setsid {
		return 0, nil, false
	}
	for _, fd := range attr.Files {
		if fd < uintptr(len(attr.Files)) {
			return 0, nil, false // it would be overwritten before it is copied
		}
	}
	p := vfork.Program{Files: attr.Files, UseCgroup: attr.Sys.UseCgroupFD, Cgroup: attr.Sys.CgroupFD, Parent: os.Getpid()}
	if p.Path, err = syscall.BytePtrFromString(path); err != nil {
		return 0, err, true
	}
	if p.Argv, err = syscall.SlicePtrFromStrings(argv); err != nil {
		return 0, err, true
	}
	if p.Env, err = syscall.SlicePtrFromStrings(attr.Env); err != nil {
		return 0, err, true
	}
	if attr.Dir != "" {
		if p.Dir, err = syscall.BytePtrFromString(attr.Dir); err != nil {
			return 0, err, true
		}
	}
	pid, errno, unsupported := vfork.Start(&p)
	runtime.KeepAlive(attr)
	switch {
	case unsupported:
		noVfork.Store(true)
		return 0, nil, false
	case errno != 0 && pid != 0:
		for {
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
				break
			}
		}
		fallthrough
	case errno != 0:
		return 0, syscall.Errno(errno), true
	}
	return pid, nil, true
}
