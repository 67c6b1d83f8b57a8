package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// checker checks a decoded configuration and completes it: it makes paths
// absolute and fills in the defaults that depend on other values.
type checker struct {
	cfg *Config
	// dir is what relative paths are relative to; file is the configuration
	// file, which must not be served, or empty.
	dir, file string
	// whole is the place of faults that have none of their own.
	whole position
	// origins are the places of the values that were written, by path.
	origins map[string]position
	// names are the flags and variables that set a value, by path.
	names  map[string]string
	faults Faults
}

// written reports whether a value was written rather than a default.
func (c *checker) written(path string) bool {
	_, ok := c.origins[path]
	return ok
}

// fault reports what is wrong with a value, at its place or at that of what
// holds it.
func (c *checker) fault(path, message, hint string) {
	where, label := c.whole, path
	for p := path; p != ""; p = parent(p) {
		if o, ok := c.origins[p]; ok {
			where = o
			break
		}
	}
	for p := path; p != ""; p = parent(p) {
		if name, ok := c.names[p]; ok {
			label = name
			break
		}
	}
	c.faults = append(c.faults, at(fault(message, hint), where, label))
}

// invalid reports a value that could not be read.
func (c *checker) invalid(path string, err error) {
	var f *Fault
	if !errors.As(err, &f) {
		f = &Fault{Message: err.Error()}
	}
	c.fault(path, f.Message, f.Hint)
}

// parent is the path of what holds a value.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// check goes through the whole configuration.
func (c *checker) check() {
	cfg := c.cfg
	c.listen()
	c.log()
	c.limits()
	c.oneOf("http1", cfg.HTTP1, "fast", "net")
	c.positive("http2.max_concurrent_streams", int64(cfg.HTTP2.MaxConcurrentStreams))
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		if p := cfg.Pools[name]; p != nil {
			c.pool(join("pools", name), p)
		}
	}
	c.programs()
	if len(cfg.Sites) == 0 {
		c.fault("sites", "there is nothing to serve", "write sites: with at least one route, as in - routes: [{path: /, static: {dir: public}}]")
	}
	hosts := map[string]string{}
	for i, s := range cfg.Sites {
		if s != nil {
			c.site(fmt.Sprintf("sites[%d]", i), s, hosts)
		}
	}
}

func (c *checker) listen() {
	if len(c.cfg.Listen) == 0 {
		c.fault("listen", "there is no address to listen on", "leave listen out for 127.0.0.1:8000")
	}
	seen := map[Address]bool{}
	for i := range c.cfg.Listen {
		e, path := &c.cfg.Listen[i], fmt.Sprintf("listen[%d]", i)
		c.scheme(path, e)
		a := &e.Address
		if a.Network == "unix" {
			a.Address = c.abs(a.Address)
			c.folder(path, filepath.Dir(a.Address))
			c.socketLength(path, a.Address)
		}
		if *a != (Address{}) && seen[*a] && !strings.HasSuffix(a.Address, ":0") {
			c.fault(path, fmt.Sprintf("the address %v stands here a second time", a), "")
		}
		seen[*a] = true
	}
}

// socketLength checks the limit of sockaddr_un, which the kernel reports as no
// more than "invalid argument".
func (c *checker) socketLength(path, address string) {
	if len(address) > 107 {
		c.fault(path, fmt.Sprintf("the path of the socket has %d bytes, and no more than 107 are possible", len(address)), "")
	}
}

// reachable checks and completes an address that is to be connected to. None is
// no fault.
func (c *checker) reachable(path string, a *Address) {
	switch a.Network {
	case "fd":
		c.fault(path, "a descriptor can't be connected to", "write unix:PATH or HOST:PORT")
	case "unix":
		// The socket itself may appear later, with the program.
		a.Address = c.abs(a.Address)
		c.socketLength(path, a.Address)
	case "tcp":
		if strings.HasPrefix(a.Address, ":") || strings.HasSuffix(a.Address, ":0") {
			c.fault(path, fmt.Sprintf("%q can't be connected to", a.Address), "write HOST:PORT")
		}
	}
}

