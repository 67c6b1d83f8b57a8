package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestForTargetUnderstands(t *testing.T) {
	dir := fixture(t)
	for _, c := range []struct {
		run        Run
		understood string
		route      string // kind and what it names
	}{
		{Run{Target: "app:app"}, "the Python application app:app", "pool app:app"},
		{Run{Target: "app:app", Interface: "asgi"}, "the ASGI application app:app", "pool app:app"},
		{Run{Target: "pkg.wsgi:make()"}, "the Python application pkg.wsgi:make()", "pool pkg.wsgi:make()"},
		{Run{Target: "app.py"}, "the Python file app.py", "pool DIR/app.py"},
		{Run{Target: "./app.py:make()"}, "the Python application ./app.py:make()", "pool DIR/app.py:make()"},
		{Run{Target: "site.wsgi", Interface: "auto"}, "the Python file site.wsgi", "pool DIR/site.wsgi"},
		{Run{Target: "script.py"}, "the CGI script script.py, for every path", "script DIR/script.py"},
		{Run{Target: "script.py", Interface: "wsgi"}, "the WSGI file script.py", "pool DIR/script.py"},
		{Run{Target: "cgi-bin/env.sh"}, "the CGI script cgi-bin/env.sh, for every path", "script DIR/cgi-bin/env.sh"},
		{Run{Target: "cgi-bin"}, "the folder cgi-bin of CGI scripts, such as /env.sh", "dir DIR/cgi-bin"},
		{Run{Target: "fcgi://127.0.0.1:9000"}, "the FastCGI application at 127.0.0.1:9000", "fastcgi 127.0.0.1:9000"},
		{Run{Target: "fcgi+unix:php.sock"}, "the FastCGI application at unix:php.sock", "fastcgi unix:DIR/php.sock"},
	} {
		cfg, understood, err := ForTarget(c.run)
		if err != nil {
			t.Errorf("%+v: %v", c.run, err)
			continue
		}
		r, got := cfg.Sites[0].Routes[0], ""
		switch {
		case r.Pool != "":
			got = "pool " + cfg.Pools[r.Pool].App
		case r.FastCGI != nil:
			got = "fastcgi " + r.FastCGI.Address.String()
		case r.CGI.Script != "":
			got = "script " + r.CGI.Script
		default:
			got = "dir " + r.CGI.Dir
		}
		if got = strings.ReplaceAll(got, dir, "DIR"); got != c.route || understood != c.understood || r.Path != "/" {
			t.Errorf("%+v: got %q, %q, path %s; want %q, %q", c.run, got, understood, r.Path, c.route, c.understood)
		}
	}
}

