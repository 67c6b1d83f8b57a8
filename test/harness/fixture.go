package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// CGIDir makes a temporary folder with everything in test/apps/cgi: the
// scripts copied, each NAME.c compiled to NAME. A test may add its own.
func CGIDir(t testing.TB) string {
	t.Helper()
	dir, source := t.TempDir(), App(t, "cgi")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatalf("harness: %v", err)
	}
	programs, err := filepath.Glob(filepath.Join(dir, "*.c"))
	if err != nil || len(programs) == 0 {
		t.Fatalf("harness: no C programs in %s: %v", source, err)
	}
	for _, c := range programs {
		command(t, "gcc", "-O1", "-o", strings.TrimSuffix(c, ".c"), c)
	}
	return dir
}

// Django makes the database and the static files of test/apps/django_site in
// a temporary folder and returns that folder. The site runs with its path in
// TEST_DIR; its static files are in DIR/static. The administrator is "admin",
// "ann", "ben" and "eve" have no rights; the password of each is "secret".
func Django(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(Python(t), App(t, "django_site", "prepare.py"))
	cmd.Env = append(os.Environ(), "TEST_DIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("harness: prepare.py: %v\n%s", err, out)
	}
	return dir
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("harness: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}
