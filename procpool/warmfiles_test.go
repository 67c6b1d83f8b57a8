package procpool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWarmReleases: a link is set to another release, in which the script is the
// same file.
func TestWarmReleases(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(in("1"), 0o755), os.Mkdir(in("2"), 0o755), os.WriteFile(in("1/s.py"), nil, 0o755), os.Link(in("1/s.py"), in("2/s.py")),
		os.Symlink("1", in("current"))); err != nil {
		t.Fatal(err)
	}
	script := in("current/s.py")
	w, stale := watchFiles(nil, "", watchedFile{script, stateOf(script)}, time.Now())
	if stale != "" || w.changed() != "" {
		t.Fatalf("stale %q, changed %q", stale, w.changed())
	}
	if err := os.WriteFile(in("1/lib.py"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if changed := w.changed(); changed != "" {
		t.Errorf("a new file beside the script: %q has changed", changed)
	}
	if err := errors.Join(os.Remove(in("current")), os.Symlink("2", in("current"))); err != nil {
		t.Fatal(err)
	}
	if changed := w.changed(); changed != in("current") {
		t.Errorf("another release: %q has changed", changed)
	}
}

// TestWarmShadows: a module that appears before, or while, others are loaded is as
// much in their place as one that appears afterwards.
func TestWarmShadows(t *testing.T) {
	dir := t.TempDir()
	json := filepath.Join(dir, "json.py")
	if err := os.WriteFile(json, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w, _ := watchFiles([]string{"shadow=" + dir, "name=json"}, "", watchedFile{}, time.Now())
	for range 2 { // also when another request is the first to see it
		if got := w.shadowed(); got != json {
			t.Errorf("shadowed by %q, want %q", got, json)
		}
	}
	if err := os.Remove(json); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := w.shadowed(); got != "" {
			t.Errorf("shadowed by %q", got)
		}
	}
}