func (c *checker) log() {
	l := &c.cfg.Log
	if l.Level == "warning" { // Python's name for it
		l.Level = "warn"
	}
	c.oneOf("log.level", l.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", l.Format, "console", "json")
	c.oneOf("log.access_format", l.AccessFormat, "combined", "json")
	switch l.Slow {
	case "-":
	case "":
		c.fault("log.slow", "the value is empty", `write "-" or a file`)
	default:
		l.Slow = c.abs(l.Slow)
		c.folder("log.slow", filepath.Dir(l.Slow))
	}
	switch l.Access {
	case "-", "off":
	case "":
		c.fault("log.access", "the value is empty", `write "-", off or a file`)
	default:
		l.Access = c.abs(l.Access)
		c.folder("log.access", filepath.Dir(l.Access))
	}
}

func (c *checker) limits() {
	l := &c.cfg.Limits
	c.positive("limits.max_body", int64(l.MaxBody))
	c.positive("limits.body_memory", int64(l.BodyMemory))
	c.positive("limits.spool_quota", int64(l.SpoolQuota))
	c.positive("limits.header_timeout", int64(l.HeaderTimeout))
	c.positive("limits.header_bytes", int64(l.HeaderBytes))
	c.positive("limits.header_fields", int64(l.HeaderFields))
	c.positive("limits.body_timeout", int64(l.BodyTimeout))
	c.positive("limits.idle_timeout", int64(l.IdleTimeout))
	c.positive("limits.write_timeout", int64(l.WriteTimeout))
	c.positive("limits.max_connections", int64(l.MaxConnections))
	c.positive("limits.websocket_memory", int64(l.WebSocketMemory))
	if l.SpoolDir == "" {
		l.SpoolDir = os.TempDir()
	}
	l.SpoolDir = c.abs(l.SpoolDir)
	c.folder("limits.spool_dir", l.SpoolDir)
}

// positive reports a zero that would switch off what may not be switched off.
func (c *checker) positive(path string, n int64) {
	if n <= 0 {
		c.fault(path, "the value must be more than 0", "every limit and every wait has an end; write a large one instead")
	}
}

func (c *checker) oneOf(path, value string, known ...string) {
	if !slices.Contains(known, value) {
		c.fault(path, fmt.Sprintf("%q is not known", value), "write "+strings.Join(known, ", "))
	}
}

func (c *checker) queue(path string, q *Queue) {
	c.positive(path+".queue_timeout", int64(q.QueueTimeout))
}

var (
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	envMask = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)?\*?$`)
)

func (c *checker) environment(path string, in view, e *Environment) {
	for _, name := range slices.Sorted(maps.Keys(e.Env)) {
		value := e.Env[name]
		if !envName.MatchString(name) {
			c.fault(join(path+".env", name), fmt.Sprintf("%q is no name for a variable", name), "letters, digits and _, and no digit first")
		}
		if strings.HasPrefix(value, "./") || strings.HasPrefix(value, "../") {
			e.Env[name] = in.abs(value)
		}
	}
	for i, name := range e.PassEnv {
		if name == "" || !envMask.MatchString(name) {
			hint := "write NAME, or PREFIX* for all that start so"
			if strings.Contains(name, "=") {
				hint = "write env to set a variable"
			}
			c.fault(fmt.Sprintf("%s.pass_env[%d]", path, i), fmt.Sprintf("%q is no name for a variable", name), hint)
		}
	}
}

// abs makes a path absolute; "" stays empty.
func (c *checker) abs(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.dir, path)
}

// folder reports a path that is not a folder.
func (c *checker) folder(at, dir string) bool { return c.inside("").folder(at, dir) }

// relativeHint reminds of the rule for relative paths, unless there is none to
// remember.
func (c *checker) relativeHint(path string) string {
	if c.file == "" || !strings.HasPrefix(path, c.dir+"/") {
		return ""
	}
	return "paths are relative to the folder of the configuration file"
}

// published reports a folder of files to serve that holds the configuration
// itself, whose environment may have secrets.
func (c *checker) published(path, dir string) {
	if c.file == "" {
		return
	}
	rel, err := filepath.Rel(dir, c.file)
	if err == nil && filepath.IsLocal(rel) {
		c.fault(path, fmt.Sprintf("this would publish %s itself", filepath.Base(c.file)), "serve a folder that does not hold it, such as ./public")
	}
}
