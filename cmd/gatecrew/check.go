package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatecrew/gateway/config"
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "say everything that is wrong with a configuration file",
		ArgsUsage: " ",
		Flags: append([]cli.Flag{
			configFlag(),
			&cli.BoolFlag{Name: "print"},
		}, cliFlags((*flag).whole)...),
		CustomHelpTemplate: checkHelp,
		HideHelpCommand:    true,
		OnUsageError:       usageError,
		Action:             check,
	}
}

func check(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if !c.Bool("print") {
		fmt.Fprintf(c.App.Writer, "%s: good\n", c.String("config"))
		printPrograms(c.App.Writer, cfg)
		return nil
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}

// printPrograms says what is run beside the pools, in the order of the starts.
func printPrograms(w io.Writer, cfg *config.Config) {
	for _, name := range cfg.StartOrder() {
		p := cfg.Programs[name]
		fmt.Fprintf(w, "program %s%s: %s\n", name, afterText(p.After), strings.Join(p.Command, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Pools)) {
		if after := cfg.Pools[name].After; len(after) > 0 {
			fmt.Fprintf(w, "pool %s%s\n", name, afterText(after))
		}
	}
}

func afterText(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return " after " + strings.Join(names, ", ")
}

var checkHelp = `gatecrew check [-c FILE] [--print] [flags]

Says everything that is wrong with a configuration file, and starts nothing.
Of a good one it prints the programs that would be run beside the pools. The
exit status is 0 when it is good, else 1.

Flags (each is also a variable, --config is $GATECREW_CONFIG; in lists commas):
  -c, --config FILE              (default: gatecrew.yaml)
      --print                    write the effective configuration, defaults too
` + flagHelp(flags, (*flag).whole)
