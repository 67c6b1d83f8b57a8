package procpool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"
)

// dialogue is the part of a control connection in which the pool asks and the
// worker answers.
type dialogue struct {
	mu         sync.Mutex
	asked      int
	awaited    map[int]chan string
	dumpSignal int
	dump       chan string // gets the pieces of a dump; nil while none is wanted

	dumping sync.Mutex // held by the one who wants a dump
}

// ask sends a command that has an answer, and waits for it. The command's first
// %d is the number of the question.
func (c *control) ask(ctx context.Context, format string, args ...any) (string, error) {
	c.dialogue.mu.Lock()
	c.asked++
	number, answer := c.asked, make(chan string, 1)
	if c.awaited == nil {
		c.awaited = make(map[int]chan string)
	}
	c.awaited[number] = answer
	c.dialogue.mu.Unlock()
	defer func() {
		c.dialogue.mu.Lock()
		delete(c.awaited, number)
		c.dialogue.mu.Unlock()
	}()
	if err := c.send(format, append([]any{number}, args...)...); err != nil {
		return "", err
	}
	select {
	case text := <-answer:
		return text, nil
	case <-c.ended:
		return "", errors.New("procpool: the worker has gone")
	case <-ctx.Done():
		return "", fmt.Errorf("procpool: the worker does not answer: %w", context.Cause(ctx))
	}
}

// answered takes in what m answers, if it does.
func (c *control) answered(m message) {
	c.dialogue.mu.Lock()
	defer c.dialogue.mu.Unlock()
	if m.DumpSignal > 0 {
		c.dumpSignal = m.DumpSignal
	}
	if answer := c.awaited[m.Answer]; answer != nil {
		delete(c.awaited, m.Answer)
		answer <- m.Text
	}
}

const (
	dumpBegins = time.Second            // how long the first piece of a dump may take
	dumpPause  = 100 * time.Millisecond // after which a dump is taken to be whole
	dumpLasts  = 300 * time.Millisecond // from its first piece
	dumpPieces = 64                     // that wait to be collected
	dumpMost   = 1 << 20                // bytes of a dump
)

// dumpWriter takes in the pieces of dumps.
type dumpWriter struct{ c *control }

func (w dumpWriter) Write(piece []byte) (int, error) {
	w.c.dialogue.mu.Lock()
	defer w.c.dialogue.mu.Unlock()
	select {
	case w.c.dump <- string(piece):
	default: // nobody wants it, or so much of it
	}
	return len(piece), nil
}

// collectDump has the worker write its stacks by a signal, which works while
// nothing in it can run Python code.
func (c *control) collectDump(ch *child) (string, error) {
	c.dumping.Lock()
	defer c.dumping.Unlock()
	pieces := make(chan string, dumpPieces)
	c.dialogue.mu.Lock()
	sig := c.dumpSignal
	c.dump = pieces
	c.dialogue.mu.Unlock()
	defer func() {
		c.dialogue.mu.Lock()
		c.dump = nil
		c.dialogue.mu.Unlock()
	}()
	if sig == 0 {
		return "", errors.New("procpool: the worker has no signal for its stacks")
	}
	ch.signalLeader(syscall.Signal(sig), false)
	var text strings.Builder
	timer := time.NewTimer(dumpBegins)
	defer timer.Stop()
	var end time.Time
	for {
		select {
		case piece := <-pieces:
			if end.IsZero() {
				end = time.Now().Add(dumpLasts)
			}
			text.WriteString(piece)
			if text.Len() >= dumpMost {
				return text.String(), nil
			}
			timer.Reset(min(dumpPause, time.Until(end)))
		case <-c.ended:
			return text.String(), errors.New("procpool: the worker has gone")
		case <-timer.C:
			if text.Len() == 0 {
				return "", fmt.Errorf("procpool: signal %d was not answered either", sig)
			}
			return text.String(), nil
		}
	}
}
