package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gatecrew/test/harness"
)

// streams is a gateway before test/apps/streaming.py as ASGI, WSGI and CGI, each
// at its name. There is one worker of each kind: streams share its connection.
type streams struct {
	*harness.Gateway
	dir string // TEST_DIR
}

func startStreams(t *testing.T, plain bool) *streams {
	t.Helper()
	s := &streams{dir: t.TempDir()}
	app, python, env := harness.App(t), harness.Python(t), fmt.Sprintf("{TEST_DIR: %q}", s.dir)
	s.Gateway = harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
h2c: true
log: {access: off}
limits: {max_body: 20g}
pools:
  asgi: {app: "streaming:app", chdir: %[1]q, python: %[2]q, workers: 1, env: %[3]s}
  wsgi: {app: "streaming:wsgi", chdir: %[1]q, python: %[2]q, workers: 1, threads: 4, buffer_requests: false, env: %[3]s}
sites:
  - routes:
      - {path: /asgi, pool: asgi}
      - {path: /wsgi, pool: wsgi}
      - {path: /cgi, cgi: {script: %[4]q, buffer_requests: false, env: %[3]s}}
`, app, python, env, filepath.Join(app, "streaming.py"))))
	if plain {
		s.Binary = harness.BuildPlain(t)
	}
	s.Start()
	t.Cleanup(harness.Client.CloseIdleConnections)
	return s
}

var streamKinds = []string{"asgi", "wsgi", "cgi"}

// goOn lets the application do what waits for a name.
func (s *streams) goOn(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// begin sends the head of a request and returns the connection for the rest.
func (s *streams) begin(t *testing.T, method, target string, fields ...string) *stream {
	t.Helper()
	c := s.Dial()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: gateway.test\r\n%s\r\n", method, target, strings.Join(append(fields, ""), "\r\n"))
	return &stream{Conn: c, in: bufio.NewReader(c)}
}

// stream is one request whose two sides go on at the same time, which net/http's
// client does not do.
type stream struct {
	net.Conn
	in *bufio.Reader
}

func (s *stream) response(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return resp
}

// Every piece that an application sends reaches the client before the next one is
// made: the application goes on when the client has it. The same when the length
// of the answer is known (PEP 3333: a server must not delay the transmission of
// any block; ASGI: it must flush what it was sent).
func TestStreamsArriveAtOnce(t *testing.T) {
	s := startStreams(t, false)
	for _, kind := range streamKinds {
		for _, how := range []string{"type=text/event-stream", "type=text/plain", "length=1"} {
			t.Run(kind+" "+how, func(t *testing.T) {
				const n = 5
				name := kind + strconv.Itoa(len(how))
				c := s.begin(t, "GET", fmt.Sprintf("/%s/steps?n=%d&name=%s&%s", kind, n, name, how))
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				body := bufio.NewReader(c.response(t).Body)
				var worst time.Duration
				for i := range n {
					var number, sent int64
					line, err := body.ReadString('\n')
					if err != nil {
						t.Fatalf("piece %d is held back: %v", i, err)
					}
					if _, err := fmt.Sscanf(line, "data: %d %d\n", &number, &sent); err != nil || number != int64(i) {
						t.Fatalf("piece %d is %q", i, line)
					}
					worst = max(worst, monotonic(t)-time.Duration(sent))
					body.ReadString('\n')
					s.goOn(t, fmt.Sprintf("%s.%d", name, i))
				}
				if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
					t.Errorf("at the end %q, %v", rest, err)
				}
				t.Logf("the slowest of %d pieces took %v", n, worst)
			})
		}
	}
}

// monotonic is the clock by which Python's time.monotonic counts.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// Clients that wait for something to happen get it when it happens, and more of
// them than a worker of threads could hold wait in one event loop.
func TestLongPolling(t *testing.T) {
	s := startStreams(t, false)
	for _, kind := range streamKinds {
		t.Run(kind, func(t *testing.T) {
			clients := map[string]int{"asgi": 200, "wsgi": 4, "cgi": 4}[kind]
			var waiting []*stream
			for range clients {
				waiting = append(waiting, s.begin(t, "GET", "/"+kind+"/poll?name="+kind))
			}
			waiting[0].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if b, err := waiting[0].in.Peek(1); err == nil {
				t.Fatalf("an answer before there is one: %q", b)
			}
			waiting[0].SetReadDeadline(time.Now().Add(20 * time.Second))
			s.goOn(t, kind)
			for i, c := range waiting {
				resp := c.response(t)
				if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || !strings.HasPrefix(string(body), "data: 000 ") {
					t.Fatalf("client %d: %d %q, %v", i, resp.StatusCode, body, err)
				}
			}
		})
	}
}

// Bodies far larger than the memory that anyone has for them.
func TestLargeStreams(t *testing.T) {
	t.Parallel()
	s := startStreams(t, true)
	size := scaled[int64](256<<20, 10<<30)
	for _, kind := range streamKinds {
		t.Run(kind, func(t *testing.T) {
			if r := s.Get("/" + kind + "/"); r.Body != "quick\n" {
				t.Fatalf("%+v", r)
			}
			family := append(workers(s.Gateway, ""), harness.Process{PID: s.PID})
			before := map[int]int64{}
			for _, p := range family {
				before[p.PID] = harness.MemoryOf(p.PID).Peak
			}
			client := http.Client{Transport: harness.Client.Transport}
			began := time.Now()
			resp, err := client.Get(fmt.Sprintf("%s/%s/pour?bytes=%d", s.URL, kind, size))
			if err != nil {
				t.Fatal(err)
			}
			if err := checkPlaced(resp.Body, size); err != nil {
				t.Error(err)
			}
			resp.Body.Close()
			down := time.Since(began)
			began = time.Now()
			req, err := http.NewRequest("POST", s.URL+"/"+kind+"/sink", &placed{n: size})
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = size
			resp, err = client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := fmt.Sprintf("%d bytes, 0 wrong\n", size); string(body) != want {
				t.Errorf("%d %q, want %q", resp.StatusCode, body, want)
			}
			t.Logf("%d MiB in %v, back in %v", size>>20, down, time.Since(began))
			for _, p := range family {
				if after := harness.MemoryOf(p.PID).Peak; after > before[p.PID]+24<<20 {
					t.Errorf("process %d grew from %d to %d MiB", p.PID, before[p.PID]>>20, after>>20)
				}
			}
		})
	}
}

// A client that reads a kilobyte a second and one that writes a kilobyte a
// second share a worker's connection with a thousand quick requests, which must
// not notice. Rounds with and without the slow ones alternate, so that a slow
// minute of the machine falls on both.
func TestSlowNeighbours(t *testing.T) {
	s := startStreams(t, true)
	for _, kind := range []string{"asgi", "wsgi"} {
		t.Run(kind, func(t *testing.T) {
			var alone, beside []time.Duration
			rounds, total := 2, scaled(1000, 20_000)
			for range rounds {
				alone = append(alone, s.quick(t, kind, total/rounds)...)
				stop := s.slow(t, kind)
				beside = append(beside, s.quick(t, kind, total/rounds)...)
				stop()
			}
			slices.Sort(alone)
			slices.Sort(beside)
			p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
			t.Logf("%d quick requests alone: p99 %v, longest %v; beside slow ones: p99 %v, longest %v",
				len(alone), p99(alone), alone[len(alone)-1], p99(beside), beside[len(beside)-1])
			// One that waits for a slow one waits for seconds.
			if p99(beside) > 10*p99(alone)+50*time.Millisecond || beside[len(beside)-1] > 3*time.Second {
				t.Error("the quick ones wait for the slow ones")
			}
		})
	}
}

// quick makes so many requests and tells how long each took.
func (s *streams) quick(t *testing.T, kind string, total int) []time.Duration {
	t.Helper()
	took := make([]time.Duration, total)
	crowd(s.Gateway, 4, total, func(c *caller, n int) {
		began := time.Now()
		if r, err := c.call("GET", "/"+kind+"/", ""); err != nil || r.Body != "quick\n" {
			t.Errorf("request %d: %+v, %v", n, r, err)
		}
		took[n-1] = time.Since(began)
	})
	return took
}

// slow starts a slow reader and a slow writer and returns when the answer fills
// whatever there is between the application and its reader.
func (s *streams) slow(t *testing.T, kind string) (stop func()) {
	t.Helper()
	reader := s.begin(t, "GET", "/"+kind+"/pour?bytes=1073741824")
	if err := reader.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	writer := s.begin(t, "POST", "/"+kind+"/sink", "Content-Length: 1048576")
	over := make(chan struct{})
	var wg sync.WaitGroup
	every := func(step func() error) {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-time.After(time.Second / 4):
					if err := step(); err != nil {
						t.Errorf("a slow one: %v", err)
						return
					}
				}
			}
		})
	}
	in, out := make([]byte, 256), make([]byte, 256)
	every(func() error { _, err := reader.Read(in); return err })
	every(func() error { _, err := writer.Write(out); return err })
	time.Sleep(500 * time.Millisecond)
	return func() {
		close(over)
		wg.Wait()
		reader.Close()
		writer.Close()
	}
}
