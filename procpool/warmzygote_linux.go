package procpool

import (
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

// warmZygote is a process that has one script compiled and forks a child for
// each request. WARM.md has what is spoken with it.
type warmZygote struct {
	script  watchedFile
	modules []string // that it was told to load
	child   *child
	conn    *net.UnixConn
	output  *workerOutput
	files   *warmFiles // valid after ready

	ready   chan struct{} // closed when it can serve
	ended   chan struct{} // closed when it has been reaped and all it forked has answered or ended
	refusal string        // why it never will; valid after ended
	exit    Exit          // valid after ended

	stopOnce sync.Once
	stopped  chan struct{} // closed by stop

	// shadows makes looks into folders one at a time.
	shadows sync.Mutex

	// mu guards what follows.
	mu      sync.Mutex
	pending map[uint64]chan warmPacket // requests without an answer
	last    uint64
	deaf    bool // no answer will come any more
}

// errCold means that nothing of a request has run: it is to be served cold.
var errCold = errors.New("not run by a zygote")

// warmEvents is what a zygote has to say to its keeper, each in the goroutine
// that listens to it.
type warmEvents struct {
	line    func(line []byte)
	ready   func(z *warmZygote, fields []string) (fault string)
	learned func(z *warmZygote, modules []string)
}

// startWarmZygote starts c as a zygote.
func startWarmZygote(c Command, script watchedFile, first []byte, modules []string, on warmEvents, log *zap.Logger) (*warmZygote, error) {
	z := &warmZygote{
		script: script, modules: modules,
		ready: make(chan struct{}), ended: make(chan struct{}), stopped: make(chan struct{}),
		pending: make(map[uint64]chan warmPacket),
	}
	stdin, theirIn, err := pipe(false)
	if err != nil {
		return nil, err
	}
	_ = stdin.Close() // it is at its end
	defer unix.Close(theirIn)
	conn, theirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	defer unix.Close(theirs)
	z.conn = conn
	output, out, errout, err := newWorkerOutput(func(_ string, line []byte) { on.line(line) })
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	defer unix.Close(out)
	defer unix.Close(errout)
	z.output = output
	if !c.background {
		c.mark = newWideMark()
	}
	if z.child, err = spawn(c, uintptr(theirIn), uintptr(out), uintptr(errout), uintptr(theirs)); err != nil {
		_ = conn.Close()
		output.close()
		return nil, err
	}
	// A child whose memory shows the zygote's mark must not be killed as a
	// stray of it.
	z.child.mark = ""
	output.read()
	_ = conn.SetWriteDeadline(time.Now().Add(forkPatience))
	_, _ = conn.Write(first) // when it fails the zygote ends
	go z.attend(on, log)
	return z, nil
}

// attend is the life of a zygote.
func (z *warmZygote) attend(on warmEvents, log *zap.Logger) {
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		z.listen(on, log)
	}()
	select {
	case <-z.child.exited:
	case <-z.stopped:
		_ = z.conn.CloseWrite()
		late := time.NewTimer(hurriedGrace)
		select {
		case <-z.child.exited:
		case <-late.C:
			z.child.signal(syscall.SIGKILL)
			<-z.child.exited
		}
		late.Stop()
	}
	// Children without a request are in its group and end with it. One that has
	// begun with a request is out of it and still answers.
	z.exit = z.child.reap(false)
	// One that has not begun by then never will: it can't say so any more. What
	// others have said before is still read.
	late := time.AfterFunc(lingerTime, func() { _ = z.conn.CloseRead() })
	<-listened
	late.Stop()
	_ = z.conn.Close()
	z.output.finish()
	close(z.ended)
}

