package static

import (
	"io/fs"
	"net/http"
	"strings"
)

// ServeNamed answers r with the regular file at name, below the directory, that
// an application has named: neither is a name denied nor a packed file looked
// for. The application's own fields, which are in w's header already, win:
// Content-Type, Etag and Last-Modified, by which conditions are judged, too.
//
// The method was the application's to judge: for all but GET and HEAD the whole
// file is sent. Errors are those of Serve, with nothing written.
func (f *Files) ServeNamed(w http.ResponseWriter, r *http.Request, name string) error {
	if !fs.ValidPath(name) || strings.IndexByte(name, 0) >= 0 {
		return missing(name)
	}
	file, info, err := f.open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if info.IsDir() {
		return missing(name)
	}
	h := w.Header()
	if _, typed := h["Content-Type"]; !typed {
		ctype, _ := typeOf(name)
		h.Set("Content-Type", ctype)
	}
	if h.Get("Etag") == "" {
		h.Set("Etag", etag(info))
	}
	modified := info.ModTime()
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		modified = t
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		whole := *r
		whole.Header = http.Header{}
		r = &whole
	}
	return serveContent(w, r, modified, file, info)
}
