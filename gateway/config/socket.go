package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Socket runs a process for each WebSocket: what it writes to its standard
// output goes to the client as messages, and the client's messages are its
// standard input. Exactly one of Command and Dir is set. Requests that ask for
// no WebSocket are answered 426.
type Socket struct {
	// Command is the program and its arguments, for every path of the route.
	// The program is a path, or a name that is looked for as for a program
	// beside the pools.
	Command []string `yaml:"command,omitempty"`
	// Dir is a folder of programs, each served at its path below the route.
	Dir string `yaml:"dir,omitempty"`
	// Extensions says how to run a program of Dir, as for CGI. Only with Dir.
	// Default: empty, any executable file is a program.
	Extensions map[string]string `yaml:"extensions,omitempty"`
	// Framing is how the program tells messages apart: lines, binary (each
	// message after 4 bytes with its length, the highest first) or stream (no
	// messages, bytes as they come). Default: lines.
	Framing string `yaml:"framing"`
	// MaxOutput is the longest line or message that the program may write, in
	// bytes; a longer one ends the socket with 1011, and a line in the log.
	// Default: 16m.
	MaxOutput Size `yaml:"max_output"`
	// Subprotocols are the subprotocols that the program speaks. The client's
	// first of them is agreed on, and told to the program as
	// WEBSOCKET_PROTOCOL. Default: none.
	Subprotocols []string `yaml:"subprotocols,omitempty"`
	// Chdir is the folder the program runs in. Default: with Command the
	// folder of the configuration file, with Dir the program's own, which is
	// what "" stands for.
	Chdir string `yaml:"chdir,omitempty"`
	// Max is how many processes of the route run at once. Default: 64.
	Max int `yaml:"max"`
	// CloseTimeout is how long a program may take to end by itself once its
	// standard input has ended, because the client is gone; then it gets
	// TERM, with all that it started. Default: 1s.
	CloseTimeout time.Duration `yaml:"close_timeout"`
	// StopTimeout is the time between TERM and KILL. Default: 5s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// PassAuthorization hands the Authorization field to the program as
	// HTTP_AUTHORIZATION, as for CGI. Default: false.
	PassAuthorization bool `yaml:"pass_authorization"`
	// WebSocket is how the client's connection is kept. Other than for a pool
	// the default of Origins is [same]: few programs would look at who asks.
	WebSocket `yaml:",inline"`
	// Queue bounds the clients that wait for a process.
	Queue `yaml:",inline"`
	// Environment is what programs see of the gateway's environment.
	Environment `yaml:",inline"`
	// Isolation is what programs may not do.
	Isolation `yaml:",inline"`
}

func (s *Socket) setDefaults() {
	*s = Socket{
		Framing:      "lines",
		MaxOutput:    16 << 20,
		Max:          64,
		CloseTimeout: time.Second,
		StopTimeout:  5 * time.Second,
		WebSocket:    defaultWebSocket(),
		Queue:        defaultQueue(),
	}
	s.Origins = []string{"same"}
}

// socket checks a route with a process for each WebSocket.
func (c *checker) socket(at string, s *Socket) {
	c.isolation(at, &s.Isolation)
	in := c.inside(s.Chroot)
	switch {
	case len(s.Command) == 0 && s.Dir == "":
		c.fault(at, "nothing says which program runs", "write command: [PROGRAM, ARGUMENT...], or dir: for a folder of programs")
	case len(s.Command) > 0 && s.Dir != "":
		c.fault(at, "command and dir are both given", "write exactly one of them")
	case s.Dir != "":
		s.Dir = c.abs(s.Dir)
		c.folder(at+".dir", s.Dir)
		if s.Chroot != "" {
			c.scriptsInside(at+".dir", &s.Dir, s.Chroot)
		}
	default:
		c.command(at+".command", s.Command, s.Chroot)
		if s.Chdir == "" {
			s.Chdir = "."
		}
	}
	if s.Dir == "" && len(s.Extensions) > 0 {
		c.fault(at+".extensions", "only a folder of programs has it", "write the interpreter first in command")
	}
	c.extensions(at+".extensions", s.Extensions, in)
	if s.Chdir != "" {
		s.Chdir = in.abs(s.Chdir)
		in.folder(at+".chdir", s.Chdir)
	}
	c.oneOf(at+".framing", s.Framing, "lines", "binary", "stream")
	c.positive(at+".max_output", int64(s.MaxOutput))
	if s.MaxOutput > maxMessage {
		c.fault(at+".max_output", fmt.Sprintf("%v is more than a message can have", s.MaxOutput), "write less than 4g")
	}
	for i, name := range s.Subprotocols {
		// A token, RFC 6455, section 4.1.
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
			c.fault(fmt.Sprintf("%s.subprotocols[%d]", at, i), fmt.Sprintf("%q is no name of a subprotocol", name), "letters, digits, dots and hyphens")
		}
	}
	c.positive(at+".max", int64(s.Max))
	if s.CloseTimeout < 0 {
		c.fault(at+".close_timeout", "the time is less than zero", "")
	}
	c.positive(at+".stop_timeout", int64(s.StopTimeout))
	c.websocket(at, &s.WebSocket)
	c.queue(at, &s.Queue)
	c.environment(at, in, &s.Environment)
}

// extensions checks how scripts are run by the end of their name.
func (c *checker) extensions(at string, interpreters map[string]string, in view) {
	for _, ext := range slices.Sorted(maps.Keys(interpreters)) {
		where := join(at, ext)
		c.extension(where, ext)
		program := interpreters[ext]
		if program == "" {
			continue
		}
		if found, ok := in.program(where, program); ok {
			interpreters[ext] = found
		}
	}
}

// targetSocket makes a route of a program or a folder for each WebSocket.
func (c *checker) targetSocket(run Run, route *Route) (kind, understood string, err error) {
	s := &Socket{}
	s.setDefaults()
	route.Socket = s
	info, err := os.Stat(run.Target)
	if err == nil && info.IsDir() {
		if len(run.Arguments) > 0 {
			return "", "", fault("the programs of a folder are given no arguments", "write the one program")
		}
		programs, err := executables(run.Target)
		if err != nil {
			return "", "", err
		}
		if len(programs) == 0 {
			return "", "", fault("the folder has no executable file", "chmod +x the programs")
		}
		s.Dir = run.Target
		c.names["sites[0].routes[0].socket.dir"] = run.Target
		return "socket", fmt.Sprintf("the folder %s of programs over WebSocket, such as /%s", run.Target, programs[0]), nil
	}
	program := run.Target
	if err == nil && !strings.Contains(program, "/") {
		program = "./" + program // a file that is here comes before $PATH
	}
	s.Command = append([]string{program}, run.Arguments...)
	c.names["sites[0].routes[0].socket.command"] = run.Target
	if err == nil && info.Mode()&0o111 == 0 {
		return "", "", fault("the file is not executable", "chmod +x it, or write its interpreter before it")
	}
	return "socket", "the program " + strings.Join(append([]string{filepath.Base(program)}, run.Arguments...), " ") + ", one process for each WebSocket", nil
}