// listen reads what the zygote and its children say until the last of them has
// closed the socket. It must miss no "started": such a request would be run twice.
func (z *warmZygote) listen(on warmEvents, log *zap.Logger) {
	buf := make([]byte, maxWarmPacket)
	for ended := false; ; {
		n, err := z.conn.Read(buf)
		switch {
		case errors.Is(err, syscall.ECONNRESET):
			// They left a request unread. It is reported once, and ahead of
			// what they have written.
			continue
		case err != nil && !ended:
			// The kernel finds the queue empty first and looks for the end
			// after that: a packet may have come between.
			ended = true
			continue
		}
		if err != nil {
			break
		}
		p, err := parseWarm(buf[:n])
		if err != nil {
			log.Error("zygote is ended", zap.Error(err))
			z.child.signal(syscall.SIGKILL)
			continue
		}
		switch p.kind {
		case "ready":
			if closed(z.ready) || z.refusal != "" {
				continue
			}
			if z.refusal = on.ready(z, p.fields); z.refusal == "" {
				close(z.ready)
			} else {
				z.stop() // it doesn't know that it is not wanted
			}
		case "refuse":
			z.refusal = p.text
		case "learned":
			on.learned(z, p.fields)
		case "started", "failed":
			z.answer(p)
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.deaf = true
	for _, ch := range z.pending {
		ch <- warmPacket{kind: "failed", text: "the zygote has ended"}
	}
	z.pending = nil
}

func (z *warmZygote) answer(p warmPacket) {
	z.mu.Lock()
	ch := z.pending[p.id]
	delete(z.pending, p.id)
	z.mu.Unlock()
	if ch != nil {
		ch <- p
	}
}

// stop begins the end of z.
func (z *warmZygote) stop() { z.stopOnce.Do(func() { close(z.stopped) }) }

// outdated returns the path of a file for which z is not to be used any more,
// "" for none.
func (z *warmZygote) outdated() string {
	if path := z.files.changed(); path != "" {
		return path
	}
	if len(z.files.folders) == 0 {
		return ""
	}
	z.shadows.Lock()
	defer z.shadows.Unlock()
	return z.files.shadowed()
}

// fork has c run in a child of z, with files as its descriptors 0, 1 and 2. The
// error wraps errCold when nothing of it has run, and nothing will.
func (z *warmZygote) fork(c Command, files []uintptr) (*child, error) {
	mark, env := "", c.Env
	if !c.background {
		mark = newWideMark()
		env = append(env[:len(env):len(env)], instanceVar+"="+mark)
	}
	id, answer := z.enter()
	if answer == nil {
		return nil, fmt.Errorf("%w: the zygote has ended", errCold)
	}
	packet := appendRun(make([]byte, 0, 4096), id, c.Argv[c.Script.Arg:], env)
	if len(packet) > maxWarmPacket {
		z.leave(id)
		return nil, fmt.Errorf("%w: the environment is too large", errCold)
	}
	ch, err := children.adopt(func() (int, error) {
		p := z.ask(id, packet, files, answer)
		if p.kind != "started" {
			return 0, fmt.Errorf("%w: %s", errCold, p.text)
		}
		return p.pid, nil
	})
	if err != nil {
		return nil, err
	}
	ch.mark, ch.cgroup = mark, c.Cgroup
	return ch, nil
}

// ask sends a request and waits for its answer.
func (z *warmZygote) ask(id uint64, packet []byte, files []uintptr, answer <-chan warmPacket) warmPacket {
	rights := unix.UnixRights(int(files[0]), int(files[1]), int(files[2]))
	_ = z.conn.SetWriteDeadline(time.Now().Add(forkPatience))
	if _, _, err := z.conn.WriteMsgUnix(packet, rights, nil); err != nil {
		z.leave(id)
		return warmPacket{kind: "failed", text: err.Error()}
	}
	for waited := time.Duration(0); waited < forkPatience && !z.lost(waited); waited += lossPatience {
		late := time.NewTimer(lossPatience)
		select {
		case p := <-answer:
			late.Stop()
			return p
		case <-late.C:
		}
	}
	// Whoever has it has not begun with it. After this nobody can.
	z.child.signal(syscall.SIGKILL)
	return <-answer
}

// lossPatience is how often a request that is not answered is looked for.
const lossPatience = 500 * time.Millisecond

// lost reports whether a request that has waited so long may have been taken by a
// child that was killed: by hand, by a limit, or for want of memory. Nobody
// tells: whoever dies of a signal may have been about to take it.
func (z *warmZygote) lost(waited time.Duration) bool {
	return waited > 0 && z.taken() && children.killedIn(z.child.pid)
}

// taken reports whether no packet lies in the socket.
func (z *warmZygote) taken() bool {
	raw, err := z.conn.SyscallConn()
	if err != nil {
		return false
	}
	left := 0
	var failed error
	err = raw.Control(func(fd uintptr) { left, failed = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return err == nil && failed == nil && left == 0
}

// enter returns a number for a request and where its answer will come; nil when
// there will be none.
func (z *warmZygote) enter() (uint64, <-chan warmPacket) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.deaf {
		return 0, nil
	}
	z.last++
	answer := make(chan warmPacket, 1)
	z.pending[z.last] = answer
	return z.last, answer
}

func (z *warmZygote) leave(id uint64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.pending, id)
}

// newWideMark is newMark with a length that does not depend on the number, so
// that one can be written over another.
func newWideMark() string {
	return instance() + "/" + fmt.Sprintf("%020s", strconv.FormatUint(lastMark.Add(1), 10))
}
