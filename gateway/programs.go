package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"

	"go.uber.org/zap"

	"gatecrew/gateway/config"
	"gatecrew/procpool"
)

var restartPolicies = map[string]procpool.RestartPolicy{
	"always": procpool.RestartAlways, "on-failure": procpool.RestartOnFailure, "never": procpool.RestartNever,
}

var stopSignals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP,
}

// newPrograms makes what runs beside the pools; nothing is started yet.
func (a *applications) newPrograms(cfg *config.Config) (err error) {
	var list []procpool.Program
	for _, name := range cfg.StartOrder() {
		c := cfg.Programs[name]
		p := program(name, c)
		p.Command.Cgroup = a.cgroup("program", name, c.Cgroup)
		if p.Command.Confinement, err = confinement(&c.Isolation, c.Command[0], c.Chdir); err != nil {
			return err
		}
		list = append(list, p)
	}
	a.programs, err = procpool.NewPrograms(procpool.ProgramsConfig{
		List: list, Log: a.log,
		Output: func(program, _ string, line []byte) { a.log.Named(program).Info(string(line)) },
	})
	return err
}

func program(name string, p *config.Program) procpool.Program {
	return procpool.Program{
		Name:    name,
		Command: procpool.Command{Path: p.Command[0], Argv: p.Command, Env: p.Environ(p.Ambient(os.Environ())), Dir: p.Chdir},
		After:   p.After, Ready: accepts(p.Ready), Restart: restartPolicies[p.Restart],
		StartTimeout: p.StartTimeout, StopSignal: stopSignals[p.StopSignal], StopTimeout: p.StopTimeout,
	}
}

// accepts returns a function that fails as long as an address accepts no
// connection; without an address there is none.
func accepts(a config.Address) func(context.Context) error {
	if a == (config.Address{}) {
		return nil
	}
	return func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, a.Network, a.Address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// startPool starts the workers of a pool once the programs are up that it comes
// after, or nobody waits for them any longer.
func (a *applications) startPool(name string, pool *procpool.Pool) {
	after := a.after[name]
	if len(after) == 0 {
		pool.Start()
		return
	}
	log := a.log.With(zap.String("pool", name))
	log.Info("pool waits for programs", zap.Strings("after", after))
	a.waiting.Go(func() {
		switch err := a.programs.Await(context.Background(), after...); {
		case errors.Is(err, procpool.ErrClosed):
			return
		case err != nil:
			log.Error("pool is started although programs that it comes after are not up", zap.Error(err))
		}
		pool.Start()
	})
}
