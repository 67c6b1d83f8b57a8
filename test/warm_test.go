package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// warmHost is a folder of scripts that is served twice: cold and warm.
type warmHost struct {
	dir        string
	cold, warm *harness.Gateway
}

// startWarmHost serves dir by two gateways that differ in warm alone. settings
// are more of the route's.
func startWarmHost(t *testing.T, dir, settings string) *warmHost {
	t.Helper()
	if settings != "" {
		settings = ", " + settings
	}
	serve := func(warm string) *harness.Gateway {
		return harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites:
  - routes: [{path: /, cgi: {dir: %q, query_arguments: true%s%s}}]
`, dir, warm, settings))
	}
	return &warmHost{dir: dir, cold: serve(""), warm: serve(", warm: true")}
}

// awaitWarm asks for a script until it is warm, and has been so several times.
func awaitWarm(t *testing.T, g *harness.Gateway, path string, times int) {
	t.Helper()
	name, _, _ := strings.Cut(path, "?")
	line := regexp.MustCompile(`script is warm.*` + regexp.QuoteMeta(name+`"`))
	harness.Eventually(t, 30*time.Second, path+" is warm", func() bool {
		_, _ = g.Try("GET", path, nil)
		return len(line.FindAllString(g.Stderr(), -1)) >= times
	})
}

// mentions are what differs from one process to the next, or one gateway to the other.
var mentions = regexp.MustCompile(`[A-Z2-7]{26}/[0-9]+|0x[0-9a-f]{6,}`)

// result is all that a client and the log say of one request.
func (h *warmHost) result(t *testing.T, g *harness.Gateway, method, path, body string) string {
	t.Helper()
	mark := len(g.Stderr())
	r, err := g.Try(method, path, strings.NewReader(body), "X-Probe", "yes")
	r.Header.Del("Date")
	r.Header.Del("Content-Length")          // the gateway's, which knows it of what comes at once
	if r.Header.Get("X-Request-Id") != "" { // the gateway's own page
		r.Header.Del("X-Request-Id")
		r.Header.Del("Content-Length")
		r.Body, _, _ = strings.Cut(r.Body, "Request ")
	}
	// What a script says at its very end may come to the log after the answer.
	var lines []string
	settle := func() []string {
		var lines, exit []string
		for line := range strings.Lines(g.Stderr()[mark:]) {
			if m := stderrLine.FindStringSubmatch(line); m != nil {
				lines = append(lines, m[1])
			} else if m := exitLine.FindString(line); m != "" {
				exit = append(exit, m) // another goroutine than that of the lines logs it: the order is open
			}
		}
		return append(lines, exit...)
	}
	for quiet, last := 0, -1; quiet < 8; time.Sleep(5 * time.Millisecond) {
		if lines = settle(); len(lines) == last {
			quiet++
		} else {
			quiet, last = 0, len(lines)
		}
	}
	text := fmt.Sprintf("%d %v broken: %t\n%s\nstderr:\n%s", r.Status, r.Header, err != nil, r.Body, strings.Join(lines, "\n"))
	_, port, _ := strings.Cut(g.Addr, ":")
	return mentions.ReplaceAllString(strings.ReplaceAll(text, port, "PORT"), "…")
}

var (
	stderrLine = regexp.MustCompile(`"line": "(.*)"}`)
	exitLine   = regexp.MustCompile(`the script ended with [^"]*`)
)

// same fails the test where a script's answer, messages or exit differ.
func (h *warmHost) same(t *testing.T, method, path, body string) {
	t.Helper()
	cold, warm := h.result(t, h.cold, method, path, body), h.result(t, h.warm, method, path, body)
	if strings.HasPrefix(path, "/late?") && !strings.Contains(cold, "broken: true\nthe beginning\n") {
		t.Errorf("%s %s is not broken off: %s", method, path, cold)
	}
	if cold != warm {
		t.Errorf("%s %s\n--- cold\n%s\n--- warm\n%s", method, path, cold, warm)
	}
}

const (
	python  = "#!/usr/bin/python3\n"
	textual = "print('Content-Type: text/plain\\n')\n"
)

// warmScripts are run cold and warm, with each of the queries, and must do the
// same.
var warmScripts = map[string]struct {
	text    string
	queries []string
	body    string
}{
	"environment": {text: python + `import os, subprocess
` + textual + `for pair in sorted(os.environ.items()): print(pair) if pair[0] not in ('UNIQUE_ID', 'REMOTE_PORT') else 0
names = list(os.environ); print(names[0], names[-6:], list(os.environ) == [n.decode() for n in __import__('posix').environ])
print(os.environb.get(b'QUERY_STRING'), os.getenv('HTTP_X_PROBE'), 'LD_BIND_NOW' in os.environ, flush=True)
print([l for l in sorted(subprocess.run(['/usr/bin/env'], capture_output=True, text=True).stdout.splitlines()) if not l.startswith(('UNIQUE_ID', 'REMOTE_PORT'))])
os.environ['MADE'] = 'yes'; del os.environ['QUERY_STRING']
print(subprocess.run(['/bin/sh', '-c', 'echo $MADE ${QUERY_STRING-unset} $SERVER_NAME'], capture_output=True).stdout)
print(subprocess.run(['/bin/sh', '-c', 'tr "\\0" "\\n" </proc/$PPID/environ | grep ^GATECREW_INSTANCE; echo $GATECREW_INSTANCE'], capture_output=True).stdout)
`, queries: []string{"a=1&b=%20", "x%C3%BCy=" + strings.Repeat("long", 500)}},
	"main": {text: python + `"""Its own docstring."""
import os, sys, pickle, signal
names = list(globals())
class Thing: pass
` + textual + `print(names, __name__, __file__, __doc__, __spec__, __package__, __cached__, type(__loader__), __loader__.path, __loader__.name, __builtins__)
print(sys.argv, getattr(sys, 'orig_argv', None), sys.path, sys.flags, sys.executable, sys._xoptions, sys.warnoptions, sys.prefix)
print(os.getcwd(), os.umask(0o22), os.getpid() == os.getpgrp(), os.getpid() == os.getsid(0), os.cpu_count())
print(type(pickle.loads(pickle.dumps(Thing()))), sys.modules['__main__'].Thing is Thing, sys.modules['__main__'])
print([(n, signal.getsignal(n)) for n in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ)], signal.pthread_sigmask(signal.SIG_BLOCK, []))
for s in sys.stdin, sys.stdout, sys.stderr: print(s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.fileno(), s.buffer, s.newlines)
print(sorted(os.listdir('/proc/self/fd')), open('/proc/self/limits').read())
import gc, threading
print(gc.isenabled(), gc.get_threshold(), gc.get_debug(), threading.current_thread().name, threading.active_count(), sys.getrecursionlimit())
print(sorted(sys.modules))
`, queries: []string{"", "word", "a+b%20c+d", "a=b"}},
	"exits": {text: python + `import os, sys, signal, atexit, threading, time
how = os.environ['QUERY_STRING'].partition('=')[2]
def deep(n): return 1 / n if not n else deep(n - 1)
class Gone:
    def __del__(self): print('deleted', file=sys.stderr)
if how == 'number': sys.exit(3)
if how == 'big': sys.exit(256 + 7)
if how == 'huge': sys.exit(1 << 70)
if how == 'negative': sys.exit(-1)
if how == 'true': sys.exit(True)
if how == 'text': sys.exit('a last word')
if how == 'tuple': sys.exit((1, 2))
if how == 'none': sys.exit(None)
if how == 'plain': raise SystemExit
if how == 'error': deep(3)
if how == 'chain':
    try: deep(0)
    except ZeroDivisionError as e: raise ValueError('two\nlines') from e
if how == 'context':
    try: deep(0)
    except ZeroDivisionError: undefined
if how == 'interrupt': raise KeyboardInterrupt
if how == 'int': os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
if how == 'hook':
    sys.excepthook = lambda *a: print('hooked', a[0], sys.exc_info(), file=sys.stderr); deep(1)
if how == 'badhook':
    def hook(*a): raise RuntimeError('bad hook')
    sys.excepthook = hook; deep(1)
if how == 'exithook':
    def hook(*a): sys.exit(9)
    sys.excepthook = hook; deep(1)
if how == '_exit': print('lost'); os._exit(4)
if how == 'term': os.kill(os.getpid(), signal.SIGTERM)
if how == 'kill': os.kill(os.getpid(), signal.SIGKILL)
if how == 'abort': os.abort()
if how == 'atexit': atexit.register(print, 'at exit', file=sys.stderr); atexit.register(deep, 0); gone = Gone(); sys.exit(5)
if how == 'thread':
    threading.Thread(target=lambda: (time.sleep(.05), print('thread done', file=sys.stderr))).start(); sys.exit(6)
if how == 'threaderror':
    threading.Thread(target=deep, args=(0,)).start(); sys.exit(7)
if how == 'daemon':
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); sys.exit(8)
if how == 'closed': sys.stdout.close(); sys.exit(2)
if how == 'badstdout': os.close(1); print('x'); sys.exit(0)
if how == 'del': gone = Gone(); also = [gone]; also.append(also); sys.exit(1)
if how == 'baderror':
    class E(Exception):
        def __str__(self): raise ValueError
    raise E
if how == 'group': raise BaseException('base')
sys.stderr.write('no newline')
sys.exit(11)
`, queries: []string{"h=number", "h=big", "h=huge", "h=negative", "h=true", "h=text", "h=tuple", "h=none", "h=plain", "h=error", "h=chain", "h=context", "h=interrupt", "h=int",
		"h=hook", "h=badhook", "h=exithook", "h=_exit", "h=term", "h=kill", "h=abort", "h=atexit", "h=thread", "h=threaderror", "h=daemon", "h=closed", "h=badstdout", "h=del", "h=baderror", "h=group", "h="}},
	// It fails after it has begun to answer: within its first milliseconds, when its
	// answer is still gathered, or later.
	"late": {text: python + `import os, sys, time
` + textual + `print('the beginning', flush='flush' in os.environ['QUERY_STRING'])
if 'sleep' in os.environ['QUERY_STRING']: time.sleep(.1)
if 'signal' in os.environ['QUERY_STRING']: sys.stdout.flush(); os.kill(os.getpid(), 9)
sys.exit(3)
`, queries: []string{"a=whole", "a=flush", "a=flush,sleep", "a=sleep", "a=signal", "a=flush,sleep,signal"}},
	"ending": {text: python + `import atexit, io, os, sys, tempfile, weakref, threading
` + textual + `class Told:
    def __init__(self, name): self.name = name
    def __del__(self): print('end of', self.name)
_private, public = Told('_private'), Told('public')
cycle = Told('cycle'); cycle.me = cycle
atexit.register(print, 'exit handler')
weakref.finalize(public, print, 'finalized')
folder = tempfile.mkdtemp()
forgotten = open(os.path.join(folder, 'forgotten'), 'w')
forgotten.write('kept')
import json
json.held = open(os.path.join(folder, 'held'), 'w'); json.held.write('held too')
class Upper(io.TextIOBase):
    def write(self, s): sys.__stdout__.write(s.upper()); return len(s)
    def flush(self): sys.__stdout__.flush()
if 'upper' in os.environ['QUERY_STRING']: sys.stdout = Upper()
print('body', end='')
pid = os.fork()
if pid == 0: print('from a fork'); sys.exit(0)
print(os.waitpid(pid, 0)[1])
def later(folder=folder):
    print(open(folder + '/forgotten').read(), open(folder + '/held').read())
r, w = os.pipe()
if os.fork() == 0:
    os.close(w); os.read(r, 1)
    print(open(folder + '/forgotten').read(), open(folder + '/held').read(), 'seen after the end', file=sys.stderr, flush=True)
    import shutil; shutil.rmtree(folder)
    os._exit(0)
os.close(r)
`, queries: []string{"a=b", "upper=1"}},
	"finalizer": {text: python + `import atexit
class Gone:
    def __del__(self): print('gone')
gone = Gone()
atexit.register(print, 'at exit')
` + textual},
	"input": {text: python + `import os, sys
` + textual + `kind = os.environ['QUERY_STRING'][2:]
if kind == 'lines': print([line for line in sys.stdin])
elif kind == 'input': print(input('prompt'), sys.stdin.readline(), os.read(0, 10))
elif kind == 'raw': print(os.read(0, 5), sys.stdin.buffer.read(5), sys.stdin.read())
elif kind == 'none': pass
else: print(len(sys.stdin.buffer.read()), sys.stdin.buffer.read())
`, queries: []string{"k=lines", "k=input", "k=raw", "k=none", "k=all"}, body: "first line\nsecond line\r\nünïcode\nlast"},
	"output": {text: python + `import os, sys
sys.stderr.write('before anything\n')
os.write(1, b'Content-Type: application/octet-stream\n\n')
sys.stdout.write('text é\u2028\n'); sys.stdout.flush()
sys.stdout.buffer.write(bytes(range(256))); sys.stdout.buffer.flush()
print('x' * 100000)
print('warning', file=sys.stderr)
os.system('echo from a shell; echo to its stderr >&2')
`},
	"encoding": {text: python + `print('Content-Type: text/plain\n')
print('\udcff')
`},
	"warned": {text: python + `import warnings
` + textual + `warnings.warn('here', DeprecationWarning)
warnings.warn('above', DeprecationWarning, stacklevel=2)
for _ in range(3): warnings.warn('once')
import cgi
print(1 is 1, "\d")
`},
	"syntax":     {text: python + textual + "this is no Python\n"},
	"flags":      {text: "#!/usr/bin/python3 -Wignore\nimport sys, warnings\n" + textual + "print(sys.flags, sys.warnoptions, sys.path, sys.argv, sys.orig_argv)\nwarnings.warn('not shown')\n"},
	"unbuffered": {text: "#!/usr/bin/python3 -u\nimport sys\n" + textual + "print(sys.flags, sys.stdout.write_through, sys.stdout.buffer, sys.orig_argv)\n"},
	"isolated":   {text: "#! /usr/bin/python3   -IBOs \nimport sys\n" + textual + "print(sys.flags, sys.path, sys.orig_argv, __debug__)\nassert False\n"},
	"byenv":      {text: "#!/usr/bin/env python3\nimport sys\n" + textual + "print(sys.flags, sys.path, sys.orig_argv, sys.executable)\n"},
	"byenvsplit": {text: "#!/usr/bin/env -S python3 -u -W error -X utf8\nimport sys\n" + textual + "print(sys.flags, sys.path, sys.orig_argv, sys.warnoptions)\n"},
	"coding":     {text: python + "# -*- coding: latin-1 -*-\nprint('Content-Type: text/plain\\n'); print(ascii('\xe9'))\n"},
	"frames": {text: python + `import sys, traceback, inspect
` + textual + `def f(): print(inspect.stack()[1].lineno)
f()
try: f(1)
except TypeError: traceback.print_exc(file=sys.stdout)
`},
	"modules": {text: python + `import logging, json, random, uuid, secrets, tempfile, datetime, multiprocessing, subprocess, concurrent.futures, urllib.parse, email.message, sqlite3, hashlib, ssl, asyncio, decimal, csv, html, http.cookies
` + textual + `logging.basicConfig(level=logging.INFO); logging.info('logged %s', json.dumps([1]))
record = logging.LogRecord('a', 1, 'b', 1, 'c', None, None)
print(0 <= record.relativeCreated < 5000)
with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, 2]))
with concurrent.futures.ThreadPoolExecutor(2) as e: print(list(e.map(abs, [-3])))
async def work(): await asyncio.sleep(0); return 'awaited'
print(asyncio.run(work()), subprocess.check_output(['echo', 'said']), hashlib.sha256(b'').hexdigest())
db = sqlite3.connect(':memory:'); print(db.execute('select 1 + 1').fetchall())
print(sorted(sys.modules) if 'sys' in globals() else '')
import sys
print(sorted(sys.modules))
`},
	"ctypes": {text: python + `import ctypes
print('Content-Type: text/plain\n', flush=True)
ctypes.CDLL(None).printf(b'in the buffer of the C library\n')
`},
}

// What a script does is the same in every respect that it, its client or the log
// can see: at first, and again when its modules are loaded beforehand.
func TestWarmIsAsCold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, s := range warmScripts {
		script(t, dir, name, s.text)
	}
	h := startWarmHost(t, dir, "")
	for name, s := range warmScripts {
		t.Run(name, func(t *testing.T) {
			queries := s.queries
			if queries == nil {
				queries = []string{""}
			}
			ask := func() {
				for _, query := range queries {
					h.same(t, "POST", "/"+name+"?"+query, s.body)
				}
			}
			ask()
			if name != "syntax" {
				awaitWarm(t, h.warm, "/"+name, 1)
			} else {
				h.warm.LogLine("it does not compile as Python")
			}
			ask()
			if name == "modules" || name == "main" {
				awaitWarm(t, h.warm, "/"+name, 2)
				ask()
			}
		})
	}
}

