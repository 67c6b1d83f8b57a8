package config

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// pool checks one pool and finds its interpreter.
func (c *checker) pool(at string, p *Pool) {
	in := c.surroundings(at, &p.Isolation, &p.Chdir)
	beside := p.Chdir
	if p.App == "" {
		c.fault(at+".app", "the application is missing", "write app: module:callable, or a .py or .wsgi file")
	} else if file, attr, ok := appFile(p.App); ok {
		file = in.abs(file)
		beside = filepath.Dir(file)
		p.App = file + attr
		if info, err := in.stat(file); err != nil || info.IsDir() {
			c.fault(at+".app", "there is no file "+file, in.hint(file))
		}
	} else if !appModule.MatchString(p.App) {
		c.fault(at+".app", fmt.Sprintf("%q is no application", p.App), "write module:callable, module:factory(), or a .py or .wsgi file")
	}
	c.python(at+".python", p, in, beside)
	if p.Workers.auto {
		p.Workers = machineWorkers(p.Threads, p.CPUs)
		// A number that fits one machine is no fault on a smaller one.
		most := p.Workers.Max
		if p.Workers.Min == most {
			most = 0
		}
		p.MinSpare, p.MaxSpare = min(p.MinSpare, most), min(p.MaxSpare, most)
	}
	c.positive(at+".workers", int64(p.Workers.Max))
	c.positive(at+".threads", int64(p.Threads))
	c.oneOf(at+".c_extension", p.CExtension, "auto", "require", "off")
	c.asgi(at, p)
	c.positive(at+".timeout", int64(p.Timeout))
	c.positive(at+".start_timeout", int64(p.StartTimeout))
	if p.MaxRequestsJitter > 0 && p.MaxRequests == 0 {
		c.fault(at+".max_requests_jitter", "it does nothing without max_requests", "write max_requests too")
	}
	c.positive(at+".idle_timeout", int64(p.IdleTimeout))
	c.positive(at+".stop_timeout", int64(p.StopTimeout))
	c.spare(at, p)
	c.memory(at, p)
	if u, err := url.ParseRequestURI(p.WarmUp); p.WarmUp != "" && (!strings.HasPrefix(p.WarmUp, "/") || err != nil || u.Host != "") {
		c.fault(at+".warm_up", fmt.Sprintf("%q is not a path", p.WarmUp), "it begins with a slash, as in /health, and its special characters are escaped, as %20")
	}
	c.reload(at, p)
	c.after(at, p.After)
	c.websocket(at+".websocket", &p.WebSocket)
	c.queue(at, &p.Queue)
	c.environment(at, in, &p.Environment)
}

// maxConcurrency is how many requests one connection can carry: their numbers
// have 16 bits, and 0 is none.
const maxConcurrency = 65535

// asgi checks what is about the interface of the application, and about
// ASGI alone.
func (c *checker) asgi(at string, p *Pool) {
	c.oneOf(at+".interface", p.Interface, "auto", "wsgi", "asgi")
	c.oneOf(at+".loop", p.Loop, "auto", "asyncio", "uvloop")
	c.oneOf(at+".lifespan", p.Lifespan, "auto", "on", "off")
	c.positive(at+".concurrency", int64(p.Concurrency))
	if p.Concurrency > maxConcurrency {
		c.fault(at+".concurrency", fmt.Sprintf("one worker has at most %d requests at a time", maxConcurrency), "more workers have more")
	}
	// A default that was written changes nothing, as in what YAML has printed.
	var d Pool
	d.setDefaults()
	switch p.Interface {
	case "wsgi":
		for _, s := range []struct {
			key     string
			changed bool
		}{{".loop", p.Loop != d.Loop}, {".lifespan", p.Lifespan != d.Lifespan}, {".concurrency", p.Concurrency != d.Concurrency}} {
			if s.changed {
				c.fault(at+s.key, "it is about ASGI, and the interface is wsgi", "leave it out")
			}
		}
	case "asgi":
		if p.Threads != d.Threads {
			c.fault(at+".threads", "it is about WSGI, and the interface is asgi", "write concurrency, or leave it out")
		}
	}
}

