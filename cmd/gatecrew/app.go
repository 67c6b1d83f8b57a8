package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"gatecrew/gateway/config"
)

// newApp makes the command line interface.
func newApp() *cli.App {
	cli.VersionPrinter = func(c *cli.Context) { printVersion(c.App.Writer) }
	return &cli.App{
		Name:      "gatecrew",
		Usage:     "serve CGI, FastCGI and Python applications over HTTP",
		Writer:    os.Stdout,
		ErrWriter: os.Stderr,
		Commands:  []*cli.Command{runCommand(), serveCommand(), checkCommand(), versionCommand()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return noCommand(c)
			}
			fmt.Fprint(c.App.ErrWriter, welcome)
			return &exitError{code: exitUsage}
		},
		OnUsageError:          usageError,
		ExitErrHandler:        func(*cli.Context, error) {}, // program does it
		CustomAppHelpTemplate: welcome,
		Version:               version,
		// A comma may be part of a value: -e NAMES=a,b.
		DisableSliceFlagSeparator: true,
	}
}

// noCommand reports a first word that is no command. It is likely the target of
// a forgotten run.
func noCommand(c *cli.Context) error {
	word := c.Args().First()
	hint := "write gatecrew run " + word + " to serve it"
	if !strings.ContainsAny(word, ":/.") {
		hint = "see gatecrew help"
		var names []string
		for _, command := range c.App.Commands {
			names = append(names, command.Name)
		}
		if near := config.Nearest(word, names); near != "" {
			hint = "did you mean gatecrew " + near + "?"
		}
	}
	return &exitError{code: exitUsage, message: fmt.Sprintf("there is no command %q", word), hint: hint}
}

// usageError reports flags that can't be understood.
func usageError(c *cli.Context, err error, _ bool) error {
	e := &exitError{code: exitUsage, message: err.Error(), hint: strings.TrimSpace("see gatecrew help " + c.Command.Name)}
	if flag, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		e.message = "there is no flag --" + strings.TrimPrefix(flag, "-")
		var names []string
		for _, f := range c.Command.Flags {
			names = append(names, f.Names()[0])
		}
		if near := config.Nearest(strings.TrimPrefix(flag, "-"), names); near != "" {
			e.hint = "did you mean --" + near + "?"
		}
	}
	if flag, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		e.message = "the flag --" + strings.TrimPrefix(flag, "-") + " has no value"
	}
	return e
}

// arrange moves the flags of a command before its other words, since the
// library stops reading flags at the first word that is none. It also writes
// short flags out, -w4 as --workers 4, since the library refuses -e and --env
// in one command. What follows -- is left as it is.
func arrange(args []string, app *cli.App) []string {
	if len(args) < 2 {
		return args
	}
	command := app.Command(args[1])
	if command == nil {
		return args
	}
	long := map[string]string{}
	takesValue := map[string]bool{}
	for _, f := range command.Flags {
		_, boolean := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			long[name] = f.Names()[0]
			takesValue[name] = !boolean
		}
	}
	var flags, words []string
	rest := args[2:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		if arg == "--" {
			words = append(words, rest...)
			break
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if arg[:min(1, len(arg))] != "-" || name == "" {
			words = append(words, arg)
			continue
		}
		if long[name] == "" && len(name) > 1 && takesValue[name[:1]] && arg[1] != '-' {
			// -w4: all that follows the letter is the value.
			name, value, hasValue = name[:1], arg[2:], true
		}
		switch {
		case long[name] == "":
			flags = append(flags, arg) // the library reports it
		case hasValue:
			flags = append(flags, "--"+long[name]+"="+value)
		case takesValue[name] && len(rest) == 0:
			return append(append(args[:2:2], flags...), "--"+long[name]) // and this
		case takesValue[name]:
			flags = append(flags, "--"+long[name], rest[0])
			rest = rest[1:]
		default:
			flags = append(flags, "--"+long[name])
		}
	}
	return append(append(append(args[:2:2], flags...), "--"), words...)
}
