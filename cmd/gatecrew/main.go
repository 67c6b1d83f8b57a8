// Command gatecrew serves CGI scripts, FastCGI applications, Python WSGI
// applications and files over HTTP. See the package gatecrew/gateway for how.
package main

import (
	"os"

	"gatecrew/procpool"
)

func main() {
	procpool.GuardMain()
	os.Exit(program(os.Args))
}

// program runs a command line and returns the exit status.
func program(args []string) int {
	app := newApp()
	return exitCode(app.ErrWriter, app.Run(arrange(args, app)))
}
