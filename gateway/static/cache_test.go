package static

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// cachedSite is a site whose files have been as they are for an hour, so that
// they are kept from the first request on, and whose time stands still.
type cachedSite struct {
	*site
	ahead atomic.Int64 // how much later it is there, ns
}

func newCachedSite(t *testing.T, o Options, files map[string]string) *cachedSite {
	s := &cachedSite{site: newSite(t, o, files)}
	began := time.Now().Add(time.Hour)
	for name := range files { // compressed ones must not be older than plain ones
		when := began.Add(-2 * time.Hour)
		if err := os.Chtimes(filepath.Join(s.dir, name), when, when); err != nil {
			t.Fatal(err)
		}
	}
	s.files.now = func() time.Time { return began.Add(time.Duration(s.ahead.Load())) }
	return s
}

// answer is what a request is told, in one comparable piece.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *cachedSite) serve(files *Files, method, path string, header http.Header) (answer, error) {
	s.t.Helper()
	r := httptest.NewRequest(method, "http://host"+path, nil)
	maps.Copy(r.Header, header)
	w := httptest.NewRecorder()
	err := files.Serve(w, r, r.URL.Path)
	return answer{w.Code, w.Header(), w.Body.String()}, err
}

// hot is the answer of Hot, which has to be as small as it says.
func (s *cachedSite) hot(method, path string, header http.Header) (answer, bool) {
	s.t.Helper()
	given := conditionsOf(header)
	got, ok := s.files.Hot(method, path, &given)
	if !ok {
		return answer{}, false
	}
	a := answer{got.Status, http.Header{}, string(got.Body)}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(got.Fields), "\r\n"), "\r\n") {
		name, value, found := strings.Cut(line, ": ")
		if !found {
			s.t.Fatalf("%s %s: line %q", method, path, line)
		}
		a.header[name] = append(a.header[name], value)
	}
	return a, true
}

// tree has a file of each kind.
var tree = map[string]string{
	"index.html":      "<p>home",
	"a.css":           "a {}",
	"b.js":            "let b",
	"b.js.gz":         "b by gzip",
	"c.js":            "let c",
	"c.js.br":         "c by br",
	"c.js.gz":         "c by gzip",
	"empty.txt":       "",
	"x.png":           "png",
	"dir/index.html":  "<p>dir",
	"bare/file":       "file",
	"large.bin":       strings.Repeat("large", maxCached/4),
	"large.js":        strings.Repeat("large", maxCached/4),
	"large.js.br":     "large by br",
	"epoch.txt":       "epoch",
	".hidden":         canary,
	"just.txt":        strings.Repeat("x", maxCached),
	"spaces in/ü.txt": "umlaut",
}

