package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"gatecrew/test/harness"
)

// Workers with sockets and requests are killed with -9, and the pool is rolled,
// all the time. A request is answered right, or with 502, and a POST is executed
// once at most, and not at all when the answer is 503. A socket gives back what it was given until it ends, with a code
// that tells why or with its connection; nobody waits for ever; at the end
// everything is as it was at the beginning.
func TestChaosSockets(t *testing.T) {
	const crew = 3
	kept := t.TempDir()
	g := harness.New(t, "run", "asgi_chaos:app", "--chdir", harness.App(t), "--python", harness.Python(t),
		"--env", "TEST_DIR="+kept, "--workers", strconv.Itoa(crew), "--access-log", "off", "--log-level", "error")
	growth := int64(512 << 20) // the race detector remembers much
	if soak {
		g.Binary, growth = harness.BuildPlain(t), 48<<20
	}
	g.Start()
	whole := func() bool { return len(workers(g, "")) == crew && len(harness.Zombies(g.PID)) == 0 }
	harness.Eventually(t, 20*time.Second, "all workers run", whole)
	crowd(g, 32, 500, func(c *caller, n int) { _, _ = c.call("GET", "/?warm", "") })
	files := func() int { return len(harness.OpenFiles(g.PID)) }
	harness.Eventually(t, 10*time.Second, "the connections are closed", func() bool { return sockets(g) <= 1+2*crew })
	filesBefore, memoryBefore := files(), harness.MemoryOf(g.PID).RSS

	over := make(chan struct{})
	var background sync.WaitGroup
	killed, rolled := 0, 0
	background.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-over:
				return
			case <-time.After(200 * time.Millisecond):
			}
			if n%8 == 0 {
				g.Signal(syscall.SIGHUP)
				rolled++
			} else if family := workers(g, ""); len(family) > 0 {
				if p := family[rand.IntN(len(family))]; p.Alive() && syscall.Kill(p.PID, syscall.SIGKILL) == nil {
					killed++
				}
			}
		}
	})
	ends := newTally()
	for i := range scaled(20, 300) {
		background.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
					chat(g.Addr, fmt.Sprintf("%d/%d", i, n), over, ends)
				}
			}
		})
	}

	seen := newTally()
	var mu sync.Mutex
	confirmed := map[string]bool{} // POSTs that were answered 200
	refused := map[string]bool{}   // and 503: no application has seen them
	// Not as fast as it goes: the sockets are to have their share.
	total := scaled(4000, 400_000)
	rate := crowd(g, 16, total, func(c *caller, n int) {
		method, target, body, token := "GET", "/?"+strconv.Itoa(n), "", strconv.Itoa(n)
		if n%10 == 0 {
			method, target, body = "POST", "/", token
		}
		r, err := c.call(method, target, body)
		switch {
		case err != nil:
			seen.add(method+" broken", "request %d: %v", n, err)
		case r.Status == http.StatusBadGateway:
			seen.add(method+" 502", "")
		case r.Status == http.StatusServiceUnavailable && method == "POST":
			seen.add("POST 503", "")
			mu.Lock()
			refused[token] = true
			mu.Unlock()
		case r.Status != http.StatusOK:
			seen.add(fmt.Sprintf("%s %d", method, r.Status), "request %d: %+v", n, r)
		case r.Body != token:
			seen.add(method+" wrong", "request %d: %+v", n, r)
		default:
			seen.add(method+" right", "")
			if method == "POST" {
				mu.Lock()
				confirmed[token] = true
				mu.Unlock()
			}
		}
		time.Sleep(10 * time.Millisecond)
	})
	close(over)
	background.Wait()
	t.Logf("%d requests, %.0f/s, %d workers killed, %d rolls: GET %d right and %d times 502, POST %d right, %d times 502 and %d times 503", total, rate, killed, rolled,
		seen.of("GET right"), seen.of("GET 502"), seen.of("POST right"), seen.of("POST 502"), seen.of("POST 503"))
	t.Logf("sockets: %v", ends.count)
	seen.only(t, "GET right", "GET 502", "POST right", "POST 502", "POST 503")
	ends.only(t, "messages", "ours", "over", "code 1011", "code 1012", "connection lost", "status 502", "status 503")
	if n := seen.of("GET 502"); n > max(3, total/1000) {
		t.Errorf("%d GETs were answered 502, although they may be given to another worker", n)
	}
	if killed < 5 || rolled < 2 || ends.of("ours") < 20 || ends.of("code 1011") == 0 {
		t.Error("too little happened to tell anything")
	}
	record, err := os.ReadFile(filepath.Join(kept, "executed"))
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for id := range strings.Lines(string(record)) {
		times[strings.TrimSpace(id)]++
	}
	for id, n := range times {
		if n > 1 {
			t.Errorf("POST %s was executed %d times", id, n)
		}
		if refused[id] {
			t.Errorf("POST %s was answered 503 and executed", id)
		}
		delete(confirmed, id)
	}
	if len(confirmed) > 0 {
		t.Errorf("%d POSTs were answered 200 and not executed", len(confirmed))
	}

	harness.Eventually(t, 30*time.Second, "all workers run again", whole)
	harness.Eventually(t, 10*time.Second, "no descriptor is left open", func() bool { return files() <= filesBefore })
	if left := harness.Descendants(g.PID); len(left) != crew+1 {
		t.Errorf("%d processes are left, want %d workers and the guard: %v", len(left), crew, left)
	}
	if memory := harness.MemoryOf(g.PID).RSS; memory > memoryBefore+growth {
		t.Errorf("the memory went from %d to %d bytes", memoryBefore, memory)
	}
	if r := g.Get("/?after"); r.Body != "after" {
		t.Errorf("afterwards: %+v", r)
	}
}

