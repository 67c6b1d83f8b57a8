package fcgi

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"gatecrew/protocol/nonblock"
)

const (
	maxPending  = 64 << 10  // bytes waiting for the socket above which request bodies wait
	keptPending = 128 << 10 // an output buffer that grew beyond this isn't kept
	flushRounds = 4         // batches that one caller writes before it hands over
)

// writer combines the records of all requests on a connection into few
// system calls. Records are appended to pending under mu; whoever then finds
// that nobody flushes becomes the flusher, yields once so that neighbours can
// join, and writes all of it.
//
// No caller waits for the socket: what the socket doesn't take at once is
// left to a goroutine, which ends when everything is written. So records may
// be sent from the read loop too, and a peer that doesn't read while its own
// output is full can't dead-lock the two sides.
type writer struct {
	nc      net.Conn
	timeout time.Duration
	direct  *nonblock.Socket // nil when nc has no descriptor of its own
	died    func(error)      // called without mu, at most once, when a write fails

	// mu guards the fields below and, in Conn, the table of requests: the
	// order of records and the life of their ids are one thing. A record
	// can't slip behind the BEGIN_REQUEST that reuses its id, because whether
	// its request is still open is asked under the lock that appends.
	mu       sync.Mutex
	room     sync.Cond // on mu: pending was taken, or a body's wait may be over
	pending  []byte
	spare    []byte // memory of the last batch
	taken    uint64 // bytes taken from pending since the beginning
	sent     uint64 // upper bound of the bytes of taken that have left
	flushing bool   // a flusher is at work, or there will be none any more
	finish   bool   // half-close when nothing is left to write
}

func (w *writer) init(nc net.Conn, timeout time.Duration, died func(error)) {
	w.nc, w.timeout, w.died = nc, timeout, died
	w.direct = nonblock.New(nc)
	w.room.L = &w.mu
}

// position is where the next appended byte will stand. The caller holds mu.
func (w *writer) position() uint64 { return w.taken + uint64(len(w.pending)) }

// flush writes what is pending, unless somebody else is about to.
func (w *writer) flush() {
	w.mu.Lock()
	if w.flushing || len(w.pending) == 0 {
		w.mu.Unlock()
		return
	}
	w.flushing = true
	w.mu.Unlock()
	runtime.Gosched()

	if w.direct == nil {
		go w.drain(nil)
		return
	}
	for range flushRounds {
		batch := w.take()
		if batch == nil {
			return
		}
		n, err := w.direct.Write(batch)
		if err != nil {
			w.fail(len(batch)-n, err)
			return
		}
		if n < len(batch) {
			go w.drain(batch[n:])
			return
		}
		w.recycle(batch)
	}
	// Others keep appending, and the caller has a request of its own.
	go w.drain(nil)
}

// drain is the flusher that may block.
func (w *writer) drain(batch []byte) {
	for {
		if batch == nil {
			if batch = w.take(); batch == nil {
				return
			}
		}
		// An error of SetWriteDeadline means a closed socket, which Write reports.
		_ = w.nc.SetWriteDeadline(time.Now().Add(w.timeout))
		n, err := w.nc.Write(batch)
		_ = w.nc.SetWriteDeadline(time.Time{})
		if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) { // slow, but not stuck
			batch = batch[n:]
			continue
		}
		if err != nil {
			w.fail(len(batch)-n, err)
			return
		}
		w.recycle(batch)
		batch = nil
	}
}

// take gives the flusher all that is pending; nil ends its work.
func (w *writer) take() []byte {
	w.mu.Lock()
	if len(w.pending) == 0 {
		half := w.finish
		w.flushing = half // after a half-close nothing can be written
		w.mu.Unlock()
		if half {
			w.closeWrite()
		}
		return nil
	}
	batch := w.pending
	w.pending, w.spare = w.spare[:0], nil
	w.taken += uint64(len(batch))
	w.sent = w.taken
	w.room.Broadcast()
	w.mu.Unlock()
	return batch
}

// recycle keeps a written batch's memory. A part of a batch, which drain may
// have, serves as well.
func (w *writer) recycle(batch []byte) {
	if cap(batch) > keptPending {
		return
	}
	w.mu.Lock()
	w.spare = batch[:0]
	w.mu.Unlock()
}

// fail ends the writer after a batch of which unsent bytes have not left.
// flushing stays set: nobody writes after a failure.
func (w *writer) fail(unsent int, err error) {
	w.mu.Lock()
	w.sent = w.taken - uint64(unsent)
	w.mu.Unlock()
	w.died(err)
}

// finishWritingLocked half-closes the connection as soon as nothing is pending.
// The caller holds mu.
func (w *writer) finishWritingLocked() {
	if w.finish {
		return
	}
	w.finish = true
	if !w.flushing {
		w.flushing = true
		go w.drain(nil)
	}
}

// closeWrite shuts down the sending side; a net.Conn that has no sides is
// closed. An error means that it is dead, which the read loop finds too.
func (w *writer) closeWrite() {
	if half, ok := w.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = w.nc.Close()
}
