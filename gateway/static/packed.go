package static

import (
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// packings are the codings of compressed files beside the plain one, the
// better first.
var packings = [...]struct{ coding, ext string }{{"br", ".br"}, {"gzip", ".gz"}}

// openPacked opens a compressed file beside the plain one, when the client
// accepts it and it is not older than that; nil otherwise.
func (f *Files) openPacked(name string, plain fs.FileInfo, r *http.Request) (file *os.File, info fs.FileInfo, coding string) {
	accept := strings.Join(r.Header["Accept-Encoding"], ",")
	for _, p := range packings {
		if !accepts(accept, p.coding) {
			continue
		}
		file, info, err := f.open(name + p.ext)
		if err != nil {
			continue
		}
		if info.Mode().IsRegular() && !info.ModTime().Before(plain.ModTime()) {
			return file, info, p.coding
		}
		_ = file.Close()
	}
	return nil, nil, ""
}

// accepts reports whether an Accept-Encoding value names coding with a weight
// above zero (RFC 9110, section 12.5.3). "*" is not taken as a yes: clients
// that send it are not asking for compression.
func accepts(header, coding string) bool {
	for item := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(item, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		key, weight, _ := strings.Cut(params, "=")
		if !strings.EqualFold(strings.TrimSpace(key), "q") {
			return true
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		return err == nil && q > 0
	}
	return false
}