// chat opens a socket, says something a few times and checks what comes back,
// and notes how it ended.
func chat(addr, name string, over <-chan struct{}, ends *tally) {
	const patience = 30 * time.Second
	conn, in, _, err := ws.Dialer{Timeout: patience}.Dial(context.Background(), "ws://"+addr+"/")
	var status ws.StatusError
	switch {
	case errors.As(err, &status):
		ends.add(fmt.Sprintf("status %d", int(status)), "")
		time.Sleep(20 * time.Millisecond)
		return
	case isTimeout(err):
		ends.add("hanging handshake", "%s: %v", name, err)
		return
	case err != nil:
		ends.add("broken handshake", "%s: %v", name, err)
		return
	}
	defer conn.Close()
	if in == nil {
		in = bufio.NewReader(conn)
	}
	for n := range 10 + rand.IntN(60) {
		select {
		case <-over:
			ends.add("over", "")
			return
		case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
		}
		text := fmt.Sprintf("%s/%d %s", name, n, strings.Repeat("x", rand.IntN(3000)))
		conn.SetDeadline(time.Now().Add(patience))
		if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
			// Why is in what there is still to be read.
			if isTimeout(err) {
				ends.add("hanging write", "%s", name)
				return
			}
		}
		got, code, err := readText(conn, in)
		switch {
		case code != 0:
			ends.add(fmt.Sprintf("code %d", code), "%s: %q", name, got)
			return
		case isTimeout(err):
			ends.add("hanging", "%s has waited for %v", name, patience)
			return
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
			ends.add("connection lost", "%s: %v", name, err)
			return
		case err != nil:
			ends.add("broken", "%s: %v", name, err)
			return
		case got != text:
			ends.add("wrong", "%.100q came back as %.100q", text, got)
			return
		}
		ends.add("messages", "")
	}
	// Now and then without a good-bye.
	if rand.IntN(4) == 0 {
		ends.add("ours", "")
		return
	}
	if err := wsutil.WriteClientMessage(conn, ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, "")); err == nil {
		_, code, err := readText(conn, in)
		switch {
		case isTimeout(err):
			ends.add("hanging close", "%s", name)
		case code != 0 && code != 1000 && code != 1011 && code != 1012:
			ends.add(fmt.Sprintf("code %d after 1000", code), "%s", name)
		}
	}
	ends.add("ours", "")
}

// readText reads a message, or the code and the reason of a close frame. gobwas's
// own client takes 1012, which is younger than RFC 6455, for a fault.
func readText(conn io.Writer, in io.Reader) (text string, code ws.StatusCode, err error) {
	for {
		header, err := ws.ReadHeader(in)
		if err != nil {
			return "", 0, err
		}
		payload := make([]byte, min(header.Length, 1<<20))
		if _, err := io.ReadFull(in, payload); err != nil {
			return "", 0, err
		}
		switch header.OpCode {
		case ws.OpText, ws.OpContinuation:
			if text += string(payload); header.Fin {
				return text, 0, nil
			}
		case ws.OpPing:
			err = wsutil.WriteClientMessage(conn, ws.OpPong, payload)
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(payload)
			return reason, code, nil
		default:
			err = fmt.Errorf("a frame of type %d", header.OpCode)
		}
		if err != nil {
			return "", 0, err
		}
	}
}
