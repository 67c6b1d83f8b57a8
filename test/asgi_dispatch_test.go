package test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// asgiDispatch is an application whose paths hold up its event loop, stream,
// outlast their answers and note in files what happens to them.
const asgiDispatch = `
import asyncio
import hashlib
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))

def note(name):
    open(os.path.join(HERE, name), "a").write("%d\n" % os.getpid())

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    path = scope["path"]

    async def answer(body, status=200, more=False):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def body():
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise OSError("gone")
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    if path == "/block":
        time.sleep(float(scope["query_string"]))
    elif path == "/wait":
        await asyncio.sleep(float(scope["query_string"]))
    elif path == "/pid":
        return await answer(b"%d" % os.getpid())
    elif path == "/die":
        os._exit(9)
    elif path == "/sum":
        digest, size = hashlib.sha256(), 0
        async for piece in body():
            digest.update(piece)
            size += len(piece)
        return await answer(b"%d %s" % (size, digest.hexdigest().encode()))
    elif path == "/echo":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in body():
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        return await send({"type": "http.response.body", "body": b""})
    elif path == "/refuse":
        return await answer(b"refused", 403)
    elif path == "/background":
        await answer(b"later")
        await asyncio.sleep(1)
        return note("background")
    elif path == "/gone":
        note("begun")
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
        return note("disconnected")
    elif path == "/deaf":
        note("begun")
        try:
            await asyncio.sleep(600)
        except BaseException:
            note("cancelled")
            raise
    elif path == "/quiet":
        await answer(b"one,", more=True)
        await asyncio.sleep(1.5)
        return await send({"type": "http.response.body", "body": b"two"})
    await answer(b"done " + scope["query_string"])
`

func startASGI(t testing.TB, flags ...string) (*harness.Gateway, string) {
	t.Helper()
	app := harness.WriteFile(t, "app.py", asgiDispatch)
	g := harness.New(t, append([]string{"run", app + ":app", "--access-log", "off"}, flags...)...)
	g.Start()
	return g, filepath.Dir(app)
}

// noted waits until the application has noted something n times.
func noted(t testing.TB, dir, name string, n int) {
	t.Helper()
	harness.Eventually(t, 15*time.Second, fmt.Sprintf("%q noted %d times", name, n), func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return strings.Count(string(text), "\n") >= n
	})
}

// Requests that block an event loop hold up no others while another worker's
// loop turns: those that wait on it are given back and go elsewhere.
func TestASGIBesideWhatBlocks(t *testing.T) {
	g, _ := startASGI(t, "--workers", "4")
	harness.Eventually(t, 20*time.Second, "four workers ready", func() bool { return strings.Count(g.Stderr(), "worker ready") == 4 })
	const block = 2 * time.Second
	over := make(chan struct{})
	var wg sync.WaitGroup
	var worst, count atomic.Int64
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				token := fmt.Sprintf("%d-%d", c, i)
				method, body := "GET", ""
				if i%3 == 0 {
					method, body = "POST", strings.Repeat("x", 3000)
				}
				began := time.Now()
				r, err := g.Try(method, "/fast?"+token, strings.NewReader(body))
				if err != nil || r.Status != 200 || r.Body != "done "+token {
					t.Errorf("a quick request: %v, %d %q", err, r.Status, r.Body)
					return
				}
				worst.Store(max(worst.Load(), int64(time.Since(began))))
				count.Add(1)
			}
		})
	}
	var blocks sync.WaitGroup
	for range scaled(1, 20) {
		for range 2 {
			blocks.Go(func() {
				if r, err := g.Try("GET", fmt.Sprintf("/block?%g", block.Seconds()), nil); err != nil || r.Status != 200 {
					t.Errorf("a request that blocks: %v, %d", err, r.Status)
				}
			})
		}
		blocks.Wait()
	}
	close(over)
	wg.Wait()
	if took := time.Duration(worst.Load()); took > block/2 {
		t.Errorf("a quick request took %v beside one that blocks for %v; %d requests", took, block, count.Load())
	}
}

// A worker that dies takes the requests that it has begun with it, and those of
// idempotent methods are asked again elsewhere.
func TestASGIWorkerDies(t *testing.T) {
	g, _ := startASGI(t, "--workers", "2")
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			r, err := g.Try("GET", fmt.Sprintf("/wait?0.6%02d", i), nil)
			if err != nil || r.Status != 200 {
				t.Errorf("request %d: %v, %d %q", i, err, r.Status, r.Body)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	if r, err := g.Try("POST", "/die", nil); err != nil || r.Status != 502 {
		t.Errorf("the one that kills its worker: %v, %d", err, r.Status)
	}
	wg.Wait()
}

// Workers are replaced under load without a lost request, also those whose
// requests leave tasks behind.
func TestASGIRollingRestart(t *testing.T) {
	g, dir := startASGI(t, "--workers", "2")
	over := make(chan struct{})
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				path, body := "/wait?0.01", io.Reader(nil)
				if i%2 == 0 {
					path, body = "/sum", strings.NewReader(strings.Repeat("y", 100*i%50000))
				}
				if r, err := g.Try("POST", path, body); err != nil || r.Status != 200 {
					t.Errorf("client %d: %v, %d %q", c, err, r.Status, r.Body)
					return
				}
			}
		})
	}
	first := g.Get("/pid").Body
	for range 5 {
		g.Get("/background")
	}
	g.Signal(syscall.SIGHUP)
	harness.Eventually(t, 20*time.Second, "restart done", func() bool { return strings.Contains(g.Stderr(), "restart done") })
	close(over)
	wg.Wait()
	for range 8 {
		if again := g.Get("/pid").Body; again == first {
			t.Errorf("worker %s still serves", again)
		}
	}
	noted(t, dir, "background", 5)
}

