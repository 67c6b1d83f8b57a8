package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// longest is how long the answer to one request may take before the request
// counts as hanging.
const longest = 60 * time.Second

// caller is an HTTP client with one kept connection. Unlike net/http's it sends
// nothing a second time, so that whatever the gateway does to a request shows.
type caller struct {
	network, addr string
	conn          net.Conn
	in            *bufio.Reader
}

func newCaller(g *harness.Gateway) *caller { return &caller{network: "tcp", addr: g.Addr} }

// call sends a request and reads the whole answer. The error of an answer that
// broke off comes with what was read of it.
func (c *caller) call(method, target, body string, fields ...string) (harness.Response, error) {
	if c.conn == nil {
		conn, err := net.DialTimeout(c.network, c.addr, longest)
		if err != nil {
			return harness.Response{}, err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	r, kept, err := c.exchange(method, target, body, fields)
	if err != nil || !kept {
		c.close()
	}
	return r, err
}

func (c *caller) exchange(method, target, body string, fields []string) (r harness.Response, kept bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(longest)); err != nil {
		return r, false, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: gateway.test\r\n", method, target)
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	if method != http.MethodGet {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	if _, err := c.conn.Write(b.Bytes()); err != nil {
		return r, false, err
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return r, false, err
	}
	data, err := io.ReadAll(resp.Body)
	r = harness.Response{Status: resp.StatusCode, Header: resp.Header, Body: string(data)}
	if err == nil && c.in.Buffered() > 0 {
		err = fmt.Errorf("%d bytes behind the answer", c.in.Buffered())
	}
	return r, !resp.Close, err
}

func (c *caller) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// crowd has so many callers make total calls of do, which is told the number of
// the call, and returns how many calls a second that were.
func crowd(g *harness.Gateway, callers, total int, do func(c *caller, n int)) float64 {
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			c := newCaller(g)
			defer c.close()
			for n := int(next.Add(1)); n <= total; n = int(next.Add(1)) {
				do(c, n)
			}
		})
	}
	wg.Wait()
	return float64(total) / time.Since(began).Seconds()
}

// crew has so many callers make calls of do, one after another, until stop is
// called, which waits for the last ones.
func crew(g *harness.Gateway, callers int, do func(c *caller)) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			c := newCaller(g)
			defer c.close()
			for {
				select {
				case <-over:
					return
				default:
					do(c)
				}
			}
		})
	}
	return func() { close(over); wg.Wait() }
}

// tally counts what happened, by name, and keeps the first example of each.
type tally struct {
	mu    sync.Mutex
	count map[string]int
	first map[string]string
}

func newTally() *tally { return &tally{count: map[string]int{}, first: map[string]string{}} }

func (a *tally) add(what, example string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[what]++
	if a.first[what] == "" {
		a.first[what] = fmt.Sprintf(example, args...)
	}
}

func (a *tally) of(what string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[what]
}

// only fails the test for everything that happened and is not in expected.
func (a *tally) only(t *testing.T, expected ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for what, n := range a.count {
		if !slices.Contains(expected, what) {
			t.Errorf("%s: %d times, first %s", what, n, a.first[what])
		}
	}
}

// below finds the processes under a gateway whose command line contains text.
func below(pid int, text string) []harness.Process {
	return slices.DeleteFunc(harness.Descendants(pid), func(p harness.Process) bool {
		return !strings.Contains(commandLine(p.PID), text)
	})
}

// workers are the gateway's worker processes, of one pool or, with "", of all.
func workers(g *harness.Gateway, pool string) []harness.Process {
	return slices.DeleteFunc(below(g.PID, "gatecrew_worker"), func(p harness.Process) bool {
		if p.PPID != g.PID {
			return true // a fork of the application
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		return pool != "" && !bytes.Contains(env, []byte("GATECREW_WORKER="+pool+"/"))
	})
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(string(data), "\x00", " ")
}

// marked finds all processes of the machine that have NAME=VALUE in their
// environment: also those whose parents are gone.
func marked(variable string) []harness.Process {
	var found []harness.Process
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(data), "\x00"), variable) {
			continue
		}
		var pid int
		fmt.Sscanf(file, "/proc/%d/", &pid)
		if p, ok := harness.Lookup(pid); ok && p.Alive() {
			found = append(found, p)
		}
	}
	return found
}

// pidsIn waits for a file of process ids, one a line, and finds the processes.
func pidsIn(t *testing.T, path string) []harness.Process {
	t.Helper()
	harness.Eventually(t, 20*time.Second, path+" is written", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []harness.Process
	for line := range strings.Lines(string(data)) {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err != nil {
			t.Fatalf("%s: %q", path, line)
		}
		if p, ok := harness.Lookup(pid); ok {
			found = append(found, p)
		}
	}
	return found
}

// allGone waits until none of the processes runs any more.
func allGone(t *testing.T, d time.Duration, what string, family []harness.Process) {
	t.Helper()
	alive := slices.Clone(family)
	for deadline := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		alive = slices.DeleteFunc(alive, func(p harness.Process) bool { return !p.Alive() })
		if len(alive) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	for _, p := range alive {
		t.Errorf("%s: still there after %v: %v", what, d, p)
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// script writes an executable file.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
