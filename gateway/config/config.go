// Package config is what an administrator says: the types of a configuration,
// their defaults, and the only ways to get a valid one.
//
// Load reads a file and ForTarget understands a command line. Both report
// every fault at once, and both return a Config that is complete: each default
// is filled in, each path is absolute, each name it refers to exists. Whoever
// reads a Config reads plain values and checks nothing again.
//
// The comment of a field is its manual: what it does, its unit, its default
// and what zero means. In a file durations are written 500ms, 10s, 5m or 1h (a
// bare number is seconds), sizes 64k, 10m or 1g (powers of 1024; a bare number
// is bytes), and every path is relative to the folder of the file.
package config

import "time"

// Config is everything that one gateway process is told.
type Config struct {
	// Listen are the addresses that HTTP is accepted on: HOST:PORT,
	// unix:PATH (made with mode 0660) or fd://N (a listening socket that was
	// inherited). Port 0 takes a free one. https://HOST:PORT, https+unix:PATH
	// and https+fd://N speak TLS, with the certificates of the sites' TLS.
	// Default: 127.0.0.1:8000.
	Listen []Endpoint `yaml:"listen"`
	// H2C accepts HTTP/2 without TLS too, from clients that know beforehand
	// that they may (RFC 9113, section 3.3), such as a proxy in front. With
	// TLS, HTTP/2 is always offered. Default: false.
	H2C bool `yaml:"h2c"`
	// HTTP1 is who reads HTTP/1.1 where there is no TLS: fast, a reader of the
	// gateway's own for plain requests, which leaves all others to Go's
	// net/http, or net, net/http alone. Default: fast.
	HTTP1 string `yaml:"http1"`
	// HTTP2 bounds what one HTTP/2 connection can take.
	HTTP2 HTTP2 `yaml:"http2"`
	// Log says what is written about the gateway and about requests.
	Log Log `yaml:"log"`
	// Limits bound what one client, and all clients together, can take.
	Limits Limits `yaml:"limits"`
	// GracefulTimeout is how long requests in progress may take to end once
	// the gateway was told to stop. 0 ends them at once. Default: 30s.
	GracefulTimeout time.Duration `yaml:"graceful_timeout"`
	// Pools are the groups of workers that the gateway runs itself, by name.
	Pools map[string]*Pool `yaml:"pools,omitempty"`
	// Programs are long-running commands that the gateway runs beside the
	// pools, by name: a task queue, a scheduler, a database of their own.
	Programs map[string]*Program `yaml:"programs,omitempty"`
	// Sites are what is served. There is at least one.
	Sites []*Site `yaml:"sites"`

	origins map[string]position // where each value stood, by path
}

// ForksForRequests reports whether a process is started for each request of some
// route.
func (c *Config) ForksForRequests() bool {
	for _, s := range c.Sites {
		for _, r := range s.Routes {
			if r.Socket != nil || r.CGI != nil && !r.CGI.Warm {
				return true
			}
		}
	}
	return false
}

// Log says what is written about the gateway and about requests. The gateway's
// own log goes to standard error.
type Log struct {
	// Level is the least severe level written: debug, info, warn or error.
	// Default: info.
	Level string `yaml:"level"`
	// Format is console, for people, or json, one object a line. Default:
	// console.
	Format string `yaml:"format"`
	// Access is where a line for each request goes: "-" for standard output,
	// off, or a file that is appended to. Default: "-".
	Access string `yaml:"access"`
	// AccessFormat is combined, the format of Apache and nginx, or json.
	// Default: combined.
	AccessFormat string `yaml:"access_format"`
	// Slow is where slow requests are described, with the stacks of their
	// worker: "-" for standard error, or a file that is appended to. Default:
	// "-".
	Slow string `yaml:"slow"`
}

