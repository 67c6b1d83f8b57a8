package procpool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// preloadFlag is the argument that makes a worker's command a zygote.
const preloadFlag = "--preload"

// forkPatience is how long a zygote may take to fork. It takes milliseconds,
// and longer only when the application hangs in what it does at a fork.
const forkPatience = 10 * time.Second

// zygote is a process that has loaded the application of one generation and
// forks the workers from itself. Config.Preload has the protocol.
//
// A worker that it forks belongs to nobody for a moment: it is re-parented to
// this process, which is the reaper of its orphans, and stays in the zygote's
// group until childTable.adopt has made it the leader of its own. So it ends
// with the zygote when anything goes wrong before that, whoever dies.
type zygote struct {
	info    WorkerInfo
	child   *child
	conn    *net.UnixConn
	control *control
	output  *workerOutput
	last    tail // of its output until it is ready
	started time.Time

	ready chan struct{} // closed when it has loaded the application
	ended chan struct{} // closed when it has been reaped and its output read
	exit  Exit          // valid after ended
	said  []string      // its last lines when it never was ready; valid after ended

	stopOnce sync.Once
	stopped  chan struct{} // closed by stop

	forking sync.Mutex // one fork at a time
	waiting int        // workers that wait for ready; zygoteKeeper.mu guards it
}

// zygoteKeeper has the zygote of a generation. The zero value is ready for use.
type zygoteKeeper struct {
	mu      sync.Mutex
	current *zygote // nil when there is none, or the last one has ended
	closed  bool
}

// zygoteError is a worker that couldn't be forked, since its zygote has not
// loaded the application.
type zygoteError struct {
	err    error // its end, or that of the patience with it
	exit   Exit
	output []string
}

func (e *zygoteError) Error() string { return "preloading: " + e.err.Error() }
func (e *zygoteError) Unwrap() error { return e.err }

// startFailed returns what is known of a start that made no process.
func startFailed(err error) (exit Exit, output []string) {
	var z *zygoteError
	if errors.As(err, &z) {
		return z.exit, z.output
	}
	return Exit{}, nil
}

// fork has w forked from the zygote of its generation, with files as its
// descriptors 1 to 5. The first worker of a generation waits until the
// application is loaded, and those that come meanwhile wait with it.
func (p *Pool) fork(ctx context.Context, w *worker, files ...int) (*child, error) {
	z, err := p.preloaded(ctx, w.gen)
	if err != nil {
		return nil, err
	}
	mark := newMark()
	variables := workerVar + "=" + w.info.Name + "\n" + instanceVar + "=" + mark
	ch, err := children.adopt(func() (int, error) { return z.fork(ctx, variables, files) })
	if err == nil {
		ch.mark, ch.cgroup = mark, w.gen.command.Cgroup
		ch.attend()
	}
	return ch, err
}

// preloaded returns the zygote of g when it is ready.
func (p *Pool) preloaded(ctx context.Context, g *generation) (*zygote, error) {
	k := &g.zygotes
	k.mu.Lock()
	z := k.current
	if k.closed {
		k.mu.Unlock()
		return nil, fmt.Errorf("procpool: %s: %w", p.cfg.Name, ErrClosed)
	}
	if z == nil {
		var err error
		if z, err = p.startZygote(g); err != nil {
			k.mu.Unlock()
			return nil, err
		}
		k.current = z
	}
	z.waiting++
	k.mu.Unlock()

	var err error
	select {
	case <-z.ready:
	case <-z.ended:
		err = &zygoteError{errors.New(z.exit.String()), z.exit, z.said}
	case <-ctx.Done():
		err = &zygoteError{context.Cause(ctx), Exit{}, z.last.all()}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	z.waiting--
	if z.waiting == 0 && !closed(z.ready) {
		// Whoever needed it has given up. The next one gets a new one,
		// which may not hang where this one does.
		z.stop()
		if k.current == z {
			k.current = nil
		}
	}
	return z, err
}

// startZygote starts the zygote of g.
func (p *Pool) startZygote(g *generation) (*zygote, error) {
	null, err := devNull()
	if err != nil {
		return nil, fmt.Errorf("procpool: %w: /dev/null: %w", ErrStart, err)
	}
	z := &zygote{
		info:    WorkerInfo{Pool: p.cfg.Name, Name: p.cfg.Name + "/preload"},
		started: p.clk.now(),
		ready:   make(chan struct{}), ended: make(chan struct{}), stopped: make(chan struct{}),
	}
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer unix.Close(theirs)
	z.conn = conn
	commands, theirCommands, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	defer unix.Close(theirCommands)
	voice := &worker{} // it speaks like one
	z.control = newControl(commands, nil, func(line []byte) { p.hear(voice, line) })
	output, out, errout, err := newWorkerOutput(func(stream string, line []byte) {
		z.last.add(line)
		p.cfg.Output(z.info, stream, line)
	})
	if err != nil {
		_ = conn.Close()
		z.control.close()
		return nil, err
	}
	defer unix.Close(out)
	defer unix.Close(errout)
	z.output = output

	c := g.command.with(workerVar + "=" + z.info.Name)
	c.Argv = append(c.Argv[:len(c.Argv):len(c.Argv)], preloadFlag)
	if z.child, err = spawn(c, uintptr(null), uintptr(out), uintptr(errout), uintptr(theirs), uintptr(theirCommands)); err != nil {
		_ = conn.Close()
		z.control.close()
		output.close()
		return nil, err
	}
	z.info.PID = z.child.pid
	// The workers' memory has the environment that the zygote was started
	// with: its mark would have them killed as its strays.
	z.child.mark = ""
	voice.info, voice.control = z.info, z.control
	output.read()
	go z.control.listen()
	p.zygotes.Add(1)
	go p.attendZygote(g, z)
	return z, nil
}

// attendZygote is the life of a zygote.
func (p *Pool) attendZygote(g *generation, z *zygote) {
	defer p.zygotes.Done()
	log := p.log.With(zap.Int("pid", z.info.PID), zap.Int("generation", g.number))
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		if z.awaitReady() {
			log.Info("application preloaded", zap.Duration("took", p.clk.now().Sub(z.started)))
			z.last.close()
			close(z.ready)
		}
	}()
	select {
	case <-z.child.exited:
	case <-z.stopped:
		p.endZygote(z)
	}
	exit := z.child.reap(false)
	g.zygotes.forget(z)
	// What it has forked by itself may hold its end of the connection open.
	_ = z.conn.SetReadDeadline(time.Now().Add(lingerTime))
	<-listened
	_ = z.conn.Close()
	z.control.finish()
	z.output.finish()
	z.exit, z.said = exit, z.last.all()
	if closed(z.ready) && !closed(z.stopped) {
		log.Warn("preloading process died; its workers serve on, and the next one to start has the application loaded again, as it is then",
			zap.Stringer("exit", exit))
	}
	close(z.ended)
}

