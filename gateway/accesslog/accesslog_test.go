package accesslog

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func open(t *testing.T, target, format string) *Log {
	t.Helper()
	l, err := Open(target, format)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func noLoss(t *testing.T, l *Log) {
	t.Helper()
	if n, err := l.Lost(); n != 0 || err != nil {
		t.Errorf("%d lines lost, last error %v", n, err)
	}
}

func TestFlushedSoonAndAtClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, path, "combined")
	l.Write(&sample)
	for deadline := time.Now().Add(10 * time.Second); read(t, path) == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the line was not written")
		}
	}
	l.Write(&sample)
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Count(read(t, path), "\n"); got != 2 {
		t.Errorf("%d lines after Close", got)
	}
	noLoss(t, l)
	l.Write(&sample)
	if n, _ := l.Lost(); n != 1 {
		t.Errorf("a line after Close: %d counted as lost", n)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may read the log: %v, error %v", info.Mode(), err)
	}
}

func TestConcurrentLinesStayWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, path, "json")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				l.Write(&sample)
			}
		})
	}
	for range 20 { // rotation under load
		if err := l.Reopen(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	noLoss(t, l)
	want := string(appendJSON(nil, &sample))
	if got := read(t, path); got != strings.Repeat(want, 4000) {
		t.Errorf("%d bytes, want %d", len(got), 4000*len(want))
	}
}

func TestReopenAfterRename(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := open(t, path, "combined")
	defer func() { _ = l.Close() }()
	l.Write(&sample)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(read(t, path+".1"), "\n"); got != 1 {
		t.Errorf("the line from before the rotation: %d in the old file", got)
	}
	l.Write(&sample)

	// A directory stands in the way: the file in use stays.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("Reopen on a directory: %v", err)
	}
	l.Write(&sample)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Reopen after Close: %v", err)
	}
	if got := strings.Count(read(t, path+".2"), "\n"); got != 2 {
		t.Errorf("%d lines in the file that stayed in use", got)
	}
}

func TestStandardOutput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = w
	l := open(t, "-", "combined")
	os.Stdout = stdout
	l.Write(&sample)
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the log closed standard output: %v", err)
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || line != string(appendCombined(nil, &sample)) {
		t.Errorf("%q, error %v", line, err)
	}
	_ = r.Close()
}

func TestOff(t *testing.T) {
	defer goleak.VerifyNone(t)
	l := open(t, "off", "json")
	l.Write(&sample)
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	noLoss(t, l)
}

func TestOpenFaults(t *testing.T) {
	for _, c := range [][2]string{{"off", "apache"}, {"", "json"}, {filepath.Join(t.TempDir(), "missing", "access.log"), "json"}} {
		if l, err := Open(c[0], c[1]); err == nil {
			t.Errorf("Open(%q, %q) = %v", c[0], c[1], l)
		}
	}
}

func TestFullDiskIsCounted(t *testing.T) {
	l := open(t, "/dev/full", "combined")
	for range 10 {
		l.Write(&sample)
	}
	_ = l.Close()
	if n, err := l.Lost(); n != 10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d lines lost, last error %v", n, err)
	}
}

// onPipe opens a log whose file is a pipe.
func onPipe(t *testing.T) (l *Log, r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l = open(t, filepath.Join(t.TempDir(), "access.log"), "combined")
	l.fileMu.Lock()
	_ = l.file.Close()
	l.file = w
	l.fileMu.Unlock()
	t.Cleanup(func() { _ = r.Close() })
	return l, r, w
}

func TestADiskThatHangsStopsNobody(t *testing.T) {
	l, r, _ := onPipe(t)
	line := len(appendCombined(nil, &sample))
	fill := (2*maxPending + 1<<20) / line
	for range fill {
		l.Write(&sample)
	}
	n, _ := l.Lost()
	if n == 0 {
		t.Error("no line was dropped: the buffer has no limit")
	}
	if kept := (fill - int(n)) * line; kept < maxPending-line {
		t.Errorf("only %d bytes were kept", kept)
	}
	if err := l.Close(); err == nil {
		t.Error("Close said nothing of the write that hangs")
	}
	_ = r.Close() // lets the goroutine go
	<-l.done
}

func TestNoLineGrowsOnATornOne(t *testing.T) {
	l, r, w := onPipe(t)
	if err := w.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	line := string(appendCombined(nil, &sample))
	const fill = 1000 // more than a pipe holds
	for range fill {
		l.Write(&sample)
	}
	l.flush()
	lost, err := l.Lost()
	if lost == 0 || lost == fill || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d lines lost, error %v: the write was not torn", lost, err)
	}
	if err := w.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() {
		l.Write(&sample)
		_ = l.Close()
	}()
	var got []string
	for s := bufio.NewScanner(r); s.Scan(); {
		got = append(got, s.Text()+"\n")
	}
	whole := 0
	for _, g := range got {
		if g == line {
			whole++
		}
	}
	if want := fill - int(lost) + 1; whole != want || len(got) > want+1 || got[len(got)-1] != line {
		t.Errorf("%d of %d lines are whole, want %d", whole, len(got), want)
	}
}

func TestWriteDoesNotAllocate(t *testing.T) {
	for _, format := range []string{"combined", "json"} {
		l := open(t, "/dev/null", format)
		for range 2 { // both buffers reach their size
			for range 2000 {
				l.Write(&sample)
			}
			l.flush()
		}
		if n := testing.AllocsPerRun(1000, func() { l.Write(&sample) }); n != 0 {
			t.Errorf("%s: %v allocations a line", format, n)
		}
		_ = l.Close()
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, format := range []string{"combined", "json"} {
		b.Run(format, func(b *testing.B) {
			l, err := Open("/dev/null", format)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Write(&sample)
				}
			})
			_ = l.Close()
		})
	}
}
