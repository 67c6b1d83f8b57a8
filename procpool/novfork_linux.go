//go:build !amd64 && !arm64

package procpool

import "syscall"

// fastForkExec leaves all to syscall.ForkExec.
func fastForkExec(string, []string, *syscall.ProcAttr) (pid int, err error, ok bool) {
	return 0, nil, false
}