// Limits bound what one client, and all clients together, can take. None of
// them can be switched off: every limit is more than zero, but for FileCache.
type Limits struct {
	// MaxBody is the largest request body, in bytes; a larger one is
	// answered 413. Default: 1g.
	MaxBody Size `yaml:"max_body"`
	// BodyMemory is how much of one request body is kept in memory before
	// the rest goes to a file. Default: 128k.
	BodyMemory Size `yaml:"body_memory"`
	// SpoolQuota is how much all such files may hold together; a request
	// that would need more is answered 503. Default: 8g.
	SpoolQuota Size `yaml:"spool_quota"`
	// SpoolDir is the folder of these files, which have no name there.
	// Default: $TMPDIR, or else /tmp.
	SpoolDir string `yaml:"spool_dir"`
	// HeaderTimeout is how long a client may take to send a request head.
	// Default: 10s.
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	// HeaderBytes is the largest request head, in bytes; a larger one is
	// answered 431. Default: 64k.
	HeaderBytes Size `yaml:"header_bytes"`
	// HeaderFields is how many fields a request head may have; more are
	// answered 431. Default: 200.
	HeaderFields int `yaml:"header_fields"`
	// BodyTimeout is the longest silence while a request body is read.
	// Default: 30s.
	BodyTimeout time.Duration `yaml:"body_timeout"`
	// IdleTimeout is how long a connection is kept without a request.
	// Default: 75s.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// WriteTimeout is the longest time in which a client takes no byte of a
	// response that is ready for it. Default: 60s.
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// MaxConnections is how many client connections are open at once; more
	// of them wait in the kernel's queue. Each address in Listen has one of
	// them reserved, so that it must be more than there are addresses.
	// Default: 8192.
	MaxConnections int `yaml:"max_connections"`
	// WebSocketMemory is how much the messages of all WebSocket clients may
	// hold together that have not arrived as a whole, or that their
	// application has not taken; a message that would need more closes its
	// connection with 1013. Those that come in one packet don't count.
	// Default: 512m.
	WebSocketMemory Size `yaml:"websocket_memory"`
	// FileCache is how much memory all small files together may take, of 64k
	// at most each, that static routes have served and keep for the next
	// requests. A change of a file is seen at once. 0 keeps none.
	// Default: 32m.
	FileCache Size `yaml:"file_cache"`
}

// HTTP2 bounds what one HTTP/2 connection can take. The limits that it shares
// with HTTP/1 are those of Limits; a request that was reset counts until the
// application has been told.
type HTTP2 struct {
	// MaxConcurrentStreams is how many requests one connection may have in
	// progress; 1 or more. Default: 128.
	MaxConcurrentStreams int `yaml:"max_concurrent_streams"`
}

// Queue bounds the requests that wait for a free worker, process or
// connection. Those that find no place, or wait too long, are answered 503
// with Retry-After.
type Queue struct {
	// QueueLength is how many requests may wait, besides a few of high
	// priority. 0 lets none of the others wait. Default: 512.
	QueueLength int `yaml:"queue_length"`
	// QueueTimeout is how long one request may wait. Under an overload that
	// lasts, the newest are served first and the others are refused sooner.
	// Default: 10s.
	QueueTimeout time.Duration `yaml:"queue_timeout"`
}

