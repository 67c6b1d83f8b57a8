// Package extconnect has net/http take WebSocket connections over HTTP/2: the
// extended CONNECT method of RFC 8441.
//
// net/http can do that and offers it to clients only when GODEBUG has
// http2xconnect=1 in the environment as net/http is initialised
// (https://go.dev/issue/71128): a server whose WebSocket library is not made for
// it would lose its clients. There is no other switch. So this package sets the
// variable for as long as net/http is being initialised; whoever imports
// it calls Restore from an init function of a package that imports net/http.
//
// That it comes first follows from the language and two facts: packages are
// initialised in the order of their import paths, each as soon as those it
// imports are (Go 1.21); "gatecrew/..." is before "net/http", and all that is
// imported here net/http imports too, or comes before it as well. A test looks at
// what the program offers.
package extconnect

import (
	"syscall"

	// What confine starts from its init function inherits the environment as it is:
	// that has to come first.
	_ "gatecrew/procpool/confine"
)

const (
	name = "GODEBUG"
	on   = "http2xconnect=1"
)

var before, was = syscall.Getenv(name)

func init() {
	value := on
	if before != "" {
		value = before + "," + on
	}
	_ = syscall.Setenv(name, value) // it can't fail for a name without =
}

// Restore gives the environment back as it was, so that no process that is
// started inherits the change.
func Restore() {
	if was {
		_ = syscall.Setenv(name, before)
	} else {
		_ = syscall.Unsetenv(name)
	}
}
