package backend

import "sync/atomic"

// Interface is what the application of a pool turned out to be when its first
// worker had imported it. The zero value knows nothing yet.
type Interface struct{ found atomic.Pointer[string] }

// The names of interfaces, as in a configuration.
const (
	WSGI = "wsgi"
	ASGI = "asgi"
)

// Found notes what a worker turned out to have, and reports whether that is
// news.
func (i *Interface) Found(name string) bool {
	was := i.found.Swap(&name)
	return was == nil || *was != name
}

// String is the interface's name, "" while it is not known.
func (i *Interface) String() string {
	if name := i.found.Load(); name != nil {
		return *name
	}
	return ""
}

// Buffering says whether a pool wants request bodies to be whole before a
// worker is taken for them. The zero value leaves it to the interface.
type Buffering uint8

const (
	BufferWSGI  Buffering = iota // for WSGI, and not for ASGI
	BufferTrue                   // always
	BufferFalse                  // never, where the interface allows it
)

// Bodies says how request bodies get to an application. The zero value is what
// every application understands.
type Bodies uint8

const (
	WholeBodies Bodies = iota // read to their end before the application is asked
	SizedBodies               // handed on as they arrive if their length is known
	LiveBodies                // handed on as they arrive
)

// Sized is for an application that gets bodies of a known length as they arrive.
func Sized() Bodies { return SizedBodies }

// Bodies is how request bodies get to the pool's application at present. The
// body of the request that a pool's very first worker is started for is read to its
// end, as nobody knows then what the application is.
func (l *Local) Bodies() Bodies {
	async := l.Interface.String() == ASGI
	switch {
	case l.Buffering == BufferTrue, l.Buffering == BufferWSGI && !async:
		return WholeBodies
	case async:
		return LiveBodies
	}
	return SizedBodies
}
