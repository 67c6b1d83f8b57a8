package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatecrew/gateway/config"
)

// flag is one row of the table of flags that set a value of the configuration.
// Each is also a variable: --max-body is $GATECREW_MAX_BODY. A flag on the
// command line wins over a variable.
type flag struct {
	name  string
	short string
	// value is what stands for its value in the help; a list when it ends in
	// "...": then the flag may be repeated, and commas separate the values
	// of the variable. Empty for a flag without a value.
	value string
	usage string
	// keys are the fields of the configuration that it sets, see
	// config.Setting; none for part of the target.
	keys []string
	// sets is what a flag without a value sets.
	sets string
	// env is another variable that is read after its own.
	env string
}

// flagGroup are flags that stand under one heading in the help.
type flagGroup struct {
	heading string
	flags   []flag
}

// staticFlag and interfaceFlag are part of the target rather than settings.
var (
	staticFlag    = flag{name: "static", value: "URL=DIR...", usage: "serve the files of a folder below a path"}
	interfaceFlag = flag{name: "interface", value: "wsgi|asgi|cgi|websocket", usage: "what the target is (default: found out)"}
)

// flagGroups are in the order in which someone needs them.
var flagGroups = []flagGroup{
	{"Addresses", []flag{
		{name: "bind", short: "b", value: "ADDRESS...", usage: "[https://]HOST:PORT, unix:PATH, fd://N (default: 127.0.0.1:8000)", keys: []string{"listen"}},
		{name: "server-name", value: "HOST...", usage: "host name for SERVER_NAME", keys: []string{"site.hosts"}},
		{name: "root-path", value: "PATH", usage: "prefix that a proxy in front has removed", keys: []string{"route.root_path"}},
		{name: "certfile", value: "FILE", usage: "certificate and chain: addresses are HTTPS then", keys: []string{"site.tls.certificate"}},
		{name: "keyfile", value: "FILE", usage: "its private key (default: in --certfile)", keys: []string{"site.tls.key"}},
		{name: "client-ca", value: "FILE", usage: "authorities that clients' certificates must come from", keys: []string{"site.tls.client_ca"}},
		{name: "client-auth", value: "require|optional", usage: "whether clients must have one (default: require)", keys: []string{"site.tls.client_auth"}},
		{name: "hsts", value: "TIME", usage: "how long browsers shall come by HTTPS alone", keys: []string{"site.hsts.max_age"}},
		{name: "h2c", usage: "HTTP/2 without TLS too, for a proxy in front", keys: []string{"h2c"}, sets: "true"},
		{name: "http1", value: "fast|net", usage: "who reads HTTP/1.1: the gateway, or Go's net/http (default: fast)", keys: []string{"http1"}},
		staticFlag,
		{name: "keep-alive", value: "TIME", usage: "how long an idle connection is kept (default: 75s)", keys: []string{"limits.idle_timeout"}},
		{name: "max-body", value: "SIZE", usage: "largest request body (default: 1g)", keys: []string{"limits.max_body"}},
	}},
	{"Application", []flag{
		interfaceFlag,
		{name: "loop", value: "asyncio|uvloop", usage: "event loop of ASGI (default: uvloop where it is installed)", keys: []string{"pool.loop"}},
		{name: "lifespan", value: "on|off", usage: "tell an ASGI application of start and end (default: if it knows of that)", keys: []string{"pool.lifespan"}},
		{name: "c-extension", value: "require|off", usage: "C extension of Python workers (default: used where it can be)", keys: []string{"pool.c_extension"}},
		{name: "python", value: "PROGRAM", usage: "(default: of $VIRTUAL_ENV, .venv, venv, else python3)", keys: []string{"pool.python"}},
		{name: "chdir", value: "DIR", usage: "folder to run in (default: this one; CGI the script's)", keys: []string{"pool.chdir", "cgi.chdir", "socket.chdir"}},
		{name: "env", short: "e", value: "NAME=VALUE...", usage: "set a variable of the application", keys: []string{"pool.env", "cgi.env", "socket.env"}},
		{name: "pass-env", value: "NAME...", usage: "pass on a variable of this environment, or PREFIX*", keys: []string{"pool.pass_env", "cgi.pass_env", "socket.pass_env"}},
		{name: "preload", usage: "import the application once and fork the workers", keys: []string{"pool.preload"}, sets: "true"},
		{name: "warm-up", value: "PATH", usage: "what a new worker is asked for before it gets requests", keys: []string{"pool.warm_up"}},
		{name: "start-timeout", value: "TIME", usage: "time for a worker to load the application (default: 60s)", keys: []string{"pool.start_timeout"}},
	}},
	{"Workers", []flag{
		{name: "workers", short: "w", value: "N|MIN:MAX|auto", usage: "worker processes, also $WEB_CONCURRENCY (default: auto)", keys: []string{"pool.workers"}, env: "WEB_CONCURRENCY"},
		{name: "threads", value: "N", usage: "requests that a WSGI worker serves at a time (default: 1)", keys: []string{"pool.threads"}},
		{name: "concurrency", value: "N", usage: "requests and WebSockets that an ASGI worker has at a time (default: 1000)", keys: []string{"pool.concurrency"}},
		{name: "min-spare", value: "N", usage: "idle workers kept ready, with MIN:MAX (default: 0)", keys: []string{"pool.min_spare"}},
		{name: "max-spare", value: "N", usage: "idle workers that may stay (default: those of --min-spare)", keys: []string{"pool.max_spare"}},
		{name: "idle-timeout", value: "TIME", usage: "when other idle workers end (default: 60s)", keys: []string{"pool.idle_timeout"}},
	}},
	{"When workers are replaced", []flag{
		{name: "max-requests", value: "N", usage: "requests after which a worker is replaced (default: 0, never)", keys: []string{"pool.max_requests"}},
		{name: "max-requests-jitter", value: "N", usage: "up to this many more, at random (default: 0)", keys: []string{"pool.max_requests_jitter"}},
		{name: "max-age", value: "TIME", usage: "age at which a worker is replaced (default: 0, never)", keys: []string{"pool.max_age"}},
		{name: "max-memory", value: "SIZE", usage: "memory after a request at which it is (default: 0, no limit)", keys: []string{"pool.max_memory"}},
		{name: "hard-memory", value: "SIZE", usage: "memory at which a worker is killed (default: 0, no limit)", keys: []string{"pool.hard_memory"}},
		{name: "memory-budget", value: "SIZE", usage: "memory of all workers together (default: 0, no limit)", keys: []string{"pool.memory_budget"}},
	}},
	{"Requests that wait or take long", []flag{
		{name: "queue-length", value: "N", usage: "requests that may wait (default: 512)", keys: []string{"pool.queue_length", "cgi.queue_length", "socket.queue_length", "fastcgi.queue_length"}},
		{name: "queue-timeout", value: "TIME", usage: "how long a request may wait (default: 10s)", keys: []string{"pool.queue_timeout", "cgi.queue_timeout", "socket.queue_timeout", "fastcgi.queue_timeout"}},
		{name: "timeout", short: "t", value: "TIME", usage: "longest silence of an application (default: 30s; FastCGI 60s)", keys: []string{"pool.timeout", "cgi.timeout", "fastcgi.timeout"}},
		{name: "slow-timeout", value: "TIME", usage: "when the slow log tells the stacks of a request (default: 10s)", keys: []string{"pool.slow_timeout"}},
		{name: "interrupt-timeout", value: "TIME", usage: "time to end for one that was interrupted (default: 1s)", keys: []string{"pool.interrupt_timeout"}},
		{name: "graceful-timeout", value: "TIME", usage: "time to end the requests in progress (default: 30s)", keys: []string{"graceful_timeout", "pool.graceful_timeout"}},
		{name: "stop-timeout", value: "TIME", usage: "time between TERM and KILL (default: 5s)", keys: []string{"pool.stop_timeout", "cgi.stop_timeout", "socket.stop_timeout"}},
		{name: "no-replay", usage: "no second worker for a request that one may have seen", keys: []string{"pool.replay_idempotent"}, sets: "false"},
		{name: "buffer-requests", value: "true|false", usage: "read bodies before a worker is taken (default: true, for ASGI false)", keys: []string{"pool.buffer_requests", "cgi.buffer_requests", "fastcgi.buffer_requests"}},
		{name: "no-buffer-requests", usage: "the same as --buffer-requests false", keys: []string{"pool.buffer_requests", "cgi.buffer_requests", "fastcgi.buffer_requests"}, sets: "false"},
	}},
	{"WebSockets", []flag{
		{name: "ws-max-message", value: "SIZE", usage: "largest message of a client (default: 16m)", keys: []string{"pool.websocket.max_message", "socket.max_message"}},
		{name: "ws-ping-interval", value: "TIME", usage: "how often a client is pinged, 0 never (default: 20s)", keys: []string{"pool.websocket.ping_interval", "socket.ping_interval"}},
		{name: "ws-ping-timeout", value: "TIME", usage: "time for it to answer (default: 20s)", keys: []string{"pool.websocket.ping_timeout", "socket.ping_timeout"}},
		{name: "ws-idle-timeout", value: "TIME", usage: "time without a message after which a socket is closed (default: 0, none)", keys: []string{"pool.websocket.idle_timeout", "socket.idle_timeout"}},
		{name: "ws-framing", value: "lines|binary|stream", usage: "how a program tells messages apart (default: lines)", keys: []string{"socket.framing"}},
		{name: "ws-subprotocol", value: "NAME...", usage: "subprotocol that a program speaks", keys: []string{"socket.subprotocols"}},
		{name: "ws-no-compression", usage: "send and take no compressed messages", keys: []string{"pool.websocket.compression", "socket.compression"}, sets: "false"},
		{name: "ws-origin", value: "ORIGIN...", usage: "pages that may connect: https://HOST, same or * (default: *; of a program same)", keys: []string{"pool.websocket.origins", "socket.origins"}},
	}},
	{"What processes may not do", []flag{
		{name: "user", value: "USER", usage: "run processes as another user; only as root", keys: []string{"pool.user", "cgi.user", "socket.user"}},
		{name: "group", value: "GROUP", usage: "and group (default: that of --user)", keys: []string{"pool.group", "cgi.group", "socket.group"}},
		{name: "umask", value: "OCTAL", usage: "permissions that new files don't get, as 027", keys: []string{"pool.umask", "cgi.umask", "socket.umask"}},
		{name: "nice", value: "N", usage: "niceness added to processes (default: 0)", keys: []string{"pool.nice", "cgi.nice", "socket.nice"}},
		{name: "cpus", value: "N...", usage: "processors that processes may run on (default: all)", keys: []string{"pool.cpus", "cgi.cpus", "socket.cpus"}},
		{name: "rlimit", value: "NAME=VALUE...", usage: "a limit of each process, as nofile=256 or as=2g", keys: []string{"pool.rlimits", "cgi.rlimits", "socket.rlimits"}},
		{name: "no-new-privileges", usage: "no rights by set-user-id programs", keys: []string{"pool.no_new_privileges", "cgi.no_new_privileges", "socket.no_new_privileges"}, sets: "true"},
	}},
	{"CGI scripts and FastCGI applications", []flag{
		{name: "max-processes", value: "N", usage: "processes at once (default: CGI 16, WebSocket 64)", keys: []string{"cgi.max", "socket.max"}},
		{name: "warm", usage: "fork CGI scripts from processes that have them loaded", keys: []string{"cgi.warm"}, sets: "true"},
		{name: "pass-authorization", usage: "hand the Authorization field to CGI scripts", keys: []string{"cgi.pass_authorization", "socket.pass_authorization"}, sets: "true"},
		{name: "root", value: "DIR", usage: "folder of a FastCGI application's scripts", keys: []string{"fastcgi.root"}},
		{name: "index", value: "NAME...", usage: "file that stands for a folder (default: index.php with --root)", keys: []string{"fastcgi.index", "cgi.index"}},
		{name: "max-connections", value: "N", usage: "connections to a FastCGI application (default: 5)", keys: []string{"fastcgi.max_connections"}},
	}},
	{"Logs", []flag{
		{name: "access-log", value: "-|off|FILE", usage: "a line for each request (default: -, standard output)", keys: []string{"log.access"}},
		{name: "access-log-format", value: "combined|json", usage: "(default: combined)", keys: []string{"log.access_format"}},
		{name: "slow-log", value: "-|FILE", usage: "what slow requests are doing (default: -, standard error)", keys: []string{"log.slow"}},
		{name: "log-level", value: "LEVEL", usage: "debug, info, warn or error (default: info)", keys: []string{"log.level"}},
		{name: "log-format", value: "console|json", usage: "(default: console)", keys: []string{"log.format"}},
	}},
	{"Development", []flag{
		{name: "reload", usage: "restart when a file changes; not for production", keys: []string{"pool.reload"}, sets: "true"},
		{name: "reload-include", value: "PATTERN...", usage: "more files to watch, such as templates/**/*.html", keys: []string{"pool.reload_include"}},
	}},
}

