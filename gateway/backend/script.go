package backend

import (
	"path/filepath"
	"slices"

	"gatecrew/procpool"
	"gatecrew/procpool/confine"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// Scripts is how processes are started that live for one request. The program
// is the request's SCRIPT_FILENAME, which the route has found on the disk and
// nothing else, unless Command names it.
type Scripts struct {
	Runner *procpool.Runner
	// Command is the program and its arguments, for routes with one program;
	// empty means the request's script.
	Command []string
	// Interpreters maps a file extension, with its dot, to the program that
	// runs such scripts. A script without one is executed itself.
	Interpreters map[string]string
	// Inherited is the part of the gateway's own environment that scripts
	// get, as NAME=VALUE.
	Inherited []string
	// Dir is the working directory; "" means the script's own (RFC 3875,
	// section 7.2). With Command it is required.
	Dir string
	// Cgroup is the control group that scripts start in; nil means the
	// gateway's own.
	Cgroup *procpool.Cgroup
	// Zygotes is the folder of the zygotes' programs, as the scripts see it;
	// "" for scripts that are not kept warm.
	Zygotes string
	// Confinement is what scripts may not do; nil leaves them what the
	// gateway may. With a Chroot SCRIPT_FILENAME and the like are requests'
	// as the gateway sees the file, and are told to the script as it will.
	// Command, Interpreters and Dir stand as it will already.
	Confinement *confine.Confinement
}

// command is the program, its arguments and its environment. Of the arguments
// none is the request's.
func (s *Scripts) command(req *protocol.Request) (procpool.Command, error) {
	env, err := cgi.Environ(s.inside(req.Params), s.Inherited)
	if err != nil {
		return procpool.Command{}, err
	}
	command := procpool.Command{Env: env, Dir: s.Dir, Confinement: s.Confinement, Cgroup: s.Cgroup}
	if len(s.Command) > 0 {
		command.Path, command.Argv = s.Command[0], s.Command
		return command, nil
	}
	file := req.Get("SCRIPT_FILENAME")
	script := s.Confinement.Inside(file)
	command.Path, command.Argv = script, []string{script}
	if command.Dir == "" {
		command.Dir = filepath.Dir(script)
	}
	if interpreter := s.Interpreters[filepath.Ext(script)]; interpreter != "" {
		command.Path, command.Argv = interpreter, []string{interpreter, script}
	}
	if s.Zygotes != "" {
		command.Script = &procpool.Script{File: file, Arg: len(command.Argv) - 1}
	}
	return command, nil
}

// inside turns the paths that a request was given into those by which a script
// in another root folder knows the files.
func (s *Scripts) inside(params []protocol.Param) []protocol.Param {
	if s.Confinement == nil || s.Confinement.Chroot == "" {
		return params
	}
	params = slices.Clone(params)
	for i := range params {
		switch params[i].Name {
		case "SCRIPT_FILENAME", "DOCUMENT_ROOT", "PATH_TRANSLATED":
			params[i].Value = s.Confinement.Inside(params[i].Value)
		}
	}
	return params
}
