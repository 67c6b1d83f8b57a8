package procpool

// OnDrain has f called once when the worker begins to end, for whatever reason:
// it is being replaced or stopped, or has died. f is called in a goroutine that
// may have others to tell, so it must not wait for long; at once, when the worker
// ends already. After Release it is not called, but may be about to return. A
// second f takes the place of the first.
func (l *Lease) OnDrain(f func()) {
	p, w := l.pool, l.w
	p.mu.Lock()
	switch {
	case l.released:
		p.mu.Unlock()
		return
	case w.state >= Draining:
		p.mu.Unlock()
		f()
		return
	}
	defer p.mu.Unlock()
	if l.onDrain == nil {
		if l.next = w.draining; l.next != nil {
			l.next.previous = l
		}
		w.draining = l
	}
	l.onDrain = f
}

// forgetDrain takes l off the list of those to be told. The caller holds the
// pool's lock.
func (l *Lease) forgetDrain() {
	if l.onDrain == nil {
		return
	}
	if l.next != nil {
		l.next.previous = l.previous
	}
	if l.previous != nil {
		l.previous.next = l.next
	} else {
		l.w.draining = l.next
	}
	l.onDrain, l.previous, l.next = nil, nil, nil
}

// tellDrain tells those who want to know that w begins to end. The caller holds
// the pool's lock.
func (w *worker) tellDrain() {
	var tell []func()
	for w.draining != nil {
		tell = append(tell, w.draining.onDrain)
		w.draining.forgetDrain()
	}
	if tell == nil {
		return
	}
	go func() {
		for _, f := range tell {
			f()
		}
	}()
}
