// Command wsload opens many WebSocket connections to an echo server and says
// what it saw as one line of JSON. Idle connections exchange one message each
// and then stay open; those of echo send the next message when the one before
// has come back.
//
//	wsload -url ws://127.0.0.1:8000/ -connections 10000 -mode idle -duration 5s
//	wsload -url ws://127.0.0.1:8000/ -connections 1000 -mode echo -size 64 -duration 5s
//
// When all connections are open, which in idle mode includes the one message,
// it prints a line {"open": N} first: the moment to look at the server's memory.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// result is the last line on standard output.
type result struct {
	Connections int            `json:"connections"` // that were opened
	Messages    int            `json:"messages"`    // that came back during the load
	PerSecond   float64        `json:"messages_per_second"`
	P50         float64        `json:"p50_us"` // of a round trip
	P99         float64        `json:"p99_us"`
	Max         float64        `json:"max_us"`
	RampSeconds float64        `json:"ramp_seconds"` // until all connections were open
	Errors      map[string]int `json:"errors"`       // by their text; of one connection the first
}

// load is what the flags say.
type load struct {
	target      *url.URL
	connections int
	mode        string
	size        int
	binary      bool
	offer       string
	duration    time.Duration
	ramp        int
}

func main() {
	var l load
	var to string
	flag.StringVar(&to, "url", "ws://127.0.0.1:8000/", "ws://HOST:PORT/PATH")
	flag.IntVar(&l.connections, "connections", 1000, "connections to open")
	flag.StringVar(&l.mode, "mode", "echo", "idle or echo")
	flag.IntVar(&l.size, "size", 64, "bytes in a message, at most 65535")
	flag.BoolVar(&l.binary, "binary", false, "binary messages in place of text")
	flag.StringVar(&l.offer, "offer", "", "value of Sec-WebSocket-Extensions, in idle mode only; the messages sent are plain")
	flag.DurationVar(&l.duration, "duration", 4*time.Second, "how long the load lasts once all connections are open")
	flag.IntVar(&l.ramp, "ramp", 256, "connections that are being opened at the same time, at most: less than the server's backlog")
	flag.Parse()
	var err error
	if l.target, err = url.Parse(to); err == nil {
		err = l.check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "wsload:", err)
		os.Exit(2)
	}
	l.run()
}

func (l *load) check() error {
	switch {
	case l.target.Scheme != "ws" || l.target.Port() == "":
		return fmt.Errorf("-url %s: want ws://HOST:PORT/PATH", l.target)
	case l.mode != "idle" && l.mode != "echo":
		return fmt.Errorf("-mode %s: want idle or echo", l.mode)
	case l.size < 0 || l.size > 65535:
		return fmt.Errorf("-size %d: want 0 to 65535", l.size)
	case l.connections < 1 || l.ramp < 1:
		return fmt.Errorf("-connections and -ramp are at least 1")
	case l.offer != "" && l.mode == "echo":
		return fmt.Errorf("-offer: only with -mode idle")
	}
	return nil
}

func (l *load) run() {
	seen := map[string]int{}
	var mu sync.Mutex
	var opened atomic.Int64
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		seen[err.Error()]++
	}
	all := make([][]uint32, l.connections)
	start, over := make(chan struct{}), make(chan struct{})
	var ready, done sync.WaitGroup
	turns := make(chan struct{}, l.ramp)
	began := time.Now()
	ready.Add(l.connections)
	for i := range l.connections {
		done.Go(func() {
			turns <- struct{}{}
			c, err := l.open(i)
			<-turns
			if err != nil {
				fail(fmt.Errorf("open: %w", err))
				ready.Done()
				return
			}
			defer c.Close()
			opened.Add(1)
			ready.Done()
			if l.mode == "idle" { // it answers pings from now on
				go func() { <-start; c.SetReadDeadline(time.Now().Add(l.duration)) }()
				err = c.idle()
			} else {
				<-start
				c.SetReadDeadline(time.Now().Add(l.duration))
				all[i], err = c.echo(l.duration)
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				fail(err)
			}
			<-over // nobody leaves before the last one is done
		})
	}
	ready.Wait()
	ramp := time.Since(began)
	fmt.Printf("{\"open\": %d}\n", opened.Load())
	close(start)
	time.Sleep(l.duration)
	close(over)
	done.Wait()

	trips := slices.Concat(all...)
	slices.Sort(trips)
	at := func(q float64) float64 {
		if len(trips) == 0 {
			return 0
		}
		return float64(trips[min(len(trips)-1, int(q*float64(len(trips))))])
	}
	line, err := json.Marshal(result{
		Connections: int(opened.Load()), Messages: len(trips), PerSecond: float64(len(trips)) / l.duration.Seconds(),
		P50: at(.5), P99: at(.99), Max: at(1), RampSeconds: ramp.Seconds(), Errors: seen,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// open makes connection number i; an idle one has exchanged its message then.
func (l *load) open(i int) (*socket, error) {
	c, err := dial(l.target, l.offer, i, message(l.size, l.binary))
	if err != nil {
		return nil, err
	}
	if l.mode == "idle" {
		if err := c.trip(); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}
