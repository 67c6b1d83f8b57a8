// Package gateway puts the parts together: it builds pools, routes and
// listeners from a configuration, runs them in the right order, and ends them
// in the reverse one.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"gatecrew/gateway/accesslog"
	"gatecrew/gateway/certificate"
	"gatecrew/gateway/config"
	"gatecrew/gateway/handler"
	"gatecrew/gateway/listen"
	"gatecrew/gateway/site"
	"gatecrew/gateway/slowlog"
	"gatecrew/gateway/spool"
	"gatecrew/gateway/websocket"
)

// Options is what a Gateway is told beside its configuration.
type Options struct {
	Log *zap.Logger
	// Version stands in SERVER_SOFTWARE.
	Version string
	// Ready is where the line is written that says where to connect.
	Ready io.Writer
	// FailFast ends Run when a pool can't start its first worker, as someone
	// who starts one application by hand expects. Otherwise the pool keeps
	// trying and the other sites are served.
	FailFast bool
}

// Gateway serves one configuration.
type Gateway struct {
	cfg     *config.Config
	opts    Options
	log     *zap.Logger
	access  *accesslog.Log
	slow    *slowlog.Log
	table   *site.Table
	handler *handler.Handler
	conns   *listen.Conns // while it runs
	sockets *websocket.Hub
	apps    *applications
}

// New builds a gateway. It starts no process and opens no socket; what it
// opens Run closes.
func New(cfg *config.Config, o Options) (*Gateway, error) {
	access, err := accesslog.Open(cfg.Log.Access, cfg.Log.AccessFormat)
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, opts: o, log: o.Log, access: access}
	if g.slow, err = slowlog.Open(cfg.Log.Slow, cfg.Log.Format); err != nil {
		return nil, errors.Join(err, access.Close())
	}
	if g.apps, err = newApplications(cfg, o.Log, g.slow); err != nil {
		return nil, errors.Join(err, access.Close(), g.slow.Close())
	}
	if g.table, err = newTable(cfg, g.apps, "gatecrew/"+o.Version); err != nil {
		return nil, errors.Join(err, access.Close(), g.slow.Close(), g.apps.close())
	}
	hc := handler.Config{
		Log:          o.Log,
		Spool:        spool.NewStore(spool.Config{Dir: cfg.Limits.SpoolDir, Memory: int64(cfg.Limits.BodyMemory), Quota: int64(cfg.Limits.SpoolQuota)}),
		MaxBody:      int64(cfg.Limits.MaxBody),
		BodyTimeout:  cfg.Limits.BodyTimeout,
		WriteTimeout: cfg.Limits.WriteTimeout,
		HeaderFields: cfg.Limits.HeaderFields,
	}
	g.sockets = websocket.NewHub(cfg.Limits.WriteTimeout, int64(cfg.Limits.WebSocketMemory))
	hc.Sockets = g.sockets
	hc.Released = func(conn net.Conn) { g.conns.Release(conn) }
	if cfg.Log.Access != "off" {
		hc.Access = access
	}
	g.handler = handler.New(hc, g.table)
	return g, nil
}

// errHurry ends the serving without waiting for the requests in progress.
var errHurry = errors.New("told to stop at once")

// Run serves until the process is told to stop by a signal: TERM ends after
// the requests in progress, a second TERM, INT or QUIT at once. HUP restarts the
// workers and reads the certificates again. It returns nil after an orderly end.
func (g *Gateway) Run() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
		syscall.SIGUSR1, syscall.SIGTTIN, syscall.SIGTTOU)
	defer signal.Stop(signals)
	defer g.access.Close()
	defer g.slow.Close()
	defer g.handler.Close()
	defer g.table.Close()
	defer g.apps.close()

	// The addresses are taken before the workers start: a port that is in use
	// is the likeliest mistake, and clients that come early wait in the
	// kernel's queue.
	listeners, err := g.listen()
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	g.setHTTPSPort(listeners)
	servers := g.newServers(listeners)
	defer servers.close()
	certificates := g.keepCertificates()
	defer certificates.Close()
	defer servers.conns.Close()
	g.conns = servers.conns
	g.warnOfDevelopment(listeners)
	g.warnOfOpenFiles()
	g.apps.start()
	if stop, err := g.awaitReady(signals, certificates); stop != nil || err != nil {
		if stop != nil {
			g.shutdown(servers, listeners, signals, stop != syscall.SIGTERM)
		}
		return err
	}

	failed := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Add(1)
		go func() {
			defer serving.Done()
			if err := servers.serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	g.announce(listeners)
	err = g.attend(signals, failed, certificates)
	g.shutdown(servers, listeners, signals, errors.Is(err, errHurry))
	serving.Wait()
	if errors.Is(err, errHurry) {
		err = nil
	}
	return err
}

