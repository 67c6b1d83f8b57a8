package fcgi

import (
	"fmt"
	"io"

	"gatecrew/protocol"
)

const maxEmptyReads = 100 // in a row; bufio's number

func bodyError(err error) *protocol.Error {
	return &protocol.Error{Kind: protocol.ClientGone, Err: fmt.Errorf("fcgi: request body: %w", err)}
}

// readMemory reads a body that lies in memory and fits into chunk, so that it
// travels with its request and needs no goroutine; ok is false for any other
// body, which is left untouched. A body is taken for memory when it has a Len
// method, as bytes.Reader, bytes.Buffer and strings.Reader do.
func readMemory(body io.Reader, chunk []byte) (content []byte, ok bool, err error) {
	m, ok := body.(interface{ Len() int })
	if !ok {
		return nil, false, nil
	}
	n := m.Len()
	if n > len(chunk) {
		return nil, false, nil
	}
	if _, err := io.ReadFull(body, chunk[:n]); err != nil {
		return nil, true, err
	}
	return chunk[:n], true, nil
}

// pump sends a request's body until it ends or nobody wants it any more; with
// onDemand not before the application has asked for it.
func (s *Stream) pump(body io.Reader, onDemand bool) {
	defer close(s.pumped)
	if onDemand && !s.send.awaitDemand(s) {
		return
	}
	chunk := chunkPool.Get().(*[chunkSize]byte)
	defer chunkPool.Put(chunk)
	for idle := 0; ; {
		n, err := body.Read(chunk[:])
		if n == 0 && err == nil {
			// A reader may do this once in a while, but not for ever.
			if idle++; idle < maxEmptyReads {
				continue
			}
			err = io.ErrNoProgress
		}
		if err != nil && err != io.EOF {
			s.interrupt(bodyError(err))
			return
		}
		idle = 0
		if _, ok := s.send.sendStdin(s, chunk[:n], err == io.EOF); !ok || err == io.EOF {
			return
		}
	}
}