// The application learns that its client has gone; one that doesn't listen has
// its task cancelled.
func TestASGIClientGone(t *testing.T) {
	g, dir := startASGI(t, "--workers", "1", "--timeout", "1s")
	for _, path := range []string{"/gone", "/deaf"} {
		conn := g.Dial()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		noted(t, dir, "begun", map[string]int{"/gone": 1, "/deaf": 2}[path])
		pid := g.Get("/pid").Body
		conn.Close()
		noted(t, dir, map[string]string{"/gone": "disconnected", "/deaf": "cancelled"}[path], 1)
		if again := g.Get("/pid").Body; again != pid {
			t.Errorf("%s: worker %s became %s", path, pid, again)
		}
	}
}

// After its head an answer may be silent for longer than the timeout.
func TestASGISilenceInAnAnswer(t *testing.T) {
	g, _ := startASGI(t, "--workers", "1", "--timeout", "700ms")
	if r := g.Get("/quiet"); r.Status != 200 || r.Body != "one,two" {
		t.Errorf("%d %q", r.Status, r.Body)
	}
	if r, err := g.Try("GET", "/wait?60", nil); err != nil || r.Status != 504 {
		t.Errorf("silence before the head: %v, %d", err, r.Status)
	}
}

// Background tasks are finished when the gateway ends.
func TestASGIBackgroundTasks(t *testing.T) {
	g, dir := startASGI(t, "--workers", "1")
	g.Get("/background")
	g.Stop()
	noted(t, dir, "background", 1)
}

