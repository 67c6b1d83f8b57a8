package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/backend"
	"gatecrew/gateway/config"
	"gatecrew/gateway/reload"
	"gatecrew/gateway/slowlog"
	"gatecrew/procpool"
	"gatecrew/protocol/fcgi"
	"gatecrew/protocol/stdio"
)

// applications are all that runs outside the gateway's own process: pools of
// workers, programs beside them, runners of CGI scripts, connections to other
// servers.
type applications struct {
	log      *zap.Logger
	pools    map[string]*procpool.Pool
	after    map[string][]string // programs that a pool waits for
	local    map[string]*backend.Local
	programs *procpool.Programs
	waiting  sync.WaitGroup // pools that wait for programs
	runners  []*procpool.Runner
	remotes  []*backend.Remote
	cgroups  []*procpool.Cgroup
	// reloaders are of the pools in development.
	reloaders map[string]*reload.Reloader

	unpacked          map[[2]string]string // folders of programs of its own, by root folder and name
	removeRuntimeDirs []func() error
}

// newApplications makes the pools and programs of a configuration; nothing is
// started yet.
func newApplications(cfg *config.Config, log *zap.Logger, slow *slowlog.Log) (*applications, error) {
	a := &applications{
		log: log, pools: map[string]*procpool.Pool{}, after: map[string][]string{},
		local: map[string]*backend.Local{}, reloaders: map[string]*reload.Reloader{},
		unpacked: map[[2]string]string{},
	}
	if err := a.newPrograms(cfg); err != nil {
		return nil, errors.Join(err, a.close())
	}
	for name, p := range cfg.Pools {
		if p.Workers.Reason != "" {
			log.Info("workers chosen", zap.String("pool", name), zap.Stringer("workers", p.Workers), zap.String("reason", p.Workers.Reason))
		}
		found := &backend.Interface{}
		c, err := a.poolConfig(name, p, found)
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
		a.develop(name, p, &c)
		pool, err := procpool.New(c)
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
		a.pools[name], a.after[name] = pool, p.After
		local := &backend.Local{Pool: pool, Timeout: p.Timeout, InterruptTimeout: p.InterruptTimeout, SlowTimeout: p.SlowTimeout,
			Interface: found, Buffering: buffering[p.BufferRequests], ReplayIdempotent: p.ReplayIdempotent}
		if p.SlowTimeout > 0 {
			local.Slow = backend.NewSlow(slow)
		}
		a.local[name] = local
	}
	return a, nil
}

// stallMargin is how much longer than any of its requests an event loop may
// stand still.
const stallMargin = 2 * time.Second

// buffering is by the setting in the configuration.
var buffering = map[config.Switch]backend.Buffering{
	config.Auto: backend.BufferWSGI, config.True: backend.BufferTrue, config.False: backend.BufferFalse,
}

// poolConfig says how a pool's workers are started, and how many. found is
// told what their application turns out to be.
func (a *applications) poolConfig(name string, p *config.Pool, found *backend.Interface) (procpool.Config, error) {
	log := a.log
	worker, err := a.workerProgram(p.Chroot)
	if err != nil {
		return procpool.Config{}, err
	}
	confined, err := poolConfinement(p, worker)
	if err != nil {
		return procpool.Config{}, err
	}
	return procpool.Config{
		Name: name,
		Command: procpool.Command{
			Path: p.Python,
			Argv: []string{p.Python, worker, p.App,
				"--interface", p.Interface, "--threads", strconv.Itoa(p.Threads),
				"--concurrency", strconv.Itoa(p.Concurrency), "--loop", p.Loop, "--lifespan", p.Lifespan,
				"--c-extension", p.CExtension},
			Env: p.Environ(p.Ambient(os.Environ())),
			Dir: p.Chdir, Confinement: confined, Cgroup: a.cgroup("pool", name, p.Cgroup),
		},
		Preload: p.Preload,
		Min:     p.Workers.Min, Max: p.Workers.Max,
		QueueLength: queueLength(p.QueueLength), QueueTimeout: p.QueueTimeout,
		MinSpare: p.MinSpare, MaxSpare: p.MaxSpare, IdleTimeout: p.IdleTimeout,
		MaxRequests: p.MaxRequests, MaxRequestsJitter: p.MaxRequestsJitter, MaxAge: p.MaxAge,
		MaxMemory: int64(p.MaxMemory), HardMemory: int64(p.HardMemory), MemoryBudget: int64(p.MemoryBudget),
		MemoryPSS: p.MemoryMeasure == "pss", MaxReplacing: p.MaxReplacing,
		StartTimeout: p.StartTimeout, StopGrace: p.StopTimeout,
		// Only when nobody has given up the request that holds it up before.
		StallTimeout:    p.Timeout + p.InterruptTimeout + stallMargin,
		GracefulTimeout: max(p.GracefulTimeout, 1), // 0 would be 30 s
		Log:             log,
		Output: func(w procpool.WorkerInfo, _ string, line []byte) {
			log.Named(w.Name).Info(string(line))
		},
		Attach: func(ctx context.Context, _ procpool.WorkerInfo, conn net.Conn) (procpool.Session, error) {
			session, kind, err := backend.Attach(ctx, fcgi.NewConn(conn, fcgi.Options{}))
			if err == nil && found.Found(kind) {
				log.Info("application loaded", zap.String("pool", name), zap.String("app", p.App), zap.String("interface", kind))
			}
			return session, err
		},
		WarmUp: backend.WarmUp(p.WarmUp),
	}, nil
}

