package procpool

import (
	"fmt"
	"syscall"

	"gatecrew/procpool/confine"
)

// Command is a program and what it is started with.
type Command struct {
	// Path is the file to execute. PATH is not searched.
	Path string
	// Argv are the arguments with the program's name first. Empty means
	// Path alone.
	Argv []string
	// Env is the environment as NAME=value; nothing is inherited.
	// GATECREW_INSTANCE is added to it, by which what the program starts is
	// found again.
	Env []string
	// NoInput is for a program whose standard input is empty: at its end from
	// the start. Only a Runner knows it.
	NoInput bool
	// Dir is the working directory; "" means the gateway's own.
	Dir string
	// Script is the file that the program, as an interpreter, runs; nil when
	// it isn't one. A Runner with Warm goes by it.
	Script *Script
	// Confinement is what the process may not do; nil leaves it what the
	// gateway may.
	Confinement *confine.Confinement
	// Cgroup is the control group that the program starts in; nil means the
	// gateway's own.
	Cgroup *Cgroup

	// background leaves GATECREW_INSTANCE away: what the program leaves
	// behind may outlive the gateway.
	background bool
	// mark is the value of GATECREW_INSTANCE; "" has one made.
	mark string
}

// with returns c with variables (NAME=value) added to its environment.
func (c Command) with(variables ...string) Command {
	c.Env = append(c.Env[:len(c.Env):len(c.Env)], variables...)
	return c
}

// Exit is how a process ended. The zero value is exit status 0.
type Exit struct {
	// Code is the exit status, 0 when a signal ended the process.
	Code int
	// Signal ended the process; 0 when it exited by itself.
	Signal syscall.Signal
	// OutOfMemory is true when Signal is KILL and the kernel has sent it, for
	// the memory limit of the Cgroup.
	OutOfMemory bool
}

func exitOf(ws syscall.WaitStatus) Exit {
	if ws.Signaled() {
		return Exit{Signal: ws.Signal()}
	}
	return Exit{Code: ws.ExitStatus()}
}

// Success reports whether the process exited by itself with status 0.
func (e Exit) Success() bool { return e == Exit{} }

// String returns "exit status 4", "signal: killed" or what the kernel killed it
// for.
func (e Exit) String() string {
	if e.OutOfMemory {
		return "killed by the memory limit of its control group"
	}
	if e.Signal != 0 {
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}
