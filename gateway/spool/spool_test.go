package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
)

// pattern returns n bytes that no other seed gives.
func pattern(seed uint64, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// only hides every method of a reader but Read.
type only struct{ io.Reader }

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestReadAroundTheBorders(t *testing.T) {
	readers := map[string]func(io.Reader) io.Reader{
		"whole":    func(r io.Reader) io.Reader { return only{r} },
		"half":     iotest.HalfReader,
		"data+EOF": iotest.DataErrReader,
		"one byte": iotest.OneByteReader,
	}
	fds := descriptors(t)
	for _, memory := range []int64{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		for _, size := range []int{0, 1, 2, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize - 1, 3 * chunkSize, 3*chunkSize + 1, 7*chunkSize + 5} {
			for kind, wrap := range readers {
				if kind == "one byte" && size > chunkSize+1 {
					continue // says nothing more and takes long
				}
				for _, known := range []int64{-1, int64(size)} {
					name := fmt.Sprintf("memory %d, size %d, %s, known %d", memory, size, kind, known)
					s := NewStore(Config{Dir: t.TempDir(), Memory: memory, Quota: -1})
					want := pattern(uint64(size), size)
					b, err := s.Read(t.Context(), wrap(bytes.NewReader(want)), int64(size), known)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if b.Len() != int64(size) {
						t.Fatalf("%s: Len() = %d", name, b.Len())
					}
					onDisk := int64(size) > memory
					if (b.File() != nil) != onDisk {
						t.Fatalf("%s: on disk is %v, want %v", name, b.File() != nil, onDisk)
					}
					if want := map[bool]int64{true: int64(size)}[onDisk]; s.OnDisk() != want {
						t.Fatalf("%s: OnDisk() = %d, want %d", name, s.OnDisk(), want)
					}
					for round := range 3 {
						got, err := io.ReadAll(b)
						if err != nil || !bytes.Equal(got, want) {
							t.Fatalf("%s: round %d: %d bytes that differ, error %v", name, round, len(got), err)
						}
						if err := b.Rewind(); err != nil {
							t.Fatalf("%s: Rewind: %v", name, err)
						}
					}
					for range 2 {
						if err := b.Close(); err != nil {
							t.Fatalf("%s: Close: %v", name, err)
						}
					}
					if s.OnDisk() != 0 {
						t.Fatalf("%s: %d bytes booked after Close", name, s.OnDisk())
					}
				}
			}
		}
	}
	if now := descriptors(t); now != fds {
		t.Errorf("%d descriptors open, %d before", now, fds)
	}
}

func TestReadKeepsTheReaderContract(t *testing.T) {
	for _, memory := range []int64{0, 1 << 20} {
		want := pattern(1, 2*chunkSize+100)
		b, err := NewStore(Config{Dir: t.TempDir(), Memory: memory, Quota: -1}).Read(t.Context(), bytes.NewReader(want), -1, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(only{b}, want); err != nil {
			t.Errorf("memory %d: %v", memory, err)
		}
		_ = b.Close()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("memory %d: Read after Close: %v", memory, err)
		}
		if err := b.Rewind(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("memory %d: Rewind after Close: %v", memory, err)
		}
	}
}

// unread fails the test when it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestLimit(t *testing.T) {
	for _, memory := range []int64{0, 1 << 20} {
		s := NewStore(Config{Dir: t.TempDir(), Memory: memory, Quota: -1})
		for _, size := range []int{1, chunkSize, chunkSize + 1, 5 * chunkSize} {
			_, err := s.Read(t.Context(), bytes.NewReader(make([]byte, size)), int64(size-1), -1)
			if !errors.Is(err, ErrTooLarge) {
				t.Errorf("memory %d, a byte over the limit of %d: %v", memory, size-1, err)
			}
		}
		if _, err := s.Read(t.Context(), unread{t}, 9, 10); !errors.Is(err, ErrTooLarge) {
			t.Errorf("memory %d, announced over the limit: %v", memory, err)
		}
		if s.OnDisk() != 0 {
			t.Errorf("memory %d: %d bytes are still booked", memory, s.OnDisk())
		}
	}
}

