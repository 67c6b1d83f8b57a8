// Package test holds the tests of the whole: the built binary with real
// applications, and the shape of the source tree.
package test

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// forbidden is the import rule: cmd → gateway → {protocol, procpool}. A
// package below a folder may not import what the expression matches.
var forbidden = []struct {
	folder string
	never  *regexp.Regexp
	why    string
}{
	{"protocol", regexp.MustCompile(`^gatecrew/(cmd|gateway|procpool|scripts|test)\b|^[a-z0-9-]+\.[a-z]+/`), "protocol imports the standard library only"},
	{"procpool", regexp.MustCompile(`^gatecrew/(cmd|gateway|protocol|scripts|test)\b|^net/http`), "procpool knows neither protocols nor HTTP"},
	{"gateway", regexp.MustCompile(`^gatecrew/(cmd|test)\b`), "gateway is below cmd"},
	{"gateway/config", regexp.MustCompile(`^gatecrew/(gateway|protocol/fcgi)\b`), "config is read by the others"},
	{"gateway/handler", regexp.MustCompile(`^gatecrew/(procpool|gateway/config)\b`), "the handler knows applications, not processes, and no configuration file"},
	{"gateway/backend", regexp.MustCompile(`^gatecrew/gateway(/(accesslog|config|handler|listen|reload|site|spool|static|websocket)\b|$)`), "a backend knows nothing of HTTP serving"},
	{"gateway/websocket", regexp.MustCompile(`^gatecrew/(procpool|gateway/(accesslog|backend|config|handler|listen|site))\b`), "a WebSocket connection knows messages, neither routes nor processes"},
	{"scripts", regexp.MustCompile(`^gatecrew/`), "scripts only embeds the worker"},
}

func TestImportsRunOneWay(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../"))
		for _, rule := range forbidden {
			if folder != rule.folder && !strings.HasPrefix(folder, rule.folder+"/") {
				continue
			}
			seen++
			for _, spec := range file.Imports {
				if name := strings.Trim(spec.Path.Value, `"`); rule.never.MatchString(name) {
					t.Errorf("%s imports %s: %s", path, name, rule.why)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 20 {
		t.Fatalf("only %d files were looked at: the tree has moved away from the rule", seen)
	}
}

// A thread of the gateway ends when a goroutine that is locked to it returns, and
// the kernel kills what that thread has started (procpool/spawn_linux.go).
func TestNoThreadEnds(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "../test" || path == "../.build" || path == "../.git" {
				return fs.SkipDir
			}
			return nil
		}
		// The stage becomes another program.
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || path == "../procpool/confine/launch_linux.go" {
			return nil
		}
		seen++
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("LockOSThread(")) {
			t.Errorf("%s locks a goroutine to its thread", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 100 {
		t.Fatalf("only %d files were looked at", seen)
	}
}
