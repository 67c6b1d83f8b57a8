package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Run is a command line that hosts one thing.
type Run struct {
	// Target is what to host: module:callable or module:factory(), a Python
	// file, a folder of CGI scripts, one CGI script, fcgi://HOST:PORT or
	// fcgi+unix:PATH.
	Target string
	// Interface says what the target is: cgi, wsgi, asgi, or websocket for a
	// program, or a folder of such, of which each WebSocket gets a process. Empty or auto looks at
	// a file: .wsgi is a Python application, and so is .py unless it is
	// executable and starts with #!; any other executable file is a CGI
	// script. Which of WSGI and ASGI a Python application is then shows
	// when it has been imported.
	Interface string
	// Arguments are of the program that Target is. Only with the interface
	// websocket.
	Arguments []string
	// Static are folders to serve beside the target, each as URL=DIR.
	Static []string
	// Settings are values over the defaults.
	Settings []Setting
}

// targetPool is the name of the pool of a Run.
const targetPool = "app"

// ForTarget makes the configuration of a command line. Relative paths are
// relative to the current folder. understood says in one line how the target
// was read. The error is of type Faults, whose paths are the names of the
// settings.
func ForTarget(run Run) (cfg *Config, understood string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, "", Faults{at(err, position{}, "")}
	}
	cfg = Default()
	c := &checker{cfg: cfg, dir: dir, origins: map[string]position{}, names: map[string]string{}}
	route := &Route{Path: "/"}
	site := &Site{Routes: []*Route{route}}
	cfg.Sites = []*Site{site}
	kind, understood, err := c.target(run, route)
	if err != nil {
		return nil, "", Faults{at(err, position{}, run.Target)}
	}
	c.statics(run.Static, site)

	// Each start of a key, with the value it stands for and its path.
	places := map[string]place{
		"site":  {reflect.ValueOf(site).Elem(), "sites[0]"},
		"route": {reflect.ValueOf(route).Elem(), "sites[0].routes[0]"},
	}
	switch kind {
	case "pool":
		places[kind] = place{reflect.ValueOf(cfg.Pools[targetPool]).Elem(), "pools." + targetPool}
	case "cgi":
		places[kind] = place{reflect.ValueOf(route.CGI).Elem(), "sites[0].routes[0].cgi"}
	case "socket":
		places[kind] = place{reflect.ValueOf(route.Socket).Elem(), "sites[0].routes[0].socket"}
	case "fastcgi":
		places[kind] = place{reflect.ValueOf(route.FastCGI).Elem(), "sites[0].routes[0].fastcgi"}
	}
	c.origins["sites[0].routes[0]."+kind] = position{}
	for _, s := range run.Settings {
		c.set(s, kind, places)
	}
	if site.TLS != nil {
		// Whoever gives a certificate wants it used, whatever the address.
		for i := range cfg.Listen {
			if cfg.Listen[i].Scheme == "" {
				cfg.Listen[i].Scheme = "https"
			}
		}
	}
	if cfg, err = c.finish(); err != nil {
		return nil, "", err
	}
	return cfg, understood, nil
}

// target says what the target is: it fills in the route and the pool, and
// returns the route's kind: pool, cgi, socket or fastcgi.
func (c *checker) target(run Run, route *Route) (kind, understood string, err error) {
	target := run.Target
	if rest, ok := strings.CutPrefix(target, "fcgi://"); ok {
		return c.targetFastCGI(run, route, strings.TrimSuffix(rest, "/"))
	}
	if rest, ok := strings.CutPrefix(target, "fcgi+unix:"); ok {
		return c.targetFastCGI(run, route, "unix:"+rest)
	}
	switch run.Interface {
	case "auto":
		run.Interface = ""
	case "", "wsgi", "asgi", "cgi":
	case "websocket":
		return c.targetSocket(run, route)
	default:
		return "", "", fault(fmt.Sprintf("%q is no interface", run.Interface), "write --interface wsgi, asgi, cgi or websocket")
	}
	if info, err := os.Stat(target); err == nil {
		if info.IsDir() {
			return c.targetFolder(run, route)
		}
		return c.targetFile(run, route, info)
	}
	if file, _, ok := appFile(target); ok {
		// A file with :callable, or one that is not there.
		if _, err := os.Stat(file); err != nil {
			return "", "", fault("there is no file "+file+" in "+c.dir, "")
		}
		if run.Interface == "cgi" {
			return "", "", fault("a CGI script has no callable", "write "+file+" alone")
		}
		return c.targetPython(run, route, target)
	}
	if appModule.MatchString(target) {
		if run.Interface == "cgi" {
			return "", "", fault("a Python module is not a CGI script", "write the path of a script")
		}
		return c.targetPython(run, route, target)
	}
	return "", "", fault("there is no such file or folder in "+c.dir+", and it is no module:callable", c.targetHint(target))
}

