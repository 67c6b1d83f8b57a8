package procpool

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"line ends", "a\nb\r\n\nc", []string{"a", "b", "", "c"}},
		{"just fits", long + "\ny\n", []string{long, "y"}},
		{"one byte over", long + "y\nz\n", []string{long + cutMark, "y", "z"}},
		{"never ends", long + long + "y", []string{long + cutMark, long + cutMark, "y"}},
		{"any byte", "\x00\xff\x1b[31m\rx\n", []string{"\x00\xff\x1b[31m\rx"}},
		{"nothing", "", nil},
	} {
		for _, piece := range []int{1, 7, 4096, 1 << 20} {
			var got []string
			l := newLines(func(b []byte) { got = append(got, string(b)) }, *newFakeClock().clock())
			for in := c.in; len(in) > 0; {
				n := min(piece, len(in))
				if written, err := l.Write([]byte(in[:n])); written != n || err != nil {
					t.Fatal(written, err)
				}
				in = in[n:]
			}
			l.Flush()
			if !slices.Equal(got, c.want) {
				t.Errorf("%s in pieces of %d: %.60q, want %.60q", c.name, piece, got, c.want)
			}
		}
	}
}

func TestLinesRate(t *testing.T) {
	fake := newFakeClock()
	var bytes int
	var last string
	l := newLines(func(b []byte) { bytes += len(b) + 1; last = string(b) }, *fake.clock())
	const lines, size = 4096, 1024
	line := []byte(strings.Repeat("x", size-1) + "\n")
	for range lines {
		_, _ = l.Write(line)
	}
	if bytes != outputBurst {
		t.Errorf("%d bytes of a burst let through, want %d", bytes, outputBurst)
	}
	fake.advance(time.Second)
	bytes = 0
	for range lines {
		_, _ = l.Write(line)
	}
	if bytes < outputRate || bytes > outputRate+100 {
		t.Errorf("%d bytes a second let through, want %d", bytes, outputRate)
	}
	l.Flush()
	if want := fmt.Sprintf("[%d lines dropped: too much output]", lines-outputRate/size); last != want {
		t.Errorf("report %q, want %q", last, want)
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n"), uint64(1))
	f.Add([]byte(strings.Repeat("x", maxLine)+"\n"), uint64(2))
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		var whole, pieces []string
		collect := func(to *[]string) *Lines {
			return newLines(func(b []byte) {
				if len(b) > maxLine+len(cutMark) {
					t.Fatalf("a line of %d bytes", len(b))
				}
				*to = append(*to, string(b))
			}, *newFakeClock().clock())
		}
		l := collect(&whole)
		_, _ = l.Write(in)
		l.Flush()
		l = collect(&pieces)
		for len(in) > 0 {
			n := 1 + random.IntN(len(in))
			_, _ = l.Write(in[:n])
			in = in[n:]
		}
		l.Flush()
		if !slices.Equal(whole, pieces) {
			t.Fatalf("%q in one piece, %q in several", whole, pieces)
		}
	})
}
