package reload

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a folder of files for a watcher.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T, names ...string) *tree {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{t, dir}
	for _, n := range names {
		tr.write(n, "first")
	}
	return tr
}

func (tr *tree) path(name string) string { return filepath.Join(tr.dir, name) }

func (tr *tree) write(name, text string) {
	tr.t.Helper()
	tr.do(os.MkdirAll(filepath.Dir(tr.path(name)), 0o755))
	tr.do(os.WriteFile(tr.path(name), []byte(text), 0o644))
}

func (tr *tree) do(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) watch(patterns []string, names ...string) *watcher {
	for i, p := range patterns {
		patterns[i] = tr.path(p)
	}
	w := newWatcher(patterns, zaptest.NewLogger(tr.t))
	tr.t.Cleanup(w.close)
	for _, n := range names {
		w.add([]string{tr.path(n)})
	}
	return w
}

// expect waits for a hint and compares what the sweep finds.
func (tr *tree) expect(w *watcher, names ...string) {
	tr.t.Helper()
	select {
	case <-w.hints:
	case <-time.After(5 * time.Second):
		tr.t.Fatalf("no hint of a change of %q", names)
	}
	w.settle()
	tr.swept(w, names...)
}

func (tr *tree) swept(w *watcher, names ...string) {
	tr.t.Helper()
	var want []string
	for _, n := range names {
		want = append(want, tr.path(n))
	}
	if got := w.sweep(); !slices.Equal(got, want) {
		tr.t.Errorf("changed: %q, want %q", got, want)
	}
}

func (tr *tree) silent(w *watcher) {
	tr.t.Helper()
	select {
	case <-w.hints:
		tr.t.Error("a hint, though nothing of interest has happened")
	case <-time.After(3 * quiet):
	}
	tr.swept(w)
}

func TestWatcherSeesHowEditorsSave(t *testing.T) {
	tr := newTree(t, "app.py", "pack/part.py")
	w := tr.watch(nil, "app.py", "pack/part.py")
	if n := w.count(); n != 2 {
		t.Errorf("%d files are watched, want 2", n)
	}
	tr.swept(w)
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"written in place", func() { tr.write("app.py", "second") }},
		{"same length", func() { tr.write("app.py", "secind") }},
		{"replaced by rename", func() {
			tr.write(".app.py.tmp", "third")
			tr.do(os.Rename(tr.path(".app.py.tmp"), tr.path("app.py")))
		}},
		{"moved away and written anew", func() {
			tr.do(os.Rename(tr.path("app.py"), tr.path("app.py~")))
			tr.write("app.py", "fourth")
		}},
		{"touched", func() { tr.do(os.Chtimes(tr.path("app.py"), time.Time{}, time.Now().Add(time.Hour))) }},
		{"removed", func() { tr.do(os.Remove(tr.path("app.py"))) }},
		{"made again", func() { tr.write("app.py", "fifth") }},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.do()
			tr.expect(w, "app.py")
		})
	}
	t.Run("its folder replaced", func(t *testing.T) {
		tr.do(os.Rename(tr.path("pack"), tr.path("old")))
		tr.expect(w, "pack/part.py")
		tr.write("pack/part.py", "second")
		tr.swept(w, "pack/part.py") // by looking: nobody listened in the new folder
		tr.write("pack/part.py", "third time")
		tr.expect(w, "pack/part.py")
	})
	t.Run("another mode", func(t *testing.T) {
		tr.do(os.Chmod(tr.path("app.py"), 0o600))
		tr.expect(w) // a hint, but no change
	})
	t.Run("its neighbours", func(t *testing.T) {
		for _, name := range []string{"data.db", "app.pyc", "other.py"} {
			tr.write(name, "x")
		}
		tr.silent(w)
	})
}

func TestWatcherWaitsForWhatIsMissing(t *testing.T) {
	tr := newTree(t, "app.py")
	w := tr.watch(nil, "missing.py", "later/part.py")
	if n := w.count(); n != 0 {
		t.Errorf("%d files are there, want 0", n)
	}
	tr.write("missing.py", "here")
	tr.expect(w, "missing.py")
	tr.write("later/part.py", "here")
	tr.swept(w, "later/part.py")
}

func TestWatcherFollowsLinks(t *testing.T) {
	tr := newTree(t, "releases/1/app.py", "releases/2/app.py", "shared/settings.py", "code/x")
	tr.do(os.Symlink(tr.path("releases/1"), tr.path("current")))
	tr.do(os.Symlink(tr.path("shared/settings.py"), tr.path("code/config.py")))
	w := tr.watch(nil, "current/app.py", "code/config.py")
	tr.write("shared/settings.py", "second")
	tr.expect(w, "code/config.py")
	tr.write("releases/1/app.py", "second")
	tr.expect(w, "current/app.py")
	tr.write("releases/2/app.py", "longer than first")
	tr.do(os.Symlink(tr.path("releases/2"), tr.path("next")))
	tr.do(os.Rename(tr.path("next"), tr.path("current")))
	tr.swept(w, "current/app.py")
}