// Pool is a group of workers that run one Python application, WSGI (PEP 3333)
// or ASGI 3.
type Pool struct {
	// App is the application: module:attribute, module:factory() or a file,
	// PATH.py or PATH.wsgi, which may be followed by :attribute. The
	// attribute of a file is application when none is given. Required.
	App string `yaml:"app"`
	// Interface is what the application is: wsgi, asgi, or auto, which looks
	// at it once it has been imported: a coroutine function that takes scope, receive
	// and send is ASGI. Default: auto.
	Interface string `yaml:"interface"`
	// Loop is the event loop of ASGI workers: asyncio, uvloop, or auto, which is
	// uvloop where it is installed. Default: auto.
	Loop string `yaml:"loop"`
	// Lifespan says whether an ASGI application is told of the start and the end
	// of its worker: on, where a failure is one of the worker's start, off,
	// or auto, which tells it if it knows of that. Default: auto.
	Lifespan string `yaml:"lifespan"`
	// CExtension says whether the workers use the C extension, which does for
	// usual requests in C what they do in Python else: require, where a worker
	// that can't load it does not start, off, or auto, which uses it where it can be loaded;
	// the log says when it can't. CPython 3.8 and later can, except
	// free-threaded builds. Default: auto.
	CExtension string `yaml:"c_extension"`
	// Python is the interpreter. Default: that of $VIRTUAL_ENV, else of
	// .venv or venv beside the application, else python3 of $PATH.
	Python string `yaml:"python"`
	// Chdir is the folder the workers run in, and the first one they import
	// from. Default: the folder of the configuration file.
	Chdir string `yaml:"chdir"`
	// Workers is how many processes there are: N, MIN:MAX to follow the
	// load, or auto, which is a MIN:MAX by the processors and the memory
	// that the gateway may use. With a MIN of 0 a pool without requests has
	// no process, and its first request waits for one to start. Default: auto.
	Workers Workers `yaml:"workers"`
	// MinSpare is how many idle workers a pool of MIN:MAX keeps ready for
	// the next requests. Default: 0, it grows when requests have to wait.
	MinSpare int `yaml:"min_spare"`
	// MaxSpare is how many idle workers may stay beyond IdleTimeout.
	// Default: MinSpare.
	MaxSpare int `yaml:"max_spare"`
	// IdleTimeout is how long a worker that isn't needed may idle before it
	// is ended, down to MIN and MaxSpare. In a pool of a fixed size nothing
	// is ended for it. Default: 60s.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// Threads is how many requests one WSGI worker serves at a time. Default:
	// 1.
	Threads int `yaml:"threads"`
	// Concurrency is how many requests and WebSockets one ASGI worker has at
	// a time, up to 65535. Default: 1000.
	Concurrency int `yaml:"concurrency"`
	// Timeout is the longest silence of a worker: from handing it a request
	// until the response head, and, of a WSGI application, between two
	// pieces of the body. An ASGI application may keep silent for as long as
	// it likes once it has sent the head, or accepted the WebSocket. While a
	// client is awaited to send more of its body nothing is counted: that has
	// a limit of its own, BodyTimeout. Default: 30s.
	Timeout time.Duration `yaml:"timeout"`
	// GracefulTimeout is how long the requests beside a stuck one may take to
	// end before their worker is stopped, and a worker to exit that has nothing
	// more to do. One that is replaced ends its requests however long they
	// take, and counts in MaxReplacing for no longer than this. 0 means no
	// time at all. Default: 30s.
	GracefulTimeout time.Duration `yaml:"graceful_timeout"`
	// StartTimeout is how long a worker may take to load the application.
	// Default: 60s.
	StartTimeout time.Duration `yaml:"start_timeout"`
	// MaxRequests is how many requests a worker serves before it is
	// replaced. Default: 0, which never replaces it.
	MaxRequests int `yaml:"max_requests"`
	// MaxRequestsJitter adds a random number up to this to MaxRequests, so
	// that workers are not replaced together. Default: 0.
	MaxRequestsJitter int `yaml:"max_requests_jitter"`
	// MaxAge is how long a worker lives before it is replaced, less a random
	// part of up to a tenth. Default: 0, which never replaces it.
	MaxAge time.Duration `yaml:"max_age"`
	// MaxMemory is how much memory a worker may have after a request before
	// it is replaced; the request is not disturbed. Default: 0, no limit.
	MaxMemory Size `yaml:"max_memory"`
	// HardMemory is how much memory a worker may have at any time; one that
	// has more is killed, with the requests it is at. Default: 0, no limit.
	HardMemory Size `yaml:"hard_memory"`
	// MemoryBudget is how much memory all workers of the pool may have
	// together; beyond it the biggest is replaced first. Default: 0, no
	// limit.
	MemoryBudget Size `yaml:"memory_budget"`
	// MemoryMeasure is how a worker's memory is measured: rss, all its
	// resident pages, or pss, which counts a page that several processes
	// share in parts. Default: rss, and pss with Preload.
	MemoryMeasure string `yaml:"memory_measure,omitempty"`
	// MaxReplacing is how many workers may be in replacement at once.
	// Default: 0, a quarter of them and at least one.
	MaxReplacing int `yaml:"max_replacing"`
	// SlowTimeout is how long a request may wait for its worker before the
	// slow log tells what every thread and task of the worker is doing. 0
	// means never. Default: 10s.
	SlowTimeout time.Duration `yaml:"slow_timeout"`
	// InterruptTimeout is how long a request that has exceeded Timeout may
	// take to end after it was interrupted, before its worker is stopped. 0
	// interrupts nothing and stops the worker. Default: 1s.
	InterruptTimeout time.Duration `yaml:"interrupt_timeout"`
	// StopTimeout is the time between TERM and KILL for a worker that has to
	// end. Default: 5s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// Preload imports the application once and forks the workers from that
	// process, so that they share its memory. Default: false.
	Preload bool `yaml:"preload"`
	// After are programs that have to be up before the workers are started.
	// They wait for each no longer than its StartTimeout. Default: none.
	After []string `yaml:"after,omitempty"`
	// WarmUp is a path inside of the application, without the path of its
	// route and with a query if need be, that each new worker is
	// asked for before it gets requests. An answer of 500 or more, or none,
	// makes the start a failure. Default: empty, none.
	WarmUp string `yaml:"warm_up,omitempty"`
	// Reload replaces the workers when a file changes that the application
	// has imported, and shows clients on loopback what is wrong when it
	// can't be loaded. For development: the pool begins with one worker,
	// and starts more only while requests wait. Default: false.
	Reload bool `yaml:"reload"`
	// ReloadInclude are more files to watch with Reload, as patterns: * is
	// any part of a name and ** any number of folders, as in
	// templates/**/*.html. Default: none.
	ReloadInclude []string `yaml:"reload_include,omitempty"`
	// WebSocket is how the application's WebSocket connections are kept.
	WebSocket WebSocket `yaml:"websocket"`
	// Isolation is what the workers may not do.
	Isolation `yaml:",inline"`
	// Queue bounds the requests that wait for a worker.
	Queue `yaml:",inline"`
	// Environment is what the workers see of the gateway's environment.
	Environment `yaml:",inline"`
	// ReplayIdempotent gives a request to another worker when its worker
	// died before the response head, the method is idempotent and the body
	// is whole. A request that no worker has seen is always given to
	// another. Default: true.
	ReplayIdempotent bool `yaml:"replay_idempotent"`
	// BufferRequests reads a request body, to memory and then to a file,
	// before a worker is taken for it, so that a slow client holds none.
	// False hands it on as it arrives, which a WSGI application gets only of
	// bodies with a known length. Auto is true for WSGI and false for ASGI.
	// Default: auto.
	BufferRequests Switch `yaml:"buffer_requests"`
}

