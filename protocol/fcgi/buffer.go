package fcgi

import (
	"math/bits"
	"sync"
)

// chunkSize is how much one read of a request's body takes.
const chunkSize = 32 << 10

// chunkPool holds *[chunkSize]byte.
var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Sizes of the pooled rings: most answers, most pages, a default window, at first and
// at last.
var ringSizes = [...]int{4 << 10, 32 << 10, defaultWindow, defaultBulkWindow}

var ringPools [len(ringSizes)]sync.Pool // of *[]byte

// buffer is a ring that holds answer bytes between the read loop and the
// reader, and grows as needed: its user limits it. The zero value is empty.
// A buffer without content holds no memory, so that a stream which is silent
// for a long time costs nothing.
type buffer struct {
	mem   *[]byte
	first int // index of the oldest byte
	n     int // bytes held
}

func (b *buffer) len() int { return b.n }

func (b *buffer) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if b.mem == nil || len(*b.mem)-b.n < len(p) {
		b.grow(b.n + len(p))
	}
	m := *b.mem
	at := b.first + b.n
	if at >= len(m) {
		at -= len(m)
	}
	b.n += len(p)
	copy(m, p[copy(m[at:], p):])
}

func (b *buffer) read(p []byte) int {
	if b.n == 0 {
		return 0
	}
	p = p[:min(len(p), b.n)]
	m := *b.mem
	n := copy(p, m[b.first:])
	n += copy(p[n:], m)
	if b.first += n; b.first >= len(m) {
		b.first -= len(m)
	}
	if b.n -= n; b.n == 0 {
		b.reset()
	}
	return n
}

// grow moves the content to a ring of at least size bytes.
func (b *buffer) grow(size int) {
	mem := newRing(size)
	n := b.n
	b.read(*mem) // gives the old ring back
	b.mem, b.first, b.n = mem, 0, n
}

func (b *buffer) reset() {
	if b.mem != nil {
		for i, size := range ringSizes {
			if len(*b.mem) == size {
				ringPools[i].Put(b.mem)
			}
		}
	}
	*b = buffer{}
}

func newRing(size int) *[]byte {
	for i := range ringSizes {
		if size <= ringSizes[i] {
			if mem, ok := ringPools[i].Get().(*[]byte); ok {
				return mem
			}
			size = ringSizes[i]
			break
		}
	}
	mem := make([]byte, 1<<bits.Len(uint(size-1)))
	return &mem
}
