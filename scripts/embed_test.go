package scripts

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What is embedded is what a checkout has, less byte code: a module that is
// added is embedded with it, underscore or not.
func TestWorkerIsWhole(t *testing.T) {
	var embedded []string
	err := fs.WalkDir(Worker, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			embedded = append(embedded, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	err = filepath.WalkDir("gatecrew_worker", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "__pycache__" {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			want = append(want, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(embedded, want) {
		t.Fatalf("embedded %q, the directory has %q", embedded, want)
	}
	for _, name := range want {
		onDisk, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		inBinary, err := Worker.ReadFile(name)
		if err != nil || string(inBinary) != string(onDisk) {
			t.Errorf("%s differs from the file (%v)", name, err)
		}
	}
}