// Isolation is what processes may not do, and as whom they run. A protection
// that is asked for and can't be had, for the lack of a right or of the kernel,
// is a fault, and nothing is started.
type Isolation struct {
	// User runs the processes as another user, by name or number, with that
	// user's groups. Only as root. Default: the gateway's own.
	User string `yaml:"user,omitempty"`
	// Group is their group, by name or number. Default: that of User.
	Group string `yaml:"group,omitempty"`
	// Umask is the permissions that new files don't get, in octal, as 027.
	// Default: the gateway's own.
	Umask string `yaml:"umask,omitempty"`
	// Nice is added to the niceness of the processes: up to 19, the more the
	// fewer processor time they get beside others. Default: 0.
	Nice int `yaml:"nice,omitempty"`
	// CPUs are the processors that the processes may run on, by the numbers
	// of /proc/cpuinfo; each has to be one that the gateway may run on.
	// Default: all of those.
	CPUs []int `yaml:"cpus,omitempty"`
	// Rlimits are limits of each process, setrlimit(2), by the lower-case
	// name: as, core, cpu (seconds), data, fsize, memlock, nofile, nproc,
	// stack. The value is a number (cpu, nofile, nproc) or a size, or
	// unlimited. To raise one above the gateway's own takes root. Default:
	// those of the gateway.
	Rlimits map[string]string `yaml:"rlimits,omitempty"`
	// Chroot is the folder that the processes take for /. Every other path
	// of theirs is taken inside of it, but for Dir and Script of scripts, which
	// are paths outside of something inside. Only as root. Default: none.
	Chroot string `yaml:"chroot,omitempty"`
	// NoNewPrivileges keeps processes from gaining rights by a set-user-id
	// program. Default: false.
	NoNewPrivileges bool `yaml:"no_new_privileges,omitempty"`
	// Landlock says which files the processes may open at all.
	Landlock *Landlock `yaml:"landlock,omitempty"`
	// Cgroup bounds what the processes may use together.
	Cgroup *Cgroup `yaml:"cgroup,omitempty"`
}

