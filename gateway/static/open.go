package static

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

func missing(name string) error {
	return fmt.Errorf("static: %q: %w", name, fs.ErrNotExist)
}

// denied decides by the name alone, so that the answer does not tell whether
// the file exists. /.well-known/ is the one directory with a dot that is
// meant for everybody (RFC 8615).
func (f *Files) denied(name string) bool {
	for i, segment := range strings.Split(name, "/") {
		if segment[0] == '.' && segment != "." && (i > 0 || segment != ".well-known") {
			return true
		}
		if len(f.deny) > 0 && f.deniedExtension(segment) {
			return true
		}
	}
	return false
}

// deniedExtension looks at every extension of a name, for "x.php.bak" has the
// same source as x.php, and without the "~" that editors put behind one.
func (f *Files) deniedExtension(segment string) bool {
	_, rest, more := strings.Cut(segment, ".")
	for more {
		var ext string
		ext, rest, more = strings.Cut(rest, ".")
		ext = strings.ToLower(strings.TrimRight(ext, "~"))
		for _, d := range f.deny {
			if ext == d {
				return true
			}
		}
	}
	return false
}

// open opens a regular file or a directory. O_NONBLOCK keeps the open of a
// FIFO from waiting for a writer, and means nothing to a file; what was opened
// is looked at afterwards, so that nothing can be swapped in between.
func (f *Files) open(name string) (*os.File, fs.FileInfo, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, openError(name, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("static: %q: %w", name, err)
	}
	return file, info, nil
}

// openError sorts the errors of os.Root: what the client's path brings about
// is not a failure of the machine.
func openError(name string, err error) error {
	var errno unix.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing(name)
	case errors.Is(err, fs.ErrClosed):
		return fmt.Errorf("static: %w", err)
	case !errors.As(err, &errno):
		// What remains without a number is os.Root's own error: the path
		// leads out of the directory.
		return fmt.Errorf("static: %q: %w: %v", name, fs.ErrPermission, err)
	case errno == unix.ENOTDIR, errno == unix.ENAMETOOLONG, errno == unix.ELOOP, errno == unix.ENXIO, errno == unix.ENODEV:
		return missing(name)
	}
	return fmt.Errorf("static: %w", err) // EACCES is fs.ErrPermission by itself
}

// errSlash means that a path names a directory with an index, without the slash
// that the links of the index need.
var errSlash = errors.New("static: directory without a slash at its end")

// located is the open regular file that a path led to.
type located struct {
	name   string // below the root
	file   *os.File
	info   fs.FileInfo
	passed []string // names of index files that were tried before in vain
}

// locate opens the file at path, or the index of a directory. The errors are
// errSlash and those of Serve.
func (f *Files) locate(path string) (*located, error) {
	name := strings.TrimPrefix(path, "/")
	name, slash := strings.CutSuffix(name, "/")
	if name == "" {
		name, slash = ".", path != ""
	}
	if !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 {
		return nil, missing(name)
	}
	if f.denied(name) {
		return nil, fmt.Errorf("static: %q: %w", name, fs.ErrPermission)
	}
	file, info, err := f.open(name)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if slash {
			_ = file.Close()
			return nil, missing(name)
		}
		return &located{name: name, file: file, info: info}, nil
	}
	_ = file.Close()
	l, err := f.openIndex(name)
	if err == nil && !slash {
		_ = l.file.Close()
		return nil, errSlash
	}
	return l, err
}

// openIndex opens the file that stands for a directory.
func (f *Files) openIndex(dir string) (*located, error) {
	l := &located{}
	for _, index := range f.index {
		name := path.Join(dir, index)
		if f.denied(name) {
			continue
		}
		file, info, err := f.open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.IsDir():
			_ = file.Close()
		default:
			l.name, l.file, l.info = name, file, info
			return l, nil
		}
		l.passed = append(l.passed, name)
	}
	return nil, missing(dir)
}
