package config

import (
	"slices"
	"strings"
)

// inherited are the variables that any program may need to run at all. Every
// other one can be a secret of the gateway or of another application.
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
}

// Environ returns the environment of a process, as NAME=VALUE: of own, which
// is the gateway's environment, the few variables that any program needs (PATH,
// HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_*, TZ, TMPDIR,
// LD_LIBRARY_PATH, VIRTUAL_ENV) and those of PassEnv; then Env, which wins. It
// is sorted and has each name once.
func (e *Environment) Environ(own []string) []string {
	values := map[string]string{}
	for _, pair := range own {
		name, value, ok := strings.Cut(pair, "=")
		if ok && (nameIn(inherited, name) || nameIn(e.PassEnv, name)) {
			values[name] = value
		}
	}
	for name, value := range e.Env {
		values[name] = value
	}
	environ := make([]string, 0, len(values))
	for name, value := range values {
		environ = append(environ, name+"="+value)
	}
	slices.Sort(environ)
	return environ
}

// nameIn reports whether a name is one of patterns: a name, or the start of
// one followed by *.
func nameIn(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		start, open := strings.CutSuffix(pattern, "*")
		return pattern == name || open && strings.HasPrefix(name, start)
	})
}
