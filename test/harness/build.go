// Package harness runs the real gatecrew binary for tests: it builds it,
// starts it on a free loopback port, talks to it, watches its process tree
// through /proc, stops it, and fails the test when anything is left behind.
// Linux only, like the process side of the gateway.
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Root is the top folder of the repository: the nearest one above the test's
// working directory that has a go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("harness: no go.mod above the working directory")
})

// App is the path of a fixture in test/apps.
func App(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{Root(t), "test", "apps"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("harness: %v", err)
	}
	return path
}

// Python is the interpreter of the test environment, with Flask and Django.
func Python(t testing.TB) string {
	t.Helper()
	path := filepath.Join(Root(t), ".build", "venv", "bin", "python")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("harness: %v; make it with test/setup.sh", err)
	}
	return path
}

// Build makes the binary with the race detector and returns its path. It is
// what nearly every test wants.
func Build(t testing.TB) string { return built(t, raced) }

// BuildPlain makes the binary as users get it, for tests that measure memory
// or time.
func BuildPlain(t testing.TB) string { return built(t, plain) }

var (
	raced = sync.OnceValues(func() (string, error) { return build("gatecrew-race", "1", "-race") })
	plain = sync.OnceValues(func() (string, error) { return build("gatecrew", "0", "-trimpath") })
)

func built(t testing.TB, binary func() (string, error)) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// build runs go build once per test process. Test processes of several
// packages run side by side: the lock keeps one from replacing the file under
// another, and Go's build cache makes every build but the first nearly free.
func build(name, cgo, mode string) (string, error) {
	top, err := root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(top, ".build")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, name+".lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("harness: lock %s: %w", lock.Name(), err)
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", mode, "-buildvcs=false", "-o", path, "./cmd/gatecrew")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("harness: go build: %w\n%s", err, out)
	}
	return path, nil
}