// Whatever a request asks for, the three ways to an answer agree: without a
// cache, by Serve with one, and by Hot.
func TestCachedAnswersAreTheSame(t *testing.T) {
	s := newCachedSite(t, Options{}, tree)
	epoch := time.Unix(0, 0)
	if err := os.Chtimes(filepath.Join(s.dir, "epoch.txt"), epoch, epoch); err != nil {
		t.Fatal(err)
	}
	s.link("a.css", "link.css")
	s.link("../outside", "out")
	plain, err := New(Options{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()

	paths := []string{"", "/", "/index.html", "/index.html/", "/dir", "/dir/", "/bare", "/bare/", "/missing", "/out/secret.txt", "/.hidden", "/link.css", "/a.css/x", "/../a.css", "//a.css"}
	for name := range tree {
		paths = append(paths, "/"+name)
	}
	hot := 0
	for _, path := range paths {
		first, _ := s.serve(plain, "GET", (&pathEscape{path}).String(), nil)
		tag, modified := first.header.Get("Etag"), first.header.Get("Last-Modified")
		methods := []string{"GET", "HEAD", "POST", "OPTIONS"} // the last two in the first request alone
		for _, header := range []http.Header{
			{},
			{"Accept-Encoding": {"gzip, deflate, br, zstd"}}, {"Accept-Encoding": {"gzip"}}, {"Accept-Encoding": {"br;q=0, gzip;q=0.5"}},
			{"Accept-Encoding": {"gzip;q=0", "br"}}, {"Accept-Encoding": {"*"}}, {"Accept-Encoding": {"identity"}}, {"Accept-Encoding": {""}},
			{"If-None-Match": {tag}}, {"If-None-Match": {"W/" + tag}}, {"If-None-Match": {`"other", ` + tag}}, {"If-None-Match": {`"other",,W/` + tag + ","}},
			{"If-None-Match": {"*"}}, {"If-None-Match": {` , *`}}, {"If-None-Match": {`"x"`}}, {"If-None-Match": {"rubbish, " + tag}}, {"If-None-Match": {`"unfinished`}},
			{"If-None-Match": {`"a b", ` + tag}}, {"If-None-Match": {`w/` + tag}}, {"If-None-Match": {`"x" ` + tag}}, {"If-None-Match": {`W/`}}, {"If-None-Match": {""}},
			{"If-None-Match": {`"x"`, tag}}, {"If-None-Match": {tag, `"x"`}}, {"If-None-Match": {`"x"`}, "If-Modified-Since": {modified}},
			{"If-None-Match": {tag}, "If-Modified-Since": {"Mon, 01 Jan 2001 00:00:00 GMT"}},
			{"If-Modified-Since": {modified}}, {"If-Modified-Since": {"Fri, 01 Jan 2100 00:00:00 GMT"}}, {"If-Modified-Since": {"Mon, 01 Jan 2001 00:00:00 GMT"}},
			{"If-Modified-Since": {"rubbish"}}, {"If-Modified-Since": {"Monday, 01-Jan-01 00:00:00 GMT"}}, {"If-Modified-Since": {""}},
			{"If-Match": {tag}}, {"If-Match": {`"x"`}}, {"If-Unmodified-Since": {"Mon, 01 Jan 2001 00:00:00 GMT"}}, {"If-Unmodified-Since": {modified}},
			{"Range": {"bytes=0-1"}}, {"Range": {"bytes=9999999-"}}, {"Range": {"rubbish"}}, {"Range": {"bytes=0-1"}, "If-Range": {tag}},
			{"If-None-Match": {tag}, "Accept-Encoding": {"gzip, br"}}, {"Range": {"bytes=0-1"}, "Accept-Encoding": {"gzip, br"}},
		} {
			for _, method := range methods {
				what := fmt.Sprintf("%s %q %v", method, path, header)
				escaped := (&pathEscape{path}).String()
				want, wantErr := s.serve(plain, method, escaped, header)
				for range 2 { // read, then from the cache
					got, err := s.serve(s.files, method, escaped, header)
					if fmt.Sprint(err) != fmt.Sprint(wantErr) || !reflect.DeepEqual(got, want) {
						t.Errorf("%s:\n  with a cache %v, %v\n  without      %v, %v", what, got, err, want, wantErr)
					}
					if got, ok := s.hot(method, path, header); ok {
						hot++
						if wantErr != nil || !reflect.DeepEqual(got, want) {
							t.Errorf("%s:\n  Hot     %v\n  without %v, %v", what, got, want, wantErr)
						}
					}
				}
			}
			methods = methods[:2]
		}
	}
	if hot < 1000 {
		t.Errorf("only %d of the answers were Hot's", hot)
	}
}

// pathEscape is a path as it stands in a request line.
type pathEscape struct{ path string }

func (p *pathEscape) String() string {
	return strings.NewReplacer(" ", "%20", "ü", "%C3%BC").Replace(p.path)
}

func (s *cachedSite) entry(path string) *entry { return s.files.cache.get(s.files, path) }

// Whatever is done to a file is seen by the very next request.
func TestChangesAreSeenAtOnce(t *testing.T) {
	s := newCachedSite(t, Options{Index: []string{"first.html", "index.html"}}, tree)
	in := func(name string) string { return filepath.Join(s.dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.Mkdir(in("other"), 0o755))
	s.write("other/index.html", "<p>other")
	for _, c := range []struct {
		what, path, accept string
		before             string
		change             func()
		after              string // "" for an error
	}{
		{"written to", "/a.css", "", "a {}", func() { s.write("a.css", "b {}") }, "b {}"},
		{"written to, with its time set back", "/b.js", "", "let b", func() {
			info, err := os.Stat(in("b.js"))
			check(err)
			s.write("b.js", "LET B")
			check(os.Chtimes(in("b.js"), info.ModTime(), info.ModTime()))
		}, "LET B"},
		{"truncated", "/x.png", "", "png", func() { check(os.Truncate(in("x.png"), 1)) }, "p"},
		{"replaced by renaming", "/a.css", "", "b {}", func() {
			s.write("new", "c {}")
			check(os.Rename(in("new"), in("a.css")))
		}, "c {}"},
		{"made a link", "/a.css", "", "c {}", func() {
			check(os.Remove(in("a.css")))
			s.link("x.png", "a.css")
		}, "p"},
		{"link turned", "/a.css", "", "p", func() {
			check(os.Remove(in("a.css")))
			s.link("b.js", "a.css")
		}, "LET B"},
		{"target of a link written to", "/a.css", "", "LET B", func() { s.write("b.js", "let b") }, "let b"},
		{"link turned out of the root", "/a.css", "", "let b", func() {
			check(os.Remove(in("a.css")))
			s.link("../outside/secret.txt", "a.css")
		}, ""},
		{"removed", "/x.png", "", "p", func() { check(os.Remove(in("x.png"))) }, ""},
		{"folder replaced by another", "/dir/", "", "<p>dir", func() {
			check(os.Rename(in("dir"), in("old")))
			check(os.Rename(in("other"), in("dir")))
		}, "<p>other"},
		{"index before the index", "/", "", "<p>home", func() { s.write("first.html", "<p>first") }, "<p>first"},
		{"that removed", "/", "", "<p>first", func() { check(os.Remove(in("first.html"))) }, "<p>home"},
		{"compressed file appears", "/empty.txt", "gzip", "", func() { s.write("empty.txt.gz", "packed") }, "packed"},
		{"better one appears", "/b.js", "gzip, br", "let b", func() { s.write("b.js.br", "b by br") }, "b by br"},
		{"compressed file written to", "/c.js", "gzip, br", "c by br", func() { s.write("c.js.br", "C BY BR") }, "C BY BR"},
		{"compressed file vanishes", "/c.js", "gzip, br", "C BY BR", func() { check(os.Remove(in("c.js.br"))) }, "c by gzip"},
		{"compressed file is too old", "/c.js", "gzip, br", "c by gzip", func() { s.write("c.js", "new c") }, "new c"},
		{"grows too large", "/c.js", "", "new c", func() { s.write("c.js", tree["large.js"]) }, tree["large.js"]},
		{"small again", "/c.js", "", tree["large.js"], func() { s.write("c.js", "c") }, "c"},
		{"becomes a folder", "/c.js", "", "c", func() {
			check(os.Remove(in("c.js")))
			check(os.Mkdir(in("c.js"), 0o755))
		}, ""},
	} {
		header := http.Header{}
		if c.accept != "" {
			header.Set("Accept-Encoding", c.accept)
		}
		for range 2 {
			if got, err := s.serve(s.files, "GET", c.path, header); err != nil || got.body != c.before {
				t.Fatalf("before %s: %.40q, error %v, want %.40q", c.what, got.body, err, c.before)
			}
		}
		if s.entry(c.path) == nil {
			t.Fatalf("before %s: the cache does not have it", c.what)
		}
		c.change()
		if got, ok := s.hot("GET", c.path, header); ok && got.body != c.after {
			t.Errorf("%s: Hot answers %.40q, want %.40q", c.what, got.body, c.after)
		}
		got, err := s.serve(s.files, "GET", c.path, header)
		if (err != nil) != (c.after == "" && c.path != "/empty.txt") || err == nil && got.body != c.after {
			t.Errorf("%s: %.40q, error %v, want %.40q", c.what, got.body, err, c.after)
		}
	}
}

// The right to read a file is asked for again when it has changed.
func TestPermissionIsSeen(t *testing.T) {
	s := newCachedSite(t, Options{}, tree)
	s.status(200, "/a.css")
	before := s.entry("/a.css")
	if err := os.Chmod(filepath.Join(s.dir, "a.css"), 0); err != nil {
		t.Fatal(err)
	}
	want := 403
	if os.Geteuid() == 0 { // who may read everything
		want = 200
	}
	s.status(want, "/a.css")
	if s.entry("/a.css") == before {
		t.Error("the entry is still the one from before the change of rights")
	}
}

// A folder that was replaced by a link out of the root, to the very same files,
// is found out by opening, no later than trust.
func TestEntriesAreOpenedAgain(t *testing.T) {
	s := newCachedSite(t, Options{}, tree)
	s.status(200, "/dir/index.html")
	if err := os.Rename(filepath.Join(s.dir, "dir"), filepath.Join(s.dir, "../outside/dir")); err != nil {
		t.Fatal(err)
	}
	s.link("../outside/dir", "dir")
	s.ahead.Store(int64(trust))
	s.status(403, "/dir/index.html")
}

// A file that has just changed may change again within the same step of the
// file system's clock, which nothing would tell: it is served, and not kept.
func TestNewFilesAreNotKept(t *testing.T) {
	s := newSite(t, Options{}, tree)
	for path, part := range map[string]string{"/a.css": "the file", "/b.js": "the compressed one"} {
		if _, body := s.get(path); body != tree[path[1:]] {
			t.Errorf("%s: %q", path, body)
		}
		if s.files.cache.get(s.files, path) != nil {
			t.Errorf("%s is kept although %s has just been made", path, part)
		}
	}
	when, changed := time.Unix(1000, 0), int64(1000e9)
	for ahead, want := range map[time.Duration]bool{-time.Hour: false, 0: false, settled - 1: false, settled: true, time.Hour: true} {
		if (identity{inode: 1, changed: changed}).settledAt(when.Add(ahead)) != want {
			t.Errorf("settled %v after its change: %v", ahead, !want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("f%02d.bin", i)] = strings.Repeat("x", 10_000)
	}
	cache := NewCache(100_000)
	s := newCachedSite(t, Options{Cache: cache}, files)
	for range 3 {
		for name := range files {
			if resp, body := s.get("/" + name); resp.StatusCode != 200 || body != files[name] {
				t.Fatalf("%s: %d, %d bytes", name, resp.StatusCode, len(body))
			}
			s.status(200, "/f00.bin") // always in use, and so never the oldest
			if s.entry("/f00.bin") == nil {
				t.Fatal("what was used last was given up first")
			}
		}
	}
	var sum int64
	for _, e := range cache.entries.Values() {
		sum += e.size
	}
	if sum != cache.size || sum > cache.max || sum < cache.max/2 {
		t.Errorf("%d bytes in %d entries, said to be %d of %d", sum, cache.entries.Len(), cache.size, cache.max)
	}
	s.status(404, "/"+strings.Repeat("y", 200))
	if err := s.files.Close(); err != nil {
		t.Fatal(err)
	}
	if cache.entries.Len() != 0 || cache.size != 0 {
		t.Errorf("after Close: %d entries, %d bytes", cache.entries.Len(), cache.size)
	}
	if NewCache(0) != nil {
		t.Error("a cache of nothing")
	}
	small := newCachedSite(t, Options{Cache: NewCache(100)}, files)
	small.status(200, "/f00.bin")
}

// Requests, changes and the bound at the same time; the answer is always one
// version as a whole.
func TestCacheUnderChange(t *testing.T) {
	s := newCachedSite(t, Options{Cache: NewCache(20_000)}, map[string]string{"a.js": "0000", "b.js": strings.Repeat("b", 15_000)})
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := filepath.Join(s.dir, "new")
			_ = os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(i%10), 1000*(1+i%3))), 0o644)
			_ = os.Rename(name, filepath.Join(s.dir, "a.js"))
			s.ahead.Add(int64(trust / 3))
		}
	}()
	finished := make(chan error, 4)
	for range 4 {
		go func() {
			given := Conditions{AcceptEncoding: "br"}
			for range 300 {
				_, _ = s.files.Hot("GET", "/b.js", &given)
				a, ok := s.files.Hot("GET", "/a.js", &given)
				if !ok {
					continue // it was being replaced
				}
				if body := string(a.Body); body == "" || strings.Trim(body, body[:1]) != "" ||
					!strings.Contains(string(a.Fields), fmt.Sprintf("Content-Length: %d\r\n", len(body))) {
					finished <- fmt.Errorf("%.20q… of %d bytes with %q", body, len(body), a.Fields)
					return
				}
			}
			finished <- nil
		}()
	}
	for range 4 {
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}

