package backend

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gatecrew/procpool"
)

// The command of a zygote is the script's own, with a part before the script,
// or there is none.
func TestZygote(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "script")
	s := &Scripts{Zygotes: "/zygotes", Inherited: []string{"LANG=C"}}
	for line, want := range map[string]string{
		"#!/usr/bin/python3":                  "/usr/bin/python3|/zygotes/zygote.py",
		"#! \t/usr/bin/python3.11 \t-u  ":     "/usr/bin/python3.11|-u|/zygotes/zygote.py",
		"#!/usr/bin/python3 -W error":         "/usr/bin/python3|-W error|/zygotes/zygote.py",
		"#!/usr/bin/env python3":              "/usr/bin/env|python3|/zygotes/zygote.py",
		"#!/usr/bin/env -S python3 -u -X dev": "/usr/bin/env|-S python3 -u -X dev|/zygotes/zygote.py",
		"#!/usr/bin/perl -w":                  "/usr/bin/perl|-w|-I/zygotes|-MGatecrewWarm",
		"#!/usr/bin/perl":                     "/usr/bin/perl|-I/zygotes|-MGatecrewWarm",
		"#!/bin/sh":                           "", "#!/usr/bin/python3 -i": "", "#!/usr/bin/python3 -c pass": "", "#!/usr/bin/python3 -uc": "", "#!/usr/bin/python3 -m": "",
		"#!/usr/bin/env -S A=b python3": "", "#!/usr/bin/env -S -i python3": "", "#!/usr/bin/env -S python3 -c pass": "", `#!/usr/bin/env -S python3 "-u"`: "",
		"#!python3": "", "no line": "", "#!/usr/bin/python3 " + strings.Repeat("x", 300): "", "#!": "", "": "", "#!/usr/bin/perl -e1": "",
	} {
		if err := os.WriteFile(file, []byte(line+"\nrest\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		c, err := s.Zygote(procpool.Command{Path: file, Argv: []string{file, "word"}, Env: []string{"QUERY_STRING=secret"}, Dir: dir, Script: &procpool.Script{File: file}})
		if want == "" {
			if err == nil {
				t.Errorf("%q: %q", line, c.Argv)
			}
			continue
		}
		if got := strings.Join(c.Argv, "|"); err != nil || got != want+"|"+file || c.Path != c.Argv[0] || c.Dir != dir {
			t.Errorf("%q: %q, %v", line, got, err)
		}
		if !slices.Equal(c.Env, []string{"LD_BIND_NOW=1", "LANG=C"}) {
			t.Errorf("the environment is %q", c.Env)
		}
	}
	// By the route's interpreter, whatever the file says.
	c, err := s.Zygote(procpool.Command{Argv: []string{"/usr/bin/python3", file}, Script: &procpool.Script{File: file, Arg: 1}})
	if err != nil || strings.Join(c.Argv, "|") != "/usr/bin/python3|/zygotes/zygote.py|"+file {
		t.Errorf("%q, %v", c.Argv, err)
	}
	// What can be read and not executed is not run.
	if err := os.WriteFile(file, []byte("#!/usr/bin/python3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Zygote(procpool.Command{Argv: []string{file}, Script: &procpool.Script{File: file}}); err == nil {
		t.Error("a file without its x bit")
	}
}