// Landlock says which files processes may open at all, landlock(7). What is
// not named can't be opened, nor executed.
type Landlock struct {
	// ReadOnly are files and folders that may be read and executed, beside
	// those that every program needs: /usr, /lib*, /bin, /sbin, /etc, /proc
	// and /sys, /dev/null and its like, the interpreter's and the
	// application's own.
	ReadOnly []string `yaml:"read_only,omitempty"`
	// Writable are files and folders that may be written as well.
	Writable []string `yaml:"writable,omitempty"`
}

// Cgroup bounds what processes may use together, by a control group (version
// 2). Where the gateway has been given no group of its own to divide, this is a
// notice in the log and no fault, as memory limits of other kinds remain.
type Cgroup struct {
	// MemoryMax is how much memory they may have; beyond it the kernel kills
	// one. Default: 0, no limit.
	MemoryMax Size `yaml:"memory_max,omitempty"`
	// CPUMax is how many processors they may keep busy, as 1.5. Default: 0,
	// no limit.
	CPUMax float64 `yaml:"cpu_max,omitempty"`
	// PIDsMax is how many processes and threads there may be. Default: 0, no
	// limit.
	PIDsMax int `yaml:"pids_max,omitempty"`
}

// Program is a long-running command that the gateway runs beside the pools.
type Program struct {
	// Command is the program and its arguments. The program is a path, or a
	// name that is looked for in bin of the virtual environment that the
	// pools use, then in $PATH. It must stay in the foreground. Required.
	Command []string `yaml:"command"`
	// Chdir is the folder it runs in. Default: the folder of the
	// configuration file.
	Chdir string `yaml:"chdir"`
	// After are programs that have to be up before this one is started, and
	// that are stopped after it. It waits for each no longer than the
	// StartTimeout of that one. Default: none.
	After []string `yaml:"after,omitempty"`
	// Ready is an address that accepts connections once the program is up,
	// HOST:PORT or unix:PATH. Default: none, it is up once it has run for a
	// second.
	Ready Address `yaml:"ready,omitempty"`
	// Restart says what becomes of a program that has ended: always starts
	// it again, on-failure unless its exit status was 0, never leaves it.
	// Default: always.
	Restart string `yaml:"restart"`
	// StartTimeout is how long it may take to be up; then it is stopped and
	// started again. Default: 60s.
	StartTimeout time.Duration `yaml:"start_timeout"`
	// StopSignal asks it to end: TERM, INT, QUIT or HUP. It is sent to the
	// program itself, which is to end what it has started. Default: TERM.
	StopSignal string `yaml:"stop_signal"`
	// StopTimeout is how long it may take to end before it is killed, with
	// all that it has started. Default: 10s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// Environment is what it sees of the gateway's environment.
	Environment `yaml:",inline"`
	// Isolation is what it may not do.
	Isolation `yaml:",inline"`
}

