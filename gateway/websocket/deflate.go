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

// errNotHeld means that decompress was given no memory.
var errNotHeld = errors.New("websocket: there is no memory for the message")

// decompress returns the content of a compressed message behind so many bytes
// that are left free. It has at most limit bytes; errTooLarge otherwise. hold
// says whether there is leave for n bytes more of memory.
func decompress(free int, p []byte, limit int64, hold func(n int) bool) ([]byte, error) {
	r := decompressors.Get().(io.ReadCloser)
	defer decompressors.Put(r)
	source := io.MultiReader(bytes.NewReader(p), bytes.NewReader(readTail))
	if err := r.(flate.Resetter).Reset(source, nil); err != nil {
		return nil, err
	}
	most := free + int(limit) + 1 // the one more shows that it is too large
	var plain []byte
	for {
		if len(plain) == cap(plain) {
			size := min(free+max(2*len(plain), 4*len(p), 512), most)
			if !hold(size - cap(plain)) {
				return nil, errNotHeld
			}
			grown := make([]byte, max(len(plain), free), size)
			copy(grown, plain)
			plain = grown
		}
		n, err := r.Read(plain[len(plain):cap(plain)])
		plain = plain[:len(plain)+n]
		switch {
		case len(plain) == most:
			return nil, errTooLarge
		case err == io.EOF:
			return plain, nil
		case err != nil:
			return nil, err
		}
	}
}
