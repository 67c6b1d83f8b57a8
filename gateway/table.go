package gateway

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gatecrew/gateway/backend"
	"gatecrew/gateway/config"
	"gatecrew/gateway/sendfile"
	"gatecrew/gateway/site"
	"gatecrew/gateway/static"
	"gatecrew/gateway/websocket"
	"gatecrew/procpool"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// newTable makes the sites and routes of a configuration.
func newTable(cfg *config.Config, apps *applications, software string) (*site.Table, error) {
	var sites []*site.Site
	var failed error
	cache := static.NewCache(int64(cfg.Limits.FileCache))
	for _, s := range cfg.Sites {
		made := &site.Site{Hosts: s.Hosts}
		if err := secure(made, s); err != nil {
			failed = errors.Join(failed, fmt.Errorf("gateway: %w", err))
		}
		for _, r := range s.Routes {
			route, err := newRoute(r, cfg.Pools[r.Pool], apps, cache)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("gateway: route %s: %w", r.Path, err))
				continue
			}
			route.Target.Software = software
			made.Routes = append(made.Routes, route)
		}
		sites = append(sites, made)
	}
	table := site.NewTable(sites)
	if failed != nil {
		table.Close()
		return nil, failed
	}
	return table, nil
}

func newRoute(c *config.Route, pool *config.Pool, apps *applications, cache *static.Cache) (*site.Route, error) {
	r := &site.Route{Prefix: strings.TrimSuffix(c.Path, "/")}
	if s := c.Sendfile; s != nil {
		var err error
		if r.Sendfile, err = sendfile.New(sendfile.Options{Roots: s.Roots, Accel: s.Accel, Pass: s.Pass}); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Static != nil:
		r.Name, r.Quick = "static "+c.Path, true
		files, err := static.New(static.Options{Dir: c.Static.Dir, Index: c.Static.Index, Cache: cache})
		r.Files = files
		return r, err
	case c.CGI != nil:
		return r, useCGI(r, c.CGI, apps, c.Path)
	case c.Socket != nil:
		return r, useSocket(r, c.Socket, apps, c.Path)
	case c.FastCGI != nil:
		return r, useFastCGI(r, c.FastCGI, apps, cache)
	}
	app, ok := apps.local[c.Pool]
	if !ok {
		return nil, fmt.Errorf("there is no pool %q", c.Pool)
	}
	r.Name = "pool " + c.Pool
	own := *app
	own.Priority = priorities[c.Priority]
	r.Backend = apps.before(c.Pool, &own)
	r.Quick = r.Backend == backend.Backend(&own) // what stands before it in development looks into requests
	r.RootPath = c.RootPath
	r.Target.PassAuthorization = c.PassAuthorization
	r.Bodies, r.ReplayIdempotent = own.Bodies, app.ReplayIdempotent
	r.WebSocket = webSocket(&pool.WebSocket)
	r.Sockets = func() bool { return own.Interface.String() != backend.WSGI }
	return r, nil
}

// webSocket is how a route keeps WebSocket connections.
func webSocket(c *config.WebSocket) *websocket.Options {
	o := &websocket.Options{MaxMessage: int64(c.MaxMessage), PingInterval: c.PingInterval, PingTimeout: c.PingTimeout,
		MaxAge: c.MaxAge, IdleTimeout: c.IdleTimeout, Compression: c.Compression}
	if !slices.Contains(c.Origins, "*") {
		o.Origins = c.Origins
	}
	return o
}

// priorities are the classes by their names in the configuration.
var priorities = map[string]procpool.Priority{"high": procpool.High, "normal": procpool.Normal, "low": procpool.Low}

// useCGI makes r a route of scripts that run once per request.
func useCGI(r *site.Route, c *config.CGI, apps *applications, path string) error {
	r.Name = "cgi " + path
	scripts, err := apps.cgi(r.Name, c)
	if err != nil {
		return err
	}
	r.Backend = scripts
	r.Script, r.ReplayIdempotent = true, false
	if !c.BufferRequests {
		r.Bodies = backend.Sized
	}
	r.Target.PassAuthorization = c.PassAuthorization
	if c.Script != "" {
		r.Target.ScriptFilename = c.Script
		return nil
	}
	root, dir, err := openRoot(c.Dir)
	if err != nil {
		return err
	}
	r.Target.DocumentRoot = dir
	r.Scripts = &cgi.Resolver{Root: root, Prefix: r.Prefix, Index: c.Index, Extensions: c.Extensions}
	return nil
}

// useSocket makes r a route with a process for each WebSocket.
func useSocket(r *site.Route, c *config.Socket, apps *applications, path string) error {
	r.Name = "socket " + path
	programs, err := apps.socket(r.Name, c)
	if err != nil {
		return err
	}
	r.Backend, r.OnlySockets, r.WebSocket = programs, true, webSocket(&c.WebSocket)
	r.Target.PassAuthorization = c.PassAuthorization
	if c.Dir == "" {
		return nil
	}
	root, dir, err := openRoot(c.Dir)
	if err != nil {
		return err
	}
	r.Target.DocumentRoot = dir
	r.Scripts = &cgi.Resolver{Root: root, Prefix: r.Prefix, Extensions: c.Extensions}
	return nil
}

// useFastCGI makes r a route to an application that runs elsewhere.
func useFastCGI(r *site.Route, c *config.FastCGI, apps *applications, cache *static.Cache) (err error) {
	r.Name = "fastcgi " + c.Address.String()
	r.Backend, r.Quick = apps.fastcgi(c), true
	if !c.BufferRequests {
		r.Bodies = backend.Sized
	}
	r.ReplayIdempotent = true
	r.Target.PassAuthorization = c.PassAuthorization
	for _, name := range slices.Sorted(maps.Keys(c.Params)) {
		r.Target.Extra = append(r.Target.Extra, protocol.Param{Name: name, Value: c.Params[name]})
	}
	if c.Root == "" {
		return nil
	}
	root, dir, err := openRoot(c.Root)
	if err != nil {
		return err
	}
	extensions := map[string]string{}
	for _, e := range c.Extensions {
		extensions[e] = ""
	}
	r.Target.DocumentRoot = dir
	r.Scripts = &cgi.Resolver{Root: root, Prefix: r.Prefix, Index: c.Index, Extensions: extensions, Remote: true}
	if c.Static {
		// The source of a script is never served as a file.
		r.Files, err = static.New(static.Options{Dir: dir, Deny: c.Extensions, Cache: cache})
	}
	return err
}

// openRoot opens a folder by its real path, which scripts are told, so that
// what they are told stays true when a link is changed.
func openRoot(dir string) (*os.Root, string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(real)
	return root, real, err
}
