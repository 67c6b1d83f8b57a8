package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs makes a folder with a program, and goes there.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"count.sh": 0o755, "notes.txt": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

func TestSocketSettings(t *testing.T) {
	dir := programs(t)
	load := func(settings string) (*Config, error) {
		file := filepath.Join(dir, "gatecrew.yaml")
		text := "sites: [{routes: [{path: /, socket: " + settings + "}]}]\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	c, err := load("{command: [./count.sh, a], max_age: 1h, origins: ['*'], umask: '027', env: {A: b}}")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Sites[0].Routes[0].Socket
	if strings.Join(got.Command, " ") != dir+"/count.sh a" || got.Chdir != dir || got.MaxAge != time.Hour || got.Max != 64 || got.Framing != "lines" ||
		got.MaxMessage != 16<<20 || strings.Join(got.Origins, " ") != "*" || got.QueueLength != 512 || got.Umask != "027" || got.Env["A"] != "b" {
		t.Errorf("read as %+v", got)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "printed.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if again, err := Load(file); err != nil {
		t.Errorf("%v in\n%s", err, text)
	} else if s := again.Sites[0].Routes[0].Socket; s.MaxAge != time.Hour || strings.Join(s.Origins, " ") != "*" {
		t.Errorf("printed and read again: %+v", s)
	}
	if c, err = load("{dir: .}"); err != nil || c.Sites[0].Routes[0].Socket.Chdir != "" || strings.Join(c.Sites[0].Routes[0].Socket.Origins, " ") != "same" {
		t.Errorf("%v, %+v", err, c)
	}
	for settings, want := range map[string]string{
		"{}":                        "nothing says which program runs",
		"{command: [sh], dir: .}":   "both given",
		"{command: [./absent.sh]}":  "there is no program",
		"{command: [./notes.txt]}":  "there is no program",
		"{command: ['sh -c true']}": "write each argument",
		"{command: ['']}":           "the command is missing",
		"{dir: absent}":             "there is no folder",
		"{command: [sh], extensions: {.py: python3}}": "only a folder",
		"{dir: ., framing: words}":                    "lines, binary, stream",
		"{dir: ., max: 0}":                            "max",
		"{dir: ., max_output: 4g}":                    "more than a message can have",
		"{dir: ., max_message: 0}":                    "max_message",
		"{dir: ., subprotocols: ['a b']}":             "no name of a subprotocol",
		"{dir: ., origins: [example.org]}":            "no origin",
	} {
		if _, err := load(settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the fault is %v, want one about %q", settings, err, want)
		}
	}
}

func TestSocketTarget(t *testing.T) {
	dir := programs(t)
	for _, test := range []struct {
		target    string
		arguments []string
		command   string
		dir       string
		fault     string
	}{
		{"./count.sh", nil, dir + "/count.sh", "", ""},
		{"count.sh", []string{"--to", "5"}, dir + "/count.sh --to 5", "", ""},
		{"sh", []string{"-c", "date"}, "/sh -c date", "", ""},
		{".", nil, "", dir, ""},
		{".", []string{"x"}, "", "", "given no arguments"},
		{"notes.txt", nil, "", "", "not executable"},
		{"absent", nil, "", "", "there is no program absent"},
	} {
		c, _, err := ForTarget(Run{Target: test.target, Arguments: test.arguments, Interface: "websocket"})
		switch {
		case test.fault != "":
			if err == nil || !strings.Contains(err.Error(), test.fault) {
				t.Errorf("%s: %v, want a fault about %q", test.target, err, test.fault)
			}
		case err != nil:
			t.Errorf("%s: %v", test.target, err)
		default:
			s := c.Sites[0].Routes[0].Socket
			if !strings.HasSuffix(strings.Join(s.Command, " "), test.command) || s.Dir != test.dir {
				t.Errorf("%s: %v, %s", test.target, s.Command, s.Dir)
			}
		}
	}
	c, _, err := ForTarget(Run{Target: "count.sh", Interface: "websocket", Settings: []Setting{
		{Name: "--ws-framing", Keys: []string{"socket.framing"}, Values: []string{"binary"}},
		{Name: "--ws-origin", Keys: []string{"pool.websocket.origins", "socket.origins"}, Values: []string{"*"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Sites[0].Routes[0].Socket; s.Framing != "binary" || strings.Join(s.Origins, " ") != "*" {
		t.Errorf("%+v", s)
	}
}
