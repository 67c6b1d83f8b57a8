package backend

import "gatecrew/protocol"

// File implements protocol.Extended, for an exchange that does.
func (w *watch) File() *protocol.File {
	if x, ok := w.Exchange.(protocol.Extended); ok {
		return x.File()
	}
	return nil
}

// Trailers implements protocol.Extended, for an exchange that does.
func (w *watch) Trailers() []protocol.Param {
	if x, ok := w.Exchange.(protocol.Extended); ok {
		return x.Trailers()
	}
	return nil
}
