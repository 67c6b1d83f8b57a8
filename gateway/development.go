package gateway

import (
	"net"

	"go.uber.org/zap"

	"gatecrew/gateway/backend"
	"gatecrew/gateway/config"
	"gatecrew/gateway/reload"
	"gatecrew/procpool"
)

// develop has a pool reload its application, if it shall: pc is what it will be
// made from.
func (a *applications) develop(name string, p *config.Pool, pc *procpool.Config) {
	if !p.Reload {
		return
	}
	r := reload.New(reload.Options{Name: name, Include: p.ReloadInclude, MaxWait: p.StartTimeout, Log: a.log})
	a.reloaders[name] = r
	pc.Command.Argv = append(pc.Command.Argv, "--report-modules")
	pc.Modules = r.Imported
	// One worker is replaced sooner than several; more are started while
	// requests wait for it.
	pc.Min, pc.MinSpare, pc.MaxSpare = 1, 0, 0
	// Workers of earlier saves may still have a stream open: that must not hold
	// up the next one.
	pc.MaxReplacing = pc.Max + 8
}

// before returns the backend of a route to a pool: app, or in development what
// looks after it.
func (a *applications) before(pool string, app backend.Backend) backend.Backend {
	if r := a.reloaders[pool]; r != nil {
		return r.Before(app)
	}
	return app
}

// warnOfDevelopment says where others than the developer can reach a pool that
// is in development.
func (g *Gateway) warnOfDevelopment(listeners []*listener) {
	if len(g.apps.reloaders) == 0 {
		return
	}
	for _, l := range listeners {
		if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
			g.log.Warn("reload is for development, and others can connect to this address; bind to 127.0.0.1 instead",
				zap.String("address", tcp.String()))
		}
	}
}
