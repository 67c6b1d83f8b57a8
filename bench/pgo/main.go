// Command pgo runs the gateway of a configuration file, as gatecrew serve does,
// and writes a CPU profile of all that it did until it was told to stop.
// collect.sh makes cmd/gatecrew/default.pgo of several of them.
package main

import (
	"fmt"
	"os"
	"runtime/pprof"

	"go.uber.org/zap"

	"gatecrew/gateway"
	"gatecrew/gateway/config"
	"gatecrew/gateway/tuning"
	"gatecrew/procpool"
)

func main() {
	procpool.GuardMain()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: pgo CONFIG PROFILE")
	}
	cfg, err := config.Load(os.Args[1])
	if err != nil {
		return err
	}
	profile, err := os.Create(os.Args[2])
	if err != nil {
		return err
	}
	defer profile.Close()
	if err := procpool.BecomeReaper(); err != nil {
		return err
	}
	defer tuning.Start(zap.NewNop(), cfg.ForksForRequests())() // as the command does
	g, err := gateway.New(cfg, gateway.Options{Log: zap.NewNop(), Version: "profile", Ready: os.Stdout, FailFast: true})
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(profile); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return g.Run()
}