// Environment is what a process is given besides what a request says. Nothing
// else of the gateway's own environment is passed on: see [Environment.Environ].
type Environment struct {
	// Env are variables to set. A value that starts with ./ or ../ is a path
	// and is made absolute; every other value is passed as it stands.
	Env map[string]string `yaml:"env,omitempty"`
	// PassEnv names variables of the gateway's environment to pass on: NAME,
	// or PREFIX* for all that start so. One that is not set is left out.
	PassEnv []string `yaml:"pass_env,omitempty"`
}

// Site is a set of routes for a set of host names.
type Site struct {
	// Hosts are the names that the site answers to: example.org, or
	// *.example.org for every name below. An empty list makes it the default
	// site, which also answers to names that no site has; without a default
	// site the first one does.
	Hosts []string `yaml:"hosts,omitempty"`
	// TLS are the site's certificates. A site without them is served with
	// those of the default site, or of the first that has some. Default: none.
	TLS *TLS `yaml:"tls,omitempty"`
	// HSTS tells browsers to come by HTTPS alone. Default: it doesn't.
	HSTS *HSTS `yaml:"hsts,omitempty"`
	// RedirectToHTTPS sends requests without TLS to the same address with it:
	// with status 301 for GET and HEAD and 308, which keeps the method, for
	// the rest. The site needs hosts then. Default: false.
	RedirectToHTTPS bool `yaml:"redirect_to_https,omitempty"`
	// HTTPSPort is the port that RedirectToHTTPS leads to, where it is not
	// the gateway's own. Default: 0, that of the https:// address in listen,
	// 443 when there are several.
	HTTPSPort int `yaml:"https_port,omitempty"`
	// Routes are the site's paths. There is at least one.
	Routes []*Route `yaml:"routes"`
}

// Certificate is a pair of files, in PEM. They are read again when they
// change; a pair that can't be used then leaves the one before it in use.
type Certificate struct {
	// Certificate is the file of the certificate, followed by those that lead
	// to its root. Required.
	Certificate string `yaml:"certificate"`
	// Key is the file of its private key, without a passphrase. Default: the
	// file of the certificate.
	Key string `yaml:"key"`
}

// TLS is how the names of a site are served with TLS.
type TLS struct {
	// Certificate is for all of the site's hosts.
	Certificate `yaml:",inline"`
	// More are further certificates, such as one with an ECDSA key beside one
	// with RSA: a client gets the first that it can use. Default: none.
	More []Certificate `yaml:"more,omitempty"`
	// ClientCA is a file of certificates, in PEM, that clients' certificates
	// must have been issued by. Default: none, clients are not asked for one.
	ClientCA string `yaml:"client_ca,omitempty"`
	// ClientAuth is require, or optional to serve also clients that have no
	// certificate; one that they have must be good either way. Only with
	// ClientCA. Default: require with ClientCA.
	ClientAuth string `yaml:"client_auth,omitempty"`
	// MinVersion is the oldest version of TLS: 1.2 or 1.3. Default: 1.2.
	MinVersion string `yaml:"min_version"`
}

// HSTS is the Strict-Transport-Security field (RFC 6797) of answers over TLS. An
// application that sends its own is left to it.
type HSTS struct {
	// MaxAge is how long a browser remembers. 0 makes it forget. Required.
	MaxAge time.Duration `yaml:"max_age"`
	// IncludeSubdomains is for all names below the site's as well.
	// Default: false.
	IncludeSubdomains bool `yaml:"include_subdomains"`
	// Preload agrees to being built into browsers, which is hard to undo: it
	// needs IncludeSubdomains and a MaxAge of a year. Default: false.
	Preload bool `yaml:"preload"`
}