// targetHint guesses what a target that is nothing was meant to be.
func (c *checker) targetHint(target string) string {
	module, rest, called := strings.Cut(target, ":")
	switch {
	case strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://"):
		return "HTTP servers can't be a target"
	case strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "/") && strings.HasSuffix(target, ".sock"):
		return "for a FastCGI application write fcgi+unix:PATH"
	case called && strings.Contains(rest, "("):
		return "a factory is called without arguments: " + module + ":factory()"
	}
	if _, err := os.Stat(strings.ReplaceAll(target, ".", "/") + ".py"); err == nil {
		return fmt.Sprintf("for the Python application write %s:app, with the name of its callable", target)
	}
	return "write module:callable, a Python file, a folder of CGI scripts, a script, fcgi://HOST:PORT or fcgi+unix:PATH"
}

func (c *checker) targetFastCGI(run Run, route *Route, address string) (kind, understood string, err error) {
	if run.Interface != "" {
		return "", "", fault("--interface is about files, and this is an address", "leave it out")
	}
	f := &FastCGI{}
	f.setDefaults()
	if err := f.Address.UnmarshalText([]byte(address)); err != nil {
		return "", "", err
	}
	route.FastCGI = f
	c.names["sites[0].routes[0].fastcgi.address"] = run.Target
	return "fastcgi", "the FastCGI application at " + f.Address.String(), nil
}

func (c *checker) targetPython(run Run, route *Route, app string) (kind, understood string, err error) {
	p := &Pool{}
	p.setDefaults()
	p.App = app
	if run.Interface != "" {
		p.Interface = run.Interface
		c.origins["pools."+targetPool+".interface"] = position{}
		c.names["pools."+targetPool+".interface"] = "--interface"
	}
	c.cfg.Pools = map[string]*Pool{targetPool: p}
	c.names["pools."+targetPool+".app"] = app
	route.Pool = targetPool
	return "pool", "the " + pythonName(run.Interface) + " application " + app, nil
}

// pythonName is what a Python application of an interface is called.
func pythonName(iface string) string {
	if iface == "" {
		return "Python"
	}
	return strings.ToUpper(iface)
}

func (c *checker) targetFolder(run Run, route *Route) (kind, understood string, err error) {
	if run.Interface == "wsgi" || run.Interface == "asgi" {
		return "", "", fault("a folder is not a Python application", "write module:callable, with --chdir for the folder")
	}
	scripts, err := executables(run.Target)
	if err != nil {
		return "", "", err
	}
	if len(scripts) == 0 {
		return "", "", fault("the folder has no executable file, and so no CGI script", "chmod +x the scripts; for a Python application write module:callable and --chdir "+run.Target)
	}
	g := &CGI{}
	g.setDefaults()
	g.Dir = c.abs(run.Target)
	route.CGI = g
	return "cgi", fmt.Sprintf("the folder %s of CGI scripts, such as /%s", run.Target, scripts[0]), nil
}

// executables are the names of the executable files of a folder.
func executables(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (c *checker) targetFile(run Run, route *Route, info os.FileInfo) (kind, understood string, err error) {
	ext, runs := filepath.Ext(run.Target), info.Mode()&0o111 != 0
	cgi := run.Interface == "cgi"
	if run.Interface == "" {
		switch ext {
		case ".wsgi":
		case ".py":
			cgi = runs && hasInterpreterLine(run.Target)
		case ".php":
			return "", "", fault("PHP runs behind PHP-FPM", "write fcgi+unix:PATH or fcgi://HOST:PORT with --root "+filepath.Dir(run.Target))
		default:
			cgi = true
		}
	}
	if !cgi {
		if ext != ".py" && ext != ".wsgi" {
			return "", "", fault("a file with a Python application ends in .py or .wsgi", "write module:callable")
		}
		kind, _, err = c.targetPython(run, route, c.abs(run.Target))
		return kind, "the " + pythonName(run.Interface) + " file " + run.Target, err
	}
	if !runs {
		return "", "", fault("the file is not executable", "chmod +x it to run it as a CGI script")
	}
	g := &CGI{}
	g.setDefaults()
	g.Script = c.abs(run.Target)
	route.CGI = g
	return "cgi", "the CGI script " + run.Target + ", for every path", nil
}

func hasInterpreterLine(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	start := make([]byte, 2)
	n, _ := f.Read(start)
	return bytes.Equal(start[:n], []byte("#!"))
}

// statics adds a route for each URL=DIR.
func (c *checker) statics(statics []string, site *Site) {
	for _, s := range statics {
		path := fmt.Sprintf("sites[0].routes[%d]", len(site.Routes))
		c.names[path] = "--static"
		url, dir, ok := strings.Cut(s, "=")
		if !ok {
			c.fault(path, fmt.Sprintf("%q is not URL=DIR", s), "write it as in /static=./public")
			continue
		}
		st := &Static{Dir: dir}
		st.setDefaults()
		site.Routes = append(site.Routes, &Route{Path: url, Static: st})
		for _, key := range []string{".static", ".path", ".static.dir"} {
			c.origins[path+key] = position{}
		}
	}
}
