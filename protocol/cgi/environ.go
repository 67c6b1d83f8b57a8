package cgi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gatecrew/protocol"
)

// Linux refuses to start a program with E2BIG when one of its strings is too
// long or all of them together are (execve(2), "Limits on size of arguments
// and environment").
const (
	// maxEnvString is MAX_ARG_STRLEN, which counts the NUL at the end.
	maxEnvString = 128 << 10
	// maxEnvTotal is a quarter of the usual 8 MiB stack limit, less what the
	// file name, the arguments and the words that the kernel puts beside
	// them may take.
	maxEnvTotal = 2<<20 - 256<<10
	// pointerSize is what each string costs in the array that names it.
	pointerSize = 8
)

// CheckName says whether a configured variable can be passed to a program:
// its name is not empty and holds neither "=" nor NUL.
func CheckName(name string) error {
	if name == "" {
		return errors.New("cgi: variable: empty name")
	}
	if i := strings.IndexAny(name, "=\x00"); i >= 0 {
		return fmt.Errorf("cgi: variable: %s has %q in its name", quote(name), name[i])
	}
	return nil
}

// Environ makes the environment for exec: the meta-variables, and those of
// inherited, in the form of os.Environ, that no meta-variable replaces.
//
// An environment that the kernel would refuse gives a *protocol.Error of kind
// Refused, with a *RequestError in its chain: status 431 for one string of
// 128 KiB or more or for too much in total, 400 for a NUL or a name that no
// environment can hold. The limits are those for a stack of 8 MiB or more.
func Environ(params []protocol.Param, inherited []string) ([]string, error) {
	env := make([]string, 0, len(params)+len(inherited))
	total := 0
	for i := range params {
		p := &params[i]
		if CheckName(p.Name) != nil || strings.IndexByte(p.Value, 0) >= 0 {
			return nil, refused(http.StatusBadRequest, "variable %s: NUL, or a name that no environment can hold", quote(p.Name))
		}
		size := len(p.Name) + len("=") + len(p.Value) + len("\x00")
		if size > maxEnvString {
			return nil, refused(http.StatusRequestHeaderFieldsTooLarge, "variable %s: %d bytes, a program can be given %d", quote(p.Name), size, maxEnvString)
		}
		if total += size + pointerSize; total > maxEnvTotal {
			return nil, refused(http.StatusRequestHeaderFieldsTooLarge, "all variables together: more than %d bytes", maxEnvTotal)
		}
		env = append(env, p.Name+"="+p.Value)
	}
	for _, entry := range inherited {
		name, _, _ := strings.Cut(entry, "=")
		if slices.ContainsFunc(params, func(p protocol.Param) bool { return p.Name == name }) {
			continue
		}
		if total += len(entry) + len("\x00") + pointerSize; total > maxEnvTotal {
			return nil, refused(http.StatusRequestHeaderFieldsTooLarge, "all variables together: more than %d bytes", maxEnvTotal)
		}
		env = append(env, entry)
	}
	return env, nil
}

func refused(status int, format string, args ...any) error {
	return &protocol.Error{
		Kind: protocol.Refused, Unseen: true,
		Err: &RequestError{Status: status, Reason: fmt.Sprintf(format, args...)},
	}
}
