package procpool

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fileState tells versions of a file apart. The zero value is of a file that
// is not there.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stateOf(path string) (s fileState) {
	var stat unix.Stat_t
	for {
		switch err := unix.Stat(path, &stat); err {
		case unix.EINTR:
		case nil:
			return fileState{stat.Dev, stat.Ino, stat.Size, stat.Mtim, stat.Ctim}
		default:
			return s
		}
	}
}

// warmFiles is what a zygote has made use of, and so must be as it was.
type warmFiles struct {
	files   []watchedFile
	place   watchedFile   // the script's folder, which may not become another one
	folders []watchedFile // in which none of names may appear
	names   []string
}

type watchedFile struct {
	path  string
	state fileState
}

// clockTick is how far a file's time may be behind the clock.
const clockTick = 20 * time.Millisecond

// watchFiles notes the state of what a zygote that was started at since has
// named in ready. root is what it takes for /. script is what the state of its
// script was before. stale is the path of a file that may have been changed
// after the zygote has read it, "" for none.
func watchFiles(fields []string, root string, script watchedFile, since time.Time) (w *warmFiles, stale string) {
	folder := filepath.Dir(script.path)
	w = &warmFiles{files: []watchedFile{script}, place: watchedFile{folder, stateOf(folder)}}
	if stateOf(script.path) != script.state {
		stale = script.path
	}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		f := watchedFile{path: filepath.Join(root, value)}
		switch {
		case key == "watch" && f.path != script.path:
			f.state = stateOf(f.path)
			if time.Unix(f.state.ctime.Unix()).After(since.Add(-clockTick)) {
				stale = f.path
			}
			w.files = append(w.files, f)
		case key == "shadow":
			// It is looked into once: one may have appeared while modules were loaded.
			w.folders = append(w.folders, f)
		case key == "name":
			w.names = append(w.names, value)
		}
	}
	return w, stale
}

// changed returns the path of a file that isn't what it was, "" for none.
func (w *warmFiles) changed() string {
	for i := range w.files {
		if f := &w.files[i]; stateOf(f.path) != f.state {
			return f.path
		}
	}
	// Two releases may share a file that has not changed between them (hard links),
	// and differ in what stands beside it.
	if now, then := stateOf(w.place.path), w.place.state; now.dev != then.dev || now.ino != then.ino {
		return w.place.path
	}
	return ""
}

// shadowed returns the path of a module that would be found before one that is
// loaded, "" for none. Only folders that were changed are looked into: it is for
// one goroutine at a time.
func (w *warmFiles) shadowed() string {
	for i := range w.folders {
		f := &w.folders[i]
		state := stateOf(f.path)
		if state == f.state {
			continue
		}
		entries, _ := os.ReadDir(f.path) // where that fails a script can't import from it either
		for _, entry := range entries {
			for _, name := range w.names {
				rest, ok := strings.CutPrefix(entry.Name(), name)
				if ok && (rest == "" || rest[0] == '.') {
					return filepath.Join(f.path, entry.Name())
				}
			}
		}
		f.state = state
	}
	return ""
}
