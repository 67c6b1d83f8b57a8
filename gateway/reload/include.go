package reload

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// include is a pattern of files to watch, with what it has matched so far.
type include struct {
	base    string // the folder above the pattern's first wildcard
	pattern string // of paths relative to base
	last    string // the pattern's last element
	depth   int    // of folders that it reaches into, -1 is any
	found   map[string]stamp
	swept   bool
}

func newInclude(pattern string) *include {
	base, rest := doublestar.SplitPattern(filepath.Clean(pattern))
	if real, err := filepath.EvalSymlinks(base); err == nil {
		base = real // a walk does not follow links
	}
	depth := strings.Count(rest, "/")
	if strings.Contains(rest, "**") {
		depth = -1
	}
	return &include{base: base, pattern: rest, last: filepath.Base(rest), depth: depth, found: map[string]stamp{}}
}

// sweep looks at all files that match and returns those that have changed
// since the sweep before; the first one finds no change. It calls listen for
// each folder in which there may be some.
func (i *include) sweep(listen func(dir string)) (changed []string) {
	found := make(map[string]stamp, len(i.found))
	_ = filepath.WalkDir(i.base, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone, or not to be read: nothing to watch in it
		}
		rel, err := filepath.Rel(i.base, path)
		if err != nil {
			return err // can't be: a walk stays below its base
		}
		if d.IsDir() {
			if rel != "." && (ignoredFolder(d.Name()) || i.depth >= 0 && strings.Count(rel, "/") >= i.depth) {
				return fs.SkipDir
			}
			listen(path) // before it is read, so that nothing comes in between
			return nil
		}
		if ignoredFile(d.Name()) || !doublestar.MatchUnvalidated(i.pattern, rel) {
			return nil
		}
		if s := stampOf(os.Stat(path)); s != (stamp{}) {
			found[path] = s
		}
		return nil
	})
	for path, now := range found {
		if i.found[path] != now {
			changed = append(changed, path)
		}
	}
	for path := range i.found {
		if found[path] == (stamp{}) {
			changed = append(changed, path)
		}
	}
	first := !i.swept
	i.found, i.swept = found, true
	if first {
		return nil
	}
	return changed
}

// mayConcern reports whether a file of this name may match.
func (i *include) mayConcern(name string) bool {
	return !ignoredFile(name) && doublestar.MatchUnvalidated(i.last, name)
}

// ignoredFolder reports whether no pattern reaches into folders of this name:
// what tools keep there changes often and means nothing.
func ignoredFolder(name string) bool {
	switch name {
	case "__pycache__", "node_modules", ".git", ".hg", ".svn", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".venv":
		return true
	}
	return false
}

// transient are the files that editors write beside those that they edit, and
// Python beside its modules: byte code; Vim's swap files, backups and test
// file; Emacs's locks and backups; those of Kate, JetBrains and GNOME.
var transient = regexp.MustCompile(`\.py[co]$|\.sw[a-z]$|\.swpx$|~$|^4913$|^\.#|^#.*#$|\.kate-swp$|___jb_(?:tmp|old)___$|^\.goutputstream-`)

func ignoredFile(name string) bool { return transient.MatchString(name) }
