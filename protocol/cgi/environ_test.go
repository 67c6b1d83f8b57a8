package cgi

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatecrew/protocol"
)

func TestEnviron(t *testing.T) {
	got, err := Environ([]protocol.Param{{Name: "A", Value: "1=2"}, {Name: "PATH", Value: "/site"}, {Name: "E", Value: ""}},
		[]string{"PATH=/usr/bin", "LANG=C", "TZ=UTC"})
	if want := []string{"A=1=2", "PATH=/site", "E=", "LANG=C", "TZ=UTC"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// tryExec starts this test binary with an environment of exactly env.
func tryExec(t *testing.T, env []string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "exec-me")
	cmd.Env = env
	return cmd.Run()
}

// TestClass13EnvironmentTooLarge: what Environ lets through the kernel takes,
// and the kernel's limit on one string is met to the byte.
func TestClass13EnvironmentTooLarge(t *testing.T) {
	longest := protocol.Param{Name: "HTTP_X", Value: strings.Repeat("x", maxEnvString-len("HTTP_X=\x00"))}
	env, err := Environ([]protocol.Param{longest}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryExec(t, env); err != nil {
		t.Errorf("the longest string: %v", err)
	}
	if err := tryExec(t, []string{env[0] + "x"}); !errors.Is(err, syscall.E2BIG) {
		t.Errorf("one byte more: the kernel says %v, want E2BIG", err)
	}
	tooLong := longest
	tooLong.Value += "x"

	var most, many []protocol.Param
	for len(most) < 14 {
		most = append(most, longest)
	}
	if env, err = Environ(most[:13], nil); err != nil {
		t.Error(err)
	} else if err := tryExec(t, append(env, "LAST=1")); err != nil {
		t.Errorf("%d strings of the longest kind: %v", len(env), err)
	}
	for len(many) < 200_000 {
		many = append(many, protocol.Param{Name: "A", Value: "1"})
	}
	var inherited []string
	for len(inherited) < 15 {
		inherited = append(inherited, "LC_ALL="+longest.Value)
	}
	for name, c := range map[string]struct {
		params    []protocol.Param
		inherited []string
		status    int
	}{
		"one string":     {[]protocol.Param{tooLong}, nil, http.StatusRequestHeaderFieldsTooLarge},
		"a few long":     {most, nil, http.StatusRequestHeaderFieldsTooLarge},
		"many short":     {many, nil, http.StatusRequestHeaderFieldsTooLarge},
		"with inherited": {nil, inherited, http.StatusRequestHeaderFieldsTooLarge},
		"NUL in a value": {[]protocol.Param{{Name: "A", Value: "a\x00b"}}, nil, http.StatusBadRequest},
		"NUL in a name":  {[]protocol.Param{{Name: "A\x00"}}, nil, http.StatusBadRequest},
		"= in a name":    {[]protocol.Param{{Name: "A=B"}}, nil, http.StatusBadRequest},
		"no name":        {[]protocol.Param{{Value: "x"}}, nil, http.StatusBadRequest},
	} {
		_, err := Environ(c.params, c.inherited)
		var e *protocol.Error
		if !errors.As(err, &e) || e.Kind != protocol.Refused || !e.Unseen || statusOf(t, err) != c.status {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"A": true, "a.b": true, "": false, "A=B": false, "A\x00": false, "=": false} {
		if err := CheckName(name); ok != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzEnviron: each variable is one whole string of the environment, with its
// own name, or the request is refused.
func FuzzEnviron(f *testing.F) {
	f.Add("HTTP_A", "x", "PATH=/bin")
	f.Add("A=B", "x\x00y", "")
	f.Add("PATH", "", "PATH=/bin")
	f.Fuzz(func(t *testing.T, name, value, inherited string) {
		env, err := Environ([]protocol.Param{{Name: name, Value: value}}, []string{inherited})
		if err != nil {
			if protocol.KindOf(err) != protocol.Refused {
				t.Fatal(err)
			}
			return
		}
		gotName, gotValue, _ := strings.Cut(env[0], "=")
		if gotName != name || gotValue != value || strings.IndexByte(env[0], 0) >= 0 {
			t.Fatalf("%q=%q became %q", name, value, env[0])
		}
		if len(env) > 1 && (env[1] != inherited || strings.HasPrefix(env[1], name+"=")) {
			t.Fatalf("%q beside %q", env[1], env[0])
		}
	})
}