// flags are those of all groups.
var flags = func() (all []flag) {
	for _, g := range flagGroups {
		all = append(all, g.flags...)
	}
	return all
}()

func (f *flag) list() bool { return strings.HasSuffix(f.value, "...") }

// variable is the name of the flag's environment variable.
func variable(name string) string {
	return "GATECREW_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// cli makes the library's flag. Values stay text: config reads them, so that
// they are written the same way in a file.
func (f *flag) cli() cli.Flag {
	var aliases []string
	if f.short != "" {
		aliases = []string{f.short}
	}
	switch {
	case f.value == "":
		return &cli.BoolFlag{Name: f.name, Aliases: aliases}
	case f.list():
		return &cli.StringSliceFlag{Name: f.name, Aliases: aliases}
	}
	return &cli.StringFlag{Name: f.name, Aliases: aliases}
}

// flagHelp is a line for each flag, or two when it is long.
func flagHelp(flags []flag, which func(*flag) bool) string {
	var b strings.Builder
	for i := range flags {
		f := &flags[i]
		if !which(f) {
			continue
		}
		short := "    "
		if f.short != "" {
			short = "-" + f.short + ", "
		}
		name := strings.TrimSpace("--" + f.name + " " + f.value)
		if len(name) > 26 {
			fmt.Fprintf(&b, "  %s%s\n%33s%s\n", short, name, "", f.usage)
		} else {
			fmt.Fprintf(&b, "  %s%-27s%s\n", short, name, f.usage)
		}
	}
	return b.String()
}

// groupedHelp is the help of all flags, under their headings.
func groupedHelp() string {
	var b strings.Builder
	for _, g := range flagGroups {
		fmt.Fprintf(&b, "\n%s:\n%s", g.heading, flagHelp(g.flags, anyFlag))
	}
	return b.String()
}

// whole reports whether a flag is about the gateway as a whole, and so may
// stand over a configuration file too.
func (f *flag) whole() bool {
	if len(f.keys) == 0 {
		return false
	}
	start, _, _ := strings.Cut(f.keys[0], ".")
	return !slices.Contains([]string{"pool", "cgi", "socket", "fastcgi", "route", "site"}, start)
}

// cliFlags are the flags of a command.
func cliFlags(which func(*flag) bool) []cli.Flag {
	var out []cli.Flag
	for i := range flags {
		if which(&flags[i]) {
			out = append(out, flags[i].cli())
		}
	}
	return out
}

// settings are what the command line and the environment say.
func settings(c *cli.Context, which func(*flag) bool) []config.Setting {
	var out []config.Setting
	for i := range flags {
		f := &flags[i]
		if !which(f) || len(f.keys) == 0 {
			continue
		}
		name, values := f.given(c)
		if values == nil {
			continue
		}
		out = append(out, config.Setting{Name: name, Keys: f.keys, Values: values, Ambient: strings.HasPrefix(name, "$")})
	}
	return out
}

// given is how a flag was given, as --NAME or as $VARIABLE, and its values;
// nil when it was not.
func (f *flag) given(c *cli.Context) (name string, values []string) {
	if c.IsSet(f.name) {
		switch name = "--" + f.name; {
		case f.list():
			return name, c.StringSlice(f.name)
		case f.value != "":
			return name, []string{c.String(f.name)}
		case c.Bool(f.name):
			return name, []string{f.sets}
		}
		return "", nil
	}
	name = variable(f.name)
	value := os.Getenv(name)
	if value == "" && f.env != "" {
		name = f.env
		value = os.Getenv(name)
	}
	switch {
	case value == "":
		return "", nil
	case f.list():
		return "$" + name, strings.Split(value, ",")
	case f.value != "":
		return "$" + name, []string{value}
	case value == "1" || value == "true":
		return "$" + name, []string{f.sets}
	}
	return "", nil
}
