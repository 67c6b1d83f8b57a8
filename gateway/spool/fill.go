package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxEmptyReads is how often in a row a reader may return nothing at all, as
// in bufio.
const maxEmptyReads = 100

// fill reads r to its end into b. On an error, what b holds is left to Close.
func (b *Body) fill(ctx context.Context, r io.Reader, limit, known int64) error {
	memory := b.store.cfg.Memory
	if known > memory {
		if err := b.spill(); err != nil {
			return err
		}
	}
	empty := 0
	for {
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrClient, context.Cause(ctx))
		}
		n, err := r.Read(b.room())
		b.size += int64(n)
		switch {
		case limit >= 0 && b.size > limit:
			return ErrTooLarge
		case known >= 0 && b.size > known:
			return fmt.Errorf("%w: more than the announced %d bytes", ErrClient, known)
		case err == io.EOF && known >= 0 && b.size < known:
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("%w: %w", ErrClient, err)
		}
		// Only the byte too many makes a file: a body of exactly Memory
		// bytes needs none.
		if b.file == nil && b.size > memory {
			if err := b.spill(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return b.finish()
		}
		if b.file != nil && b.size-b.booked == chunkSize {
			if err := b.write(b.mem[0][:]); err != nil {
				return err
			}
		}
		if empty++; n > 0 {
			empty = 0
		} else if empty == maxEmptyReads {
			return fmt.Errorf("%w: %w", ErrClient, io.ErrNoProgress)
		}
	}
}

// room returns the memory for the next read, never empty. In memory that is
// the rest of the last chunk or a new one; with a file it is the rest of the
// one chunk that collects what is not yet written, so that small pieces of a
// chunked body don't become small writes.
func (b *Body) room() []byte {
	if b.file != nil {
		return b.mem[0][b.size-b.booked:]
	}
	used := b.size % chunkSize
	if b.size == int64(len(b.mem))*chunkSize {
		b.mem = append(b.mem, chunks.Get().(chunk))
	}
	return b.mem[len(b.mem)-1][used:]
}

// spill makes the file and moves what is in memory there, all but the last,
// incomplete chunk, which becomes the write buffer.
func (b *Body) spill() error {
	file, err := unnamed(b.store.cfg.Dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	b.file = file
	if len(b.mem) == 0 {
		b.mem = append(b.mem, chunks.Get().(chunk))
		return nil
	}
	for b.size-b.booked >= chunkSize {
		if err := b.write(b.mem[0][:]); err != nil {
			return err
		}
		if len(b.mem) > 1 {
			chunks.Put(b.mem[0])
			b.mem = b.mem[1:]
		}
	}
	return nil
}

// finish writes what is left and puts the file's offset at its start.
func (b *Body) finish() error {
	if b.file == nil {
		return nil
	}
	if err := b.write(b.mem[0][:b.size-b.booked]); err != nil {
		return err
	}
	b.release()
	return b.Rewind()
}

// write appends p to the file. What is booked is what is written, so booked
// is the file's length as well.
func (b *Body) write(p []byte) error {
	if err := b.store.reserve(int64(len(p))); err != nil {
		return err
	}
	b.booked += int64(len(p))
	if _, err := b.file.Write(p); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	return nil
}

// release gives the body's memory back.
func (b *Body) release() {
	for _, c := range b.mem {
		chunks.Put(c)
	}
	b.mem = nil
}

// unnamed opens a file in dir that has no name and never gets one.
func unnamed(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE|unix.O_EXCL, 0o600)
	// Filesystems without O_TMPFILE (NFS, 9p, older overlayfs) answer
	// EOPNOTSUPP, kernels that don't know the flag EISDIR.
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return unlinked(dir)
	}
	return f, err
}

// unlinked opens a file in dir (mode 0600) and takes its name away at once.
func unlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
