package config

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixture makes a folder with things that configurations can name, makes it the
// current one and returns it.
func fixture(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"app.py":          "application = None\n",
		"site.wsgi":       "application = None\n",
		"script.py":       "#!/usr/bin/env python3\n",
		"cgi-bin/env.sh":  "#!/bin/sh\n",
		"cgi-bin/data":    "not a script\n",
		"public/index":    "",
		"htdocs/a.php":    "",
		"plain/readme":    "",
		"venv/bin/python": "#!/bin/sh\n",
		"venv/bin/queue":  "#!/bin/sh\n",
		"old/bin/python":  "#!/bin/sh\n",
		"old/bin/queue":   "#!/bin/sh\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("VIRTUAL_ENV", "")
	switch t := t.(type) {
	case *testing.T:
		t.Chdir(dir)
	case *testing.F:
		t.Chdir(dir)
	}
	return dir
}

func loadText(t testing.TB, text string, over ...Setting) (*Config, error) {
	t.Helper()
	if err := os.WriteFile("gatecrew.yaml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load("gatecrew.yaml", over...)
}

// serving is a part that makes a configuration complete.
const serving = "sites: [{routes: [{path: /, static: {dir: public}}]}]\n"

func TestFaultsAreReportedAtOnceWithPlaceAndHint(t *testing.T) {
	dir := fixture(t)
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{
			"gatecrew.yaml: sites: there is nothing to serve (write sites: with at least one route, as in - routes: [{path: /, static: {dir: public}}])"}},
		{"syntax", "log: {level: info\nsites: []\n", []string{
			`gatecrew.yaml:2:1: this is not YAML: `}},
		{"two documents", serving + "---\n" + serving, []string{
			"gatecrew.yaml:2:1: the file holds more than one YAML document (remove the --- line)"}},
		{"unknown keys, nearest and all", serving + "limts: {}\nlog:\n  levle: info\n  zzzzzzzz: 1\n", []string{
			"gatecrew.yaml:2:1: limts: there is no such key here (did you mean limits?)",
			"gatecrew.yaml:4:3: log.levle: there is no such key here (did you mean level?)",
			"gatecrew.yaml:5:3: log.zzzzzzzz: there is no such key here (known here: level, format, access, access_format, slow)"}},
		{"duplicate keys", serving + "log: {level: info, level: warn}\nlog: {}\n", []string{
			"gatecrew.yaml:2:20: log.level: the key stands here a second time; line 2 has it too",
			"gatecrew.yaml:3:1: log: the key stands here a second time; line 2 has it too"}},
		{"kinds", serving + "limits: 5\nlisten: {a: b}\nlog: []\ngraceful_timeout: [1]\n", []string{
			"gatecrew.yaml:2:9: limits: a single value stands where a mapping is wanted",
			"gatecrew.yaml:3:9: listen: a mapping stands where a list is wanted",
			"gatecrew.yaml:4:6: log: a list stands where a mapping is wanted",
			"gatecrew.yaml:5:19: graceful_timeout: a list or mapping stands where a single value is wanted"}},
		{"missing value", serving + "graceful_timeout:\n", []string{
			"gatecrew.yaml:2:19: graceful_timeout: the value is missing (leave the line out for the default)"}},
		{"values", serving + "limits: {max_body: 10MB, header_fields: -1, body_timeout: 1 hour, idle_timeout: -5, max_connections: many}\n", []string{
			`gatecrew.yaml:2:20: limits.max_body: "10MB" is not a size (write a number of bytes, or 64k, 10m, 1g)`,
			`gatecrew.yaml:2:41: limits.header_fields: "-1" is not a number (write a whole number, 0 or more)`,
			`gatecrew.yaml:2:59: limits.body_timeout: "1 hour" is not a duration (write a number of seconds, or 500ms, 10s, 5m, 1h)`,
			`gatecrew.yaml:2:81: limits.idle_timeout: "-5" is not a duration (write a number of seconds, or 500ms, 10s, 5m, 1h)`,
			`gatecrew.yaml:2:102: limits.max_connections: "many" is not a number (write a whole number, 0 or more)`}},
		{"limits that would be off", serving + "limits: {max_body: 0, write_timeout: 0}\n", []string{
			"gatecrew.yaml:2:20: limits.max_body: the value must be more than 0 (every limit and every wait has an end; write a large one instead)",
			"gatecrew.yaml:2:38: limits.write_timeout: the value must be more than 0 (every limit and every wait has an end; write a large one instead)"}},
		{"listen", serving + "listen:\n  - '8000'\n  - host:70000\n  - ftp://a:1\n  - fd://1\n  - 'unix:'\n  - unix:no/x.sock\n  - :8000\n  - :8000\n", []string{
			`gatecrew.yaml:3:5: listen[0]: "8000" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)`,
			`gatecrew.yaml:4:5: listen[1]: "70000" is not a port (a port is a number from 0 to 65535)`,
			`gatecrew.yaml:5:5: listen[2]: "ftp://a:1" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)`,
			`gatecrew.yaml:6:5: listen[3]: "fd://1" is not a descriptor (write fd://3 or higher: 0 to 2 are the standard streams)`,
			`gatecrew.yaml:7:5: listen[4]: "unix:" is not an address (write unix:PATH)`,
			`gatecrew.yaml:8:5: listen[5]: there is no folder ` + dir + `/no (paths are relative to the folder of the configuration file)`,
			`gatecrew.yaml:10:5: listen[7]: the address :8000 stands here a second time`}},
		{"log", serving + "log: {level: loud, format: xml, access: '', access_format: apache}\n", []string{
			`gatecrew.yaml:2:14: log.level: "loud" is not known (write debug, info, warn, error)`,
			`gatecrew.yaml:2:28: log.format: "xml" is not known (write console, json)`,
			`gatecrew.yaml:2:41: log.access: the value is empty (write "-", off or a file)`,
			`gatecrew.yaml:2:60: log.access_format: "apache" is not known (write combined, json)`}},
		{"pools", serving + `pools:
  a: {}
  b: {app: "os.system('x')", workers: "4:2", threads: 0, max_requests_jitter: 5}
  c: {app: gone.wsgi, workers: 0, python: /no/python, chdir: nowhere}
  d: {app: app.py, env: {"1A": x, "A-B": y}, pass_env: [A=b, "*X"]}
`, []string{
			"gatecrew.yaml:3:3: pools.a.app: the application is missing (write app: module:callable, or a .py or .wsgi file)",
			`gatecrew.yaml:4:12: pools.b.app: "os.system('x')" is no application (write module:callable, module:factory(), or a .py or .wsgi file)`,
			"gatecrew.yaml:4:39: pools.b.workers: the least number of workers, 4, is more than the greatest, 2 (write MIN:MAX)",
			"gatecrew.yaml:4:55: pools.b.threads: the value must be more than 0 (every limit and every wait has an end; write a large one instead)",
			"gatecrew.yaml:4:79: pools.b.max_requests_jitter: it does nothing without max_requests (write max_requests too)",
			"gatecrew.yaml:5:12: pools.c.app: there is no file " + dir + "/gone.wsgi (paths are relative to the folder of the configuration file)",
			"gatecrew.yaml:5:32: pools.c.workers: a pool needs at least one worker (0:MAX has none while there are no requests)",
			"gatecrew.yaml:5:43: pools.c.python: there is no program /no/python (write the path of a program, or a name that is in $PATH)",
			"gatecrew.yaml:5:62: pools.c.chdir: there is no folder " + dir + "/nowhere (paths are relative to the folder of the configuration file)",
			`gatecrew.yaml:6:26: pools.d.env["1A"]: "1A" is no name for a variable (letters, digits and _, and no digit first)`,
			`gatecrew.yaml:6:35: pools.d.env.A-B: "A-B" is no name for a variable (letters, digits and _, and no digit first)`,
			`gatecrew.yaml:6:57: pools.d.pass_env[0]: "A=b" is no name for a variable (write env to set a variable)`,
			`gatecrew.yaml:6:62: pools.d.pass_env[1]: "*X" is no name for a variable (write NAME, or PREFIX* for all that start so)`}},
		{"reload", serving + "pools:\n  a: {app: app.py, reload: true, preload: true, reload_include: ['**/*.html', 'a[b']}\n  b: {app: app.py, reload_include: ['*.html']}\n", []string{
			"gatecrew.yaml:3:43: pools.a.preload: it does nothing with reload, which has each worker load the application anew (leave one of them out)",
			`gatecrew.yaml:3:79: pools.a.reload_include[1]: "a[b" is no pattern (write *, ** or ?; [a-z] and {a,b} need their ends)`,
			"gatecrew.yaml:4:20: pools.b.reload_include: it does nothing without reload (write reload: true too)"}},
		{"programs", serving + `pools:
  web: {app: app.py, after: [redi]}
programs:
  redis: {ready: ":1", restart: often, stop_signal: KILL, start_timeout: 0, chdir: nowhere}
  mail: {command: [no-such-program], after: [redis, nobody], ready: "fd://3"}
  line: {command: ["sh -c true"], ready: "localhost"}
  path: {command: [./app.py], stop_timeout: 0}
  jail: {command: [sh], chroot: plain}
  cell: {command: [/bin/sh], chroot: plain}
`, []string{
			`gatecrew.yaml:3:30: pools.web.after[0]: there is no program "redi" (did you mean redis?)`,
			`gatecrew.yaml:5:3: programs.redis.command: the command is missing (write command: [PROGRAM, ARGUMENT...])`,
			`gatecrew.yaml:5:18: programs.redis.ready: ":1" can't be connected to (write HOST:PORT)`,
			`gatecrew.yaml:5:33: programs.redis.restart: "often" is not known (write always, on-failure, never)`,
			`gatecrew.yaml:5:53: programs.redis.stop_signal: "KILL" is not known (write TERM, INT, QUIT, HUP)`,
			`gatecrew.yaml:5:74: programs.redis.start_timeout: the value must be more than 0 (every limit and every wait has an end; write a large one instead)`,
			`gatecrew.yaml:5:84: programs.redis.chdir: there is no folder ` + dir + `/nowhere (paths are relative to the folder of the configuration file)`,
			`gatecrew.yaml:6:20: programs.mail.command[0]: there is no program no-such-program, neither in the virtual environment of a pool nor in $PATH (install it there, or write its path)`,
			`gatecrew.yaml:6:53: programs.mail.after[1]: there is no program "nobody" (known here: cell, jail, line, mail, path, redis)`,
			`gatecrew.yaml:6:69: programs.mail.ready: a descriptor can't be connected to (write unix:PATH or HOST:PORT)`,
			`gatecrew.yaml:7:20: programs.line.command[0]: there is no program sh -c true (write each argument as an element of its own: [PROGRAM, ARGUMENT...])`,
			`gatecrew.yaml:7:42: programs.line.ready: "localhost" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)`,
			`gatecrew.yaml:8:20: programs.path.command[0]: there is no program ` + dir + `/app.py (write the path of a program, or a name that is in $PATH)`,
			`gatecrew.yaml:8:45: programs.path.stop_timeout: the value must be more than 0 (every limit and every wait has an end; write a large one instead)`,
			`gatecrew.yaml:9:20: programs.jail.command[0]: there is no program sh (write the path of a program, or a name that is in $PATH; with chroot it is looked for inside of ` + dir + `/plain)`,
			`gatecrew.yaml:10:20: programs.cell.command[0]: there is no program /bin/sh (write the path of a program, or a name that is in $PATH; with chroot it is looked for inside of ` + dir + `/plain)`}},
		{"circles of programs", serving + `programs:
  a: {command: [sh], after: [b]}
  b: {command: [sh], after: [d, c]}
  c: {command: [sh], after: [a, d]}
  d: {command: [sh]}
  e: {command: [sh], after: [e]}
`, []string{
			`gatecrew.yaml:5:30: programs.c.after[0]: nothing could be started first: a after b, b after c, c after a (leave one of these out)`,
			`gatecrew.yaml:7:30: programs.e.after[0]: nothing could be started first: e after e (leave one of these out)`}},
		{"a program of two environments", serving + `pools:
  web: {app: app.py}
  old: {app: app.py, python: old/bin/python}
programs:
  queue: {command: [queue]}
`, []string{
			`gatecrew.yaml:6:21: programs.queue.command[0]: the pools use several virtual environments that have a program queue (write ` + dir + `/old/bin/queue or ` + dir + `/venv/bin/queue)`}},
		{"hosts", `sites:
  - hosts: [a.org, A.org, "b.org:80", "http://c.org", "x.*.org", "d e"]
    routes: [{path: /, static: {dir: public}}]
  - routes: [{path: /, static: {dir: public}}]
  - routes: [{path: /, static: {dir: public}}]
  - hosts: ["a.org"]
    routes: []
`, []string{
			"gatecrew.yaml:2:20: sites[0].hosts[1]: the host a.org stands here a second time; sites[0] has it too",
			`gatecrew.yaml:2:27: sites[0].hosts[2]: "b.org:80" has a port (write the host name alone; ports stand in listen)`,
			`gatecrew.yaml:2:39: sites[0].hosts[3]: "http://c.org" is a URL (write the host name alone)`,
			`gatecrew.yaml:2:55: sites[0].hosts[4]: "x.*.org" has a * that is not its whole first part (write *.example.org)`,
			`gatecrew.yaml:2:66: sites[0].hosts[5]: "d e" is no host name (letters, digits, - and dots; other alphabets in their xn-- form)`,
			"gatecrew.yaml:5:5: sites[2]: there are two default sites; sites[1] has no hosts either (give one of them hosts)",
			"gatecrew.yaml:6:13: sites[3].hosts[0]: the host a.org stands here a second time; sites[0] has it too",
			"gatecrew.yaml:7:5: sites[3].routes: the site has no route (write at least one, as in - {path: /, static: {dir: public}})"}},
		{"routes", `pools: {web: {app: app.py}}
sites:
  - routes:
      - {path: /a/, pool: web}
      - {path: /a, pool: wbe, root_path: x}
      - {path: b, pool: web, static: {dir: public}}
      - {path: /c}
      - {pool: web}
      - {path: /d/../e, pool: web}
      - {path: "/f*", pool: web}
      - {path: /g, static: {dir: public}, root_path: /x, pass_authorization: true}
      - {path: /h, fcgi: {}}
`, []string{
			"gatecrew.yaml:5:16: sites[0].routes[1].path: the path /a stands here a second time; sites[0].routes[0] has it too",
			`gatecrew.yaml:5:26: sites[0].routes[1].pool: there is no pool "wbe" (did you mean web?)`,
			`gatecrew.yaml:5:42: sites[0].routes[1].root_path: "x" is no path (write it as in /app)`,
			"gatecrew.yaml:6:9: sites[0].routes[2]: more than one thing answers here: static, pool (write exactly one of static, cgi, socket, pool, fastcgi)",
			`gatecrew.yaml:6:16: sites[0].routes[2].path: "b" does not start with a slash (write /b)`,
			"gatecrew.yaml:7:9: sites[0].routes[3]: nothing says what answers here (write exactly one of static, cgi, socket, pool, fastcgi)",
			"gatecrew.yaml:8:9: sites[0].routes[4].path: the route has no path (write path: /)",
			`gatecrew.yaml:9:16: sites[0].routes[5].path: "/d/../e" has an empty segment, . or .. (write /e)`,
			`gatecrew.yaml:10:16: sites[0].routes[6].path: "/f*" has a character that a path prefix can't have (a path is a plain prefix, without patterns or a query)`,
			"gatecrew.yaml:11:54: sites[0].routes[7].root_path: only a route with pool has it",
			"gatecrew.yaml:11:78: sites[0].routes[7].pass_authorization: only a route with pool has it (write it inside of cgi, socket or fastcgi)",
			"gatecrew.yaml:12:9: sites[0].routes[8]: nothing says what answers here (write exactly one of static, cgi, socket, pool, fastcgi)",
			"gatecrew.yaml:12:20: sites[0].routes[8].fcgi: there is no such key here (did you mean cgi?)"}},
		{"static", `sites:
  - routes:
      - {path: /a, static: {}}
      - {path: /b, static: {dir: .}}
      - {path: /c, static: {dir: gone}}
      - {path: /d, static: {dir: app.py, index: [../x, .git, ok.html]}}
`, []string{
			"gatecrew.yaml:3:20: sites[0].routes[0].static.dir: the folder is missing (name one, as in ./public)",
			"gatecrew.yaml:4:34: sites[0].routes[1].static.dir: this would publish gatecrew.yaml itself (serve a folder that does not hold it, such as ./public)",
			"gatecrew.yaml:5:34: sites[0].routes[2].static.dir: there is no folder " + dir + "/gone (paths are relative to the folder of the configuration file)",
			"gatecrew.yaml:6:34: sites[0].routes[3].static.dir: " + dir + "/app.py is not a folder",
			`gatecrew.yaml:6:50: sites[0].routes[3].static.index[0]: "../x" is no file name (an index is the plain name of a file in the folder itself)`,
			`gatecrew.yaml:6:56: sites[0].routes[3].static.index[1]: ".git" is no file name (an index is the plain name of a file in the folder itself)`}},
		{"cgi", `sites:
  - routes:
      - {path: /a, cgi: {}}
      - {path: /b, cgi: {dir: cgi-bin, script: cgi-bin/env.sh}}
      - {path: /c, cgi: {script: cgi-bin/data}}
      - {path: /d, cgi: {script: cgi-bin, index: [x]}}
      - {path: /e, cgi: {script: gone.sh, chdir: gone, max: 0, queue_timeout: 0}}
      - {path: /f, cgi: {dir: cgi-bin, extensions: {pl: "", .a: no-such-interpreter}}}
`, []string{
			"gatecrew.yaml:3:20: sites[0].routes[0].cgi: nothing says which scripts run (write dir: for a folder of scripts or script: for one)",
			"gatecrew.yaml:4:20: sites[0].routes[1].cgi: dir and script are both given (write exactly one of them)",
			"gatecrew.yaml:5:34: sites[0].routes[2].cgi.script: " + dir + "/cgi-bin/data is not executable (chmod +x it, or name its interpreter in extensions)",
			"gatecrew.yaml:6:34: sites[0].routes[3].cgi.script: " + dir + "/cgi-bin is a folder (write dir: for a folder of scripts)",
			"gatecrew.yaml:6:43: sites[0].routes[3].cgi.index: only a folder of scripts has an index",
			"gatecrew.yaml:7:34: sites[0].routes[4].cgi.script: there is no file " + dir + "/gone.sh (paths are relative to the folder of the configuration file)",
			"gatecrew.yaml:7:50: sites[0].routes[4].cgi.chdir: there is no folder " + dir + "/gone (paths are relative to the folder of the configuration file)",
			"gatecrew.yaml:7:61: sites[0].routes[4].cgi.max: the value must be more than 0 (every limit and every wait has an end; write a large one instead)",
			"gatecrew.yaml:7:79: sites[0].routes[4].cgi.queue_timeout: the value must be more than 0 (every limit and every wait has an end; write a large one instead)",
			`gatecrew.yaml:8:53: sites[0].routes[5].cgi.extensions.pl: "pl" is no extension (write the dot and what follows it, as in .pl)`,
			`gatecrew.yaml:8:61: sites[0].routes[5].cgi.extensions[".a"]: there is no program no-such-interpreter (write the path of a program, or a name that is in $PATH)`}},
		{"fastcgi", `sites:
  - routes:
      - {path: /a, fastcgi: {}}
      - {path: /b, fastcgi: {address: "fd://3"}}
      - {path: /c, fastcgi: {address: ":9000", index: [a.php], extensions: [.php], static: true}}
      - {path: /d, fastcgi: {address: "h:1", root: htdocs, extensions: [php], params: {HTTP_PROXY: x, CONTENT_LENGTH: "1", "a b": c}}}
      - {path: /e, fastcgi: {address: nothing}}
      - {path: /f, fastcgi: {address: "h:1", root: .}}
`, []string{
			"gatecrew.yaml:3:20: sites[0].routes[0].fastcgi: the address is missing (write address: unix:PATH or HOST:PORT)",
			"gatecrew.yaml:4:39: sites[0].routes[1].fastcgi.address: a descriptor can't be connected to (write unix:PATH or HOST:PORT)",
			`gatecrew.yaml:5:39: sites[0].routes[2].fastcgi.address: ":9000" can't be connected to (write HOST:PORT)`,
			"gatecrew.yaml:5:48: sites[0].routes[2].fastcgi.index: it needs root (write root: with the folder of the scripts)",
			"gatecrew.yaml:5:64: sites[0].routes[2].fastcgi.extensions: it needs root (write root: with the folder of the scripts)",
			"gatecrew.yaml:5:92: sites[0].routes[2].fastcgi.static: it needs root (write root: with the folder of the files)",
			`gatecrew.yaml:6:73: sites[0].routes[3].fastcgi.extensions[0]: "php" is no extension (write the dot and what follows it, as in .pl)`,
			"gatecrew.yaml:6:88: sites[0].routes[3].fastcgi.params.HTTP_PROXY: HTTP_PROXY is what the request itself says (choose another name)",
			"gatecrew.yaml:6:103: sites[0].routes[3].fastcgi.params.CONTENT_LENGTH: CONTENT_LENGTH is what the request itself says (choose another name)",
			`gatecrew.yaml:6:124: sites[0].routes[3].fastcgi.params["a b"]: "a b" is no name for a parameter (letters, digits and _, and no digit first)`,
			`gatecrew.yaml:7:39: sites[0].routes[4].fastcgi.address: "nothing" is not an address (write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host)`,
			"gatecrew.yaml:8:52: sites[0].routes[5].fastcgi.root: this would publish gatecrew.yaml itself (serve a folder that does not hold it, such as ./public)"}},
		{"aliases", serving + "pools:\n  a: *gone\n  b: &b {app: app.py, env: *b}\n", []string{
			"gatecrew.yaml:3:6: pools.a: the alias *gone has no anchor &gone",
			"gatecrew.yaml:4:9: pools.b.env.env: a list or mapping stands where a single value is wanted"}},
		{"an alias in its own value", serving + "pools:\n  c: &c {<<: *c, app: app.py}\n", []string{
			"gatecrew.yaml:3:9: pools.c: the file has too many values (an alias may stand in the value that it repeats)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := loadText(t, c.text)
			var faults Faults
			if !errors.As(err, &faults) || cfg != nil {
				t.Fatalf("Load = %v, %v; want Faults alone", cfg, err)
			}
			got := strings.Split(faults.Error(), "\n")
			for i := range max(len(got), len(c.want)) {
				switch {
				case i >= len(got):
					t.Errorf("missing: %s", c.want[i])
				case i >= len(c.want):
					t.Errorf("unexpected: %s", got[i])
				// The parser's own words after "not YAML: " are not ours to test.
				case got[i] != c.want[i] && !(strings.HasSuffix(c.want[i], "YAML: ") && strings.HasPrefix(got[i], c.want[i])):
					t.Errorf("\n got %s\nwant %s", got[i], c.want[i])
				}
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	fixture(t)
	_, err := Load("nowhere.yaml")
	if want := "nowhere.yaml: the configuration can't be read: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadFillsInEverything(t *testing.T) {
	dir := fixture(t)
	cfg, err := loadText(t, `
listen: [127.0.0.1:0, unix:x.sock]
log: {level: warning, access: access.log}
limits: {max_body: 2g, body_timeout: 1.5, idle_timeout: 2m}
pools:
  web: &web
    app: app.py:make()
    workers: 2:8
    env: {DATA: ./data, N: 5, FLAG: true, EMPTY:, OTHER: a/./b}
  more:
    <<: *web
    workers: auto
sites:
  - hosts: [Example.ORG, "*.example.org"]
    routes:
      - {path: /static/, static: {dir: public}}
      - {path: /cgi, cgi: {dir: ./cgi-bin, extensions: {.sh: sh, .cgi: ""}}}
      - {path: /off, pool: more, pass_authorization: false, root_path: /p/}
      - {path: /, pool: web}
  - routes:
      - {path: /, fastcgi: {address: unix:run/php.sock, root: htdocs}}
      - {path: /bare, fastcgi: {address: "127.0.0.1:9000", pass_authorization: false}}
`)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	check("listen", cfg.Listen, []Endpoint{{"http", Address{"tcp", "127.0.0.1:0"}}, {"http", Address{"unix", dir + "/x.sock"}}})
	check("log", cfg.Log, Log{"warn", "console", dir + "/access.log", "combined", "-"})
	check("max_body", cfg.Limits.MaxBody, Size(2<<30))
	check("body_timeout", cfg.Limits.BodyTimeout, 1500*time.Millisecond)
	check("idle_timeout", cfg.Limits.IdleTimeout, 2*time.Minute)
	check("header_fields", cfg.Limits.HeaderFields, 200)
	web, more := cfg.Pools["web"], cfg.Pools["more"]
	check("app", web.App, dir+"/app.py:make()")
	check("python beside the application", web.Python, dir+"/venv/bin/python")
	check("chdir", web.Chdir, dir)
	check("workers", web.Workers, Workers{Min: 2, Max: 8})
	check("env", web.Env, map[string]string{"DATA": dir + "/data", "N": "5", "FLAG": "true", "EMPTY": "", "OTHER": "a/./b"})
	check("merged app", more.App, web.App)
	if more.Workers.Min < 2 || more.Workers.Max < more.Workers.Min || more.Workers.Reason == "" {
		t.Errorf("auto is %v workers", more.Workers)
	}
	check("hosts", cfg.Sites[0].Hosts, []string{"example.org", "*.example.org"})
	routes := cfg.Sites[0].Routes
	check("path", routes[0].Path, "/static")
	check("dir", routes[0].Static.Dir, dir+"/public")
	check("index", routes[0].Static.Index, []string{"index.html"})
	check("cgi dir", routes[1].CGI.Dir, dir+"/cgi-bin")
	check("authorization of CGI", routes[1].CGI.PassAuthorization, false)
	if sh := routes[1].CGI.Extensions[".sh"]; !filepath.IsAbs(sh) {
		t.Errorf("interpreter sh became %q", sh)
	}
	check("authorization switched off", routes[2].PassAuthorization, false)
	check("root path", routes[2].RootPath, "/p")
	check("authorization of a pool", routes[3].PassAuthorization, true)
	php, bare := cfg.Sites[1].Routes[0].FastCGI, cfg.Sites[1].Routes[1].FastCGI
	check("address", php.Address, Address{"unix", dir + "/run/php.sock"})
	check("root", php.Root, dir+"/htdocs")
	check("php index", php.Index, []string{"index.php"})
	check("php extensions", php.Extensions, []string{".php"})
	check("php static", php.Static, true)
	check("php authorization", php.PassAuthorization, true)
	check("bare index", len(bare.Index)+len(bare.Extensions), 0)
	check("bare static", bare.Static, false)
	check("bare authorization", bare.PassAuthorization, false)
}

func TestPrograms(t *testing.T) {
	dir := fixture(t)
	cfg, err := loadText(t, serving+`pools:
  web: {app: app.py, after: [queue, store]}
  more: {app: app.py}
programs:
  queue: {command: [queue, -n, 3], after: [store]}
  store: {command: [sh], ready: unix:run/store.sock}
  late: {command: [cgi-bin/env.sh], after: [queue], ready: "localhost:1", restart: on-failure, stop_signal: INT, chdir: public}
  early: {command: [/bin/sh]}
`)
	if err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		want Program
	}{
		{"queue", Program{Command: []string{dir + "/venv/bin/queue", "-n", "3"}, Chdir: dir, After: []string{"store"}, Restart: "always", StopSignal: "TERM"}},
		{"store", Program{Command: []string{sh}, Chdir: dir, Ready: Address{"unix", dir + "/run/store.sock"}, Restart: "always", StopSignal: "TERM"}},
		{"late", Program{Command: []string{dir + "/cgi-bin/env.sh"}, Chdir: dir + "/public", After: []string{"queue"}, Ready: Address{"tcp", "localhost:1"}, Restart: "on-failure", StopSignal: "INT"}},
		{"early", Program{Command: []string{"/bin/sh"}, Chdir: dir, Restart: "always", StopSignal: "TERM"}},
	} {
		c.want.StartTimeout, c.want.StopTimeout = time.Minute, 10*time.Second
		if got := *cfg.Programs[c.name]; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	if got, want := cfg.StartOrder(), []string{"early", "store", "queue", "late"}; !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
}

func TestSettingsStandOverTheFile(t *testing.T) {
	fixture(t)
	cfg, err := loadText(t, serving+"listen: [a:1, a:1]\nlog: {level: warn}\n",
		Setting{Name: "--bind", Keys: []string{"listen"}, Values: []string{"b:2", "c:3"}},
		Setting{Name: "--graceful-timeout", Keys: []string{"graceful_timeout", "pool.graceful_timeout"}, Values: []string{"5"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(cfg.Listen, []Endpoint{{"http", Address{"tcp", "b:2"}}, {"http", Address{"tcp", "c:3"}}}) || cfg.GracefulTimeout != 5*time.Second || cfg.Log.Level != "warn" {
		t.Errorf("got %v, %v, %v", cfg.Listen, cfg.GracefulTimeout, cfg.Log.Level)
	}
	_, err = loadText(t, serving+"listen: [a:1]\n", Setting{Name: "--bind", Keys: []string{"listen"}, Values: []string{"b:2", "b:2"}})
	if want := "--bind: the address b:2 stands here a second time"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
