package static

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	wrote  int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { s.wrote += len(p); return len(p), nil }

func benchFiles(b *testing.B, cache *Cache) *Files {
	b.Helper()
	dir := b.TempDir()
	name := filepath.Join(dir, "assets", "css", "a.css")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(name, make([]byte, 1000), 0o644); err != nil {
		b.Fatal(err)
	}
	f, err := New(Options{Dir: dir, Cache: cache})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	later := time.Now().Add(time.Hour)
	f.now = func() time.Time { return later }
	return f
}

func BenchmarkServe(b *testing.B) {
	for name, cache := range map[string]*Cache{"cached": NewCache(1 << 20), "opened": nil} {
		b.Run(name, func(b *testing.B) {
			f := benchFiles(b, cache)
			r := httptest.NewRequest("GET", "/assets/css/a.css", nil)
			w := &sink{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if err := f.Serve(w, r, "/assets/css/a.css"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHot(b *testing.B) {
	f := benchFiles(b, NewCache(1<<20))
	given := Conditions{}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := f.Hot("GET", "/assets/css/a.css", &given); !ok {
			b.Fatal("not in memory")
		}
	}
}
