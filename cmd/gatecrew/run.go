package main

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gatecrew/gateway/config"
)

func anyFlag(*flag) bool { return true }

func runCommand() *cli.Command {
	return &cli.Command{
		Name:               "run",
		Usage:              "serve one application, one folder of CGI scripts, or one program",
		ArgsUsage:          "TARGET",
		Flags:              cliFlags(anyFlag),
		CustomHelpTemplate: runHelp,
		HideHelpCommand:    true,
		OnUsageError:       usageError,
		Action:             run,
	}
}

func run(c *cli.Context) error {
	_, iface := interfaceFlag.given(c)
	switch program := len(iface) > 0 && iface[0] == "websocket"; {
	case c.NArg() == 1, c.NArg() > 1 && program:
	case c.NArg() == 0:
		return &exitError{code: exitUsage, message: "run needs a target", hint: "as in gatecrew run app:app or gatecrew run ./cgi-bin"}
	default:
		return &exitError{code: exitUsage, message: "run takes one target, and these are " + strings.Join(c.Args().Slice(), ", "), hint: "gatecrew serve hosts several"}
	}
	r := config.Run{
		Target:    c.Args().First(),
		Arguments: c.Args().Tail(),
		Settings:  settings(c, anyFlag),
	}
	_, r.Static = staticFlag.given(c)
	if iface != nil {
		r.Interface = iface[0]
	}
	bound := slices.ContainsFunc(r.Settings, func(s config.Setting) bool { return s.Keys[0] == "listen" })
	if port := os.Getenv("PORT"); port != "" && !bound {
		// What platforms that start containers expect.
		r.Settings = append(r.Settings, config.Setting{Name: "$PORT", Keys: []string{"listen"}, Values: []string{"0.0.0.0:" + port}})
	}
	cfg, understood, err := config.ForTarget(r)
	if err != nil {
		return err
	}
	return runGateway(cfg, options{understood: understood, failFast: true})
}

var runHelp = `gatecrew run TARGET [flags]

Serves one thing over HTTP. TARGET is one of
  module:callable    a WSGI or ASGI application; also module:factory()
  app.py, app.wsgi   a file with one, or FILE:callable
  DIR                a folder of CGI scripts, each served at /NAME
  SCRIPT             a CGI script that answers every path
  PROGRAM [ARG...]   a process for each WebSocket, with --interface websocket
  fcgi://HOST:PORT   a FastCGI application; also fcgi+unix:PATH

A .py file that is executable and starts with #! is a CGI script.

Each flag is also a variable: --max-body is $GATECREW_MAX_BODY, with commas in
lists. TIME is 500ms, 10s, 5m or a number of seconds; SIZE is 64k, 10m, 1g or
a number of bytes.
` + groupedHelp()
