package procpool

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// WarmConfig has a Runner start scripts from processes that have the
// interpreter running and the script compiled, where that can be done.
type WarmConfig struct {
	// Zygote returns the command that starts such a process for the script of
	// c, or why there can't be one, which is logged. Nothing of it may be of
	// one request. Required.
	Zygote func(c Command) (Command, error)
	// Max is how many scripts may be kept warm at once; the one that was not
	// asked for the longest makes place for another. 0 means 16.
	Max int
	// Spares is how many children of one script may wait for a request. 0
	// means 4, a negative number that none waits.
	Spares int
	// Preload says which of the modules that a script imports are loaded
	// beforehand: "stdlib", those that come with the interpreter, "all" or
	// "none". "" means "stdlib".
	Preload string
}

// Script is a file that an interpreter reads and runs.
type Script struct {
	// File is its path for this process; the command's may be one in another
	// root folder.
	File string
	// Arg is where the command's Argv has the script.
	Arg int
}

const (
	// warmIdle is how long a script that nobody asks for is kept warm.
	warmIdle = 5 * time.Minute
	// warmStart is how long a zygote may take to get ready. Meanwhile nobody
	// waits for it.
	warmStart = 30 * time.Second
	// warmPause is how long a script is served cold after its zygote has failed;
	// twice as long each time, up to warmPauseMax.
	warmPause    = time.Second
	warmPauseMax = time.Minute
)

// warmKeeper has the zygotes of a Runner. A script is served cold while its
// zygote starts, and whenever there is none.
type warmKeeper struct {
	cfg WarmConfig
	clk clock
	log *zap.Logger

	mu       sync.Mutex
	scripts  map[string]*warmScript
	closed   bool
	sweep    alarm
	sweeping bool // it will run
	zygotes  sync.WaitGroup
}

// warmScript is what is known of one script; warmKeeper.mu guards it.
type warmScript struct {
	state    fileState
	current  *warmZygote // serves
	next     *warmZygote // gets ready, and then takes its place
	starting bool        // there will be a next, or an answer why not
	refused  bool        // this state of the script is served cold
	reason   string      // the last one that was logged
	failures int
	until    time.Time // no start before
	used     time.Time
}

func newWarmKeeper(cfg WarmConfig, clk clock, log *zap.Logger) *warmKeeper {
	if cfg.Max <= 0 {
		cfg.Max = 16
	}
	switch {
	case cfg.Spares == 0:
		cfg.Spares = 4
	case cfg.Spares < 0:
		cfg.Spares = 0
	}
	if cfg.Preload == "" {
		cfg.Preload = "stdlib"
	}
	k := &warmKeeper{cfg: cfg, clk: clk, log: log, scripts: make(map[string]*warmScript)}
	k.sweep = clk.alarm(k.expire)
	return k
}

// fork has c run by a zygote. It returns nil without an error when c is to be
// served cold.
func (k *warmKeeper) fork(c Command, files []uintptr) (*child, error) {
	z := k.zygote(c)
	if z == nil {
		return nil, nil
	}
	ch, err := z.fork(c, files)
	if errors.Is(err, errCold) {
		k.log.Debug("served cold", zap.String("script", c.Script.File), zap.Error(err))
		return nil, nil
	}
	return ch, err
}

