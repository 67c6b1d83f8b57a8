package test

import (
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatecrew/test/harness"
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
			symbols++
			if !definition(name[1]).MatchString(readFile(t, target)) {
				t.Errorf("%s: %s does not define %s", page, target, name[1])
			}
		}
	}
	if symbols < 8 {
		t.Errorf("only %d links name what they lead to: the page on architecture should have ten", symbols)
	}
}

// testNames are the names of all tests of the tree, in Go and in Python.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	defined := regexp.MustCompile(`(?m)^(?:func (Test\w+)\(|class (\w*Test\w*)\b)`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(d.Name(), "test_"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range defined.FindAllStringSubmatch(string(source), -1) {
			names[m[1]+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTestsOfTheTableOfFeatures: the table names tests that there are, and none
// of its lines claims something without one.
func TestTestsOfTheTableOfFeatures(t *testing.T) {
	names := testNames(t)
	_, table, found := strings.Cut(readFile(t, "../docs/pools.md"), "\n| feature | how gatecrew does it | test |\n")
	if !found {
		t.Fatal("docs/pools.md has no table of features")
	}
	name := regexp.MustCompile(`\bTest[A-Z]\w*`)
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if len(cells) != 3 || strings.HasPrefix(cells[0], "-") || strings.TrimSpace(cells[0]) == "feature" {
			continue
		}
		rows++
		tests := name.FindAllString(cells[2], -1)
		if len(tests) == 0 && !strings.Contains(cells[1], "Not done") {
			t.Errorf("no test for %q", strings.TrimSpace(cells[0]))
		}
		for _, test := range tests {
			if !names[test] {
				t.Errorf("%s: there is no %s", strings.TrimSpace(cells[0]), test)
			}
		}
	}
	if rows < 31 {
		t.Errorf("the table has %d rows", rows)
	}
}

// TestExamplesOfTheDocumentation: a configuration that a page shows is one that
// gatecrew takes. What it shows in part is completed by a site.
func TestExamplesOfTheDocumentation(t *testing.T) {
	needRoot(t)     // for user
	needLandlock(t) // for an example
	var account *user.User
	for _, known := range []string{"www-data", "nobody"} { // stands for the user of the examples
		if u, err := user.Lookup(known); err == nil {
			account = u
			break
		}
	}
	if account == nil {
		t.Fatal("no user for the examples")
	}
	var blocks [][]string
	for _, page := range []string{"pools", "asgi", "files"} {
		found := regexp.MustCompile("(?s)\n```yaml\n(.*?)```\n").FindAllStringSubmatch(readFile(t, "../docs/"+page+".md"), -1)
		if len(found) == 0 {
			t.Fatalf("no examples on the page on %s", page)
		}
		blocks = append(blocks, found...)
	}
	for _, block := range blocks {
		dir := t.TempDir()
		for _, folder := range []string{"cgi-bin", "bin", "static", "public", "tools", "srv/media", "srv/shop/media", "srv/shop/var"} {
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, program := range []string{"redis-server", "celery"} {
			writeScript(t, filepath.Join(dir, "bin", program), "#!/bin/sh\n", 0o755)
		}
		writeScript(t, filepath.Join(dir, "count.sh"), "#!/bin/sh\n", 0o755)
		text := strings.NewReplacer("/srv/", dir+"/srv/", "user: shop", "user: "+account.Username).Replace(block[1])
		switch {
		case strings.HasPrefix(text, "routes:"):
			text = "pools: {web: {app: 'shop.wsgi:application'}}\nsites:\n  - " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
		case !strings.Contains("\n"+text, "\nsites:"):
			text += "sites: [{routes: [{path: /, pool: web}]}]\n"
		}
		file := filepath.Join(dir, "gatecrew.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(harness.BuildPlain(t), "check", "-c", file)
		cmd.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, text)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestExamplesOfTLS: so is each one on the page on TLS, once its files are there.
func TestExamplesOfTLS(t *testing.T) {
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)```\n").FindAllStringSubmatch(readFile(t, "../docs/tls.md"), -1)
	if len(blocks) < 2 {
		t.Fatalf("only %d examples", len(blocks))
	}
	authority := harness.NewAuthority(t, "the authority")
	for _, block := range blocks {
		dir := t.TempDir()
		authority.Issue("shop.example").Write(t, dir, "server")
		text := strings.NewReplacer("/etc/letsencrypt/live/shop.example/fullchain.pem", "server.pem", "/etc/letsencrypt/live/shop.example/privkey.pem", "server.key",
			"clients.pem", authority.File).Replace(block[1])
		file := filepath.Join(dir, "gatecrew.yaml")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(harness.BuildPlain(t), "check", "-c", file).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, text)
		}
	}
}

// TestFilesThatPagesName: each promise of the README names the tests that hold
// it, and each rule of the page on architecture its place.
func TestFilesThatPagesName(t *testing.T) {
	named := regexp.MustCompile("`((?:test|procpool|protocol|gateway|cmd|examples|scripts)/[A-Za-z0-9_./-]+)`(?: `(\\w+)`)?")
	for _, page := range []string{"README.md", "docs/architecture.md"} {
		names := named.FindAllStringSubmatch(readFile(t, "../"+page), -1)
		if len(names) < 8 {
			t.Fatalf("%s names %d files", page, len(names))
		}
		for _, m := range names {
			file := filepath.Join("..", m[1])
			if info, err := os.Stat(file); err != nil {
				t.Errorf("%s names %s: %v", page, m[1], err)
			} else if m[2] != "" && !info.IsDir() && !definition(m[2]).MatchString(readFile(t, file)) {
				t.Errorf("%s: %s does not define %s", page, m[1], m[2])
			}
		}
	}
}

// definition matches a line that defines a name, in Go or Python.
func definition(name string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type |class |def |    def )` + name + `\b`)
}
