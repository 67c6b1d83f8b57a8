package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// stuckWay is a way in which a request can be stuck: the name of a function of
// the application.
type stuckWay struct {
	name string
	// Whether it can be ended without its worker, on the main thread and on
	// another one.
	main, other bool
	preload     bool   // to be tried in a forked worker, too
	task        string // what its task waits for, by the slow log
}

var stuckRequests = []stuckWay{
	{name: "loop", main: true, other: true, preload: true},
	{name: "task", main: true, other: true},
	{name: "sleep", main: true, preload: true},
	{name: "lock", main: true},
	{name: "c_function"},
	{name: "c_function_that_holds", preload: true},
	{name: "swallows"}, // its cancellation
}

// stuckViews are asynchronous views of Django under WSGI, each of which runs in
// a helper thread.
var stuckViews = []stuckWay{
	{name: "awaits", main: true, other: true, task: "_GatheringFuture"},
	{name: "nested", main: true, other: true},
	{name: "leaves", main: true}, // the loop, for time.sleep()
	{name: "computes"},
	{name: "refuses"}, // its cancellation
}

// stuckPool is a line of configuration: a pool of one worker.
func stuckPool(t *testing.T, name, app string, threads int, interrupt time.Duration, more string) string {
	return fmt.Sprintf("  %s: {app: %q, chdir: %q, python: %q, workers: 1, threads: %d, "+
		"slow_timeout: 300ms, timeout: 800ms, interrupt_timeout: %v, stop_timeout: 300ms%s}\n",
		name, app, harness.App(t), harness.Python(t), threads, interrupt, more)
}

// A request that is stuck is answered 504, shows its stack in the slow log
// before it is ended, and takes its worker with it only where nothing else
// helps. The requests beside it end in peace.
func TestStuckRequests(t *testing.T) { testStuck(t, "stuck:app", stuckRequests) }

func TestStuckDjango(t *testing.T) { testStuck(t, "stuck_django:app", stuckViews) }

