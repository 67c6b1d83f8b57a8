package procpool

import (
	"fmt"
	"testing"
)

// idleSession is a connection on which nothing happens.
type idleSession struct{ open chan struct{} }

func (s idleSession) Capacity() int             { return 1 }
func (s idleSession) Ahead() int                { return 31 }
func (s idleSession) CloseWrite() error         { return nil }
func (s idleSession) Close() error              { return nil }
func (s idleSession) Refusing() <-chan struct{} { return s.open }
func (s idleSession) Done() <-chan struct{}     { return s.open }

// busyPool is a pool that nothing runs, with so many workers, of which all but
// the last have a request.
func busyPool(tb testing.TB, workers int) *Pool {
	tb.Helper()
	p, err := New(Config{Attach: attachTest, Min: workers})
	if err != nil {
		tb.Fatal(err)
	}
	now := p.clk.now()
	for i := range workers {
		w := p.newWorker(p.gen, now)
		w.session, w.capacity, w.aheadMax, w.state = idleSession{make(chan struct{})}, 1, 31, Ready
		p.workers = append(p.workers, w)
		if i < workers-1 {
			p.assign(w, now)
		}
	}
	return p
}

func BenchmarkLease(b *testing.B) {
	for _, workers := range []int{2, 64} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			p := busyPool(b, workers)
			b.ReportAllocs()
			for b.Loop() {
				l, err := p.Lease(b.Context(), Normal)
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
		})
	}
}