func TestHotAllocatesNothing(t *testing.T) {
	s := newCachedSite(t, Options{}, tree)
	tag := ""
	if a, ok := s.hot("GET", "/c.js", nil); ok {
		tag = a.header.Get("Etag")
	}
	// With one look at the disk each: the race detector has pools forget things.
	for _, given := range []Conditions{{}, {AcceptEncoding: "identity"}, {IfNoneMatch: tag}} {
		if n := testing.AllocsPerRun(100, func() {
			if _, ok := s.files.Hot("GET", "/c.js", &given); !ok {
				t.Fatal("not hot")
			}
		}); n != 0 {
			t.Errorf("%+v: %v allocations", given, n)
		}
	}
}

// FuzzHasTag compares with net/http, which the requests that are not answered
// from memory are decided by.
func FuzzHasTag(f *testing.F) {
	for _, seed := range []string{`"a"`, `W/"a"`, `"b", "a"`, `*`, `, *`, `"a`, `a, "a"`, `"x" "a"`, `"a b","a"`, "\"\x7f\",\"a\"", "W/W/\"a\"", "\v\"a\"", "W/,\"a\""} {
		f.Add(seed)
	}
	const tag = `"a"`
	f.Fuzz(func(t *testing.T, list string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["If-None-Match"] = []string{list}
		w := httptest.NewRecorder()
		w.Header().Set("Etag", tag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("x"))
		given := conditionsOf(r.Header)
		if got, want := (&content{tag: tag}).notModified(&given), w.Code == http.StatusNotModified; got != want {
			t.Errorf("%q: %v, net/http says %v", list, got, want)
		}
	})
}