// Route says what answers below one path: exactly one of Static, CGI, Socket,
// Pool and FastCGI is set.
type Route struct {
	// Path is the prefix, by whole segments: /app holds /app and /app/x but
	// not /apple. The longest one that matches a request wins. It has no
	// slash at its end, except for / itself. Required.
	Path string `yaml:"path"`
	// Static serves files.
	Static *Static `yaml:"static,omitempty"`
	// CGI runs a process for each request.
	CGI *CGI `yaml:"cgi,omitempty"`
	// Socket runs a process for each WebSocket.
	Socket *Socket `yaml:"socket,omitempty"`
	// FastCGI hands requests to an application that runs elsewhere.
	FastCGI *FastCGI `yaml:"fastcgi,omitempty"`
	// Pool names the pool of workers that answers.
	Pool string `yaml:"pool,omitempty"`
	// Priority is which requests are served first when others wait for the
	// same pool, and refused last: high, normal or low. Health checks are
	// the usual high one. Only with pool. Default: normal.
	Priority string `yaml:"priority,omitempty"`
	// RootPath is put before Path in the application's SCRIPT_NAME, for a
	// gateway behind a proxy that strips a prefix. Only with pool. Default:
	// empty.
	RootPath string `yaml:"root_path,omitempty"`
	// PassAuthorization hands the Authorization field to the application,
	// which is what Python applications expect. Only with pool: cgi,
	// socket and fastcgi have their own. Default: true with pool.
	PassAuthorization bool `yaml:"pass_authorization,omitempty"`
	// Sendfile are the files that the application may have sent by naming
	// them in its answer. Not with static and socket. Default: none; an
	// answer that names one is refused with 502, so that its path does not
	// get to the client.
	Sendfile *Sendfile `yaml:"sendfile,omitempty"`
}

// Sendfile says which files an application may name in the fields X-Sendfile
// and X-Accel-Redirect of an answer with status 200 or 206: at least one of Roots and
// Accel, or Pass.
type Sendfile struct {
	// Roots are the folders of X-Sendfile, whose value is the path of a file.
	Roots []string `yaml:"roots,omitempty"`
	// Accel are the folders of X-Accel-Redirect, by the beginning of its
	// value that stands for each, as in /internal/: /srv/files.
	Accel map[string]string `yaml:"accel,omitempty"`
	// Pass sends both fields on as they are, for a server before the gateway
	// that heeds them, as nginx does. Default: false.
	Pass bool `yaml:"pass,omitempty"`
}

// Static serves the files of one folder. Names that start with a dot are not
// served, nor is anything outside of the folder, and folders are not listed.
type Static struct {
	// Dir is the folder. Required.
	Dir string `yaml:"dir"`
	// Index are the files that stand for a folder, the first that exists.
	// Default: [index.html].
	Index []string `yaml:"index"`
}