// Numbers of chance are each process's own.
func TestWarmChance(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "chance", python+`import random, uuid, secrets, tempfile, os, ssl, time
`+textual+`print(random.random(), uuid.uuid4(), secrets.token_hex(), tempfile.mktemp(), ssl.RAND_bytes(8).hex(), os.getpid(), next(tempfile._get_candidate_names()), sep='\n')
`)
	g := harness.Serve(t, fmt.Sprintf(`
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true}}]}]
`, dir))
	awaitWarm(t, g, "/chance", 2)
	seen := map[string]bool{}
	for range 30 {
		for line := range strings.Lines(g.Get("/chance").Body) {
			if seen[line] {
				t.Fatalf("again: %s", line)
			}
			seen[line] = true
		}
	}
}

// An edit is in force with the next request: of the script, of a module beside
// it, and of a module that takes the place of one that is loaded.
func TestWarmEdits(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) { script(t, dir, name, text) }
	body := func(n int) string {
		return fmt.Sprintf(python+textual+"import json, own\nprint(%d, own.n, getattr(json, 'mine', 0))\n", n)
	}
	write("edited", body(0))
	write("own.py", "n = 0\n")
	g := harness.Serve(t, fmt.Sprintf(`
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true, warm_preload: all, env: {PYTHONDONTWRITEBYTECODE: "1"}}}]}]
`, dir))
	want := func(text string) {
		t.Helper()
		for range 4 {
			if r := g.Get("/edited"); r.Body != text+"\n" {
				t.Fatalf("%q, want %q\n%s", r.Body, text, g.Stderr())
			}
		}
	}
	warm := 0
	await := func() {
		t.Helper()
		warm += 2
		awaitWarm(t, g, "/edited", warm)
	}
	want("0 0 0")
	await()
	want("0 0 0")
	for i := 1; i < 4; i++ {
		write("edited", body(i))
		want(fmt.Sprint(i, " 0 0"))
	}
	warm = strings.Count(g.Stderr(), "script is warm")
	awaitWarm(t, g, "/edited", warm+1)
	write("own.py", "n = 12345\n")
	want("3 12345 0")
	write("json.py", "mine = 1\n")
	want("3 12345 1")
}

