package fcgi

import (
	"errors"

	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// What an answer may have beside head and body: PROTOCOL.md, section 9.

// File implements protocol.Extended. It gives the file away: the second call
// returns nil.
func (s *Stream) File() *protocol.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.file
	s.file = nil
	return f
}

// Trailers implements protocol.Extended. Fields that may not be sent as
// trailers are not among them.
func (s *Stream) Trailers() []protocol.Param {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trailers
}

func (s *Stream) dropFileLocked() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// append takes the content of a FILE record, or why it can't be had. It returns
// an error when the application broke the protocol.
func (s *Stream) append(f *protocol.File, bad *protocol.Error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bad != nil {
		s.spoilt = bad
	}
	if f != nil && (s.appended || s.trailed || s.closed || s.over) {
		_ = f.Close()
		f = nil
	}
	if s.appended || s.trailed {
		return violation{errors.New("fcgi: file: a second one, or one after the trailers")}
	}
	s.appended, s.file = true, f
	return nil
}

// trail takes the content of a TRAILERS record.
func (s *Stream) trail(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trailed {
		return errors.New("fcgi: trailers: a second time")
	}
	s.trailed = true
	trailers, err := cgi.ParseTrailers(p)
	if err != nil {
		s.spoilt = err
	}
	s.trailers = trailers
	return nil
}
