package cgi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

const canary = "the canary"

// tree makes a directory of scripts with a canary beside it, which no path may
// reach, and a Resolver for PHP and Python.
func tree(t testing.TB) (dir string, rv *Resolver) {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(top, "root")
	for name, mode := range map[string]fs.FileMode{
		"../canary.php": 0o755, "../canary": 0o755, "../.canary.php": 0o755,
		"index.php": 0o644, "run.py": 0o644, "prog.cgi": 0o755, "plain.cgi": 0o644, "upload.jpg": 0o755, "a.php.jpg": 0o644,
		"A.PHP": 0o755, "noext": 0o755, ".php": 0o755, ".hidden.php": 0o755, ".git/x.php": 0o755, "page.html": 0o644,
		"sub/index.php": 0o644, "sub/deep/s.php": 0o644, "html/index.html": 0o644, "html/index.php": 0o644,
		"empty/readme.txt": 0o644, "İ/ẞ.php": 0o644, "\u212a.php": 0o644, // the Kelvin sign, which lower-cases to k
		"a b.php": 0o644, "x.php/y.php": 0o644, "dirs/index.html/x": 0o644, "dirs/index.php": 0o644, "sp%61ce.php": 0o644,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		text := "script"
		if strings.Contains(name, "canary") {
			text = canary
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"in.php": "sub/deep/s.php", "indir": "sub", "out.php": "../canary.php", "abs.php": filepath.Join(top, "canary.php"),
		"outdir": "..", "loop.php": "loop.php", "dangling.php": "nothing.php", "up.php": "sub/../../canary.php",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.php"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return dir, &Resolver{
		Root: root, Index: []string{"index.html", "index.php"},
		Extensions: map[string]string{".php": "/usr/bin/php-cgi", ".py": "/usr/bin/python3", ".cgi": ""},
	}
}

func TestResolve(t *testing.T) {
	dir, rv := tree(t)
	for _, c := range []struct{ path, file, name, info string }{
		{"/index.php", "index.php", "/index.php", ""},
		{"/index.php/", "index.php", "/index.php", "/"},
		{"/index.php/a/b", "index.php", "/index.php", "/a/b"},
		{"/index.php//a", "index.php", "/index.php", "//a"},
		{"/index.php/a%2fb", "index.php", "/index.php", "/a/b"},
		{"/index.php/.git", "index.php", "/index.php", "/.git"},
		{"/sub/../index.php/x", "index.php", "/index.php", "/x"},
		{"/index.php/x/..", "index.php", "/index.php", "/"},
		{"/%69ndex.php", "index.php", "/index.php", ""},
		{"/sp%2561ce.php", "sp%61ce.php", "/sp%61ce.php", ""},
		{"/a%20b.php/c", "a b.php", "/a b.php", "/c"},
		{"/sub/deep/s.php/i", "sub/deep/s.php", "/sub/deep/s.php", "/i"},
		{"/x.php/y.php/z", "x.php/y.php", "/x.php/y.php", "/z"}, // a directory with a script's extension
		{"/run.py", "run.py", "/run.py", ""},
		{"/prog.cgi/x", "prog.cgi", "/prog.cgi", "/x"},
		{"/in.php", "in.php", "/in.php", ""},
		{"/indir/deep/s.php", "indir/deep/s.php", "/indir/deep/s.php", ""},
		{"/", "index.php", "/index.php", ""},
		{"", "index.php", "/index.php", ""},
		{"/sub/", "sub/index.php", "/sub/index.php", ""},
		{"/dirs/", "dirs/index.php", "/dirs/index.php", ""}, // index.html is a directory there
		{"/sub/deep/..", "sub/index.php", "/sub/index.php", ""},
	} {
		want := Script{filepath.Join(dir, c.file), c.name, c.info}
		if got, err := rv.Resolve(c.path); err != nil || got != want {
			t.Errorf("%q: %+v, %v\nwant %+v", c.path, got, err, want)
		}
	}
	for path, want := range map[string]error{
		"/page.html": ErrNotScript, "/upload.jpg": ErrNotScript, "/noext": ErrNotScript, "/empty/": ErrNotScript, "/html/": ErrNotScript,
		"/plain.cgi": ErrNotExecutable, "/plain.cgi/x": ErrNotExecutable,
		"/sub": ErrDirectory, "/sub/deep": ErrDirectory, "/x.php": ErrDirectory,
		"/missing.php": fs.ErrNotExist, "/sub/missing.php/x": fs.ErrNotExist, "/missing/index.php": fs.ErrNotExist,
		"//index.php": fs.ErrNotExist, "/sub//index.php": fs.ErrNotExist, "//": fs.ErrNotExist,
		"/fifo.php": fs.ErrNotExist, "/" + strings.Repeat("x", 300): fs.ErrNotExist,
		"/dangling.php": fs.ErrNotExist, "/loop.php": fs.ErrNotExist,
	} {
		if s, err := rv.Resolve(path); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v; want %v", path, s, err, want)
		}
	}
}

