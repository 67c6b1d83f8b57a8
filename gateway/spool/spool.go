// Package spool takes in a whole request body before an application is given
// the request: small ones stay in memory, the rest goes to a temporary file.
//
// It exists for two reasons. CGI, and every FastCGI application that believes
// CONTENT_LENGTH, must be told the length of a body (RFC 3875, section 4.1.2),
// and a chunked request says it only at its end. And a slow upload must not
// occupy a worker: the worker is taken when the body is there.
//
// The file has no name (O_TMPFILE, or created and unlinked at once), so that
// nothing is left on the disk when the gateway is killed.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

var (
	// ErrTooLarge means that the body is longer than the caller's limit.
	ErrTooLarge = errors.New("spool: body exceeds its limit")
	// ErrQuota means that all bodies together would take more disk than
	// Config.Quota. It passes when other requests end.
	ErrQuota = errors.New("spool: disk quota exhausted")
	// ErrDisk means that the temporary file failed: no such directory, no
	// space, an I/O error. The cause is in the chain.
	ErrDisk = errors.New("spool: temporary file")
	// ErrClient means that the body could not be read to its end: the client
	// went away, was too slow or broke its framing, or the context ended.
	// The cause is in the chain.
	ErrClient = errors.New("spool: reading the body")
)

// chunkSize is the unit of memory, and of a write to the disk. A small form
// post costs one chunk.
const chunkSize = 32 << 10

// chunks recycles buffers between requests. A sync.Pool gives what it holds
// back to the collector, so that a burst does not stay in memory.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

type chunk = *[chunkSize]byte

// Config says where bodies go.
type Config struct {
	// Dir holds the temporary files; it must exist.
	Dir string
	// Memory is how many bytes of one body are kept in memory before all of
	// it moves to a file. Zero keeps nothing in memory.
	Memory int64
	// Quota is how many bytes all bodies together may take on the disk. Zero
	// allows none, so that a body over Memory is refused; a negative number
	// means no quota.
	Quota int64
}

// Store reads bodies and accounts for the disk they take. It is safe for
// concurrent use.
type Store struct {
	cfg  Config
	used atomic.Int64 // bytes on disk, or just about to be
}

// NewStore returns a Store. It does not touch the disk: a gateway whose spool
// directory is missing still serves what needs no file.
func NewStore(cfg Config) *Store { return &Store{cfg: cfg} }

// OnDisk returns how many bytes all bodies take on the disk now.
func (s *Store) OnDisk() int64 { return s.used.Load() }

// Read reads body to its end and returns it, positioned at its start. It is
// the caller's to close.
//
// limit is the greatest length allowed; negative means none. known is the
// length the client announced, -1 when it did not: a body that is known to be
// too large is refused before any of it is read, and one that turns out
// shorter or longer is ErrClient.
//
// The error is one of ErrTooLarge, ErrQuota, ErrDisk and ErrClient, by
// errors.Is; on an error nothing is kept. Read looks at ctx between two reads
// and cannot interrupt one: deadlines belong to the connection.
func (s *Store) Read(ctx context.Context, body io.Reader, limit, known int64) (*Body, error) {
	if limit >= 0 && known > limit {
		return nil, ErrTooLarge
	}
	if known > s.cfg.Memory && s.cfg.Quota >= 0 && known > s.cfg.Quota {
		return nil, ErrQuota // can't fit even when every other request is gone
	}
	b := &Body{store: s}
	if known == 0 || body == nil {
		if known > 0 {
			return nil, fmt.Errorf("%w: %w", ErrClient, io.ErrUnexpectedEOF)
		}
		return b, nil
	}
	if err := b.fill(ctx, body, limit, known); err != nil {
		_ = b.Close()
		return nil, err
	}
	return b, nil
}

// reserve books n more bytes of disk. Bytes are booked as they arrive rather
// than as announced: otherwise a client could hold the whole quota by
// announcing a large body and sending none of it.
func (s *Store) reserve(n int64) error {
	if used := s.used.Add(n); s.cfg.Quota >= 0 && used > s.cfg.Quota {
		s.used.Add(-n)
		return ErrQuota
	}
	return nil
}