func testStuck(t *testing.T, app string, ways []stuckWay) {
	t.Parallel()
	log := &slowLog{path: filepath.Join(t.TempDir(), "slow.log")}
	var cases []*stuckCase
	var pools, routes strings.Builder
	for _, kind := range []struct {
		threads int
		preload bool
	}{{4, false}, {1, false}, {1, true}} {
		for _, way := range ways {
			if kind.preload && !way.preload {
				continue
			}
			c := &stuckCase{log: log, name: way.name, task: way.task}
			c.siblings = kind.threads > 1 && way.name != "c_function_that_holds" // it stops them, too
			c.survives = way.main && (kind.threads == 1 || way.other)
			c.dies = !way.main
			interrupt := 300 * time.Millisecond
			if c.survives {
				interrupt = 5 * time.Second
			}
			pool := fmt.Sprintf("%s-%d-%v", way.name, kind.threads, kind.preload)
			c.path = "/" + pool + "/"
			cases = append(cases, c)
			pools.WriteString(stuckPool(t, pool, app, kind.threads, interrupt, fmt.Sprintf(", preload: %v", kind.preload)))
			fmt.Fprintf(&routes, "      - {path: /%[1]s, pool: %[1]s}\n", pool)
		}
	}
	g := harness.Serve(t, fmt.Sprintf("log: {slow: %q}\npools:\n%ssites:\n  - routes:\n%s", log.path, pools.String(), routes.String()))
	t.Cleanup(harness.Client.CloseIdleConnections)

	// A few at a time: half of them compute for all they are worth.
	places := make(chan struct{}, 6)
	var wg sync.WaitGroup
	for _, c := range cases {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			c.g = g
			if err := c.run(); err != nil {
				t.Errorf("%s: %v", c.path, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Logf("slow log:\n%s\nstandard error:\n%s", log.text(), g.Stderr())
	}
	if info, err := os.Stat(log.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the slow log: %v, %v", info, err)
	}
}

type stuckCase struct {
	g                        *harness.Gateway
	log                      *slowLog
	path, name, task         string
	siblings, survives, dies bool
}

func (c *stuckCase) run() error {
	before, err := c.get("")
	if err != nil {
		return err
	}
	siblings := make(chan error, 1)
	ended := make(chan struct{})
	go func() { siblings <- c.beside(ended) }()
	r, err := c.g.Try("GET", c.path+c.name+"?x=%22", nil)
	id := r.Header.Get("X-Request-Id")
	if err != nil || r.Status != 504 || id == "" || !strings.Contains(r.Body, "Request "+id+"\n") {
		return fmt.Errorf("%v, %d %v %q, want 504 with the request's id", err, r.Status, r.Header, r.Body)
	}
	outcome := fmt.Sprintf(`"request": "%s", "reason": "no answer for 800ms"`, id)
	if err := within(5*time.Second, func() error {
		if !strings.Contains(c.g.Stderr(), outcome) {
			return fmt.Errorf("the log does not say what became of %s", id)
		}
		return nil
	}); err != nil {
		return err
	}
	close(ended)
	if err := <-siblings; err != nil {
		return fmt.Errorf("beside it: %w", err)
	}
	if err := within(time.Second, func() error { return c.log.shows(id, c.name) }); err != nil {
		return err
	}
	if block := c.log.blocks()[id]; c.task != "" && !strings.Contains(block, " for request "+id+" waits for a "+c.task+":\n") {
		return fmt.Errorf("the slow log does not tell the task of request %s: %q", id, block)
	}
	after, err := c.get("")
	switch {
	case err != nil:
		return err
	case c.survives && after != before:
		return fmt.Errorf("the worker %s was replaced by %s", before, after)
	case c.dies && after == before:
		return fmt.Errorf("the worker %s was not replaced", before)
	}
	if after != before { // TERM, then KILL
		return within(8*time.Second, func() error {
			if _, err := os.Stat("/proc/" + before + "/stat"); err == nil {
				return fmt.Errorf("the worker %s is still there", before)
			}
			return nil
		})
	}
	return nil
}

// beside has two requests in progress beside the stuck one until it has ended.
func (c *stuckCase) beside(ended <-chan struct{}) error {
	if !c.siblings {
		return nil
	}
	errs := make(chan error, 2)
	for range cap(errs) {
		go func() {
			for {
				if _, err := c.get("nap"); err != nil {
					errs <- err
					return
				}
				select {
				case <-ended:
					errs <- nil
					return
				default:
				}
			}
		}()
	}
	if err := <-errs; err != nil {
		return err
	}
	return <-errs
}

// get returns the process id of the worker that answers.
func (c *stuckCase) get(page string) (string, error) {
	r, err := c.g.Try("GET", c.path+page, nil)
	if err != nil || r.Status != 200 {
		return "", fmt.Errorf("/%s: %v, %d %q", page, err, r.Status, r.Body)
	}
	return r.Body, nil
}

func within(d time.Duration, what func() error) error {
	for deadline := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
		if err := what(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// slowLog is the file of a gateway's slow log.
type slowLog struct{ path string }

func (l *slowLog) text() string {
	text, _ := os.ReadFile(l.path)
	return string(text)
}

// blocks are the blocks by request: the header and the stacks.
func (l *slowLog) blocks() map[string]string {
	header := regexp.MustCompile(`(?m)^\S+\tslow request\t(\S+) `)
	text, blocks := l.text(), map[string]string{}
	at := header.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		blocks[text[m[2]:m[3]]] = text[m[0]:end]
	}
	return blocks
}

var shownWith = regexp.MustCompile(`its stack is shown with request (\S+)`)

// shows looks for a function in the stack of a request.
func (l *slowLog) shows(request, function string) error {
	blocks := l.blocks()
	block := blocks[request]
	if m := shownWith.FindStringSubmatch(block); m != nil {
		block += blocks[m[1]]
	}
	if !regexp.MustCompile(` in ` + function + `\b`).MatchString(block) {
		return fmt.Errorf("no %s in the slow log of request %s: %q", function, request, block)
	}
	return nil
}

// A request whose client has left is given up a timeout later, in the same way.
func TestStuckWithoutClient(t *testing.T) {
	t.Parallel()
	log := &slowLog{path: filepath.Join(t.TempDir(), "slow.log")}
	g := harness.Serve(t, fmt.Sprintf("log: {slow: %q}\npools:\n%ssites:\n  - routes:\n      - {path: /, pool: web}\n",
		log.path, stuckPool(t, "web", "stuck:app", 1, time.Second, "")))
	before := g.Get("/").Body
	client := g.Dial()
	fmt.Fprintf(client, "GET /loop HTTP/1.1\r\nHost: a\r\n\r\n")
	time.Sleep(100 * time.Millisecond)
	client.Close()
	g.LogLine("still busy 800ms after its client had gone")
	g.LogLine("request interrupted")
	if after := g.Get("/").Body; after != before {
		t.Errorf("the worker %s was replaced by %s", before, after)
	}
	if err := within(time.Second, func() error {
		for id := range log.blocks() {
			return log.shows(id, "loop")
		}
		return errors.New("nothing in the slow log")
	}); err != nil {
		t.Error(err)
	}
}

// An answer that stops in the middle is broken off, never ended as if it were
// whole, and its request is dealt with like one that has not begun to answer.
func TestStuckStream(t *testing.T) {
	t.Parallel()
	cases := []struct {
		threads  int
		way      string
		survives bool
	}{{1, "loop", true}, {1, "sleep", true}, {1, "task", true}, {3, "loop", true}, {1, "c_function", false}}
	var pools, routes strings.Builder
	for i, c := range cases {
		interrupt := 5 * time.Second
		if !c.survives {
			interrupt = 300 * time.Millisecond
		}
		pools.WriteString(stuckPool(t, fmt.Sprint("p", i), "stuck:app", c.threads, interrupt, ""))
		fmt.Fprintf(&routes, "      - {path: /%[1]d, pool: p%[1]d}\n", i)
	}
	log := &slowLog{path: filepath.Join(t.TempDir(), "slow.log")}
	g := harness.Serve(t, fmt.Sprintf("log: {slow: %q}\npools:\n%ssites:\n  - routes:\n%s", log.path, pools.String(), routes.String()))
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			name := fmt.Sprintf("%s with %d threads", c.way, c.threads)
			path := fmt.Sprintf("/%d/", i)
			before, _ := g.Try("GET", path, nil)
			r, err := g.Try("GET", path+"stream?"+c.way, nil)
			if err == nil || r.Status != 200 || r.Body != "data: 1\n\n" {
				t.Errorf("%s: %v, %d %q, want an answer that breaks off", name, err, r.Status, r.Body)
			}
			if err := within(2*time.Second, func() error {
				for id, block := range log.blocks() {
					if strings.Contains(block, "GET "+path+"stream?") {
						return log.shows(id, c.way)
					}
				}
				return errors.New("it is not in the slow log")
			}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for range c.threads + 1 { // its slot is free
				after, err := g.Try("GET", path, nil)
				if err != nil || after.Status != 200 || (after.Body == before.Body) != c.survives {
					t.Errorf("%s: %v, the worker was %s and is %s", name, err, before.Body, after.Body)
				}
			}
		})
	}
	wg.Wait()
}

// A great many that are stuck at once neither stop the gateway nor fill its
// log, and their worker describes itself once a second.
func TestStuckStorm(t *testing.T) {
	t.Parallel()
	log := &slowLog{path: filepath.Join(t.TempDir(), "slow.log")}
	g := harness.Serve(t, fmt.Sprintf("log: {slow: %q}\npools:\n%s%ssites:\n  - routes:\n      - {path: /, pool: web}\n      - {path: /other, pool: other}\n",
		log.path, stuckPool(t, "web", "stuck:app", 32, 5*time.Second, ", queue_length: 300"), stuckPool(t, "other", "stuck:app", 1, time.Second, "")))
	before := g.Get("/").Body
	began := time.Now()
	var statuses [600]atomic.Int32
	var storm sync.WaitGroup
	for range scaled(200, 2000) {
		storm.Go(func() {
			r, err := g.Try("GET", "/crowd", nil)
			if err != nil {
				t.Error(err)
			}
			statuses[r.Status].Add(1)
		})
	}
	over := make(chan struct{})
	go func() { storm.Wait(); close(over) }()
	var worst time.Duration
	for {
		at := time.Now()
		if r := g.Get("/other/"); r.Status != 200 {
			t.Errorf("beside the storm: %d %q", r.Status, r.Body)
		}
		worst = max(worst, time.Since(at))
		select {
		case <-over:
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}
	took := time.Since(began)
	t.Logf("%v, beside it at most %v", took, worst)
	if worst > 2*time.Second {
		t.Errorf("another pool took %v to answer", worst)
	}
	if n := statuses[504].Load(); n < 32 {
		t.Errorf("%d were answered 504", n)
	}
	for status := range statuses {
		if n := statuses[status].Load(); n > 0 && status != 503 && status != 504 {
			t.Errorf("%d were answered %d", n, status)
		}
	}
	if after := g.Get("/").Body; after != before {
		t.Errorf("the worker %s was replaced by %s\n%s", before, after, g.Stderr())
	}
	blocks, shown := log.blocks(), 0
	for id, block := range blocks {
		if strings.Contains(block, "    thread ") {
			shown++
		}
		if len(block) > 512<<10 {
			t.Errorf("the block of %s has %d bytes", id, len(block))
		}
	}
	if len(blocks) == 0 || shown == 0 || shown > int(took/time.Second)+2 {
		t.Errorf("%d blocks, and the worker has described itself %d times in %v", len(blocks), shown, took)
	}
}
