package fcgi

import "sync"

const (
	smallBuffer = 4 << 10  // what a receive buffer begins with
	keptBuffer  = 32 << 10 // a receive buffer that grew beyond this isn't pooled
	chunkSize   = 32 << 10 // one read of a request's body
)

// buffer holds answer bytes between the read loop and the reader. The zero
// value is empty. A buffer without content holds no memory, so that a stream
// which waits for a long time costs nothing.
type buffer struct {
	mem *[]byte
	off int
}

var bufferPool = sync.Pool{New: func() any {
	b := make([]byte, 0, smallBuffer)
	return &b
}}

// chunkPool holds *[chunkSize]byte.
var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

func (b *buffer) len() int {
	if b.mem == nil {
		return 0
	}
	return len(*b.mem) - b.off
}

func (b *buffer) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if b.mem == nil {
		b.mem = bufferPool.Get().(*[]byte)
	}
	m := *b.mem
	if b.off > 0 && cap(m)-len(m) < len(p) {
		m = m[:copy(m, m[b.off:])]
		b.off = 0
	}
	*b.mem = append(m, p...)
}

func (b *buffer) read(p []byte) int {
	if b.mem == nil {
		return 0
	}
	n := copy(p, (*b.mem)[b.off:])
	if b.off += n; b.off == len(*b.mem) {
		b.reset()
	}
	return n
}

func (b *buffer) reset() {
	if b.mem != nil && cap(*b.mem) <= keptBuffer {
		*b.mem = (*b.mem)[:0]
		bufferPool.Put(b.mem)
	}
	b.mem, b.off = nil, 0
}