// zygote returns the one for c, nil when there is none, or none yet.
func (k *warmKeeper) zygote(c Command) *warmZygote {
	path := c.Script.File
	state := stateOf(path)
	k.mu.Lock()
	s := k.scripts[path]
	if s == nil {
		s = &warmScript{}
		k.scripts[path] = s
	}
	now := k.clk.now()
	s.used = now
	if s.state != state {
		s.drop()
		*s = warmScript{state: state, used: now, reason: s.reason, starting: s.starting}
	}
	z := s.current
	k.mu.Unlock()

	if z != nil {
		changed := z.outdated()
		if changed == "" {
			return z
		}
		k.log.Debug("script is loaded anew", zap.String("script", path), zap.String("changed", changed))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if z != nil && s.current == z {
		s.current = nil
		z.stop()
	}
	k.start(c, s, nil)
	return nil
}

// start begins to start a zygote, unless that is under way, or of no use. The
// caller holds k.mu.
func (k *warmKeeper) start(c Command, s *warmScript, modules []string) {
	if k.closed || s.refused || s.starting || s.state == (fileState{}) || k.clk.now().Before(s.until) {
		return
	}
	s.starting = true
	k.makePlace(s)
	k.zygotes.Go(func() { k.run(c, s, s.state, modules) })
	if !k.sweeping {
		k.sweeping = true
		k.sweep.Reset(warmIdle)
	}
}

// run starts a zygote and waits until it is ready, or isn't.
func (k *warmKeeper) run(c Command, s *warmScript, state fileState, modules []string) {
	script := watchedFile{c.Script.File, state}
	log := k.log.With(zap.String("script", script.path))
	began := k.clk.now()
	var z *warmZygote
	command, refusal := k.cfg.Zygote(c)
	var err error
	if refusal == nil {
		root, layer := "", false
		if c.Confinement != nil {
			root, layer = c.Confinement.Chroot, c.Confinement.Landlock != nil
		}
		command.background = c.background
		z, err = startWarmZygote(command, script, appendStart(nil, k.cfg.Spares, k.cfg.Preload, layer, modules), modules, warmEvents{
			line: func(line []byte) { log.Info(string(line)) },
			ready: func(z *warmZygote, fields []string) (fault string) {
				var stale string
				if z.files, stale = watchFiles(fields, root, script, began); stale != "" {
					return staleFault + stale
				}
				return ""
			},
			learned: func(z *warmZygote, modules []string) { k.learned(c, s, z, modules) },
		}, log)
	}
	if z != nil {
		k.mu.Lock()
		s.next = z
		k.mu.Unlock()
		late, forget := k.clk.after(warmStart)
		select {
		case <-z.ready:
		case <-z.ended:
			if z.refusal != "" {
				refusal = errors.New(z.refusal)
			} else {
				err = errors.New("the zygote ended with " + z.exit.String())
			}
		case <-late:
			err = errors.New("the zygote was not ready after " + warmStart.String())
		}
		forget()
		if err != nil || refusal != nil {
			z.stop()
		}
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	s.starting, s.next = false, nil
	same := s.state == state && k.scripts[script.path] == s && !k.closed
	switch {
	case refusal != nil && strings.HasPrefix(refusal.Error(), staleFault):
		s.until = k.clk.now().Add(clockTick)
	case refusal != nil || err != nil:
		if !same {
			break
		}
		reason := ""
		if refusal != nil {
			s.refused, reason = true, refusal.Error()
		} else {
			s.until = k.clk.now().Add(min(warmPause<<min(s.failures, 10), warmPauseMax))
			s.failures++
			reason = err.Error()
		}
		if s.reason != reason {
			s.reason = reason
			log.Warn("script is served cold", zap.String("reason", reason))
		}
	case !same:
		z.stop()
	default:
		if s.current != nil {
			s.current.stop()
		}
		s.current, s.reason, s.failures = z, "", 0
		log.Info("script is warm", zap.Int("pid", z.child.pid), zap.Int("modules", len(modules)), zap.Duration("took", k.clk.now().Sub(began)))
	}
	if z != nil {
		k.zygotes.Go(func() { k.await(s, z, log) })
	}
}

const staleFault = "changed while it was loaded: "

// await sees a zygote to its end.
func (k *warmKeeper) await(s *warmScript, z *warmZygote, log *zap.Logger) {
	<-z.ended
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.current == z {
		s.current, s.until = nil, k.clk.now().Add(warmPause)
		log.Warn("zygote died; the script is served cold until another is ready", zap.Stringer("exit", z.exit))
	}
}

// learned starts a zygote that has modules loaded, in place of z.
func (k *warmKeeper) learned(c Command, s *warmScript, z *warmZygote, modules []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s.current == z && len(z.modules) == 0 {
		k.start(c, s, slices.Clone(modules))
	}
}

// makePlace ends the zygotes of the script that was not asked for the longest
// when there is no place for those of s. The caller holds k.mu.
func (k *warmKeeper) makePlace(s *warmScript) {
	warm := 0
	var oldest *warmScript
	for _, other := range k.scripts {
		if other == s || other.current == nil && !other.starting {
			continue
		}
		warm++
		if other.current != nil && (oldest == nil || other.used.Before(oldest.used)) {
			oldest = other
		}
	}
	if warm >= k.cfg.Max && oldest != nil {
		oldest.current.stop()
		oldest.current = nil
	}
}

// expire ends what nobody has asked for in a while.
func (k *warmKeeper) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clk.now()
	k.sweeping = false
	for path, s := range k.scripts {
		if now.Sub(s.used) >= warmIdle && !s.starting {
			s.drop()
			delete(k.scripts, path)
		}
	}
	if len(k.scripts) > 0 && !k.closed {
		k.sweeping = true
		k.sweep.Reset(warmIdle / 4)
	}
}

// drop begins the end of the script's zygotes.
func (s *warmScript) drop() {
	for _, z := range []*warmZygote{s.current, s.next} {
		if z != nil {
			z.stop()
		}
	}
	s.current, s.next = nil, nil
}

// renew has every script loaded anew when it is asked for next.
func (k *warmKeeper) renew() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.scripts {
		s.drop()
		*s = warmScript{used: s.used, reason: s.reason, starting: s.starting}
	}
}

// close ends all zygotes and waits for that.
func (k *warmKeeper) close() {
	k.mu.Lock()
	k.closed = true
	k.sweep.Stop()
	for _, s := range k.scripts {
		s.drop()
	}
	k.mu.Unlock()
	k.zygotes.Wait()
}
