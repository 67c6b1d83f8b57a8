package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"gatecrew/gateway/config"
)

// TestMain lets the test binary be gatecrew for the scripts: one that writes
// the configuration it would serve, and then fails if it is told to.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatecrew": func() {
		runGateway = func(cfg *config.Config, o options) error {
			text, err := cfg.YAML()
			if err != nil {
				return err
			}
			fmt.Printf("# %s, fail fast: %v\n%s", o.understood, o.failFast, text)
			switch os.Getenv("TEST_FAIL") {
			case "app":
				return gatewayError(fmt.Errorf("wrapped: %w", &failure{4}))
			case "plain":
				return gatewayError(fmt.Errorf("the address is in use"))
			}
			return nil
		}
		os.Exit(program(os.Args))
	}})
}

type failure struct{ code int }

func (f *failure) Error() string { return "the application could not be loaded" }
func (f *failure) ExitCode() int { return f.code }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true})
}
