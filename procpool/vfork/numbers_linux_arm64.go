package vfork

const (
	sysDup3        = 24
	sysChdir       = 49
	sysExit        = 93
	sysKill        = 129
	sysSigprocmask = 135
	sysSetpgid     = 154
	sysPrctl       = 167
	sysGetpid      = 172
	sysGetppid     = 173
	sysExecve      = 221
	sysPrlimit     = 261
)
