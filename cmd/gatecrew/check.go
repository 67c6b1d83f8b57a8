package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
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
		return nil
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}

var checkHelp = `gatecrew check [-c FILE] [--print] [flags]

Says everything that is wrong with a configuration file, and starts nothing.
The exit status is 0 when it is good, else 1.

Flags (each is also a variable, --config is $GATECREW_CONFIG; in lists commas):
  -c, --config FILE              (default: gatecrew.yaml)
      --print                    write the effective configuration, defaults too
` + flagHelp((*flag).whole)