// awaitReady waits until the zygote says that it is ready. It returns false
// when it ends before that.
func (z *zygote) awaitReady() bool {
	buf := make([]byte, 64)
	n, err := z.conn.Read(buf)
	return err == nil && string(buf[:n]) == "ready"
}

// stop begins the end of z.
func (z *zygote) stop() { z.stopOnce.Do(func() { close(z.stopped) }) }

// endZygote ends z: by the end of its connection when it listens to that, so
// that it runs its exit handlers. Nobody's request is in it, so that it gets
// little time.
func (p *Pool) endZygote(z *zygote) {
	if closed(z.ready) {
		_ = z.conn.CloseWrite()
	} else {
		z.child.signal(syscall.SIGTERM)
	}
	late, forget := p.clk.after(min(p.cfg.StopGrace, hurriedGrace))
	defer forget()
	select {
	case <-z.child.exited:
		return
	case <-late:
	}
	z.child.signal(syscall.SIGKILL)
	<-z.child.exited
}

// forget has the next worker start a new zygote, when z was the last one.
func (k *zygoteKeeper) forget(z *zygote) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current == z {
		k.current = nil
	}
}

// close begins the end of the zygote; there will be no other. It doesn't wait.
func (k *zygoteKeeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.current != nil {
		k.current.stop()
	}
}

// fork asks for one worker, with variables added to its environment, and
// returns its process id. A zygote that doesn't answer as it should is killed,
// and with it what it may have forked.
func (z *zygote) fork(ctx context.Context, variables string, files []int) (pid int, err error) {
	z.forking.Lock()
	defer z.forking.Unlock()
	if ctx.Err() != nil { // nothing that the zygote is to blame for
		return 0, fmt.Errorf("procpool: %w: fork from the preloading process: %w", ErrStart, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, forkPatience, errors.New("no answer for "+forkPatience.String()))
	defer cancel()
	interrupted := make(chan struct{})
	listen := context.AfterFunc(ctx, func() {
		_ = z.conn.SetDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	defer func() {
		if !listen() {
			<-interrupted
		}
		_ = z.conn.SetDeadline(time.Time{})
	}()
	answer := make([]byte, 512)
	n := 0
	if _, _, err = z.conn.WriteMsgUnix([]byte(variables), unix.UnixRights(files...), nil); err == nil {
		n, err = z.conn.Read(answer)
	}
	if err != nil {
		z.child.signal(syscall.SIGKILL)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, fmt.Errorf("procpool: %w: fork from the preloading process: %w", ErrStart, err)
	}
	answer = answer[:n]
	if pid, err = strconv.Atoi(string(answer)); err != nil || pid <= 1 {
		return 0, fmt.Errorf("procpool: %w: fork from the preloading process: %s", ErrStart, bytes.TrimSpace(answer))
	}
	return pid, nil
}
