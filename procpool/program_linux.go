package procpool

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// run is the life of one process of p as its own goroutine sees it.
func (ps *Programs) run(p *program) {
	var last lastLine
	output, err := ps.startProgram(p, func(stream string, line []byte) {
		last.set(line)
		ps.output(p.Name, stream, line)
	})
	if err != nil {
		ps.ended(p, ps.clk.now(), Exit{}, err, "")
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	asking.Go(func() { ps.askReady(ctx, p) })
	<-p.child.exited
	now := ps.clk.now()
	cancel()
	p.child.endWhole() // the next start finds nothing of this one in its way
	exit := p.child.reap(false)
	asking.Wait()
	output.finish()
	ps.ended(p, now, exit, nil, last.get())
}

// startProgram starts the process of p and the reading of its output.
func (ps *Programs) startProgram(p *program, line func(stream string, line []byte)) (*workerOutput, error) {
	null, err := devNull()
	if err != nil {
		return nil, fmt.Errorf("procpool: %w: /dev/null: %w", ErrStart, err)
	}
	output, out, errout, err := newWorkerOutput(line)
	if err != nil {
		return nil, err
	}
	defer unix.Close(out)
	defer unix.Close(errout)
	ch, err := spawn(p.Command, uintptr(null), uintptr(out), uintptr(errout))
	if err != nil {
		output.close()
		return nil, err
	}
	ps.mu.Lock()
	p.child = ch
	told, killed := p.state == ProgramStopping, p.killed // while it was being started
	ps.poke()
	ps.mu.Unlock()
	if told {
		ch.signalLeader(p.StopSignal, true)
	}
	if killed {
		ch.signal(syscall.SIGKILL)
	}
	output.read()
	return output, nil
}

// askReady asks p whether it is up until it is, or has ended.
func (ps *Programs) askReady(ctx context.Context, p *program) {
	if p.Ready == nil {
		return
	}
	for {
		answer, cancel := context.WithTimeout(ctx, readyPatience)
		err := p.Ready(answer)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			ps.mu.Lock()
			p.isReady = true
			ps.mu.Unlock()
			ps.notify()
			return
		}
		again, stop := ps.clk.after(readyInterval)
		select {
		case <-again:
		case <-ctx.Done():
		}
		stop()
	}
}

// lastLine is the last line of a program's output that isn't blank.
type lastLine struct {
	mu   sync.Mutex
	line []byte
}

func (l *lastLine) set(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = append(l.line[:0], line...)
}

func (l *lastLine) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(bytes.TrimSpace(l.line))
}
