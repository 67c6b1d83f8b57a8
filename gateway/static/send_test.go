package static

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConditional(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"a.txt": "0123456789"})
	resp, _ := s.get("/a.txt")
	tag, modified := resp.Header.Get("Etag"), resp.Header.Get("Last-Modified")
	const old, future = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
	for _, c := range []struct {
		want    int
		headers []string
	}{
		{304, []string{"If-None-Match: " + tag}},
		{304, []string{"If-None-Match: W/" + tag}}, // compared weakly, RFC 9110, section 13.1.2
		{304, []string{`If-None-Match: "x", ` + tag}},
		{304, []string{"If-None-Match: *"}},
		{200, []string{`If-None-Match: "x"`}},
		{200, []string{`If-None-Match: "x"`, "If-Modified-Since: " + future}}, // the tag decides
		{304, []string{"If-Modified-Since: " + modified}},
		{200, []string{"If-Modified-Since: " + old}},
		{200, []string{"If-Modified-Since: rubbish"}},
		{412, []string{`If-Match: "x"`}},
		{412, []string{"If-Match: W/" + tag}}, // compared strongly
		{200, []string{"If-Match: " + tag}},
		{412, []string{"If-Unmodified-Since: " + old}},
		{206, []string{"Range: bytes=2-4", "If-Range: " + tag}},
		{200, []string{"Range: bytes=2-4", "If-Range: W/" + tag}},
		{200, []string{"Range: bytes=2-4", `If-Range: "x"`}},
		{206, []string{"Range: bytes=2-4", "If-Range: " + modified}},
		{200, []string{"Range: bytes=2-4", "If-Range: " + old}},
		{304, []string{"Range: bytes=2-4", "If-None-Match: " + tag}},
	} {
		resp, body := s.get("/a.txt", c.headers...)
		want := map[int]string{200: "0123456789", 206: "234"}[resp.StatusCode]
		if resp.StatusCode != c.want || body != want {
			t.Errorf("%q: %d with %q, want %d", c.headers, resp.StatusCode, body, c.want)
		}
		if resp.StatusCode < 400 && resp.Header.Get("Etag") != tag {
			t.Errorf("%q: entity tag %s, want %s", c.headers, resp.Header.Get("Etag"), tag)
		}
	}
}

func TestRanges(t *testing.T) {
	const content = "0123456789"
	s := newSite(t, Options{}, map[string]string{"a.txt": content, "empty.txt": ""})
	for _, c := range []struct {
		spec         string
		want         int
		body, extent string
	}{
		{"bytes=0-0", 206, "0", "bytes 0-0/10"},
		{"bytes=3-", 206, "3456789", "bytes 3-9/10"},
		{"bytes=-3", 206, "789", "bytes 7-9/10"},
		{"bytes=-100", 206, content, "bytes 0-9/10"},
		{"bytes=5-100", 206, "56789", "bytes 5-9/10"},
		{"bytes=10-", 416, "", "bytes */10"},
		{"bytes=5-3", 416, "", ""},
		{"bytes=x", 416, "", ""},
		{"lines=1-2", 416, "", ""},
		{"bytes=0-9,0-9", 200, content, ""},                               // longer than the file
		{"bytes=" + strings.Repeat("0-,", 1300) + "0-", 200, content, ""}, // CVE-2011-3192
		{"bytes=" + strings.Repeat("0-0,", 16) + "0-0", 200, content, ""}, // 17 small ones
	} {
		resp, body := s.get("/a.txt", "Range: "+c.spec)
		if resp.StatusCode != c.want || c.want != 416 && body != c.body || c.extent != "" && resp.Header.Get("Content-Range") != c.extent {
			t.Errorf("%.40s: %d, %q, %q", c.spec, resp.StatusCode, body, resp.Header.Get("Content-Range"))
		}
		if resp.StatusCode != 416 && resp.ContentLength != int64(len(c.body)) {
			t.Errorf("%.40s: length %d, want %d", c.spec, resp.ContentLength, len(c.body))
		}
		head, body := s.do("HEAD", "/a.txt", "Range: "+c.spec)
		if head.StatusCode != resp.StatusCode || body != "" || head.StatusCode != 416 && head.ContentLength != resp.ContentLength {
			t.Errorf("HEAD %.40s: %d, length %d, body %q", c.spec, head.StatusCode, head.ContentLength, body)
		}
	}
	s.status(200, "/empty.txt", "Range: bytes=0-")

	// Sixteen are as many as are allowed; the sum must not exceed the file.
	long := strings.Repeat("x", 100)
	s.write("long.txt", long)
	resp, body := s.get("/long.txt", "Range: bytes=0-0"+strings.Repeat(",2-2", 15))
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != 206 || err != nil {
		t.Fatalf("sixteen ranges: %d, %v", resp.StatusCode, resp.Header)
	}
	parts := 0
	for mr := multipart.NewReader(strings.NewReader(body), params["boundary"]); ; parts++ {
		p, err := mr.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); err != nil || string(got) != "x" || p.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("part %d: %q, %v, error %v", parts, got, p.Header, err)
		}
	}
	if parts != 16 {
		t.Errorf("%d parts", parts)
	}
}

