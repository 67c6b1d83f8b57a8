package spool

import (
	"fmt"
	"io"
	"os"
)

// Body is one request body, complete. It is used by one goroutine at a time.
type Body struct {
	store *Store
	mem   []chunk  // all of the body, when file is nil
	file  *os.File // all of the body, when it outgrew Config.Memory
	size  int64
	pos   int64 // where Read goes on
	// booked is what this body holds of the store's quota.
	booked int64
	closed bool
}

// Len returns the length of the whole body in bytes, wherever Read stands.
func (b *Body) Len() int64 { return b.size }

// Read reads on from where it stands; io.EOF marks the end of the body.
func (b *Body) Read(p []byte) (int, error) {
	switch {
	case b.closed:
		return 0, os.ErrClosed
	case len(p) == 0:
		return 0, nil
	case b.pos >= b.size:
		return 0, io.EOF
	case b.file != nil:
		// ReadAt, because a child that was given File moves its offset.
		n, err := b.file.ReadAt(p[:min(int64(len(p)), b.size-b.pos)], b.pos)
		b.pos += int64(n)
		if n > 0 {
			return n, nil
		}
		if err == io.EOF { // somebody who was given File cut it
			err = io.ErrUnexpectedEOF
		}
		return 0, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	c, off := b.mem[b.pos/chunkSize], b.pos%chunkSize
	n := copy(p, c[off:min(chunkSize, off+b.size-b.pos)])
	b.pos += int64(n)
	return n, nil
}

// Rewind makes Read, and whoever reads File, start again at the first byte.
func (b *Body) Rewind() error {
	if b.closed {
		return os.ErrClosed
	}
	b.pos = 0
	if b.file != nil {
		if _, err := b.file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("%w: %w", ErrDisk, err)
		}
	}
	return nil
}

// File returns the file that holds the body, its offset at the first byte
// after Store.Read and after Rewind, so that a child process can have it as
// its standard input and no byte is copied. It is nil when the body is in
// memory. The file is open for reading and writing, and belongs to the Body:
// Close closes it, while a started child keeps its own descriptor.
func (b *Body) File() *os.File { return b.file }

// Close frees memory and disk. It may be called more than once.
func (b *Body) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	b.release()
	b.store.used.Add(-b.booked)
	b.booked = 0
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	return err
}