func TestResolvePrefix(t *testing.T) {
	dir, rv := tree(t)
	for _, prefix := range []string{"/app/v 1", "/app/v 1/"} {
		rv.Prefix = prefix
		for path, want := range map[string]Script{
			"/app/v%201/run.py/x":     {dir + "/run.py", "/app/v 1/run.py", "/x"},
			"/a/../app/v%201/run.py":  {dir + "/run.py", "/app/v 1/run.py", ""},
			"/app/v%201/sub/":         {dir + "/sub/index.php", "/app/v 1/sub/index.php", ""},
			"/app/v%201/x/../run.py/": {dir + "/run.py", "/app/v 1/run.py", "/"},
		} {
			if got, err := rv.Resolve(path); err != nil || got != want {
				t.Errorf("%q: %+v, %v; want %+v", path, got, err, want)
			}
		}
		for path, want := range map[string]error{
			"/app/v%201": ErrDirectory, "/app/v%201x/run.py": fs.ErrNotExist, "/app%2fv%201/run.py": fs.ErrNotExist,
			"/run.py": fs.ErrNotExist, "/app/v%201/../run.py": fs.ErrNotExist, "/": fs.ErrNotExist, "/APP/v%201/run.py": fs.ErrNotExist,
		} {
			if s, err := rv.Resolve(path); !errors.Is(err, want) {
				t.Errorf("%q: %+v, %v; want %v", path, s, err, want)
			}
		}
	}
}

func TestResolveEveryFile(t *testing.T) {
	dir, rv := tree(t)
	rv.Extensions = nil
	for path, want := range map[string]Script{
		"/noext/x":    {dir + "/noext", "/noext", "/x"},
		"/prog.cgi":   {dir + "/prog.cgi", "/prog.cgi", ""},
		"/A.PHP":      {dir + "/A.PHP", "/A.PHP", ""},
		"/upload.jpg": {dir + "/upload.jpg", "/upload.jpg", ""},
	} {
		if got, err := rv.Resolve(path); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", path, got, err, want)
		}
	}
	if _, err := rv.Resolve("/run.py"); !errors.Is(err, ErrNotExecutable) {
		t.Errorf("a file without permission to execute: %v", err)
	}
}

func TestResolveRemote(t *testing.T) {
	dir, rv := tree(t)
	rv.Remote = true
	rv.Extensions = map[string]string{".php": ""}
	want := Script{dir + "/index.php", "/index.php", "/x"}
	if got, err := rv.Resolve("/index.php/x"); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// TestResolvePermission asks as an ordinary user, since root may do anything.
func TestResolvePermission(t *testing.T) {
	dir, rv := tree(t)
	if err := os.Chmod(dir+"/sub", 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir+"/sub", 0o755) })
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its user
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65534); err != nil {
				result <- err
				return
			}
		}
		_, err := rv.Resolve("/sub/index.php")
		result <- err
	}()
	if err := <-result; !errors.Is(err, fs.ErrPermission) {
		t.Errorf("directory without permissions: %v", err)
	}
}

// TestResolveClosedRoot: a fault of the gateway's own is no missing file.
func TestResolveClosedRoot(t *testing.T) {
	_, rv := tree(t)
	rv.Root.Close()
	if _, err := rv.Resolve("/index.php"); !errors.Is(err, fs.ErrClosed) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closed root: %v", err)
	}
}