func TestEntityTagFollowsTheFile(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"a.txt": "old"})
	path := filepath.Join(s.dir, "a.txt")
	when := time.Unix(1_000_000_000, 0)
	touch := func(name string, at time.Time) {
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	tags := map[string]string{}
	tag := func(step string) {
		resp, _ := s.get("/a.txt")
		got := resp.Header.Get("Etag")
		if before, ok := tags[got]; ok {
			t.Errorf("%s: the same tag as %s", step, before)
		}
		tags[got] = step
	}
	touch(path, when)
	tag("first")
	touch(path, when.Add(1))
	tag("a nanosecond later")
	s.write("a.txt", "longer")
	touch(path, when)
	tag("another size")
	s.write("b.txt", "LONGER")
	touch(filepath.Join(s.dir, "b.txt"), when)
	if err := os.Rename(filepath.Join(s.dir, "b.txt"), path); err != nil {
		t.Fatal(err)
	}
	tag("swapped for one of the same size and time")
	resp, _ := s.get("/a.txt")
	again, _ := s.get("/a.txt")
	if resp.Header.Get("Etag") != again.Header.Get("Etag") {
		t.Error("the tag changes by itself")
	}
}

func TestPrecompressed(t *testing.T) {
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, _ = zw.Write([]byte("plain"))
	_ = zw.Close()
	s := newSite(t, Options{}, map[string]string{
		"a.js": "plain", "a.js.gz": packed.String(), "a.js.br": "brotli",
		"old.js": "plain", "old.js.gz": "stale",
		"none.js": "plain",
		"p.png":   "picture", "p.png.gz": canary,
		"dir.js": "plain", "dir.js.gz/x": "x",
	})
	now := time.Now()
	for _, name := range []string{"a.js", "a.js.gz", "a.js.br", "p.png", "p.png.gz"} {
		if err := os.Chtimes(filepath.Join(s.dir, name), now, now); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(s.dir, "old.js.gz"), past, past); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, accept, coding, body string }{
		{"/a.js", "", "", "plain"},
		{"/a.js", "gzip", "gzip", packed.String()},
		{"/a.js", "gzip, deflate, BR", "br", "brotli"},
		{"/a.js", "gzip;q=0.5, br;q=0", "gzip", packed.String()},
		{"/a.js", "gzip; q=0.000", "", "plain"},
		{"/a.js", "gzipx, *", "", "plain"},
		{"/a.js", "gzip;q=rubbish", "", "plain"},
		{"/old.js", "gzip", "", "plain"},
		{"/none.js", "gzip, br", "", "plain"},
		{"/dir.js", "gzip", "", "plain"},
		{"/p.png", "gzip", "", "picture"},
	} {
		resp, body := s.get(c.path, "Accept-Encoding: "+c.accept)
		if resp.Header.Get("Content-Encoding") != c.coding || body != c.body || resp.ContentLength != int64(len(c.body)) {
			t.Errorf("%s for %q: %q, %q, length %d", c.path, c.accept, resp.Header.Get("Content-Encoding"), body, resp.ContentLength)
		}
		if vary := resp.Header.Get("Vary") == "Accept-Encoding"; vary != strings.HasSuffix(c.path, ".js") {
			t.Errorf("%s for %q: Vary %q", c.path, c.accept, resp.Header.Get("Vary"))
		}
	}
	plain, _ := s.get("/a.js")
	gz, _ := s.get("/a.js", "Accept-Encoding: gzip")
	if plain.Header.Get("Etag") == gz.Header.Get("Etag") || gz.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("plain %v, compressed %v", plain.Header, gz.Header)
	}
	part, body := s.get("/a.js", "Accept-Encoding: br", "Range: bytes=1-2")
	if part.StatusCode != 206 || body != "ro" || part.Header.Get("Content-Range") != "bytes 1-2/6" {
		t.Errorf("range of the compressed file: %d, %q, %v", part.StatusCode, body, part.Header)
	}
	s.status(304, "/a.js", "Accept-Encoding: br", "If-None-Match: *")
	s.status(412, "/a.js", "Accept-Encoding: br", `If-Match: "x"`)
	s.status(416, "/a.js", "Accept-Encoding: br", "Range: bytes=100-")
}