func (g *Gateway) listen() (listeners []*listener, err error) {
	for _, e := range g.cfg.Listen {
		l, err := listen.Listen(e.Address.String())
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return nil, &startError{code: exitUsage, err: err}
		}
		listeners = append(listeners, &listener{l, e.Scheme == "https"})
	}
	return listeners, nil
}

// awaitReady waits until each pool has a worker, or has said why not. stop is
// the signal that ended the wait, if one did.
func (g *Gateway) awaitReady(signals <-chan os.Signal, certificates *certificate.Keeper) (stop os.Signal, err error) {
	ready := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { ready <- g.apps.awaitReady(ctx, g.opts.FailFast) }()
	for {
		select {
		case err := <-ready:
			return nil, err
		case s := <-signals:
			switch s {
			case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
				return s, nil
			case syscall.SIGHUP: // what can't be loaded may have been repaired
				certificates.Reload()
				g.apps.restart()
			default:
				g.obey(s)
			}
		}
	}
}

// announce prints the one line that says that the gateway serves.
func (g *Gateway) announce(listeners []*listener) {
	urls := make([]string, len(listeners))
	for i, l := range listeners {
		urls[i] = listen.URL(l, l.secure)
	}
	fmt.Fprintf(g.opts.Ready, "gatecrew: ready on %s\n", strings.Join(urls, " "))
}

// attend handles signals until one of them, or a failed listener, ends the
// serving. The result is nil for an orderly stop.
func (g *Gateway) attend(signals <-chan os.Signal, failed <-chan error, certificates *certificate.Keeper) error {
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("gateway: a listener failed: %w", err)
		case s := <-signals:
			switch s {
			case syscall.SIGTERM:
				g.log.Info("stopping after the requests in progress", zap.Duration("graceful_timeout", g.cfg.GracefulTimeout))
				return nil
			case syscall.SIGINT, syscall.SIGQUIT:
				return errHurry
			case syscall.SIGHUP:
				g.log.Info("SIGHUP: restarting the workers; the configuration file is not read again")
				certificates.Reload()
				g.apps.restart()
			default:
				g.obey(s)
			}
		}
	}
}

// obey does what a signal asks for that means the same while the pools start
// and while they serve.
func (g *Gateway) obey(s os.Signal) {
	switch s {
	case syscall.SIGUSR1:
		if err := g.access.Reopen(); err != nil {
			g.log.Error("access log can't be opened again", zap.Error(err))
		}
		if err := g.slow.Reopen(); err != nil {
			g.log.Error("slow log can't be opened again", zap.Error(err))
		}
	case syscall.SIGTTIN:
		g.apps.resize(+1)
	case syscall.SIGTTOU:
		g.apps.resize(-1)
	}
}

// quietConnection is how long a connection must have been open without a
// request to be closed when the gateway stops. A client that has just connected
// is about to send one.
const quietConnection = 400 * time.Millisecond

// shutdown ends the requests, then the pools: within the graceful timeout, or
// at once when it is told to hurry or a signal says so meanwhile. Programs come
// last, and have timeouts of their own.
func (g *Gateway) shutdown(servers *servers, listeners []*listener, signals <-chan os.Signal, hurry bool) {
	calm, hurryUp := context.WithCancel(context.Background())
	defer hurryUp()
	ctx, cancel := context.WithTimeout(calm, g.cfg.GracefulTimeout)
	defer cancel()
	if hurry {
		hurryUp()
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		quiet := time.NewTicker(quietConnection / 4)
		defer quiet.Stop()
		for {
			select {
			case <-quiet.C:
				servers.conns.CloseQuiet(quietConnection)
			case s := <-signals:
				switch s {
				case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
					g.log.Warn("stopping at once")
					hurryUp()
				case syscall.SIGUSR1: // the last requests are logged, too
					g.obey(s)
				}
			case <-done:
				return
			}
		}
	}()
	began := time.Now()
	g.sockets.Stop() // those over HTTP/2 would keep Shutdown waiting
	if err := servers.shutdown(ctx, listeners); err != nil {
		servers.close() // ends the requests that are left
		if !hurry {
			g.log.Warn("requests in progress were cut off", zap.Duration("after", time.Since(began)))
		}
	}
	if cut := g.sockets.Wait(ctx); cut > 0 && !hurry {
		g.log.Warn("WebSocket connections were cut off", zap.Int("number", cut))
	}
	g.apps.stop(ctx, calm)
}