// reload checks what a pool in development asks for.
func (c *checker) reload(at string, p *Pool) {
	if p.Reload && p.Preload {
		c.fault(at+".preload", "it does nothing with reload, which has each worker load the application anew", "leave one of them out")
	}
	if p.Reload && p.Chroot != "" {
		c.fault(at+".reload", "it does not look into a chroot", "leave chroot out while you develop")
	}
	if len(p.ReloadInclude) > 0 && !p.Reload {
		c.fault(at+".reload_include", "it does nothing without reload", "write reload: true too")
	}
	for i, pattern := range p.ReloadInclude {
		if !doublestar.ValidatePattern(pattern) {
			c.fault(fmt.Sprintf("%s.reload_include[%d]", at, i), fmt.Sprintf("%q is no pattern", pattern),
				"write *, ** or ?; [a-z] and {a,b} need their ends")
		}
		if !filepath.IsAbs(pattern) {
			p.ReloadInclude[i] = filepath.Join(literally.Replace(c.dir), pattern)
		}
	}
}

// literally writes a path as the pattern that matches it alone.
var literally = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "{", `\{`)

// spare checks how many idle workers are kept.
func (c *checker) spare(at string, p *Pool) {
	if p.MaxSpare < p.MinSpare {
		if c.written(at + ".max_spare") {
			c.fault(at+".max_spare", fmt.Sprintf("it is less than min_spare, %d", p.MinSpare), "")
		}
		p.MaxSpare = p.MinSpare
	}
	switch {
	case p.MaxSpare == 0:
	case p.Workers.Min == p.Workers.Max:
		key := ".min_spare"
		if p.MinSpare == 0 {
			key = ".max_spare"
		}
		c.fault(at+key, "a pool of a fixed size has no spare workers", "write workers as MIN:MAX")
	case p.MinSpare > p.Workers.Max:
		c.fault(at+".min_spare", fmt.Sprintf("it is more than all workers there may be, %d", p.Workers.Max), "")
	}
}

// memory checks the limits of memory against each other.
func (c *checker) memory(at string, p *Pool) {
	if p.MemoryMeasure == "" {
		p.MemoryMeasure = "rss"
		if p.Preload {
			p.MemoryMeasure = "pss"
		}
	}
	c.oneOf(at+".memory_measure", p.MemoryMeasure, "rss", "pss")
	if p.HardMemory > 0 && p.HardMemory < p.MaxMemory {
		c.fault(at+".hard_memory", fmt.Sprintf("it is less than max_memory, %v", p.MaxMemory), "the hard limit is the greater one")
	}
}

const identifier = `[\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*`

var (
	// appModule is module:attribute or module:factory().
	appModule = regexp.MustCompile(`^` + identifier + `:` + identifier + `(?:\(\))?$`)
	// appPath is a file, with or without :attribute.
	appPath = regexp.MustCompile(`^(.+\.(?:py|wsgi))((?::` + identifier + `(?:\(\))?)?)$`)
)

// AppFile is the file of an application that is given as one, else "".
func (p *Pool) AppFile() string {
	file, _, _ := appFile(p.App)
	return file
}

// appFile splits an application that is given as a file into the file and its
// attribute, colon included. myapp.wsgi:application is not one: wsgi is what
// Django calls the module.
func appFile(app string) (file, attr string, ok bool) {
	m := appPath.FindStringSubmatch(app)
	if m == nil || m[2] != "" && strings.HasSuffix(m[1], ".wsgi") && !strings.Contains(app, "/") {
		return "", "", false
	}
	return m[1], m[2], true
}

// python finds the interpreter of a pool whose application lies in the folder
// beside.
func (c *checker) python(at string, p *Pool, in view, beside string) {
	if p.Python != "" {
		if found, ok := in.program(at, p.Python); ok {
			p.Python = found
		}
		return
	}
	var tried []string
	if env := os.Getenv("VIRTUAL_ENV"); env != "" && in.root == "" {
		if abs, err := filepath.Abs(env); err == nil { // it is the shell's, and so of the current folder
			tried = append(tried, abs)
		}
	}
	tried = append(tried, filepath.Join(beside, ".venv"), filepath.Join(beside, "venv"))
	for _, env := range tried {
		python := filepath.Join(env, "bin", "python")
		if in.executable(python) {
			p.Python = python
			return
		}
	}
	found, err := in.lookPath("python3")
	if err != nil {
		c.fault(at, "there is no Python: neither a virtual environment in "+strings.Join(tried, " or ")+" nor python3 in $PATH", in.andChroot("name the interpreter with python"))
		return
	}
	p.Python = found
}
