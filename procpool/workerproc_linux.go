package procpool

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// workerVar is the variable that tells a worker its name.
const workerVar = "GATECREW_WORKER"

// startWorker starts the process of w and the reading of its output. ctx ends
// the wait for a process to fork it from.
func (p *Pool) startWorker(ctx context.Context, w *worker, line func(stream string, line []byte)) (net.Conn, *workerOutput, error) {
	null, err := devNull()
	if err != nil {
		return nil, nil, fmt.Errorf("procpool: %w: /dev/null: %w", ErrStart, err)
	}
	conn, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(theirs)
	output, out, errout, err := newWorkerOutput(line)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	defer unix.Close(out)
	defer unix.Close(errout)

	commands, theirCommands, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		_ = conn.Close()
		output.close()
		return nil, nil, err
	}
	defer unix.Close(theirCommands)
	dumps, theirDumps, err := pipe(true)
	if err != nil {
		_ = conn.Close()
		_ = commands.Close()
		output.close()
		return nil, nil, err
	}
	defer unix.Close(theirDumps)
	control := newControl(commands, dumps, func(line []byte) { p.hear(w, line) })

	var ch *child
	if p.cfg.Preload {
		ch, err = p.fork(ctx, w, out, errout, theirs, theirCommands, theirDumps)
	} else {
		ch, err = spawn(w.gen.command.with(workerVar+"="+w.info.Name),
			uintptr(null), uintptr(out), uintptr(errout), uintptr(theirs), uintptr(theirCommands), uintptr(theirDumps))
	}
	if err != nil {
		_ = conn.Close()
		control.close()
		output.close()
		return nil, nil, err
	}
	p.mu.Lock()
	w.child, w.info.PID, w.control = ch, ch.pid, control
	unwanted := w.state == Stopping // ordered while it was being started
	p.memory.stirred()
	p.mu.Unlock()
	if unwanted {
		ch.signal(syscall.SIGKILL)
	}
	output.read()
	go control.listen()
	return conn, output, nil
}

// socketPair returns a connection and the descriptor of its other end.
func socketPair(kind int) (*net.UnixConn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("procpool: %w: %w", ErrStart, os.NewSyscallError("socketpair", err))
	}
	f := os.NewFile(uintptr(fds[0]), "worker")
	conn, err := net.FileConn(f) // has a duplicate
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, -1, fmt.Errorf("procpool: %w: %w", ErrStart, err)
	}
	return conn.(*net.UnixConn), fds[1], nil
}

// workerOutput reads a worker's descriptors 1 and 2 into lines.
type workerOutput struct {
	files   [2]*os.File
	lines   [2]*Lines
	readers sync.WaitGroup
	ended   chan struct{} // closed when both have been read to their end
}

// newWorkerOutput makes the pipes; out and errout are the worker's ends.
func newWorkerOutput(line func(stream string, line []byte)) (o *workerOutput, out, errout int, err error) {
	o = &workerOutput{ended: make(chan struct{})}
	if o.files[0], out, err = pipe(true); err != nil {
		return nil, -1, -1, err
	}
	if o.files[1], errout, err = pipe(true); err != nil {
		_ = o.files[0].Close()
		_ = unix.Close(out)
		return nil, -1, -1, err
	}
	for i, stream := range []string{"stdout", "stderr"} {
		o.lines[i] = NewLines(func(b []byte) { line(stream, b) })
	}
	return o, out, errout, nil
}

// read begins to read.
func (o *workerOutput) read() {
	for i := range o.files {
		o.readers.Go(func() {
			drain(o.files[i], o.lines[i])
			o.lines[i].Flush()
		})
	}
	go func() {
		o.readers.Wait()
		close(o.ended)
	}()
}

// finish reads what a dead worker left in the pipes. A process that left its
// group may hold them open: it is not waited for.
func (o *workerOutput) finish() {
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-o.ended:
	case <-timer.C:
	}
	o.close()
	<-o.ended
}

func (o *workerOutput) close() {
	for _, f := range o.files {
		_ = f.Close()
	}
}
