package config

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// site checks one site; hosts are the names of the sites before it, with
// their paths.
func (c *checker) site(at string, s *Site, hosts map[string]string) {
	names := s.Hosts
	if len(names) == 0 {
		names = []string{""}
	}
	for i, name := range names {
		where := fmt.Sprintf("%s.hosts[%d]", at, i)
		if name == "" && len(s.Hosts) == 0 {
			where = at
		} else {
			c.host(where, name)
			name = strings.ToLower(name)
			s.Hosts[i] = name
		}
		first, taken := hosts[name]
		switch {
		case taken && where == at:
			c.fault(at, "there are two default sites; "+first+" has no hosts either", "give one of them hosts")
		case taken:
			c.fault(where, fmt.Sprintf("the host %s stands here a second time; %s has it too", name, first), "")
		default:
			hosts[name] = at
		}
	}
	c.https(at, s)
	if len(s.Routes) == 0 {
		c.fault(at+".routes", "the site has no route", "write at least one, as in - {path: /, static: {dir: public}}")
	}
	paths := map[string]string{}
	for i, r := range s.Routes {
		if r != nil {
			c.route(fmt.Sprintf("%s.routes[%d]", at, i), r, paths)
		}
	}
}

// hostName is a name of the DNS or an IP address, as it can stand in a Host
// field: a wildcard is its whole first label.
var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$|^\[[0-9A-Fa-f:.]+\]$`)

func (c *checker) host(at, name string) {
	switch {
	case hostName.MatchString(name):
	case strings.Contains(name, "://"):
		c.fault(at, fmt.Sprintf("%q is a URL", name), "write the host name alone")
	case strings.Contains(name, ":"):
		c.fault(at, fmt.Sprintf("%q has a port", name), "write the host name alone; ports stand in listen")
	case strings.Contains(name, "*"):
		c.fault(at, fmt.Sprintf("%q has a * that is not its whole first part", name), "write *.example.org")
	default:
		c.fault(at, fmt.Sprintf("%q is no host name", name), "letters, digits, - and dots; other alphabets in their xn-- form")
	}
}

// route checks one route; paths are the routes of the site before it.
func (c *checker) route(at string, r *Route, paths map[string]string) {
	switch {
	case r.Path == "":
		c.fault(at+".path", "the route has no path", "write path: /")
	case !strings.HasPrefix(r.Path, "/"):
		c.fault(at+".path", fmt.Sprintf("%q does not start with a slash", r.Path), "write /"+r.Path)
	case strings.ContainsAny(r.Path, "?#*\x00\\"):
		c.fault(at+".path", fmt.Sprintf("%q has a character that a path prefix can't have", r.Path), "a path is a plain prefix, without patterns or a query")
	case path.Clean(r.Path) != strings.TrimSuffix(r.Path, "/") && r.Path != "/":
		c.fault(at+".path", fmt.Sprintf("%q has an empty segment, . or ..", r.Path), "write "+path.Clean(r.Path))
	default:
		r.Path = path.Clean(r.Path)
		if first, taken := paths[r.Path]; taken {
			c.fault(at+".path", fmt.Sprintf("the path %s stands here a second time; %s has it too", r.Path, first), "")
		}
		paths[r.Path] = at
	}
	c.handler(at, r)
}

// handler checks what answers on a route.
func (c *checker) handler(at string, r *Route) {
	var kinds []string
	for _, kind := range []string{"static", "cgi", "socket", "pool", "fastcgi"} {
		if c.written(at + "." + kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		message := "nothing says what answers here"
		if len(kinds) > 1 {
			message = "more than one thing answers here: " + strings.Join(kinds, ", ")
		}
		c.fault(at, message, "write exactly one of static, cgi, socket, pool, fastcgi")
	}
	if r.Static != nil {
		c.static(at+".static", r.Static)
	}
	if r.CGI != nil {
		c.cgi(at+".cgi", r.CGI)
	}
	if r.Socket != nil {
		c.socket(at+".socket", r.Socket)
	}
	if r.FastCGI != nil {
		c.fastcgi(at+".fastcgi", r.FastCGI)
	}
	if r.Sendfile != nil {
		c.sendfile(at+".sendfile", r)
	}
	if slices.Contains(kinds, "pool") {
		c.poolRoute(at, r)
		return
	}
	if c.written(at + ".root_path") {
		c.fault(at+".root_path", "only a route with pool has it", "")
	}
	if c.written(at + ".pass_authorization") {
		c.fault(at+".pass_authorization", "only a route with pool has it", "write it inside of cgi, socket or fastcgi")
	}
	if c.written(at + ".priority") {
		c.fault(at+".priority", "only a route with pool has it", "leave it out")
	}
}

func (c *checker) poolRoute(at string, r *Route) {
	if _, ok := c.cfg.Pools[r.Pool]; !ok {
		hint := "write it under pools, with its app"
		if len(c.cfg.Pools) > 0 {
			hint = suggest(r.Pool, slices.Sorted(maps.Keys(c.cfg.Pools)))
		}
		c.fault(at+".pool", fmt.Sprintf("there is no pool %q", r.Pool), hint)
	}
	if !c.written(at + ".pass_authorization") {
		r.PassAuthorization = true
	}
	if r.Priority == "" {
		r.Priority = "normal"
	}
	c.oneOf(at+".priority", r.Priority, "high", "normal", "low")
	if r.RootPath == "/" {
		r.RootPath = ""
	}
	if r.RootPath != "" && (!strings.HasPrefix(r.RootPath, "/") || path.Clean(r.RootPath) != strings.TrimSuffix(r.RootPath, "/")) {
		c.fault(at+".root_path", fmt.Sprintf("%q is no path", r.RootPath), "write it as in /app")
	}
	r.RootPath = strings.TrimSuffix(r.RootPath, "/")
}

func (c *checker) sendfile(at string, r *Route) {
	s := r.Sendfile
	switch {
	case r.Static != nil || r.Socket != nil:
		c.fault(at, "only a route with pool, cgi or fastcgi has it", "")
	case s.Pass && len(s.Roots)+len(s.Accel) > 0:
		c.fault(at+".pass", "what is passed on is not sent from a folder", "leave pass out, or roots and accel")
	case !s.Pass && len(s.Roots)+len(s.Accel) == 0:
		c.fault(at, "it names no folder", "write roots: with folders for X-Sendfile, or accel: for X-Accel-Redirect, as in {/internal/: /srv/files}")
	}
	for i := range s.Roots {
		c.served(fmt.Sprintf("%s.roots[%d]", at, i), &s.Roots[i])
	}
	for _, prefix := range slices.Sorted(maps.Keys(s.Accel)) {
		where, dir := join(at+".accel", prefix), s.Accel[prefix]
		if !strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/") || path.Clean(prefix) != strings.TrimSuffix(prefix, "/") && prefix != "/" {
			c.fault(where, fmt.Sprintf("%q is not the beginning of a path", prefix), "write it with a slash at both ends, as in /internal/")
		}
		c.served(where, &dir)
		s.Accel[prefix] = dir
	}
}

func (c *checker) static(at string, s *Static) {
	c.served(at+".dir", &s.Dir)
	c.index(at, s.Index)
}

// served checks a folder whose files are served as they are.
func (c *checker) served(at string, dir *string) {
	if *dir == "" {
		c.fault(at, "the folder is missing", "name one, as in ./public")
		return
	}
	*dir = c.abs(*dir)
	if c.folder(at, *dir) {
		c.published(at, *dir)
	}
}

func (c *checker) index(at string, index []string) {
	for i, name := range index {
		if name == "" || strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") {
			c.fault(fmt.Sprintf("%s.index[%d]", at, i), fmt.Sprintf("%q is no file name", name), "an index is the plain name of a file in the folder itself")
		}
	}
}

func (c *checker) cgi(at string, g *CGI) {
	c.isolation(at, &g.Isolation)
	in := c.inside(g.Chroot)
	switch {
	case g.Dir == "" && g.Script == "":
		c.fault(at, "nothing says which scripts run", "write dir: for a folder of scripts or script: for one")
	case g.Dir != "" && g.Script != "":
		c.fault(at, "dir and script are both given", "write exactly one of them")
	case g.Dir != "":
		g.Dir = c.abs(g.Dir)
		c.folder(at+".dir", g.Dir)
	default:
		g.Script = c.abs(g.Script)
		c.script(at, g)
	}
	switch {
	case g.Chroot == "":
	case g.Script != "":
		c.scriptsInside(at+".script", &g.Script, g.Chroot)
	default:
		c.scriptsInside(at+".dir", &g.Dir, g.Chroot)
	}
	c.extensions(at+".extensions", g.Extensions, in)
	if g.KeepBackground && g.Cgroup != nil {
		c.fault(at+".keep_background", "it can't be together with cgroup, which ends with the gateway and all that is in it", "leave one of them out")
	}
	c.index(at, g.Index)
	if g.Script != "" && len(g.Index) > 0 {
		c.fault(at+".index", "only a folder of scripts has an index", "")
	}
	if g.Chdir != "" {
		g.Chdir = in.abs(g.Chdir)
		in.folder(at+".chdir", g.Chdir)
	}
	c.positive(at+".timeout", int64(g.Timeout))
	c.positive(at+".max", int64(g.Max))
	c.queue(at, &g.Queue)
	c.environment(at, in, &g.Environment)
	c.positive(at+".stop_timeout", int64(g.StopTimeout))
	c.oneOf(at+".warm_preload", g.WarmPreload, "stdlib", "all", "none")
	c.positive(at+".warm_scripts", int64(g.WarmScripts))
}

// script checks the one program of a route.
func (c *checker) script(at string, g *CGI) {
	info, err := os.Stat(g.Script)
	switch {
	case os.IsNotExist(err):
		c.fault(at+".script", "there is no file "+g.Script, c.relativeHint(g.Script))
	case err != nil:
		c.fault(at+".script", "the script can't be read: "+err.Error(), "")
	case info.IsDir():
		c.fault(at+".script", g.Script+" is a folder", "write dir: for a folder of scripts")
	case info.Mode()&0o111 == 0 && g.Extensions[filepath.Ext(g.Script)] == "":
		c.fault(at+".script", g.Script+" is not executable", "chmod +x it, or name its interpreter in extensions")
	}
}

// scriptsInside checks that the scripts, which the gateway finds from outside,
// lie inside of the folder that they will take for /.
func (c *checker) scriptsInside(at string, path *string, chroot string) {
	real, err := filepath.EvalSymlinks(*path)
	if *path == "" || err != nil {
		return // reported already
	}
	if rel, err := filepath.Rel(chroot, real); err != nil || !filepath.IsLocal(rel) {
		c.fault(at, real+" is not inside of the chroot, "+chroot, "write the path as it is outside, of something inside")
		return
	}
	*path = real
}

func (c *checker) extension(at, ext string) {
	if len(ext) < 2 || ext[0] != '.' || strings.ContainsAny(ext[1:], "./\x00") {
		c.fault(at, fmt.Sprintf("%q is no extension", ext), "write the dot and what follows it, as in .pl")
	}
}

func (c *checker) fastcgi(at string, f *FastCGI) {
	if f.Address == (Address{}) && !c.written(at+".address") {
		c.fault(at, "the address is missing", "write address: unix:PATH or HOST:PORT")
	}
	c.reachable(at+".address", &f.Address)
	c.fastcgiRoot(at, f)
	for _, name := range slices.Sorted(maps.Keys(f.Params)) {
		where := join(at+".params", name)
		if !envName.MatchString(name) {
			c.fault(where, fmt.Sprintf("%q is no name for a parameter", name), "letters, digits and _, and no digit first")
		} else if strings.HasPrefix(name, "HTTP_") || name == "CONTENT_LENGTH" {
			c.fault(where, name+" is what the request itself says", "choose another name")
		}
	}
	c.positive(at+".max_connections", int64(f.MaxConnections))
	c.positive(at+".connect_timeout", int64(f.ConnectTimeout))
	c.positive(at+".timeout", int64(f.Timeout))
	c.queue(at, &f.Queue)
}

// fastcgiRoot checks and completes what depends on root.
func (c *checker) fastcgiRoot(at string, f *FastCGI) {
	if f.Root == "" {
		if len(f.Index) > 0 {
			c.fault(at+".index", "it needs root", "write root: with the folder of the scripts")
		}
		if len(f.Extensions) > 0 {
			c.fault(at+".extensions", "it needs root", "write root: with the folder of the scripts")
		}
		if f.Static {
			c.fault(at+".static", "it needs root", "write root: with the folder of the files")
		}
		return
	}
	if !c.written(at + ".index") {
		f.Index = []string{"index.php"}
	}
	if !c.written(at + ".extensions") {
		f.Extensions = []string{".php"}
	}
	if !c.written(at + ".static") {
		f.Static = true
	}
	f.Root = c.abs(f.Root)
	if c.folder(at+".root", f.Root) && f.Static {
		c.published(at+".root", f.Root)
	}
	c.index(at, f.Index)
	for i, ext := range f.Extensions {
		c.extension(fmt.Sprintf("%s.extensions[%d]", at, i), ext)
	}
	if len(f.Extensions) == 0 {
		c.fault(at+".extensions", "no file would be a script", "leave it out for [.php]")
	}
}