// A burst, as of a version control system that changes to another branch, is
// one change.
func TestBurstIsOneChange(t *testing.T) {
	names := []string{"a.py", "b.py", "c.py", "d.py"}
	tr := newTree(t, names...)
	w := tr.watch(nil, names...)
	go func() {
		for _, n := range names {
			time.Sleep(quiet / 3)
			_ = os.WriteFile(tr.path(n), []byte("second"), 0o644) // a failure is a missing change
		}
	}()
	tr.expect(w, names...)
	tr.silent(w)
}

func TestUnrestIsBounded(t *testing.T) {
	w := newTree(t).watch(nil)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case w.hints <- struct{}{}:
			}
		}
	}()
	began := time.Now()
	w.settle()
	if took := time.Since(began); took < maxUnrest {
		t.Errorf("it took %v to settle, want %v", took, maxUnrest)
	}
	close(stop)
	<-stopped
}

func TestIncludes(t *testing.T) {
	tr := newTree(t, "templates/index.html", "templates/deep/er/page.html", "templates/style.css",
		"conf/app.toml", "conf/below/other.toml", "node_modules/x/x.html")
	w := tr.watch([]string{"**/*.html", "conf/*.toml"})
	if n := w.count(); n != 3 {
		t.Errorf("%d files match, want 3", n)
	}
	tr.swept(w)
	tr.write("templates/deep/er/page.html", "second")
	tr.expect(w, "templates/deep/er/page.html")
	tr.write("templates/new.html", "new")
	tr.expect(w, "templates/new.html")
	tr.write("templates/fresh/folder/new.html", "new")
	tr.expect(w, "templates/fresh/folder/new.html")
	tr.write("templates/fresh/folder/new.html", "second")
	tr.expect(w, "templates/fresh/folder/new.html")
	tr.do(os.Remove(tr.path("templates/new.html")))
	tr.expect(w, "templates/new.html")
	tr.write("conf/app.toml", "second")
	tr.expect(w, "conf/app.toml")

	for _, name := range []string{
		"templates/index.html~", "templates/.index.html.swp", "templates/4913", "templates/.#index.html", "templates/#index.html#",
		"templates/style.css",
	} {
		tr.write(name, "noise")
	}
	tr.silent(w)
	tr.write("node_modules/x/x.html", "second")
	tr.write(".git/x.html", "second")
	tr.write("conf/below/other.toml", "second")
	tr.swept(w)
}

func TestIgnoredFiles(t *testing.T) {
	for name, ignored := range map[string]bool{
		"app.pyc": true, ".app.py.swp": true, ".app.py.swo": true, "app.py~": true, "4913": true, ".#app.py": true, "#app.py#": true,
		".goutputstream-X1": true, "app.py___jb_tmp___": true,
		"app.py": false, "a.html": false, "swap.html": false, "49130": false, "pyc": false, "x.swag": false,
	} {
		if ignoredFile(name) != ignored {
			t.Errorf("ignoredFile(%q) is %v", name, !ignored)
		}
	}
}

// Without notifications a look finds the changes, and the log has what to do.
func TestWithoutNotifications(t *testing.T) {
	tr := newTree(t, "app.py")
	core, logs := observer.New(zap.WarnLevel)
	w := makeWatcher(nil, zap.New(core), nil, os.NewSyscallError("inotify_init1", syscall.EMFILE))
	defer w.close()
	w.add([]string{tr.path("app.py")})
	tr.write("app.py", "second")
	tr.swept(w, "app.py")
	if n := logs.FilterFieldKey("next_step").Len(); n != 1 {
		t.Errorf("%d warnings say what to do, want 1: %v", n, logs.All())
	}
}

// The kernel allows each user so many watched folders.
func TestTooManyFolders(t *testing.T) {
	tr := newTree(t, "a/a.py", "b/b.py")
	core, logs := observer.New(zap.WarnLevel)
	notify, err := fsnotify.NewWatcher()
	tr.do(err)
	w := makeWatcher(nil, zap.New(core), notify, nil)
	defer w.close()
	w.notifyFailed(syscall.ENOSPC)
	w.notifyFailed(errors.New("again"))
	if all := logs.All(); len(all) != 1 || all[0].ContextMap()["next_step"] == "" {
		t.Errorf("logged: %v", all)
	}
	w.add([]string{tr.path("a/a.py"), tr.path("b/b.py")})
	tr.write("b/b.py", "second")
	tr.expect(w, "b/b.py")
}