// cgroup makes the control group of a pool, of a program or of a route's scripts.
// Without one they are served as well; that their limits don't hold is said.
func (a *applications) cgroup(kind, name string, c *config.Cgroup) *procpool.Cgroup {
	if c == nil {
		return nil
	}
	group, err := procpool.NewCgroup(kind+"."+name, procpool.CgroupLimits{Memory: int64(c.MemoryMax), CPU: c.CPUMax, PIDs: c.PIDsMax})
	if err != nil {
		a.log.Warn("limits of a control group don't hold", zap.String(kind, name), zap.Error(err))
	}
	if group != nil {
		a.cgroups = append(a.cgroups, group)
	}
	return group
}

// queueLength turns the configuration's 0, nobody waits, into procpool's.
func queueLength(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

// warmSpares is how many processes of a script that is kept warm may wait for
// requests.
const warmSpares = 4

// cgi makes the backend of a route of scripts.
func (a *applications) cgi(name string, c *config.CGI) (*backend.CGI, error) {
	confined, err := cgiConfinement(c)
	if err != nil {
		return nil, err
	}
	scripts := backend.Scripts{
		Interpreters: c.Extensions, Inherited: c.Environ(c.Ambient(os.Environ())), Dir: c.Chdir,
		Confinement: confined, Cgroup: a.cgroup("route", name, c.Cgroup),
	}
	runner := procpool.RunnerConfig{
		Name: name, Max: c.Max, QueueLength: queueLength(c.QueueLength), QueueTimeout: c.QueueTimeout,
		StopGrace: c.StopTimeout, KeepBackground: c.KeepBackground, Log: a.log,
	}
	if c.Warm {
		if scripts.Zygotes, err = a.zygotePrograms(c.Chroot); err != nil {
			return nil, err
		}
		if confined != nil && confined.Landlock != nil {
			confined.Landlock.ReadOnly = append(confined.Landlock.ReadOnly, scripts.Zygotes)
		}
		runner.Warm = &procpool.WarmConfig{
			Zygote: scripts.Zygote, Max: c.WarmScripts, Spares: min(c.Max, warmSpares), Preload: c.WarmPreload,
		}
	}
	scripts.Runner = procpool.NewRunner(runner)
	a.runners = append(a.runners, scripts.Runner)
	return &backend.CGI{
		Scripts: scripts, Timeout: c.Timeout, QueryArguments: c.QueryArguments, KeepBackground: c.KeepBackground, IgnoreExitStatus: c.IgnoreExitStatus,
	}, nil
}

// framings are by their names in the configuration.
var framings = map[string]stdio.Framing{"lines": stdio.Lines, "binary": stdio.Lengths, "stream": stdio.Stream}

// socket makes the backend of a route with a process for each WebSocket.
func (a *applications) socket(name string, c *config.Socket) (*backend.Socket, error) {
	confined, err := socketConfinement(c)
	if err != nil {
		return nil, err
	}
	runner := procpool.NewRunner(procpool.RunnerConfig{
		Name: name, Max: c.Max, QueueLength: queueLength(c.QueueLength), QueueTimeout: c.QueueTimeout,
		StopGrace: c.StopTimeout, EndWhole: true, Log: a.log,
	})
	a.runners = append(a.runners, runner)
	return &backend.Socket{
		Scripts: backend.Scripts{
			Runner: runner, Command: c.Command, Interpreters: c.Extensions, Inherited: c.Environ(c.Ambient(os.Environ())), Dir: c.Chdir,
			Confinement: confined, Cgroup: a.cgroup("route", name, c.Cgroup),
		},
		Framing: framings[c.Framing], MaxOutput: int(c.MaxOutput), Subprotocols: c.Subprotocols,
		CloseTimeout: c.CloseTimeout, Log: a.log,
	}, nil
}

// fastcgi makes the backend of a FastCGI application that runs elsewhere.
func (a *applications) fastcgi(c *config.FastCGI) *backend.Remote {
	r := backend.NewRemote(backend.RemoteConfig{
		Network: c.Address.Network, Address: c.Address.Address,
		DialTimeout: c.ConnectTimeout, Timeout: c.Timeout,
		Limit: procpool.NewLimiter(c.Address.String(), c.MaxConnections, queueLength(c.QueueLength), c.QueueTimeout),
	})
	a.remotes = append(a.remotes, r)
	return r
}

// start starts programs and the workers of all pools, without waiting for them.
func (a *applications) start() {
	a.programs.Start()
	for name, p := range a.pools {
		if r := a.reloaders[name]; r != nil {
			r.Start(p)
		}
		a.startPool(name, p)
	}
}

// awaitReady waits until each pool has a worker. A pool that can't start one
// is given up with an error when failFast is set; else it is left to keep
// trying, which its own log tells about. So is one that waits for programs when
// a program has failed.
func (a *applications) awaitReady(ctx context.Context, failFast bool) error {
	for name, p := range a.pools {
		var programFailed <-chan struct{}
		if len(a.after[name]) > 0 {
			programFailed = a.programs.Failed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.Ready():
		case <-programFailed:
			if p.Stats().States[procpool.Ready] == 0 {
				a.log.Error("pool waits for a program that has failed; it is served as soon as it has a worker", zap.String("pool", name))
			}
		case <-p.Failed():
			f := p.Failure()
			if a.reloaders[name] != nil {
				continue // it is served, with the reason
			}
			if failFast {
				return bootError(name, f, a.log.Core().Enabled(zap.InfoLevel))
			}
			a.log.Error("pool has no worker yet; it is served as soon as it has one", zap.String("pool", name), zap.Error(f.Err))
		}
	}
	return nil
}

// resize changes the number of workers of each pool.
func (a *applications) resize(delta int) {
	for _, p := range a.pools {
		p.Resize(delta)
	}
}

// restart replaces the workers of each pool by such as load the application
// anew. The pools themselves log how that goes.
func (a *applications) restart() {
	for _, r := range a.runners {
		r.Renew()
	}
	for name, p := range a.pools {
		if r := a.reloaders[name]; r != nil {
			r.Restart() // which shows how it ends
			continue
		}
		p.Restart(nil)
	}
}

// stop ends all applications: pools orderly while ctx lasts, then at once, and
// after them the programs, orderly until they are told to hurry.
func (a *applications) stop(ctx, hurry context.Context) {
	for _, r := range a.reloaders {
		r.Close()
	}
	var wg sync.WaitGroup
	for _, p := range a.pools {
		wg.Go(func() {
			if err := p.Drain(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn("pool did not end in peace", zap.Error(err))
			}
		})
	}
	for _, r := range a.runners {
		wg.Go(r.Close)
	}
	for _, r := range a.remotes {
		r.Close()
	}
	wg.Wait()
	// Not before: the last requests may have needed them.
	if err := a.programs.Stop(hurry); err != nil && len(a.programs.Stats()) > 0 {
		a.log.Warn("programs were stopped at once")
	}
}

// strayGrace is how long processes that applications left behind in sessions of
// their own may take to end.
const strayGrace = time.Second

// close frees what is left; it is safe after stop.
func (a *applications) close() error {
	for _, r := range a.reloaders {
		r.Close()
	}
	for _, p := range a.pools {
		p.Close()
	}
	for _, r := range a.runners {
		r.Close()
	}
	if a.programs != nil { // else they could not be made
		a.programs.Close()
	}
	a.waiting.Wait()
	procpool.EndStrays(strayGrace)
	var errs []error
	for _, group := range a.cgroups {
		errs = append(errs, group.Close())
	}
	a.cgroups = nil
	for _, remove := range a.removeRuntimeDirs {
		errs = append(errs, remove())
	}
	a.removeRuntimeDirs = nil
	return errors.Join(errs...)
}
