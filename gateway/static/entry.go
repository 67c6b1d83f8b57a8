package static

import (
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"time"
)

// maxCached is the largest file that is kept in memory. Beyond it sendfile(2)
// is as quick.
const maxCached = 64 << 10

// trust is how long an entry is used before its files are opened again. What
// stat(2) tells is looked at in each request; this is for what it does not: that
// a folder on the way to a file was replaced by a link that leads out of the
// root, to the same file, and bytes that are written through shared memory.
const trust = time.Second

// entry is what a path led to, with all that has to be looked at again to know
// that it still does. It is never changed.
type entry struct {
	loaded time.Time
	passed []version // index files that were tried before and weren't there
	plain  version
	packed []version // in the order of packings; none where it isn't compressible
	size   int64
}

// version is one file on the disk as it was found.
type version struct {
	path    []byte // below the root, ending with NUL
	id      identity
	coding  string   // the Content-Encoding, "" for a plain file
	usable  bool     // it may be served
	content *content // nil when it is too large, or not usable
}

func newVersion(name string) version { return version{path: append([]byte(name), 0)} }

// cached returns the version of the file at path that a client is to get,
// without reading a file that is in the cache already. It is nil for what has
// none: a folder that lacks its slash, a file that changes at present. The errors
// are Serve's.
func (f *Files) cached(path, acceptEncoding string) (*version, error) {
	now := f.now()
	if e := f.cache.get(f, path); e != nil && now.Sub(e.loaded) < trust {
		if !e.holds() {
			return &e.plain, nil // which will be opened and looked at anyway
		}
		if v := f.choose(e, acceptEncoding, true); v != nil {
			return v, nil
		}
	}
	e, err := f.load(path, now)
	if e == nil {
		f.cache.put(f, path, nil)
		return nil, err
	}
	return f.choose(e, acceptEncoding, false), nil
}

// choose returns the version for a client. With check it looks at each file that
// the choice rests on, and is nil when one is no longer what it was.
func (f *Files) choose(e *entry, acceptEncoding string, check bool) *version {
	changed := func(v *version) bool { return check && f.identity(v.path) != v.id }
	for i := range e.passed {
		if changed(&e.passed[i]) {
			return nil
		}
	}
	if changed(&e.plain) {
		return nil
	}
	for i := range e.packed {
		v := &e.packed[i]
		if !accepts(acceptEncoding, v.coding) {
			continue
		}
		if changed(v) {
			return nil
		}
		if v.usable {
			return v
		}
	}
	return &e.plain
}

// load reads the file at path with the compressed ones beside it, and puts it
// into the cache unless one of them has just changed.
func (f *Files) load(path string, now time.Time) (*entry, error) {
	l, err := f.locate(path)
	if err == errSlash {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.file.Close() }()
	e := &entry{loaded: now, plain: newVersion(l.name)}
	for _, name := range l.passed {
		v := newVersion(name)
		v.id = f.identity(v.path)
		e.passed = append(e.passed, v)
	}
	ctype, compressible := typeOf(l.name)
	if !e.plain.read(l.file, l.info, describe(ctype, compressible, "", l.info)) {
		return nil, nil
	}
	if compressible {
		for _, p := range packings {
			v := newVersion(l.name + p.ext)
			v.coding = p.coding
			if file, info := f.openPacked(l.name, p.ext, l.info); file == nil {
				v.id = f.identity(v.path)
			} else {
				ok := v.read(file, info, describe(ctype, compressible, p.coding, info))
				_ = file.Close()
				if !ok {
					return nil, nil
				}
			}
			e.packed = append(e.packed, v)
		}
	}
	if e.size = e.weigh(path); e.settled() {
		f.cache.put(f, path, e)
	}
	return e, nil
}

// read takes the opened file into v. It is false when that changed meanwhile.
func (v *version) read(file *os.File, info fs.FileInfo, head http.Header) bool {
	v.id, v.usable = identityOf(info), true
	if info.Size() > maxCached {
		return true
	}
	body := make([]byte, info.Size())
	if _, err := io.ReadFull(file, body); err != nil {
		return false
	}
	if after, err := file.Stat(); err != nil || identityOf(after) != v.id {
		return false
	}
	v.content = newContent(body, info.ModTime(), head)
	return true
}

// holds reports whether any version is in memory.
func (e *entry) holds() bool {
	return e.plain.content != nil || slices.ContainsFunc(e.packed, func(v version) bool { return v.content != nil })
}

// settled reports whether every file has been as it is for long enough that
// another change of it would be seen.
func (e *entry) settled() bool {
	for i := range e.passed {
		if v := &e.passed[i]; v.id.regular() || !v.id.settledAt(e.loaded) { // a regular one has come just now
			return false
		}
	}
	for i := range e.packed {
		if !e.packed[i].id.settledAt(e.loaded) {
			return false
		}
	}
	return e.plain.id.settledAt(e.loaded)
}

// weigh estimates what the entry of a path costs in memory, headers and all.
func (e *entry) weigh(path string) int64 {
	size := 512 + len(path)
	for _, versions := range [][]version{e.passed, {e.plain}, e.packed} {
		for i := range versions {
			v := &versions[i]
			size += 128 + len(v.path)
			if v.content != nil {
				size += 2048 + len(v.content.body)
			}
		}
	}
	return int64(size)
}
