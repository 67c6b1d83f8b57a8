package procpool

// Priority is the class of a request that waits: who is served before whom, and
// who is refused first. Within a class it is first come, first served. It ends
// nobody's request: the one that runs runs on.
type Priority int8

const (
	// Low is served when nobody else waits, gives up its place in a full
	// queue to others, and is refused while the queue is overloaded.
	Low Priority = -1
	// Normal is the zero value.
	Normal Priority = 0
	// High is served first, has places in the queue that no other class can
	// take, and waits for as long as the queue's timeout allows even while
	// the queue is overloaded: for the few requests that tell whether the
	// application lives.
	High Priority = 1
	// Returned is for a request that had got its worker and was given back by
	// it unstarted. Its turn had come: it is served before all others, and
	// not refused for want of a place or for overload.
	Returned Priority = 2

	priorities = 4
)