// A script that can't be warm is served all the same, and the log says once why.
func TestWarmFallback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const answer = "print('Content-Type: text/plain\\n\\nanswer')\n"
	reasons := map[string]string{
		"shell": "sh is neither Python nor Perl", "inspect": "an option of its interpreter can't be kept: -i",
		"dev": "an option of its interpreter can't be kept", "nothing": "it does not compile as Python",
		"variables": "env has options or variables of its own",
	}
	script(t, dir, "shell", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nanswer\\n'\n")
	script(t, dir, "inspect", "#!/usr/bin/python3 -i\n"+answer)
	script(t, dir, "dev", "#!/usr/bin/python3 -Xdev\n"+answer)
	script(t, dir, "nothing", python+"answer(\n")
	script(t, dir, "variables", "#!/usr/bin/env -S A=b python3\n"+answer)
	g := harness.Serve(t, fmt.Sprintf(`
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true}}]}]
`, dir))
	for name, reason := range reasons {
		for range 3 {
			r := g.Get("/" + name)
			if name != "nothing" && r.Body != "answer\n" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		// With the script's name: two of them have the same reason.
		line := regexp.MustCompile(`served cold.*/` + name + `".*` + reason)
		said := func() int { return len(line.FindAllString(g.Stderr(), -1)) }
		harness.Eventually(t, 30*time.Second, name+" is served cold", func() bool { return said() > 0 })
		for range 3 {
			g.Get("/" + name)
		}
		if n := said(); n != 1 {
			t.Errorf("%s: said %d times\n%s", name, n, g.Stderr())
		}
	}
	// An environment that no packet has room for.
	script(t, dir, "large", python+"import os\n"+textual+"print(len(os.environ['QUERY_STRING']))\n")
	awaitWarm(t, g, "/large", 1)
	if r := g.Get("/large?a=" + strings.Repeat("x", 40_000)); r.Body != "40002\n" {
		t.Errorf("%+v", r)
	}
}

// When a zygote is killed, its script is served on; no request is lost, and none
// is run twice.
func TestWarmZygoteKilled(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), t.TempDir()
	script(t, dir, "count", python+`import os
fd = os.open(os.environ['OUT'] + '/' + os.environ['QUERY_STRING'], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
`+textual+`print(os.environ['QUERY_STRING'])
`)
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true, env: {OUT: %q}}}]}]
`, dir, out))
	awaitWarm(t, g, "/count?first", 1)
	stop, stopped := make(chan struct{}), make(chan struct{})
	killed, dead := 0, map[int]bool{}
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			for _, m := range zygoteLine.FindAllStringSubmatch(g.Stderr(), -1) {
				pid, _ := strconv.Atoi(m[1])
				if !dead[pid] && syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed++
				}
				dead[pid] = true // its number may be another's by now
			}
		}
	}()
	seen := newTally()
	crowd(g, 6, scaled(600, 5000), func(c *caller, n int) {
		target := "/count?n=" + strconv.Itoa(n)
		if r, err := c.call("GET", target, ""); err != nil || r.Status != 200 || r.Body != "n="+strconv.Itoa(n)+"\n" {
			seen.add("failed", "%v, %+v", err, r)
		}
	})
	close(stop)
	<-stopped
	if killed == 0 {
		t.Error("no zygote was killed")
	}
	seen.only(t)
	g.Stop()
}

// zygoteLine is what the log says of a zygote that is ready.
var zygoteLine = regexp.MustCompile(`script is warm.*"pid": (\d+)`)

// Nothing is left of a gateway that is killed with -9, nor of one that is stopped.
func TestWarmGatewayKilled(t *testing.T) {
	dir := t.TempDir()
	mark := "GATECREW_TEST_WARM=" + filepath.Base(dir) + strconv.Itoa(os.Getpid())
	name, value, _ := strings.Cut(mark, "=")
	script(t, dir, "slow", python+`import os, subprocess, sys, time