// TestClass04PathSplit: cgi.fix_pathinfo and CVE-2026-27590. Only the file that
// the path names by its bytes is run, and the split loses none of them.
func TestClass04PathSplit(t *testing.T) {
	dir, rv := tree(t)
	for path, want := range map[string]error{
		"/upload.jpg/x.php": ErrNotScript, "/upload.jpg/.php": ErrNotScript, "/upload.jpg%2f.php": fs.ErrNotExist,
		"/a.php.jpg": ErrNotScript, "/a.php.jpg/index.php": ErrNotScript, "/page.html/run.py": ErrNotScript,
		"/A.PHP": ErrNotExecutable, // no script, and its source is not shown
		"/a.php": fs.ErrNotExist, "/INDEX.php": fs.ErrNotExist, "/index.PHP": fs.ErrNotExist,
		"/.php": fs.ErrNotExist, "/K.php": fs.ErrNotExist, "/k.php": fs.ErrNotExist, "/i/ẞ.php": fs.ErrNotExist, "/İ/ß.php": fs.ErrNotExist,
	} {
		if s, err := rv.Resolve(path); !errors.Is(err, want) {
			t.Errorf("%q: %+v, %v; want %v", path, s, err, want)
		}
	}
	for path, file := range map[string]string{
		"/İ/ẞ.php/\u212a/İ.php": "/İ/ẞ.php", "/%C4%B0/%E1%BA%9E.php/%ff": "/İ/ẞ.php", "/%e2%84%aa.php/x.php": "/\u212a.php",
		"/index.php/İİİİ.php": "/index.php",
	} {
		s, err := rv.Resolve(path)
		if err != nil || s.Filename != dir+file {
			t.Errorf("%q: %+v, %v", path, s, err)
			continue
		}
		if clean, err := CleanPath(path); err != nil || s.Name+s.PathInfo != clean || s.Name != file {
			t.Errorf("%q: %q + %q, the path is %q, %v", path, s.Name, s.PathInfo, clean, err)
		}
	}
}

// TestSymlinks: inside of the root they are followed, out of it never.
func TestSymlinks(t *testing.T) {
	_, rv := tree(t)
	for _, path := range []string{"/out.php", "/abs.php", "/up.php", "/outdir/canary.php", "/outdir/", "/outdir/root/index.php", "/outdir"} {
		s, err := rv.Resolve(path)
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %+v, %v", path, s, err)
		} else if !strings.Contains(err.Error(), "escapes") {
			t.Errorf("%s: the error does not tell the operator why: %v", path, err)
		}
	}
}