func TestQuotaIsSharedAndGivenBack(t *testing.T) {
	s := NewStore(Config{Dir: t.TempDir(), Memory: 10, Quota: 100_000})
	read := func(n int, known int64) (*Body, error) {
		return s.Read(t.Context(), bytes.NewReader(make([]byte, n)), -1, known)
	}
	first, err := read(60_000, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(60_000, 60_000); !errors.Is(err, ErrQuota) {
		t.Errorf("over the quota: %v", err)
	}
	if s.OnDisk() != 60_000 {
		t.Errorf("the refused body left its mark: %d bytes booked", s.OnDisk())
	}
	exact, err := read(40_000, -1)
	if err != nil {
		t.Errorf("exactly the rest of the quota: %v", err)
	} else {
		_ = exact.Close()
	}
	small, err := read(10, -1)
	if err != nil {
		t.Errorf("a body in memory needs no quota: %v", err)
	} else {
		_ = small.Close()
	}
	_ = first.Close()
	if b, err := read(60_000, -1); err != nil {
		t.Errorf("after the first was closed: %v", err)
	} else {
		_ = b.Close()
	}
	if _, err := s.Read(t.Context(), unread{t}, -1, 100_001); !errors.Is(err, ErrQuota) {
		t.Errorf("more than the whole quota: %v", err)
	}
	if s.OnDisk() != 0 {
		t.Errorf("%d bytes are still booked", s.OnDisk())
	}
}

func TestClientErrors(t *testing.T) {
	boom := errors.New("connection reset")
	for _, memory := range []int64{0, 1 << 20} {
		dir := t.TempDir()
		s := NewStore(Config{Dir: dir, Memory: memory, Quota: -1})
		gone, leave := context.WithCancelCause(t.Context())
		part := func() io.Reader { return bytes.NewReader(make([]byte, 100_000)) }
		cases := []struct {
			name  string
			ctx   context.Context
			body  io.Reader
			known int64
			cause error
		}{
			{"reader fails", t.Context(), io.MultiReader(part(), iotest.ErrReader(boom)), -1, boom},
			{"shorter than announced", t.Context(), part(), 100_001, io.ErrUnexpectedEOF},
			{"announced and absent", t.Context(), nil, 5, io.ErrUnexpectedEOF},
			{"longer than announced", t.Context(), part(), 99_999, ErrClient},
			{"reader that never gets on", t.Context(), readerFunc(func([]byte) (int, error) { return 0, nil }), -1, io.ErrNoProgress},
			{"context ends in between", gone, readerFunc(func(p []byte) (int, error) {
				leave(boom)
				return len(p), nil
			}), -1, boom},
		}
		for _, c := range cases {
			b, err := s.Read(c.ctx, c.body, -1, c.known)
			if b != nil || !errors.Is(err, ErrClient) || !errors.Is(err, c.cause) || errors.Is(err, ErrDisk) {
				t.Errorf("memory %d, %s: body %v, error %v", memory, c.name, b, err)
			}
		}
		if s.OnDisk() != 0 {
			t.Errorf("memory %d: %d bytes are still booked", memory, s.OnDisk())
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestDiskErrors(t *testing.T) {
	s := NewStore(Config{Dir: filepath.Join(t.TempDir(), "missing"), Memory: 100, Quota: -1})
	for _, known := range []int64{-1, 101} {
		_, err := s.Read(t.Context(), bytes.NewReader(make([]byte, 101)), -1, known)
		if !errors.Is(err, ErrDisk) || !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrClient) {
			t.Errorf("known %d: %v", known, err)
		}
	}
	b, err := s.Read(t.Context(), bytes.NewReader(make([]byte, 100)), -1, -1)
	if err != nil {
		t.Fatalf("a body in memory must not need the disk: %v", err)
	}
	_ = b.Close()

	// A full disk: /dev/full takes no byte.
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b = &Body{store: s, file: full, mem: []chunk{new([chunkSize]byte)}}
	err = b.fill(t.Context(), bytes.NewReader(make([]byte, 10)), -1, -1)
	if !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full disk: %v", err)
	}
	_ = b.Close()
	if s.OnDisk() != 0 {
		t.Errorf("%d bytes are still booked", s.OnDisk())
	}
}

func TestFileHasNoName(t *testing.T) {
	for name, open := range map[string]func(string) (*os.File, error){"unnamed": unnamed, "unlinked": unlinked} {
		dir := t.TempDir()
		f, err := open(dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list, err := os.ReadDir(dir)
		if err != nil || len(list) != 0 {
			t.Errorf("%s: the directory holds %v, error %v", name, list, err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Nlink != 0 {
			t.Errorf("%s: mode %v, %d names", name, info.Mode(), info.Sys().(*syscall.Stat_t).Nlink)
		}
		_ = f.Close()
	}
}

func TestFileIsAChildsInput(t *testing.T) {
	want := pattern(3, 5*chunkSize+11)
	b, err := NewStore(Config{Dir: t.TempDir(), Quota: -1}).Read(t.Context(), bytes.NewReader(want), -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	for round := range 2 {
		cat := exec.Command("cat")
		cat.Stdin = b.File()
		got, err := cat.Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the child got %d bytes that differ, error %v", round, len(got), err)
		}
		// The child moved the file's offset and not ours.
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: Read after the child: %d bytes, error %v", round, len(got), err)
		}
		if err := b.Rewind(); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.File().Truncate(10); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); !errors.Is(err, ErrDisk) || len(got) != 10 {
		t.Errorf("a file that was cut: %d bytes, error %v", len(got), err)
	}
}

func TestMemoryDoesNotGrowWithTheBody(t *testing.T) {
	s := NewStore(Config{Dir: t.TempDir(), Memory: 1 << 20, Quota: -1})
	const size = 256 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := s.Read(t.Context(), io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), size), -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyBuffer(only2{io.Discard}, only{b}, make([]byte, 4096)); err != nil || n != size {
		t.Fatalf("read back %d bytes, error %v", n, err)
	}
	_ = b.Close()
	runtime.ReadMemStats(&after)
	// Everything that was allocated, freed or not.
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes allocated for a body of %d", got, size)
	}
}

// only2 hides every method of a writer but Write.
type only2 struct{ io.Writer }

func TestConcurrentBodiesStayApart(t *testing.T) {
	s := NewStore(Config{Dir: t.TempDir(), Memory: 2 * chunkSize, Quota: -1})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 25 {
				want := pattern(uint64(worker*100+i), (worker*31+i*4099)%(4*chunkSize))
				b, err := s.Read(t.Context(), only{bytes.NewReader(want)}, -1, -1)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
					t.Errorf("worker %d, body %d: %d bytes that differ, error %v", worker, i, len(got), err)
				}
				_ = b.Close()
			}
		})
	}
	wg.Wait()
	if s.OnDisk() != 0 {
		t.Errorf("%d bytes are still booked", s.OnDisk())
	}
}

// A real chunked upload, and one whose client hangs up in the middle.
func TestOverHTTP(t *testing.T) {
	s := NewStore(Config{Dir: t.TempDir(), Memory: 1000, Quota: -1})
	failures := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := s.Read(r.Context(), r.Body, 1<<20, r.ContentLength)
		if err != nil {
			failures <- err
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		defer func() { _ = b.Close() }()
		_, _ = io.Copy(w, b)
	}))
	defer server.Close()
	want := pattern(9, 300_000)
	resp, err := http.Post(server.URL, "", only{bytes.NewReader(want)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, error %v", len(got), err)
	}
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write(want)
		_ = pw.CloseWithError(errors.New("gone"))
	}()
	if resp, err := http.Post(server.URL, "", pr); err == nil {
		_ = resp.Body.Close()
	}
	if err := <-failures; !errors.Is(err, ErrClient) {
		t.Errorf("client went away: %v", err)
	}
	if s.OnDisk() != 0 {
		t.Errorf("%d bytes are still booked", s.OnDisk())
	}
}
