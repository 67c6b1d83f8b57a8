package static

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxRanges is how many parts of a file one request may ask for. More, or
// parts that together are longer than the file (which net/http looks at), get
// the whole file: RFC 9110, section 14.2, CVE-2011-3192.
const maxRanges = 16

// send answers with an open regular file.
func (f *Files) send(w http.ResponseWriter, r *http.Request, name string, file *os.File, info fs.FileInfo) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return ErrMethod
	}
	ctype, compressible := typeOf(name)
	coding := ""
	if compressible {
		accept := strings.Join(r.Header["Accept-Encoding"], ",")
		for _, p := range packings {
			if !accepts(accept, p.coding) {
				continue
			}
			if packed, packedInfo := f.openPacked(name, p.ext, info); packed != nil {
				defer func() { _ = packed.Close() }()
				file, info, coding = packed, packedInfo, p.coding
				break
			}
		}
	}
	maps.Copy(w.Header(), describe(ctype, compressible, coding, info))
	return serveContent(w, r, info.ModTime(), file, info)
}

// describe makes the fields that tell of a file, whether all of it is sent or not.
func describe(ctype string, compressible bool, coding string, info fs.FileInfo) http.Header {
	h := http.Header{
		"Content-Type":           {ctype},
		"X-Content-Type-Options": {"nosniff"},
		"Etag":                   {etag(info)},
	}
	if compressible {
		// Also on the plain answer: a cache must not give it to others
		// when a compressed file appears.
		h["Vary"] = []string{"Accept-Encoding"}
	}
	if coding != "" {
		h["Content-Encoding"] = []string{coding}
	}
	return h
}

func serveContent(w http.ResponseWriter, r *http.Request, modified time.Time, file *os.File, info fs.FileInfo) error {
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		plain := *r
		plain.Header = maps.Clone(r.Header)
		plain.Header.Del("Range")
		r = &plain
	}
	rec := &recorder{ResponseWriter: w, size: info.Size()}
	http.ServeContent(rec, r, "", modified, file)
	return rec.result(r.Method)
}

// etag returns a strong validator: a file that is replaced by another has
// another inode number, one that is written to another time or size. It is
// hashed because an inode number is nobody's business (CVE-2003-1418).
func etag(info fs.FileInfo) string {
	var id [24]byte
	binary.BigEndian.PutUint64(id[0:], uint64(info.ModTime().UnixNano()))
	binary.BigEndian.PutUint64(id[8:], uint64(info.Size()))
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		binary.BigEndian.PutUint64(id[16:], st.Ino)
	}
	sum := sha256.Sum256(id[:])
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// redirect adds the slash to the name of a directory, without which the links
// of its index would lead elsewhere. The target is the last segment only: the
// client knows the rest, which may begin with a prefix that we don't, and a
// target that begins with "./" is never another host.
func redirect(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return ErrMethod
	}
	target := "./" + url.PathEscape(path.Base(r.URL.Path)) + "/"
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", target)
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusMovedPermanently)
	return nil
}

// recorder sees whether all of a response was written, which ServeContent
// does not tell. It passes ReadFrom on, without which a file would not be
// sent by sendfile(2).
type recorder struct {
	http.ResponseWriter
	size   int64 // of the whole file
	want   int64 // of this response's body
	wrote  int64
	err    error
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	h := w.Header()
	if status == http.StatusOK && h.Get("Content-Length") == "" {
		// ServeContent leaves it out with a Content-Encoding, for fear that
		// somebody compresses on the way; here the file is what it is.
		h.Set("Content-Length", strconv.FormatInt(w.size, 10))
	}
	w.want, _ = strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.wrote += int64(n)
	w.err = errors.Join(w.err, err)
	return n, err
}

func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, src)
	w.wrote += n
	w.err = errors.Join(w.err, err)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) result(method string) error {
	if method == http.MethodHead || w.status != http.StatusOK && w.status != http.StatusPartialContent {
		return nil
	}
	err := w.err
	if err == nil && w.wrote < w.want {
		err = fmt.Errorf("the file became shorter: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}
