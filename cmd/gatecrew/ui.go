package main

import (
	"errors"
	"fmt"
	"io"

	"gatecrew/gateway/config"
)

// Rules of output:
//
//   - Standard output has what was asked for: the ready line, the access log, a
//     version, a configuration, help. Standard error has everything else.
//   - An error is one line, "gatecrew: what is wrong", in lower case and without
//     a full stop, then its hint on a line of its own. Faults of a configuration
//     file start with FILE:LINE:COLUMN instead, so that editors find them.
//   - There is no colour and no progress: most output ends in a journal.

// Exit statuses; the gateway's own errors bring theirs, see ExitCode.
const exitUsage = 1

// exitError is an error for whoever typed the command.
type exitError struct {
	code          int
	message, hint string // without a message everything has been said
}

func (e *exitError) Error() string { return e.message }

// ExitCode is the exit status of the program.
func (e *exitError) ExitCode() int { return e.code }

// gatewayError gives an error of the gateway the exit status that it asks for.
func gatewayError(err error) error {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return &exitError{code: coded.ExitCode(), message: err.Error()}
	}
	return err
}

// exitCode says what went wrong, if anything did, and returns the exit status.
func exitCode(w io.Writer, err error) int {
	var faults config.Faults
	var known *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &faults):
		printFaults(w, faults)
	case errors.As(err, &known):
		if known.message != "" {
			printError(w, known.message, known.hint)
		}
		return known.code
	default:
		printError(w, err.Error(), "")
	}
	return exitUsage
}

func printError(w io.Writer, message, hint string) {
	fmt.Fprintf(w, "gatecrew: %s\n", message)
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

func printFaults(w io.Writer, faults config.Faults) {
	file := ""
	for _, f := range faults {
		if f.File != "" {
			file = f.File
			fmt.Fprintln(w, f.Error())
			continue
		}
		hint := f.Hint
		f.Hint = ""
		printError(w, f.Error(), hint)
	}
	if file != "" && len(faults) > 1 {
		printError(w, fmt.Sprintf("%s has %d faults; nothing was started", file, len(faults)), "")
	}
}

// welcome is what gatecrew prints without arguments, and as its help.
const welcome = `gatecrew run app:app --workers 4       serve a Python application
gatecrew run ./cgi-bin                 serve a folder of CGI scripts
gatecrew serve -c gatecrew.yaml        serve the sites of a configuration file

Commands:
   run       serve one application, one folder of CGI scripts, or one program
   serve     serve the sites of a configuration file
   check     say everything that is wrong with a configuration file
   version   print the version

gatecrew help COMMAND lists the flags of a command.
`
