package gateway

import (
	"fmt"
	"strings"

	"gatecrew/procpool"
)

// Exit statuses that scripts around the gateway may rely on; 3 and 4 are
// gunicorn's.
const (
	exitUsage      = 1 // the configuration, or the machine, doesn't allow to start
	exitBootFailed = 3 // a worker did not start
	exitAppFailed  = 4 // the application could not be loaded
)

// startError says that the gateway could not start, and with which status the
// process ends for it.
type startError struct {
	code int
	err  error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// ExitCode is the exit status of the process.
func (e *startError) ExitCode() int { return e.code }

// bootError makes the error for a pool that has no worker. logged says that
// the log has what the worker wrote, which is not repeated then.
func bootError(pool string, f *procpool.StartFailure, logged bool) error {
	code, what := exitBootFailed, "no worker of pool %s could start: %w"
	if f.Exit.Code == exitAppFailed {
		code, what = exitAppFailed, "the application of pool %s could not be loaded: %w"
	}
	err := fmt.Errorf(what, pool, f.Err)
	switch {
	case len(f.Output) == 0:
	case logged:
		err = fmt.Errorf("%w; what it said about that is in the log above", err)
	default:
		err = fmt.Errorf("%w\n\n%s", err, strings.Join(f.Output, "\n"))
	}
	return &startError{code: code, err: err}
}
