package procpool

import (
	"sync"
	"time"
)

// youth is how long a process may go unattended: twice that at most, once at
// least.
const youth = 5 * time.Millisecond

// nursery has the processes that nobody attends yet. One goroutine goes round as
// long as there are any: a timer for each would cost more than all else that a
// short-lived one needs here. It reaps orphans, too: meanwhile no signal tells of
// them.
var nursery youngProcesses

type youngProcesses struct {
	mu          sync.Mutex
	fresh, seen []*Process // since the last round, and before that
	afoot       bool
}

func (n *youngProcesses) add(p *Process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fresh = append(n.fresh, p)
	if !n.afoot {
		n.afoot = true
		children.hush()
		go n.walk()
	}
}

func (n *youngProcesses) walk() {
	ticker := time.NewTicker(youth)
	defer ticker.Stop()
	for range ticker.C {
		old, more := n.round()
		for _, p := range old {
			p.attendNow(young)
		}
		children.reapOrphans()
		if !more {
			return
		}
	}
}

// round returns the processes that are not young any more, until the next round,
// and whether there will be one.
func (n *youngProcesses) round() (old []*Process, more bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old = n.seen
	n.seen, n.fresh = n.fresh, nil
	if n.afoot = len(n.seen) > 0; !n.afoot {
		children.unhush()
	}
	return old, n.afoot
}
