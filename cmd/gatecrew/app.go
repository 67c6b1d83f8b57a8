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

// arrange moves the flags of run before its target, since the library stops
// reading flags at the first word that is none, and -w4 becomes -w 4. What
// follows -- is left as it is.
func arrange(args []string, app *cli.App) []string {
	if len(args) < 2 || args[1] != "run" {
		return args
	}
	takesValue := map[string]bool{}
	for _, f := range app.Command("run").Flags {
		_, boolean := f.(*cli.BoolFlag)
		for _, name := range f.Names() {
			takesValue[name] = !boolean
		}
	}
	var flags, words []string
	rest := args[2:]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		name := strings.TrimLeft(arg, "-")
		switch {
		case arg == "--":
			words = append(words, rest...)
			rest = nil
		case name == "" || name == arg:
			words = append(words, arg)
		case takesValue[name] && len(rest) == 0:
			return append(append(args[:2:2], flags...), arg) // the library reports it
		case takesValue[name]:
			flags = append(flags, arg, rest[0])
			rest = rest[1:]
		case len(name) > 1 && arg == "-"+name && takesValue[name[:1]] && !strings.HasPrefix(name[1:], "=") && !known(takesValue, name):
			flags = append(flags, arg[:2], arg[2:])
		default:
			flags = append(flags, arg)
		}
	}
	return append(append(append(args[:2:2], flags...), "--"), words...)
}

// known reports whether an argument without its dashes is a flag, with or
// without =VALUE.
func known(flags map[string]bool, arg string) bool {
	name, _, _ := strings.Cut(arg, "=")
	_, ok := flags[name]
	return ok
}