// traversals generates 2,000 attempts to leave the root: separators, spellings
// of the dots, places to begin from and depths, with each target.
func traversals() []string {
	var all []string
	dots := []string{"..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..;", "..%00", "...", "....", "%c0%ae%c0%ae", "%uff0e%uff0e", "..%20", "..%0a"}
	seps := []string{"/", "%2f", "%5c", `\`, "//", "%252f", "/./", "%c0%af", "/%2e/", ";/"}
	starts := []string{"/", "/sub/", "/index.php/", "/outdir/", "//", "/sub%2f"}
	for _, start := range starts {
		for _, d := range dots {
			for _, sep := range seps {
				for depth := 1; depth <= 3; depth++ {
					for _, target := range []string{"canary.php", "canary", ".canary.php"} {
						all = append(all, start+strings.Repeat(d+sep, depth)+target)
					}
				}
			}
		}
	}
	return all[:len(all)-len(all)%1000]
}

// TestClass07Traversal: no path, however written, gives a file out of the root.
func TestClass07Traversal(t *testing.T) {
	dir, rv := tree(t)
	paths := traversals()
	if len(paths) < 2000 {
		t.Fatalf("only %d paths", len(paths))
	}
	byExtension := rv.Extensions
	found := 0
	for _, path := range paths {
		for _, ext := range []map[string]string{byExtension, nil} {
			rv.Extensions = ext
			s, err := rv.Resolve(path)
			if err != nil {
				continue
			}
			found++
			checkScript(t, dir, path, s)
		}
	}
	if found == 0 { // those that begin with /index.php/ and stay below it
		t.Error("no path found any script, so nothing was tried")
	}
	if text, err := os.ReadFile(filepath.Join(dir, "../canary.php")); err != nil || string(text) != canary {
		t.Fatalf("the canary is gone: %q, %v", text, err)
	}
	rv.Extensions = byExtension
	for _, path := range []string{"/a%2fb/../index.php%2fx", "/sub%2findex.php", "/sub%2fdeep/s.php", "/index.php%2f"} {
		if s, err := rv.Resolve(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: an escaped slash separated names: %+v, %v", path, s, err)
		}
	}
}

// checkScript holds what must be true of every script that is found.
func checkScript(t *testing.T, dir, path string, s Script) {
	t.Helper()
	real, err := filepath.EvalSymlinks(s.Filename)
	if err != nil || !strings.HasPrefix(real, dir+"/") {
		t.Fatalf("%q: %s is %s, %v", path, s.Filename, real, err)
	}
	if text, err := os.ReadFile(s.Filename); err != nil || string(text) == canary {
		t.Fatalf("%q: %s holds %q, %v", path, s.Filename, text, err)
	}
	clean, err := CleanPath(path)
	if err != nil {
		t.Fatalf("%q: found %s, but CleanPath says %v", path, s.Filename, err)
	}
	whole := s.Name + s.PathInfo
	if whole != clean && (!strings.HasSuffix(clean, "/") || whole != clean+filepath.Base(s.Filename) || s.PathInfo != "") {
		t.Fatalf("%q: %q + %q, the path is %q", path, s.Name, s.PathInfo, clean)
	}
	if s.PathInfo != "" && s.PathInfo[0] != '/' {
		t.Fatalf("%q: PathInfo %q", path, s.PathInfo)
	}
	for seg := range strings.SplitSeq(strings.TrimPrefix(s.Filename, dir+"/"), "/") {
		if strings.HasPrefix(seg, ".") {
			t.Fatalf("%q: dot file %s", path, s.Filename)
		}
	}
}

// checkWalk holds that the walk, segment by segment, comes to what Resolve did.
func checkWalk(t *testing.T, rv *Resolver, path string, got Script, gotErr error) {
	t.Helper()
	all, err := segments(path)
	if err != nil {
		return
	}
	want, err := rv.walk(all, all, path)
	if got != want || fmt.Sprint(gotErr) != fmt.Sprint(err) {
		t.Fatalf("%q: %+v, %v; the walk comes to %+v, %v", path, got, gotErr, want, err)
	}
}

func TestResolveIsTheWalk(t *testing.T) {
	_, rv := tree(t)
	folders := []string{"", "sub", "indir", "outdir", "x.php", "dirs", "index.php", ".git", "sub/deep", "outdir/root", "empty", "nothing", "sub/.."}
	names := []string{"", "index.php", "deep", "s.php", "in.php", "out.php", "loop.php", "fifo.php", "y.php", "index.html", "x", ".hidden.php", "plain.cgi",
		"A.PHP", "..", "a%2fb", "%69ndex.php", "index.php/x", "s.php/", "//"}
	for _, index := range [][]string{rv.Index, {"index.php"}, nil} {
		rv.Index = index
		for _, folder := range folders {
			for _, name := range names {
				path := "/" + folder + "/" + name
				s, err := rv.Resolve(path)
				checkWalk(t, rv, path, s, err)
			}
		}
	}
}

// FuzzResolve: the properties of checkScript and checkWalk for any path.
func FuzzResolve(f *testing.F) {
	dir, rv := tree(f)
	for _, path := range []string{
		"/", "/index.php/a%2fb", "/sub/../index.php/x", "/upload.jpg/x.php", "/İ/ẞ.php/\u212a", "/%2e%2e/canary.php", "/outdir/canary.php",
		"/sub/", "/.git/x.php", "/x.php/y.php/z", "/a%20b.php//", "/in.php/..%2f",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		s, err := rv.Resolve(path)
		checkWalk(t, rv, path, s, err)
		if err == nil {
			checkScript(t, dir, path, s)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	_, rv := tree(b)
	rv.Index = []string{"index.php"}
	for _, path := range []string{"/index.php", "/index.php/a/b", "/sub/", "/sub/deep/s.php"} {
		b.Run(strings.ReplaceAll(path[1:], "/", "|"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rv.Resolve(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
