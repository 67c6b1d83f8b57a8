package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// stuckRequests are the ways in which a request can be stuck; the functions of
// test/apps/stuck.py have these names.
var stuckRequests = []struct {
	name string
	// Whether it can be ended without its worker, on the main thread and on
	// another one.
	main, other bool
}{
	{name: "loop", main: true, other: true},
	{name: "task", main: true, other: true},
	{name: "sleep", main: true},
	{name: "lock", main: true},
	{name: "c_function"},
	{name: "c_function_that_holds"},
}

// A request that is stuck is answered 504, shows its stack in the slow log
// before it is ended, and takes its worker with it only where nothing else
// helps. The requests beside it end in peace.
func TestStuckRequests(t *testing.T) {
	var pools, routes strings.Builder
	for _, threads := range []int{1, 4} {
		for _, way := range stuckRequests {
			name := fmt.Sprintf("%s-%d", way.name, threads)
			fmt.Fprintf(&pools, "  %s: {app: \"stuck:app\", chdir: %q, python: %q, workers: 1, threads: %d, "+
				"slow_timeout: 300ms, timeout: 800ms, interrupt_timeout: 300ms, stop_timeout: 300ms}\n",
				name, harness.App(t), harness.Python(t), threads)
			fmt.Fprintf(&routes, "      - {path: /%s, pool: %s}\n", name, name)
		}
	}
	log := &slowLog{path: filepath.Join(t.TempDir(), "slow.log")}
	g := harness.Serve(t, fmt.Sprintf("log: {slow: %q}\npools:\n%ssites:\n  - routes:\n%s", log.path, pools.String(), routes.String()))
	t.Cleanup(harness.Client.CloseIdleConnections)

	// A few at a time: half of them compute for all they are worth.
	places := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for _, threads := range []int{4, 1} {
		for _, way := range stuckRequests {
			wg.Go(func() {
				places <- struct{}{}
				defer func() { <-places }()
				c := stuckCase{g: g, log: log, path: fmt.Sprintf("/%s-%d/", way.name, threads), name: way.name}
				c.siblings = threads > 1 && way.name != "c_function_that_holds" // it stops them, too
				c.survives = way.main && (threads == 1 || way.other)
				c.dies = !way.main
				if err := c.run(); err != nil {
					t.Errorf("%s: %v", c.path, err)
				}
			})
		}
	}
	wg.Wait()
	if t.Failed() {
		t.Logf("slow log:\n%s\nstandard error:\n%s", log.text(), g.Stderr())
	}
	if info, err := os.Stat(log.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the slow log: %v, %v", info.Mode(), err)
	}
}

type stuckCase struct {
	g                        *harness.Gateway
	log                      *slowLog
	path, name               string
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