// CGI runs a process for each request, RFC 3875: exactly one of Dir and Script
// is set.
type CGI struct {
	// Dir is a folder of scripts, each served at its path below the route.
	Dir string `yaml:"dir,omitempty"`
	// Script is the one program that answers every path of the route.
	Script string `yaml:"script,omitempty"`
	// Extensions says how to run a script by the end of its name, dot
	// included: the program to run it with, or "" to execute the script
	// itself, which then needs its x bit. With Dir, and unless it is empty,
	// nothing else is run. Default: empty, any executable file is a script.
	Extensions map[string]string `yaml:"extensions,omitempty"`
	// Index are the scripts that stand for a folder. Default: none.
	Index []string `yaml:"index,omitempty"`
	// Chdir is the folder scripts run in. Default: the script's own, which
	// is what "" stands for.
	Chdir string `yaml:"chdir,omitempty"`
	// Timeout is the longest silence of a script, as for a pool; then it is
	// stopped with all it started. Default: 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Max is how many processes of the route run at once. Default: 16.
	Max int `yaml:"max"`
	// Queue bounds the requests that wait for a process.
	Queue `yaml:",inline"`
	// Environment is what scripts see of the gateway's environment.
	Environment `yaml:",inline"`
	// PassAuthorization hands the Authorization field to scripts as
	// HTTP_AUTHORIZATION, which every process of the same user can read
	// (RFC 3875, section 9.2). Default: false.
	PassAuthorization bool `yaml:"pass_authorization"`
	// QueryArguments hands a query without = to the script as command-line
	// arguments (RFC 3875, section 4.4). Default: false.
	QueryArguments bool `yaml:"query_arguments"`
	// KeepBackground leaves alone the processes that a script started and
	// that outlive it, also when the gateway ends. Default: false, they end
	// with the request, and those in a session of their own with the gateway.
	KeepBackground bool `yaml:"keep_background"`
	// IgnoreExitStatus takes an answer for complete although its script
	// exited with a status other than 0. Default: false, such an answer is
	// broken off, unless its Content-Length shows that it is whole.
	IgnoreExitStatus bool `yaml:"ignore_exit_status"`
	// BufferRequests reads a request body before a process is started for it,
	// as for a pool. False hands it on as it arrives if its length is known.
	// Default: true.
	BufferRequests bool `yaml:"buffer_requests"`
	// StopTimeout is the time between TERM and KILL for a script that has to
	// end. Default: 5s.
	StopTimeout time.Duration `yaml:"stop_timeout"`
	// Warm forks the process of a script in Python or Perl from one that has
	// the interpreter running and the script compiled. Each request gets a
	// process of its own as ever; a script for which that is not possible is
	// started as without it, and the log says why. Default: false.
	Warm bool `yaml:"warm"`
	// WarmPreload says which of the modules that a script has been seen to
	// import are imported before there is a request: stdlib, those that come
	// with the interpreter, all, or none. Default: stdlib.
	WarmPreload string `yaml:"warm_preload"`
	// WarmScripts is how many scripts of the route are kept warm at once; each
	// costs the memory of an interpreter. The one that was not asked for the
	// longest makes place for another. Default: 16.
	WarmScripts int `yaml:"warm_scripts"`
	// Isolation is what scripts may not do.
	Isolation `yaml:",inline"`
}

// FastCGI hands requests to an application that runs elsewhere, one request at
// a time on each kept connection.
type FastCGI struct {
	// Address is where it listens: HOST:PORT or unix:PATH. Required.
	Address Address `yaml:"address"`
	// Root is the folder of its scripts: the path of a request is split into
	// a script, which must be there, and PATH_INFO. Default: empty, the
	// whole path is PATH_INFO.
	Root string `yaml:"root,omitempty"`
	// Index are the scripts that stand for a folder. Only with Root.
	// Default: [index.php] with Root.
	Index []string `yaml:"index"`
	// Extensions are the names' ends that make a file a script, dot
	// included. Only with Root. Default: [.php] with Root.
	Extensions []string `yaml:"extensions"`
	// Static serves the files below Root that are not scripts. Only with
	// Root. Default: true with Root.
	Static bool `yaml:"static"`
	// MaxConnections is how many connections are open at once. A kept
	// connection occupies a process of the application, so it should not be
	// more than it has processes. Default: 5, which is also the number of
	// children in the configuration that PHP-FPM comes with.
	MaxConnections int `yaml:"max_connections"`
	// ConnectTimeout is how long connecting may take. Default: 5s.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// Timeout is the longest silence of the application, as for a pool.
	// Default: 60s.
	Timeout time.Duration `yaml:"timeout"`
	// BufferRequests reads a request body before a connection is taken for
	// it, as for a pool. False hands it on as it arrives if its length is
	// known. Default: true.
	BufferRequests bool `yaml:"buffer_requests"`
	// Queue bounds the requests that wait for a connection.
	Queue `yaml:",inline"`
	// Params are set on every request, over what the request says. Names
	// that start with HTTP_ are refused: they are the request's own fields.
	Params map[string]string `yaml:"params,omitempty"`
	// PassAuthorization hands the Authorization field to the application,
	// which is what PHP applications expect. Default: true.
	PassAuthorization bool `yaml:"pass_authorization"`
}
