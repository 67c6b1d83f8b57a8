package fcgi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatecrew/protocol"
)

// echoWorker is an application that multiplexes. It answers a request with
// its TOKEN, repeated SIZE times, and then its body; it keeps to its credit,
// grants what it has read, and ends an aborted request at once.
type echoWorker struct {
	*peer
	mu   sync.Mutex // held while writing too: the gateway always reads
	more sync.Cond
	open map[uint16]*echo
}

type echo struct {
	params, body []byte
	credit       int
	whole        bool // the body has ended
	aborted      bool
}

const (
	echoWindow  = 3000 // STDIN that it takes
	replyWindow = 5000 // STDOUT that it may send
)

func newEchoWorker(p *peer) *echoWorker {
	w := &echoWorker{peer: p, open: make(map[uint16]*echo)}
	w.more.L = &w.mu
	return w
}

// serve returns when the gateway hung up and every answer was given up.
func (w *echoWorker) serve() {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		r, err := w.read()
		w.mu.Lock()
		if err != nil {
			for _, e := range w.open {
				e.aborted = true
			}
			w.more.Broadcast()
			w.mu.Unlock()
			return
		}
		e := w.open[r.id]
		switch {
		case r.typ == typeBeginRequest:
			if e != nil {
				w.t.Errorf("id %d reused before its end", r.id)
			}
			e = &echo{credit: replyWindow}
			w.open[r.id] = e
			wg.Go(func() { w.answer(r.id, e) })
		case e == nil: // late
		case r.typ == typeParams:
			e.params = append(e.params, r.content...)
		case r.typ == typeStdin && len(r.content) > 0:
			e.body = append(e.body, r.content...)
			w.nc.Write(appendCredit(nil, r.id, len(r.content)))
		case r.typ == typeStdin:
			e.whole = true
		case r.typ == typeAbortRequest:
			e.aborted = true
		case r.typ == typeCredit:
			e.credit += int(binary.BigEndian.Uint32(r.content))
		}
		w.more.Broadcast()
		w.mu.Unlock()
	}
}

func (w *echoWorker) answer(id uint16, e *echo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !e.whole && !e.aborted {
		w.more.Wait()
	}
	var token string
	var times int
	protocol.EachPair(e.params, func(name, value []byte) {
		switch string(name) {
		case "TOKEN":
			token = string(value)
		case "SIZE":
			times, _ = strconv.Atoi(string(value))
		}
	})
	out := append(bytes.Repeat([]byte(token), times), e.body...)
	for len(out) > 0 && !e.aborted {
		if e.credit == 0 {
			w.more.Wait()
			continue
		}
		n := min(len(out), e.credit, 1+rand.IntN(4000))
		w.nc.Write(raw(typeStdout, id, out[:n]))
		out, e.credit = out[n:], e.credit-n
		if rand.IntN(4) == 0 { // let others in between
			w.mu.Unlock()
			time.Sleep(time.Microsecond)
			w.mu.Lock()
		}
	}
	delete(w.open, id)
	w.nc.Write(raw(typeEndRequest, id, endContent(0, 0)))
}

// Many requests share one connection, a tenth of them is given up half-way,
// some have bodies: every answer is its own request's, every request ends
// exactly once, and no id is reused early.
func TestNoCrossTalk(t *testing.T) {
	const clients, each, slots = 24, 150, 16
	c, p := negotiated(t, Options{Window: replyWindow}, fmt.Sprint(slots), fmt.Sprint(echoWindow))
	p.nc.SetDeadline(time.Time{})
	served := make(chan struct{})
	go func() { newEchoWorker(p).serve(); close(served) }()

	free := make(chan struct{}, slots)
	for range slots {
		free <- struct{}{}
	}
	var ended, aborted atomic.Int64
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(client), 1))
			for i := range each {
				<-free
				token := fmt.Sprintf("[%d/%d]", client, i)
				times := rng.IntN(2000)
				want := strings.Repeat(token, times)
				req := &protocol.Request{Role: protocol.Responder, Params: []protocol.Param{
					{Name: "TOKEN", Value: token}, {Name: "SIZE", Value: fmt.Sprint(times)}}}
				switch rng.IntN(4) {
				case 0:
					body := strings.Repeat("b"+token, rng.IntN(300))
					req.Stdin, want = strings.NewReader(body), want+body
				case 1:
					body := strings.Repeat("s"+token, rng.IntN(3000))
					req.Stdin, want = io.MultiReader(strings.NewReader(body)), want+body
				}
				s, err := c.Open(req, func(time.Duration) { ended.Add(1); free <- struct{}{} })
				if err != nil {
					t.Errorf("%s: %v", token, err)
					return
				}
				if rng.IntN(10) == 0 {
					part := make([]byte, rng.IntN(len(want)+1))
					n, err := io.ReadFull(s, part)
					if err != nil && !errors.Is(err, io.EOF) || string(part[:n]) != want[:n] {
						t.Errorf("%s: %v, beginning %.60q", token, err, part[:n])
					}
					aborted.Add(1)
				} else if got, err := io.ReadAll(s); err != nil || string(got) != want {
					t.Errorf("%s: %d bytes %.60q, %v; want %d bytes", token, len(got), got, err, len(want))
				}
				s.Close()
			}
		})
	}
	over := make(chan struct{})
	go func() { wg.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(6 * patience):
		t.Fatal("hangs")
	}
	for range slots { // every slot comes back
		select {
		case <-free:
		case <-time.After(patience):
			t.Fatal("a slot was lost")
		}
	}
	if ended.Load() != clients*each || aborted.Load() < clients*each/20 {
		t.Errorf("%d requests ended, %d aborted, of %d", ended.Load(), aborted.Load(), clients*each)
	}
	c.CloseWrite()
	mustClose(t, "the worker's end", served)
	p.nc.Close()
	mustClose(t, "Done", c.Done())
}
