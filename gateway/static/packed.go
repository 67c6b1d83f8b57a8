package static

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// packings are the codings of compressed files beside the plain one, the
// better first.
var packings = [...]struct{ coding, ext string }{{"br", ".br"}, {"gzip", ".gz"}}

// openPacked opens the compressed file beside the plain one that has the name with
// ext behind it; nil where there is none that is not older than that.
func (f *Files) openPacked(name, ext string, plain fs.FileInfo) (*os.File, fs.FileInfo) {
	file, info, err := f.open(name + ext)
	if err != nil {
		return nil, nil
	}
	if !info.Mode().IsRegular() || info.ModTime().Before(plain.ModTime()) {
		_ = file.Close()
		return nil, nil
	}
	return file, info
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
