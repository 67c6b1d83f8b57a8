package reload

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// watcher finds out which files have changed. Only a look at the files tells
// that, see sweep; the kernel's notifications are hints that a look is worth it.
// So nothing is missed where there are none: on network and some container file
// systems, for a link that is set to lead elsewhere, when notifications are
// lost or can't be had.
type watcher struct {
	log *zap.Logger
	// hints has a value when something may have changed. Whoever takes it
	// should let the dust settle, then sweep.
	hints  chan struct{}
	notify *fsnotify.Watcher // nil when there are no notifications
	done   chan struct{}     // closed when hint has returned

	mu       sync.Mutex
	files    map[string]stamp // by path as it was told
	includes []*include
	deaf     bool // a folder can't be watched, and the log has it

	// hearing guards what hint needs. It is not held while notify is called,
	// which may wait for hint.
	hearing sync.Mutex
	names   map[string]bool // last elements of the paths, and of what they link to
	folders map[string]bool // in which notifications are on
}

// stamp is what a file's content is known by. The zero value is no file.
type stamp struct{ modified, size int64 }

func stampOf(info os.FileInfo, err error) stamp {
	if err != nil || info.IsDir() {
		return stamp{}
	}
	return stamp{info.ModTime().UnixNano(), info.Size()}
}

// newWatcher returns a watcher of the files that the patterns match, which are
// absolute. It has to be closed.
func newWatcher(patterns []string, log *zap.Logger) *watcher {
	notify, err := fsnotify.NewWatcher()
	return makeWatcher(patterns, log, notify, err)
}

func makeWatcher(patterns []string, log *zap.Logger, notify *fsnotify.Watcher, err error) *watcher {
	w := &watcher{
		log: log, hints: make(chan struct{}, 1), notify: notify, done: make(chan struct{}),
		files: map[string]stamp{}, names: map[string]bool{}, folders: map[string]bool{},
	}
	for _, p := range patterns {
		w.includes = append(w.includes, newInclude(p))
	}
	if err != nil {
		w.notify = nil
		w.notifyFailed(err)
		close(w.done)
	} else {
		go w.hint()
	}
	w.sweep()
	return w
}

func (w *watcher) close() {
	if w.notify != nil {
		_ = w.notify.Close()
	}
	<-w.done
}

// add watches more files, from their present content on. A file may be missing
// yet; its folder may not.
func (w *watcher) add(files []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range files {
		if _, known := w.files[f]; known {
			continue
		}
		w.files[f] = stampOf(os.Stat(f))
		w.listen(f)
	}
}

// count returns how many files are watched that exist.
func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.files {
		if s != (stamp{}) {
			n++
		}
	}
	for _, i := range w.includes {
		n += len(i.found)
	}
	return n
}

// sweep looks at all files and returns those whose content is not what it was
// at the sweep before, sorted: changed, new or gone.
func (w *watcher) sweep() (changed []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f, before := range w.files {
		if now := stampOf(os.Stat(f)); now != before {
			w.files[f] = now
			changed = append(changed, f)
		}
		w.listen(f)
	}
	for _, i := range w.includes {
		changed = append(changed, i.sweep(w.listenIn)...)
	}
	slices.Sort(changed)
	return slices.Compact(changed)
}

// listen turns on notifications for a file: for its folder, since editors
// replace files, and for that of the file that it links to.
func (w *watcher) listen(file string) {
	w.name(filepath.Base(file))
	w.listenIn(filepath.Dir(file))
	if info, err := os.Lstat(file); err == nil && info.Mode().Type() == os.ModeSymlink {
		if target, err := filepath.EvalSymlinks(file); err == nil {
			w.name(filepath.Base(target))
			w.listenIn(filepath.Dir(target))
		}
	}
}

func (w *watcher) name(name string) {
	w.hearing.Lock()
	defer w.hearing.Unlock()
	w.names[name] = true
}

// listenIn turns on notifications for a folder.
func (w *watcher) listenIn(dir string) {
	w.hearing.Lock()
	known := w.folders[dir]
	w.hearing.Unlock()
	if known || w.notify == nil {
		return
	}
	switch err := w.notify.Add(dir); {
	case err == nil:
		w.hearing.Lock()
		defer w.hearing.Unlock()
		w.folders[dir] = true
	case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		w.notifyFailed(err)
	}
}

// notifyFailed says once that there are files without notifications.
func (w *watcher) notifyFailed(err error) {
	if w.deaf {
		return
	}
	w.deaf = true
	fields := []zap.Field{zap.Error(err)}
	for _, limit := range []struct {
		err  error
		name string
	}{{syscall.ENOSPC, "fs.inotify.max_user_watches"}, {syscall.EMFILE, "fs.inotify.max_user_instances"}} {
		if errors.Is(err, limit.err) {
			now, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(limit.name, ".", "/"))
			fields = append(fields, zap.String("next_step", "raise "+limit.name+" with sysctl, it is "+strings.TrimSpace(string(now))))
		}
	}
	w.log.Warn("the system does not notify of all changes; files are looked at every second instead", fields...)
}

// hint turns notifications into hints, until the watcher is closed.
func (w *watcher) hint() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if !w.concerns(e) {
				continue
			}
		case _, ok := <-w.notify.Errors: // notifications were lost
			if !ok {
				return
			}
		}
		select {
		case w.hints <- struct{}{}:
		default: // there is one
		}
	}
}

// concerns reports whether a notification may be about a watched file. It goes
// by the name alone, as the kernel knows one path of a folder that may have
// several.
func (w *watcher) concerns(e fsnotify.Event) bool {
	w.hearing.Lock()
	defer w.hearing.Unlock()
	if w.folders[e.Name] && e.Has(fsnotify.Remove|fsnotify.Rename) {
		delete(w.folders, e.Name) // a new one of that name has to be listened to again
		return true
	}
	name := filepath.Base(e.Name)
	if w.names[name] {
		return true
	}
	for _, i := range w.includes {
		if i.mayConcern(name) {
			return true
		}
		if e.Has(fsnotify.Create) {
			if info, err := os.Stat(e.Name); err == nil && info.IsDir() && !ignoredFolder(name) {
				return true
			}
		}
	}
	return false
}

// How long to let the dust settle: an editor that writes a file with several
// calls, a tool that changes several files. While it doesn't, a look is taken
// all the same after maxUnrest.
const (
	quiet     = 50 * time.Millisecond
	maxUnrest = 500 * time.Millisecond
)

// settle waits until no hint has come for a while.
func (w *watcher) settle() {
	latest := time.After(maxUnrest)
	for {
		select {
		case <-w.hints:
		case <-time.After(quiet):
			if len(w.hints) == 0 {
				return
			}
		case <-latest:
			return
		}
	}
}