// big is more than the buffers of a loopback connection hold.
const big = 64 << 20

// A file that becomes shorter while it is sent ends in an error on both
// sides, over HTTP/1.1 and HTTP/2, for a whole file, a range, several ranges
// and a compressed file.
func TestTruncatedWhileSent(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for name, headers := range map[string][2]string{
			"whole":      {"Accept", "*/*"},
			"range":      {"Range", fmt.Sprintf("bytes=1-%d", big-10)},
			"ranges":     {"Range", fmt.Sprintf("bytes=1-%d,%d-", big/2, big/2+10)},
			"compressed": {"Accept-Encoding", "br"},
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				s := newSite(t, Options{}, map[string]string{"big.js": "", "big.js.br": ""})
				for _, file := range []string{"big.js", "big.js.br"} { // the compressed one is last and so not older
					if err := os.Truncate(filepath.Join(s.dir, file), big); err != nil {
						t.Fatal(err)
					}
				}
				f, err := New(Options{Dir: s.dir})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = f.Close() }()
				server := httptest.NewUnstartedServer(s.handler(f))
				server.EnableHTTP2 = true
				server.StartTLS()
				defer server.Close()
				client := server.Client()
				if version == "HTTP/1.1" {
					client = http.DefaultClient
					plain := httptest.NewServer(s.handler(f))
					defer plain.Close()
					server = plain
				}
				req, err := http.NewRequest("GET", server.URL+"/big.js", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set(headers[0], headers[1])
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = resp.Body.Close() }()
				if resp.Proto != version {
					t.Fatalf("the answer is %s", resp.Proto)
				}
				if packed := resp.Header.Get("Content-Encoding") == "br"; packed != (name == "compressed") {
					t.Fatalf("the answer is %v", resp.Header)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
				for _, file := range []string{"big.js", "big.js.br"} {
					if err := os.Truncate(filepath.Join(s.dir, file), 0); err != nil {
						t.Fatal(err)
					}
				}
				if n, err := io.Copy(io.Discard, resp.Body); err == nil {
					t.Errorf("the client saw a clean end after %d bytes", n)
				}
				if err := <-s.errs; !errors.Is(err, ErrIncomplete) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("Serve returned %v", err)
				}
			})
		}
	}
}

func TestClientGoes(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"big.bin": ""})
	if err := os.Truncate(filepath.Join(s.dir, "big.bin"), big); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", s.url+"/big.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := direct.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := <-s.errs; !errors.Is(err, ErrIncomplete) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Serve returned %v", err)
	}
}

// readerFrom stands for net/http's response, which sends a file by
// sendfile(2) when ReadFrom gets it as it is, at most limited.
type readerFrom struct {
	*httptest.ResponseRecorder
	file *os.File
}

func (w *readerFrom) ReadFrom(src io.Reader) (int64, error) {
	if limited, ok := src.(*io.LimitedReader); ok {
		w.file, _ = limited.R.(*os.File)
	}
	return io.Copy(w.ResponseRecorder.Body, src)
}

func TestFilesReachSendfile(t *testing.T) {
	s := newSite(t, Options{}, map[string]string{"a.txt": "0123456789"})
	f, err := New(Options{Dir: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, spec := range []string{"", "bytes=3-5"} {
		w := &readerFrom{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", "/a.txt", nil)
		r.Header.Set("Range", spec)
		if err := f.Serve(w, r, "/a.txt"); err != nil {
			t.Fatal(err)
		}
		if w.file == nil {
			t.Errorf("range %q: the file did not reach ReadFrom", spec)
		}
	}
}

func TestTypes(t *testing.T) {
	for ext, m := range types {
		if ext != strings.ToLower(ext) || ext[0] != '.' {
			t.Errorf("%q can't be found", ext)
		}
		name, params, err := mime.ParseMediaType(m.name)
		if err != nil {
			t.Errorf("%s: %v", ext, err)
		}
		if strings.HasPrefix(name, "text/") && params["charset"] != "utf-8" {
			t.Errorf("%s: %s has no charset", ext, m.name)
		}
	}
	for name, want := range map[string]string{"x.WASM": "application/wasm", "x.tar.gz": "application/gzip", "x": "application/octet-stream", "x.unknown": "application/octet-stream", "x.": "application/octet-stream"} {
		if got, _ := typeOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