`+textual+`sys.stdout.flush()
subprocess.Popen(['sleep', '300'])
if os.fork() == 0:
    os.setsid()
    time.sleep(300)
if 'sleep' in os.environ['QUERY_STRING']: time.sleep(300)
`)
	marked := func() (pids []int) {
		all, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range all {
			if text, err := os.ReadFile(file); err == nil && slices.Contains(strings.Split(string(text), "\x00"), mark) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				pids = append(pids, pid)
			}
		}
		return pids
	}
	for _, kill := range []bool{false, true} {
		g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
graceful_timeout: 0
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true, stop_timeout: 1s, env: {%s: %q}}}]}]
`, dir, name, value))
		awaitWarm(t, g, "/slow", 1)
		for range 4 {
			go func() { _, _ = g.Try("GET", "/slow?sleep", nil) }()
		}
		harness.Eventually(t, 20*time.Second, "four requests are at work", func() bool { return len(below(g.PID, "sleep")) >= 4 })
		if len(marked()) < 8 {
			t.Fatal("the processes are not found by their environment")
		}
		if kill {
			g.Kill9()
		} else {
			g.Stop()
		}
		harness.Eventually(t, 10*time.Second, "nothing is left", func() bool { return len(marked()) == 0 })
	}
}

// A request that takes too long, or whose client goes, ends with all it started,
// also in a session of its own.
func TestWarmStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script(t, dir, "stuck", python+`import os, signal, subprocess, sys, time
if 'go' not in os.environ['QUERY_STRING']: print('Content-Type: text/plain\n\n'); sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(['sleep', '301'])
subprocess.Popen(['setsid', 'sleep', '302'])
time.sleep(300)
`)
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true, timeout: 1s, stop_timeout: 300ms}}]}]
`, dir))
	awaitWarm(t, g, "/stuck", 1)
	if r := g.Get("/stuck?go"); r.Status != 504 {
		t.Errorf("%+v", r)
	}
	none := func() bool { return len(below(g.PID, "sleep 30")) == 0 && len(harness.Zombies(g.PID)) == 0 }
	harness.Eventually(t, 10*time.Second, "what it started has ended", none)
	c := g.Dial()
	fmt.Fprintf(c, "GET /stuck?go HTTP/1.1\r\nHost: x\r\n\r\n")
	harness.Eventually(t, 10*time.Second, "it is at work", func() bool { return len(below(g.PID, "sleep 302")) > 0 })
	c.Close()
	harness.Eventually(t, 10*time.Second, "what it started has ended", none)
}

// Large bodies pass both ways at once, of many clients.
func TestWarmBodies(t *testing.T) {
	dir := t.TempDir()
	script(t, dir, "echo", python+`import os, shutil, sys
