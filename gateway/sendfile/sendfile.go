// Package sendfile sends the files that an application names in its head, in
// place of a body: X-Sendfile (Apache, lighttpd) has a path of the file system,
// X-Accel-Redirect (nginx) a path below a prefix that stands for a folder.
//
// An application that lets its users choose the name must not give them more
// than the folders that the configuration names: nothing outside of them is
// opened, whatever the path or a symbolic link says (os.Root).
package sendfile

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gatecrew/gateway/static"
	"gatecrew/protocol"
)

// The two fields.
const (
	xSendfile = "X-Sendfile"
	xAccel    = "X-Accel-Redirect"
)

// Options says which files an application may name.
type Options struct {
	// Roots are the folders of X-Sendfile.
	Roots []string
	// Accel are the folders of X-Accel-Redirect, by the prefix that stands for
	// each, with its slashes: /internal/.
	Accel map[string]string
	// Pass sends the fields on, for a server before the gateway that heeds
	// them. Nothing is opened then.
	Pass bool
}

// Files are the files that one route's application may name. Nil is valid: it
// may name none.
type Files struct {
	roots, accel []folder
	pass         bool
}

type folder struct {
	prefix string // of the paths in it, with the slash at its end
	files  *static.Files
}

// New opens the folders.
func New(o Options) (*Files, error) {
	f := &Files{pass: o.Pass}
	add := func(to *[]folder, prefix, dir string) error {
		files, err := static.New(static.Options{Dir: dir})
		if err == nil {
			*to = append(*to, folder{strings.TrimSuffix(prefix, "/") + "/", files})
		}
		return err
	}
	var failed error
	for _, dir := range o.Roots {
		failed = errors.Join(failed, add(&f.roots, dir, dir))
		// Applications often know their files by the path without links.
		if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
			failed = errors.Join(failed, add(&f.roots, real, dir))
		}
	}
	for prefix, dir := range o.Accel {
		failed = errors.Join(failed, add(&f.accel, prefix, dir))
	}
	if failed != nil {
		f.Close()
		return nil, failed
	}
	longestFirst := func(a, b folder) int { return len(b.prefix) - len(a.prefix) }
	slices.SortFunc(f.roots, longestFirst)
	slices.SortFunc(f.accel, longestFirst)
	return f, nil
}

// Close closes the folders. Responses that have begun go on.
func (f *Files) Close() {
	if f != nil {
		for _, folder := range slices.Concat(f.roots, f.accel) {
			_ = folder.files.Close()
		}
	}
}

// Take removes the fields from the head of an answer and returns what the file
// is called that they name: the field and its value. named is false when there
// is none, or when the fields are not for the gateway; then the Content-Length goes,
// since frameworks give that of the file beside a body that is empty.
func (f *Files) Take(header http.Header) (field, value string, named bool) {
	sendfile, accel := header[xSendfile], header[xAccel]
	if sendfile == nil && accel == nil {
		return "", "", false
	}
	if f != nil && f.pass {
		delete(header, "Content-Length")
		return "", "", false
	}
	delete(header, xSendfile)
	delete(header, xAccel)
	if sendfile != nil {
		return xSendfile, sendfile[0], true
	}
	return xAccel, accel[0], true
}

// Serve answers r with the file that a field names. What is in w's header
// already wins over what a file would have by itself. The errors are those of
// static.Files.Serve, and a *protocol.Error of kind Malformed for a file that the
// application may not name.
func (f *Files) Serve(w http.ResponseWriter, r *http.Request, field, value string) error {
	var folders []folder
	setting, name := "roots", value
	if f != nil {
		folders = f.roots
	}
	if field == xAccel {
		setting = "accel"
		if f != nil {
			folders = f.accel
		}
		// As nginx does: without the query, and decoded.
		name, _, _ = strings.Cut(name, "?")
		var err error
		if name, err = url.PathUnescape(name); err != nil {
			return refused("%s: %q: %v", field, value, err)
		}
	}
	switch {
	case len(folders) == 0:
		return refused("%s: %q: the route has no sendfile.%s, so its application may not name files"+
			" (next step: write the folder there, or sendfile: {pass: true} when a server before the gateway heeds the field)", field, value, setting)
	case !path.IsAbs(name):
		return refused("%s: %q does not begin with a slash", field, value)
	}
	name = path.Clean(name)
	for _, folder := range folders {
		if below, ok := strings.CutPrefix(name, folder.prefix); ok {
			return folder.files.ServeNamed(w, r, below)
		}
	}
	return refused("%s: %q is in none of the route's sendfile.%s", field, value, setting)
}

func refused(format string, args ...any) error {
	return &protocol.Error{Kind: protocol.Malformed, Err: fmt.Errorf(format, args...)}
}