func TestForTargetFaults(t *testing.T) {
	dir := fixture(t)
	t.Setenv("PATH", os.Getenv("PATH"))
	set := func(name, key string, values ...string) []Setting {
		return []Setting{{Name: name, Keys: []string{key}, Values: values}}
	}
	forms := "write module:callable, a Python file, a folder of CGI scripts, a script, fcgi://HOST:PORT or fcgi+unix:PATH"
	for _, c := range []struct {
		run  Run
		want string
	}{
		{Run{Target: "nothing"}, "nothing: there is no such file or folder in DIR, and it is no module:callable (" + forms + ")"},
		{Run{Target: "app"}, "app: there is no such file or folder in DIR, and it is no module:callable (for the Python application write app:app, with the name of its callable)"},
		{Run{Target: "gone.py"}, "gone.py: there is no file gone.py in DIR"},
		{Run{Target: "app:make('x')"}, "app:make('x'): there is no such file or folder in DIR, and it is no module:callable (a factory is called without arguments: app:factory())"},
		{Run{Target: "http://127.0.0.1:80"}, "http://127.0.0.1:80: there is no such file or folder in DIR, and it is no module:callable (HTTP servers can't be a target)"},
		{Run{Target: "/run/php.sock"}, "/run/php.sock: there is no such file or folder in DIR, and it is no module:callable (for a FastCGI application write fcgi+unix:PATH)"},
		{Run{Target: "plain"}, "plain: the folder has no executable file, and so no CGI script (chmod +x the scripts; for a Python application write module:callable and --chdir plain)"},
		{Run{Target: "cgi-bin/data"}, "cgi-bin/data: the file is not executable (chmod +x it to run it as a CGI script)"},
		{Run{Target: "htdocs/a.php"}, "htdocs/a.php: PHP runs behind PHP-FPM (write fcgi+unix:PATH or fcgi://HOST:PORT with --root htdocs)"},
		{Run{Target: "cgi-bin", Interface: "wsgi"}, "cgi-bin: a folder is not a Python application (write module:callable, with --chdir for the folder)"},
		{Run{Target: "app:app", Interface: "cgi"}, "app:app: a Python module is not a CGI script (write the path of a script)"},
		{Run{Target: "app:app", Interface: "psgi"}, `app:app: "psgi" is no interface (write --interface wsgi, asgi, cgi or websocket)`},
		{Run{Target: "app:app", Interface: "asgi", Settings: set("--threads", "pool.threads", "4")}, `--threads: it is about WSGI, and the interface is asgi (write concurrency, or leave it out)`},
		{Run{Target: "app:app", Interface: "wsgi", Settings: set("--loop", "pool.loop", "uvloop")}, `--loop: it is about ASGI, and the interface is wsgi (leave it out)`},
		{Run{Target: "app:app", Settings: set("--concurrency", "pool.concurrency", "70000")}, `--concurrency: one worker has at most 65535 requests at a time (more workers have more)`},
		{Run{Target: "app:app", Settings: set("--lifespan", "pool.lifespan", "yes")}, `--lifespan: "yes" is not known (write auto, on, off)`},
		{Run{Target: "app:app", Settings: set("--buffer-requests", "pool.buffer_requests", "yes")}, `--buffer-requests: "yes" is not true, false or auto`},
		{Run{Target: "fcgi://nowhere"}, `fcgi://nowhere: "nowhere" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)`},
		{Run{Target: "fcgi://:9000"}, `fcgi://:9000: ":9000" can't be connected to (write HOST:PORT)`},
		{Run{Target: "app:app", Static: []string{"public"}}, `--static: "public" is not URL=DIR (write it as in /static=./public)`},
		{Run{Target: "app:app", Static: []string{"/s=gone"}}, "--static: there is no folder DIR/gone"},
		{Run{Target: "app:app", Settings: set("--workers", "pool.workers", "9:1")}, "--workers: the least number of workers, 9, is more than the greatest, 1 (write MIN:MAX)"},
		{Run{Target: "app:app", Settings: set("--threads", "pool.threads", "0")}, "--threads: the value must be more than 0 (every limit and every wait has an end; write a large one instead)"},
		{Run{Target: "app:app", Settings: set("--rlimit", "pool.rlimits", "nofile")}, `--rlimit: "nofile" is not NAME=VALUE`},
		{Run{Target: "app:app", Settings: set("--warm-up", "pool.warm_up", "/%zz")}, `--warm-up: "/%zz" is not a path (it begins with a slash, as in /health, and its special characters are escaped, as %20)`},
		{Run{Target: "app:app", Settings: append(set("--workers", "pool.workers", "2"), set("--max-spare", "pool.max_spare", "1")...)}, `--max-spare: a pool of a fixed size has no spare workers (write workers as MIN:MAX)`},
		{Run{Target: "app:app", Settings: set("--env", "pool.env", "HOME")}, `--env: "HOME" is not NAME=VALUE (write --pass-env HOME to pass on what is set already)`},
		{Run{Target: "app:app", Settings: set("--bind", "listen", "a", "b:99999")}, "--bind: \"a\" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)\n--bind: \"99999\" is not a port (a port is a number from 0 to 65535)"},
		{Run{Target: "cgi-bin", Settings: set("--workers", "pool.workers", "2")}, "--workers: it does not apply to this target, which is CGI (leave it out)"},
		{Run{Target: "cgi-bin", Settings: set("--root-path", "route.root_path", "/x")}, "--root-path: it does not apply to this target, which is CGI (leave it out)"},
		{Run{Target: "app:app", Settings: set("--root", "fastcgi.root", "htdocs")}, "--root: it does not apply to this target, which is a Python application (leave it out)"},
	} {
		_, _, err := ForTarget(c.run)
		if got := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); got != c.want {
			t.Errorf("%+v:\n got %s\nwant %s", c.run, got, c.want)
		}
	}
}

