package websocket

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/klauspost/compress/flate"
)

// maxBits is the largest window of DEFLATE, as a power of two.
const maxBits = 15

// compressMin is how long a message has to be to be compressed: a short one by
// itself hardly shrinks.
const compressMin = 512

// flushTail ends what a flushed compressor has written. It is left out of a
// message (RFC 7692, section 7.2.1), and given back before it is read, with an
// empty last block, so that the reader finds an end.
var (
	flushTail = []byte{0x00, 0x00, 0xff, 0xff}
	readTail  = []byte{0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff}
)

var errTooLarge = errors.New("websocket: the message is too large")

func itoa(n int) string { return strconv.Itoa(n) }

// compressors are by the size of their window. One is taken for as long as it
// computes, and never while anybody waits for a client.
var compressors [maxBits + 1]sync.Pool

// compress appends p in a form that can be continued: what is appended for
// several pieces, one behind the other, is one compressed stream. For the last
// piece of a message the end is left out as the RFC wants it.
func compress(dst *bytes.Buffer, p []byte, bits int, last bool) error {
	w, _ := compressors[bits].Get().(*flate.Writer)
	if w == nil {
		var err error
		if bits == maxBits {
			w, err = flate.NewWriter(dst, flate.BestSpeed)
		} else {
			w, err = flate.NewWriterWindow(dst, 1<<bits)
		}
		if err != nil {
			return err
		}
	} else {
		w.Reset(dst)
	}
	defer func() {
		w.Reset(io.Discard) // lets go of dst
		compressors[bits].Put(w)
	}()
	if _, err := w.Write(p); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if last && bytes.HasSuffix(dst.Bytes(), flushTail) {
		dst.Truncate(dst.Len() - len(flushTail))
	}
	return nil
}

var decompressors = sync.Pool{New: func() any { return flate.NewReader(nil) }}

// decompress appends the content of a compressed message to dst, which then has
// at most limit bytes more; errTooLarge otherwise.
func decompress(dst, p []byte, limit int64) ([]byte, error) {
	r := decompressors.Get().(io.ReadCloser)
	defer decompressors.Put(r)
	source := io.MultiReader(bytes.NewReader(p), bytes.NewReader(readTail))
	if err := r.(flate.Resetter).Reset(source, nil); err != nil {
		return nil, err
	}
	begin := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, max(4<<10, min(len(dst), 1<<20)))...)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if int64(len(dst)-begin) > limit {
			return nil, errTooLarge
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
