package slowlog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func sample() *Entry {
	return &Entry{Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Request: "R-1", Worker: "web/2", PID: 77,
		Method: "GET", URI: "/a?b=\"\x1b[2J\u202e\n", Silent: 10100 * time.Millisecond,
		Stacks: "thread \"t\":\n  File \"a.py\"\n\n    x = '\u202e\x9b'\ttab\U000e0001\n"}
}

func TestText(t *testing.T) {
	want := "2026-01-02T03:04:05.006Z\tslow request\tR-1 on web/2 (pid 77), silent for 10.1s: " +
		`"GET /a?b=\"\x1b[2J\u202e\n"` + "\n" +
		"    thread \"t\":\n      File \"a.py\"\n\n        x = '\\u202e\ufffd'\ttab\\udb40\\udc01\n"
	if got := string(sample().text()); got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	line := string(sample().json())
	if strings.Index(line, "\n") != len(line)-1 || strings.ContainsAny(line, "\u202e\x1b") || !utf8.ValidString(line) {
		t.Errorf("%q", line)
	}
	var got struct {
		Request, Worker, Method, URI string
		PID                          int
		Elapsed                      int `json:"elapsed_ms"`
		Stacks                       []string
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	if e := sample(); got.Request != e.Request || got.URI != e.URI || got.PID != 77 || got.Elapsed != 10100 || len(got.Stacks) != 4 ||
		got.Stacks[3] != "    x = '\u202e\ufffd'\ttab\U000e0001" {
		t.Errorf("%+v", got)
	}
}

// A log is rotated by renaming, and what is queued is written at the end.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slow.log")
	l, err := Open(path, "console")
	if err != nil {
		t.Fatal(err)
	}
	l.Write(sample())
	for end := time.Now().Add(5 * time.Second); size(path) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was written")
		}
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	const more = 5
	for range more {
		l.Write(sample())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := size(path); got != more*size(path+".1") {
		t.Errorf("%d bytes after the rotation, of %d blocks of %d", got, more, size(path+".1"))
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	l.Write(sample())
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// A reader that has stopped keeps nobody waiting; what it misses is counted.
func TestReaderThatStops(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(filepath.Join(t.TempDir(), "log"), "console")
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	file := l.file
	l.file = w
	l.mu.Unlock()
	defer file.Close()
	e := sample()
	e.Stacks = strings.Repeat(strings.Repeat("s", 99)+"\n", maxStacks/100+100)
	began := time.Now()
	for range 3 * queued {
		again := *e
		l.Write(&again)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%v for writes that nobody reads", took)
	}
	if l.lost.Load() == 0 {
		t.Error("nothing was dropped")
	}
	go func() {
		_ = l.Close()
		w.Close()
	}()
	var text strings.Builder
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			break
		}
	}
	for _, want := range []string{"(the rest is left out)", "slow requests before this one are not logged"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in what was read", want)
		}
	}
}
