package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"gatecrew/gateway"
	"gatecrew/gateway/config"
	"gatecrew/gateway/tuning"
	"gatecrew/procpool"
)

// options is what the gateway is told beside its configuration.
type options struct {
	// understood says how run has read its target; empty for serve.
	understood string
	// failFast ends the program when an application can't be started.
	failFast bool
}

// runGateway serves until the program is told to stop. It is a variable so that
// the tests of the command line can look at what it is given.
var runGateway = func(cfg *config.Config, o options) error {
	// Whoever reads the logs may go away. Go ends a program that writes to
	// standard output or error then, unless it has asked for the signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	log := newLogger(cfg.Log, os.Stderr)
	defer func() { _ = log.Sync() }()
	if o.understood != "" {
		log.Info("serving " + o.understood)
	}
	defer tuning.Start(log, cfg.ForksForRequests())()
	if err := procpool.BecomeReaper(); err != nil {
		log.Warn("processes that scripts leave behind can't be collected", zap.Error(err))
	}
	g, err := gateway.New(cfg, gateway.Options{Log: log, Version: version, Ready: os.Stdout, FailFast: o.failFast})
	if err != nil {
		return gatewayError(err)
	}
	return gatewayError(g.Run())
}

// configFlag is -c of serve and check.
func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: "gatecrew.yaml", EnvVars: []string{variable("config")}}
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:               "serve",
		Usage:              "serve the sites of a configuration file",
		ArgsUsage:          " ",
		Flags:              append([]cli.Flag{configFlag()}, cliFlags((*flag).whole)...),
		CustomHelpTemplate: serveHelp,
		HideHelpCommand:    true,
		OnUsageError:       usageError,
		Action: func(c *cli.Context) error {
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			return runGateway(cfg, options{})
		},
	}
}

// loadConfig reads the file that -c names, with the flags and variables that
// stand over it.
func loadConfig(c *cli.Context) (*config.Config, error) {
	if c.Args().Present() {
		return nil, &exitError{code: exitUsage, message: "there is no argument here: " + c.Args().First(), hint: "write -c FILE"}
	}
	return config.Load(c.String("config"), settings(c, (*flag).whole)...)
}

var serveHelp = `gatecrew serve [-c FILE] [flags]

Serves the sites of a configuration file. Flags stand over the file.

Flags (each is also a variable, --config is $GATECREW_CONFIG; in lists commas):
  -c, --config FILE              (default: gatecrew.yaml)
` + flagHelp(flags, (*flag).whole)
