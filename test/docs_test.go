package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is [text](target) in a page; the text may name a function: `file` `Name`.
var (
	link   = regexp.MustCompile(`\[([^\]]+)\]\(([^)#]+)(?:#[^)]*)?\)`)
	symbol = regexp.MustCompile("`([A-Za-z_]+)`$")
)

// TestLinksOfTheDocumentation: every link to a file lands, and where its text
// names a function or type, that is defined in the file.
func TestLinksOfTheDocumentation(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/decisions/*.md", "../bench/*.md", "../protocol/fcgi/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	symbols := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[2], "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(page), m[2])
			info, err := os.Stat(target)
			if err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[0])
				continue
			}
			name := symbol.FindStringSubmatch(m[1])
			if name == nil || info.IsDir() {
				continue
			}
			source, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			symbols++
			defined := regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |class |def |    def )` + name[1] + `\b`)
			if !defined.Match(source) {
				t.Errorf("%s: %s does not define %s", page, target, name[1])
			}
		}
	}
	if symbols < 8 {
		t.Errorf("only %d links name what they lead to: the page on architecture should have ten", symbols)
	}
}

// TestFilesThatTheReadmeNames: each promise names the tests that hold it.
func TestFilesThatTheReadmeNames(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:test|procpool|protocol|gateway|cmd|examples)/[A-Za-z0-9_./-]+)`").FindAllStringSubmatch(string(text), -1)
	if len(names) < 8 {
		t.Fatalf("the README names %d files", len(names))
	}
	for _, m := range names {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("the README names %s: %v", m[1], err)
		}
	}
}