// Bodies of known and unknown length reach the application as they arrive, and
// it may answer meanwhile.
func TestASGIBodies(t *testing.T) {
	t.Parallel()
	g, _ := startASGI(t, "--workers", "2")
	for _, n := range []int64{0, 1, 65536, 3<<20 + 1} {
		want := sumOf(&placed{n: n})
		for kind, body := range map[string]io.Reader{"of unknown length": chunked(n), "of known length": io.LimitReader(&placed{n: n}, n)} {
			req, err := http.NewRequest("POST", g.URL+"/sum", body)
			if err != nil {
				t.Fatal(err)
			}
			if kind == "of known length" {
				req.ContentLength = n
			}
			resp, err := harness.Client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if text := fmt.Sprintf("%d %s", n, want.SHA256); err != nil || string(got) != text {
				t.Errorf("%d bytes %s: %q, %v, want %q", n, kind, got, err, text)
			}
		}
	}
	t.Run("both ways", func(t *testing.T) {
		conn := g.Dial()
		defer conn.Close()
		fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		r := bufio.NewReader(conn)
		var resp *http.Response
		for i := range 20 {
			piece := fmt.Sprintf("piece %d;", i)
			fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
			if resp == nil {
				var err error
				if resp, err = http.ReadResponse(r, nil); err != nil {
					t.Fatal(err)
				}
			}
			got := make([]byte, len(piece))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != piece {
				t.Fatalf("after %q: %q, %v", piece, got, err)
			}
		}
		fmt.Fprint(conn, "0\r\n\r\nGET /fast?next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("the end: %q, %v", rest, err)
		}
		if rest, err := io.ReadAll(r); err != nil || !strings.HasSuffix(string(rest), "done next") {
			t.Errorf("the next request on the connection: %q, %v", rest, err)
		}
	})
	t.Run("answered before it was read", func(t *testing.T) {
		// A small rest is read away; a large one ends the connection, and is
		// never taken for the next request.
		smuggled := "GET /die HTTP/1.1\r\nHost: x\r\n\r\n"
		for _, size := range []int{len(smuggled), 200 << 10, 4 << 20} {
			conn := g.Dial()
			fmt.Fprintf(conn, "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
			go func() {
				rest := strings.NewReader(strings.Repeat(smuggled, size/len(smuggled)+1)[:size])
				_, _ = io.Copy(conn, rest) // it may be refused
				fmt.Fprint(conn, "GET /fast?next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			}()
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 403 {
				t.Errorf("%d bytes: %v, %v", size, resp, err)
				continue
			}
			_, _ = io.ReadAll(resp.Body)
			next, err := http.ReadResponse(r, nil)
			if err == nil && next.StatusCode != 200 || err != nil && size < 1000 {
				t.Errorf("%d bytes: the next answer on the connection: %v, %v", size, next, err)
			}
			conn.Close()
		}
	})
	t.Run("100-continue", func(t *testing.T) {
		for _, path := range []string{"/refuse", "/sum"} {
			conn := g.Dial()
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", path)
			r := bufio.NewReader(conn)
			line, err := r.ReadString('\n')
			if want := map[string]string{"/refuse": " 403 ", "/sum": " 100 "}[path]; err != nil || !strings.Contains(line, want) {
				t.Errorf("%s: %q, %v, want%sfirst", path, line, err, want)
			}
			if path == "/sum" {
				_, _ = r.ReadString('\n')
				fmt.Fprint(conn, "hello")
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				if want := fmt.Sprintf("5 %x", sha256.Sum256([]byte("hello"))); string(body) != want {
					t.Errorf("%q, want %q", body, want)
				}
			}
			conn.Close()
		}
	})
	t.Run("slower than the timeout", func(t *testing.T) {
		g, _ := startASGI(t, "--workers", "1", "--timeout", "500ms")
		conn := g.Dial()
		defer conn.Close()
		fmt.Fprint(conn, "POST /sum HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n")
		for range 8 {
			time.Sleep(250 * time.Millisecond)
			fmt.Fprint(conn, "x")
		}
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("worker dies while the client waits", func(t *testing.T) {
		conn := g.Dial()
		defer conn.Close()
		fmt.Fprint(conn, "POST /die HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nx")
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 502 {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("given back while the client waits", func(t *testing.T) {
		g, _ := startASGI(t, "--workers", "1")
		blocked := make(chan struct{})
		go func() { defer close(blocked); g.Get("/block?0.5") }()
		time.Sleep(100 * time.Millisecond)
		conn := g.Dial()
		defer conn.Close()
		fmt.Fprint(conn, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "def")
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "abcdef" {
			t.Errorf("%q, %v", body, err)
		}
		<-blocked
	})
	t.Run("too large", func(t *testing.T) {
		g, _ := startASGI(t, "--workers", "1", "--max-body", "1m")
		if r, err := g.Try("POST", "/sum", chunked(2<<20)); err == nil && r.Status != 413 {
			t.Errorf("%d %q", r.Status, r.Body)
		}
	})
	t.Run("buffered", func(t *testing.T) {
		g, _ := startASGI(t, "--workers", "1", "--buffer-requests", "true")
		want := sumOf(&placed{n: 70000})
		if r := g.Do("POST", "/sum", chunked(70000)); r.Body != fmt.Sprintf("70000 %s", want.SHA256) {
			t.Errorf("%d %q", r.Status, r.Body)
		}
	})
}

// A burst is not refused while there is room for it, though a worker is given only some
// requests in one turn of its event loop.
func TestASGIBurst(t *testing.T) {
	g, _ := startASGI(t, "--workers", "1", "--queue-length", "10")
	var wg sync.WaitGroup
	var refused atomic.Int64
	for range 400 {
		wg.Go(func() {
			if r, err := g.Try("GET", "/wait?0.5", nil); err != nil || r.Status != 200 {
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if n := refused.Load(); n > 0 {
		t.Errorf("%d of 400 requests failed", n)
	}
}

// One worker has as many requests as it is told to, and the rest waits.
func TestASGIConcurrency(t *testing.T) {
	g, _ := startASGI(t, "--workers", "1", "--concurrency", "20")
	began := time.Now()
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			if r, err := g.Try("GET", "/wait?0.3", nil); err != nil || r.Status != 200 {
				t.Errorf("%v, %d", err, r.Status)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("3 times 20 requests of 0.3 s took %v", took)
	}
}

// What the log says about a slow and a stuck request, with the stack of its task.
func TestASGISlowAndStuck(t *testing.T) {
	g, _ := startASGI(t, "--workers", "1", "--slow-timeout", "300ms", "--timeout", "700ms")
	if r, err := g.Try("GET", "/block?30", nil); err != nil || r.Status != 504 {
		t.Errorf("%v, %d", err, r.Status)
	}
	g.LogLine("time.sleep(float(scope")
	if r := g.Get("/fast?after"); r.Status != 200 {
		t.Errorf("after it: %d", r.Status)
	}
}

func TestASGIPreload(t *testing.T) {
	g, _ := startASGI(t, "--workers", "2", "--preload")
	pids := map[string]bool{}
	harness.Eventually(t, 10*time.Second, "both workers answer", func() bool {
		// One after the other would all go to the same worker.
		answers := make(chan string)
		for range 8 {
			go func() {
				r, err := g.Try("GET", "/pid", nil)
				if err != nil {
					r.Body = err.Error()
				}
				answers <- r.Body
			}()
		}
		for range 8 {
			pid := <-answers
			if _, err := strconv.Atoi(pid); err != nil {
				t.Fatalf("%q", pid)
			}
			pids[pid] = true
		}
		return len(pids) == 2
	})
}
