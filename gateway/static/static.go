// Package static serves the files below one directory.
//
// No path and no symbolic link leads out of it (os.Root), nothing whose name
// begins with a dot is served, and the type of a file comes from its name
// alone. Answers to conditional and range requests are net/http's.
package static

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

var (
	// ErrMethod means that a file is there but the method is neither GET nor
	// HEAD. The Allow header is set on the response already (RFC 9110,
	// section 15.5.6); the caller adds the 405.
	ErrMethod = errors.New("static: method not allowed")
	// ErrIncomplete means that a response has begun and can't be completed:
	// the file became shorter, or the client went away. The caller has to
	// abort the connection (http.ErrAbortHandler) and must not write.
	ErrIncomplete = errors.New("static: response incomplete")
)

// Options says what is served.
type Options struct {
	// Dir is the directory. It is opened once: when it is renamed, the same
	// one is still served.
	Dir string
	// Index are the names of the file that stands for a directory, in the
	// order they are tried. Nil means index.html.
	Index []string
	// Deny are the extensions, as ".php", of files that are programs: their
	// source is never served. They match without regard to case and at any
	// place in a name, so that neither x.PHP nor x.php.bak nor x.php~ is
	// served either.
	Deny []string
	// Cache keeps small files in memory. Nil means that each request opens its
	// file.
	Cache *Cache
}

// Files serves one directory. It is safe for concurrent use.
type Files struct {
	root   *os.Root
	handle *os.File        // the same directory, only to be looked at
	dir    syscall.RawConn // of handle
	index  []string
	deny   []string
	cache  *Cache
	now    func() time.Time
}

// New opens the directory.
func New(o Options) (*Files, error) {
	if o.Index == nil {
		o.Index = []string{"index.html"}
	}
	for _, name := range o.Index {
		if name == "." || strings.Contains(name, "/") || !fs.ValidPath(name) {
			return nil, fmt.Errorf("static: index %q: it must be the name of a file", name)
		}
	}
	f := &Files{index: slices.Clone(o.Index), cache: o.Cache, now: time.Now}
	for _, ext := range o.Deny {
		if len(ext) < 2 || ext[0] != '.' || strings.ContainsAny(ext[1:], "./") {
			return nil, fmt.Errorf("static: deny %q: it must be an extension, as .php", ext)
		}
		f.deny = append(f.deny, strings.ToLower(ext[1:]))
	}
	var err error
	if f.root, err = os.OpenRoot(o.Dir); err != nil {
		return nil, fmt.Errorf("static: %w", err)
	}
	if f.handle, err = f.root.Open("."); err == nil {
		f.dir, err = f.handle.SyscallConn()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("static: %w", err)
	}
	return f, nil
}

// Close closes the directory. Responses that have begun go on.
func (f *Files) Close() error {
	f.cache.forget(f)
	return errors.Join(f.root.Close(), f.handle.Close())
}

// Serve answers r with the file at path, which is decoded and below the route's
// prefix. It begins with "/" and ends with one where the client's did; for the
// prefix itself it is "".
//
// With an error nothing was written and, but for Allow, no header was set, so
// that the caller makes the error page; ErrIncomplete is the exception. It is
// fs.ErrNotExist when there is nothing to serve: no such file, one that is no
// regular file, a directory without an index; fs.ErrPermission when it is
// denied: a dot file, a denied extension, a link out of the directory, a file
// that the gateway may not read; ErrMethod as said there. Anything else is a
// failure of the machine.
func (f *Files) Serve(w http.ResponseWriter, r *http.Request, path string) error {
	if given := conditionsOf(r.Header); f.hot(r.Method, &given) {
		v, err := f.cached(path, given.AcceptEncoding)
		if err != nil {
			return err
		}
		if v != nil && v.content != nil {
			return v.content.serve(w, r, &given)
		}
	}
	l, err := f.locate(path)
	if err == errSlash {
		return redirect(w, r)
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.file.Close() }()
	return f.send(w, r, l.name, l.file, l.info)
}