os.write(1, b'Content-Type: application/octet-stream\n\n')
shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)
`)
	g := harness.Serve(t, fmt.Sprintf(`
log: {access: "off"}
sites: [{routes: [{path: /, cgi: {dir: %q, warm: true, max: 4}}]}]
`, dir))
	awaitWarm(t, g, "/echo", 1)
	data, err := io.ReadAll(noise(3_000_000))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 12)
	for range cap(done) {
		go func() {
			r, err := g.Try("POST", "/echo", strings.NewReader(string(data)))
			if err != nil || r.Body != string(data) {
				done <- fmt.Sprintf("%v, %d of %d bytes", err, len(r.Body), len(data))
				return
			}
			done <- ""
		}()
	}
	for range cap(done) {
		if fault := <-done; fault != "" {
			t.Error(fault)
		}
	}
	zygotes := zygoteLine.FindAllStringSubmatch(g.Stderr(), -1)
	for _, p := range harness.Descendants(g.PID) {
		isZygote := slices.ContainsFunc(zygotes, func(m []string) bool { return m[1] == strconv.Itoa(p.PID) })
		if isZygote && p.PPID != g.PID {
			t.Errorf("%v is not the gateway's", p)
		}
	}
}

// A warm script is confined as a cold one.
func TestWarmConfined(t *testing.T) {
	needRoot(t)
	dir := publicDir(t)
	for _, limits := range []string{
		`user: nobody, umask: "027", nice: 2, no_new_privileges: true, rlimits: {nofile: 64, core: 0}`,
		fmt.Sprintf(`user: nobody, landlock: {writable: [%s]}`, os.TempDir()),
	} {
		h := startWarmHost(t, filepath.Join(dir, "cgi"), limits)
		awaitWarm(t, h.warm, "/confined.py", 1)
		cold, warm := askConfined(t, h.cold, "/confined.py?read=/etc/shadow"), askConfined(t, h.warm, "/confined.py?read=/etc/shadow")
		for _, r := range []*confinedReport{&cold, &warm} {
			// The last is one that a cold launch has too many.
			for _, name := range []string{"SERVER_PORT", "REMOTE_PORT", "HTTP_HOST", "UNIQUE_ID", "GATECREW_INSTANCE", "GODEBUG"} {
				delete(r.Env, name)
			}
			for fd := range r.Descriptors {
				r.Descriptors[fd] = strings.SplitN(r.Descriptors[fd], ":", 2)[0]
			}
		}
		if fmt.Sprint(cold) != fmt.Sprint(warm) {
			t.Errorf("cold %+v\nwarm %+v", cold, warm)
		}
	}
}

// TestWarmApart: under Landlock, one request can look at no other one of the same
// script, nor at what it was forked from.
func TestWarmApart(t *testing.T) {
	needRoot(t)
	needLandlock(t)
	dir := publicDir(t)
	const head = "Content-Type: text/plain\n\n"
	// It says who it is, waits until its FIFO is opened, or tries to read what
	// others have in memory.
	scripts := map[string]string{
		"apart.py": "#!" + systemPython(t) + `
