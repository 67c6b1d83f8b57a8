package procpool

import (
	"context"
	"net/url"
	"time"

	"go.uber.org/zap"
)

// What can be done about a request that takes too long, mildest first: Stacks
// says what its worker is doing, Interrupt ends it alone, Condemn ends its
// worker.

// stacksPatience is how long a worker may take to describe itself before it is
// taken to be held up by a C function.
const stacksPatience = time.Second

// Stacks returns what every thread and every asyncio task of the worker is
// doing, as text in lines. The thread of the request, named by its UNIQUE_ID,
// comes first. It takes up to two seconds when the worker is held up by a C
// function: then the text is a dump of the threads alone, and says so. An error
// says why nothing could be learned.
func (l *Lease) Stacks(ctx context.Context, request string) (string, error) {
	soon, cancel := context.WithTimeout(ctx, stacksPatience)
	defer cancel()
	c := l.w.control
	text, err := c.ask(soon, "stacks %d %s", url.QueryEscape(request))
	if err == nil || soon.Err() == nil || ctx.Err() != nil {
		return text, err
	}
	text, err = c.collectDump(l.w.child)
	if err != nil {
		return "", err
	}
	return "the interpreter is held by a C function; the stacks of all threads as faulthandler writes them:\n" + text, nil
}

// Interrupt has the worker end this one request, named by its UNIQUE_ID, and
// returns true if it was released within patience. Its neighbours and the
// worker itself are not touched. reason is what the application's exception
// says.
func (l *Lease) Interrupt(request, reason string, patience time.Duration) bool {
	p := l.pool
	over := l.awaitRelease()
	if closed(over) {
		return true
	}
	log := p.log.With(zap.Int("worker", l.w.info.Number), zap.Int("pid", l.w.info.PID), zap.String("request", request), zap.String("reason", reason))
	timer, stop := p.clk.after(patience)
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	refused := make(chan string, 1)
	go func() {
		why, err := l.w.control.ask(ctx, "interrupt %d %s %.3f %s", url.QueryEscape(request), patience.Seconds(), url.QueryEscape(reason))
		switch {
		case ctx.Err() != nil:
		case err != nil:
			refused <- err.Error()
		case why != "":
			refused <- why
		}
	}()
	because := "it went on"
	for {
		select {
		case <-over:
			log.Warn("request interrupted")
			return true
		case because = <-refused: // also when it has ended just now
		case <-timer:
			log.Warn("request can't be interrupted", zap.String("because", because))
			return false
		}
	}
}

// awaitRelease returns a channel that is closed when the slot has been given
// back.
func (l *Lease) awaitRelease() <-chan struct{} {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.over == nil {
		l.over = make(chan struct{})
		if l.released {
			close(l.over)
		}
	}
	return l.over
}