func TestForTargetSettings(t *testing.T) {
	dir := fixture(t)
	cfg, _, err := ForTarget(Run{
		Target: "app:app",
		Static: []string{"/static/=public"},
		Settings: []Setting{
			{Name: "--bind", Keys: []string{"listen"}, Values: []string{":0", "unix:x.sock"}},
			{Name: "--timeout", Keys: []string{"pool.timeout", "cgi.timeout", "fastcgi.timeout"}, Values: []string{"5"}},
			{Name: "--graceful-timeout", Keys: []string{"graceful_timeout", "pool.graceful_timeout"}, Values: []string{"7s"}},
			{Name: "--env", Keys: []string{"pool.env", "cgi.env"}, Values: []string{"A=b=c", "D=./public"}},
			{Name: "--server-name", Keys: []string{"site.hosts"}, Values: []string{"Example.org"}},
			{Name: "--root-path", Keys: []string{"route.root_path"}, Values: []string{"/api"}},
			{Name: "$GATECREW_ROOT", Keys: []string{"fastcgi.root"}, Values: []string{"/nowhere"}, Ambient: true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, site := cfg.Pools["app"], cfg.Sites[0]
	got := []any{cfg.Listen, p.Timeout, cfg.GracefulTimeout, p.GracefulTimeout, p.Env, site.Hosts, site.Routes[0].RootPath, site.Routes[0].PassAuthorization, site.Routes[1].Path, site.Routes[1].Static.Dir}
	want := []any{[]Endpoint{{"http", Address{"tcp", ":0"}}, {"http", Address{"unix", dir + "/x.sock"}}}, 5 * time.Second, 7 * time.Second, 7 * time.Second,
		map[string]string{"A": "b=c", "D": dir + "/public"}, []string{"example.org"}, "/api", true, "/static", dir + "/public"}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("value %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

// What auto means differs from machine to machine, which is no fault of the rest.
func TestSpareWorkersWithAuto(t *testing.T) {
	fixture(t)
	cfg, _, err := ForTarget(Run{Target: "app:app", Settings: []Setting{
		{Name: "--min-spare", Keys: []string{"pool.min_spare"}, Values: []string{"1000"}},
		{Name: "--max-spare", Keys: []string{"pool.max_spare"}, Values: []string{"2000"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if p := cfg.Pools["app"]; p.MinSpare > p.Workers.Max || p.MaxSpare < p.MinSpare || p.MaxSpare > p.Workers.Max {
		t.Errorf("%d to %d spare workers of %v", p.MinSpare, p.MaxSpare, p.Workers)
	}
}

func TestInterpreterOrder(t *testing.T) {
	dir := fixture(t)
	python := func() string {
		t.Helper()
		cfg, _, err := ForTarget(Run{Target: "app:app"})
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Pools["app"].Python
	}
	if got := python(); got != dir+"/venv/bin/python" {
		t.Errorf("beside the application: %s", got)
	}
	t.Setenv("VIRTUAL_ENV", dir+"/other")
	if err := os.MkdirAll(dir+"/other/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/other/bin/python", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := python(); got != dir+"/other/bin/python" {
		t.Errorf("$VIRTUAL_ENV: %s", got)
	}
	t.Setenv("VIRTUAL_ENV", "other")
	if got := python(); got != dir+"/other/bin/python" {
		t.Errorf("a relative $VIRTUAL_ENV: %s", got)
	}
	t.Setenv("VIRTUAL_ENV", "")
	if err := os.RemoveAll(dir + "/venv"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/other/bin/python3", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+"/other/bin")
	if got := python(); got != dir+"/other/bin/python3" {
		t.Errorf("$PATH: %s", got)
	}
	t.Setenv("PATH", dir)
	_, _, err := ForTarget(Run{Target: "app:app"})
	if want := "pools.app.python: there is no Python: neither a virtual environment in " + dir + "/.venv or " + dir + "/venv nor python3 in $PATH (name the interpreter with python)"; fmt.Sprint(err) != want {
		t.Errorf("got %v", err)
	}
}

func TestEnvironIsAnAllowList(t *testing.T) {
	e := Environment{Env: map[string]string{"HOME": "/srv", "A": "1"}, PassEnv: []string{"DJANGO_*", "TOKEN", "UNSET"}}
	own := []string{"PATH=/bin", "HOME=/root", "SECRET=x", "TOKEN=y", "TOKENS=z", "LC_ALL=C", "DJANGO_SETTINGS_MODULE=s", "GATECREW_BIND=:1", "broken"}
	want := []string{"A=1", "DJANGO_SETTINGS_MODULE=s", "HOME=/srv", "LC_ALL=C", "PATH=/bin", "TOKEN=y"}
	if got := e.Environ(own); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
