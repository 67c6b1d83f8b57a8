package vfork

const (
	sysSigprocmask = 14
	sysGetpid      = 39
	sysExecve      = 59
	sysExit        = 60
	sysKill        = 62
	sysChdir       = 80
	sysSetpgid     = 109
	sysGetppid     = 110
	sysPrctl       = 157
	sysDup3        = 292
	sysPrlimit     = 302
)