import os, sys
print("` + strings.ReplaceAll(head, "\n", `\n`) + `", end="")
kind, _, what = os.environ["QUERY_STRING"].partition("=")
if kind == "wait":
    print(os.getpid(), os.getppid(), flush=True)
    open(what).read()
elif kind == "look":
    for pid in what.split(","):
        for file in "environ", "mem":
            try:
                open("/proc/%s/%s" % (pid, file)).close()
                print(pid, file, "can be read")
            except PermissionError:
                pass
`,
		"apart.pl": `#!/usr/bin/perl
$| = 1;
print "` + strings.ReplaceAll(head, "\n", `\n`) + `";
my ($kind, $what) = split /=/, $ENV{QUERY_STRING}, 2;
if ($kind eq "wait") { print $$, " ", getppid, "\n"; open my $fifo, "<", $what or die; <$fifo> }
elsif ($kind eq "look") {
    for my $pid (split /,/, $what) {
        for my $file ("environ", "mem") { print "$pid $file can be read\n" if open my $f, "<", "/proc/$pid/$file" }
    }
}
`,
	}
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o666), os.Chmod(fifo, 0o666)); err != nil {
		t.Fatal(err)
	}
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, "cgi", name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := startWarmHost(t, filepath.Join(dir, "cgi"), fmt.Sprintf(`user: nobody, landlock: {read_only: [%s], writable: [%s]}`, dir, os.TempDir()))
	for name := range scripts {
		awaitWarm(t, h.warm, "/"+name, 1)
		for _, g := range []*harness.Gateway{h.cold, h.warm} {
			waits, err := http.Get(g.URL + "/" + name + "?wait=" + fifo)
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(waits.Body).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			others := []string{strings.Fields(line)[0]}
			for _, m := range zygoteLine.FindAllStringSubmatch(g.Stderr(), -1) {
				others = append(others, m[1])
			}
			if r := g.Get("/" + name + "?look=" + strings.Join(others, ",")); r.Status != 200 || r.Body != "" {
				t.Errorf("%s: %d %q", name, r.Status, r.Body)
			}
			f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			waits.Body.Close()
		}
	}
}

// TestWarmLocale: a script whose interpreter was started without a locale passes the
// one that Python chooses (PEP 538) on to the programs that it starts.
func TestWarmLocale(t *testing.T) {
	dir := t.TempDir()
	script := "#!" + systemPython(t) + "\nimport os\nprint('Content-Type: text/plain\\n\\n', os.environ.get('LC_CTYPE'), sep='')\n"
	if err := os.WriteFile(filepath.Join(dir, "locale.py"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h := startWarmHost(t, dir, `env: {LANG: "", LC_ALL: ""}`)
	awaitWarm(t, h.warm, "/locale.py", 1)
	if cold, warm := h.cold.Get("/locale.py").Body, h.warm.Get("/locale.py").Body; cold != warm || !strings.Contains(cold, "UTF-8") {
		t.Errorf("cold %q, warm %q", cold, warm)
	}
}

// TestWarmSparesKilled: children that wait for a request are killed, as by the kernel
// when memory is short. The zygote goes on, and forks others.
func TestWarmSparesKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!" + systemPython(t) + "\nprint('Content-Type: text/plain\\n\\nhello')\n"
	if err := os.WriteFile(filepath.Join(dir, "hello.py"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	g := startWarmHost(t, dir, "warm_preload: none").warm
	awaitWarm(t, g, "/hello.py", 1)
	zygote := zygoteLine.FindStringSubmatch(g.Stderr())[1]
	spares := func() (pids []int) {
		for _, p := range harness.Descendants(g.PID) {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
			if strconv.Itoa(p.PID) != zygote && strings.Contains(string(command), "zygote.py") {
				pids = append(pids, p.PID)
			}
		}
		return pids
	}
	for range 3 {
		harness.Eventually(t, 10*time.Second, "children wait", func() bool {
			if len(spares()) == 0 {
				g.Get("/hello.py")
			}
			return len(spares()) > 0
		})
		killed := spares()
		for _, pid := range killed {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		// Until then they may take a request.
		harness.Eventually(t, 10*time.Second, "they have ended", func() bool {
			return !slices.ContainsFunc(spares(), func(pid int) bool { return slices.Contains(killed, pid) })
		})
		if r := g.Get("/hello.py"); r.Body != "hello\n" {
			t.Fatalf("%d %q", r.Status, r.Body)
		}
	}
	if log := g.Stderr(); strings.Contains(log, "zygote died") || len(zygoteLine.FindAllString(log, -1)) != 1 {
		t.Errorf("the zygote did not go on:\n%s", log)
	}
}
