package fcgi

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The ring against bytes.Buffer, over all its sizes.
func TestBufferKeepsOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var got buffer
	var want bytes.Buffer
	for i := range 20000 {
		limit := []int{100, 5000, 50000, 300000}[i/5000]
		p := make([]byte, rng.IntN(limit/10))
		if got.len()+len(p) <= limit && rng.IntN(5) < 3 {
			for j := range p {
				p[j] = byte(rng.Uint32())
			}
			got.write(p)
			want.Write(p)
		} else {
			q := make([]byte, len(p))
			n := got.read(p)
			m, _ := want.Read(q)
			if n != m || !bytes.Equal(p[:n], q[:m]) {
				t.Fatalf("step %d: read %d bytes, want %d, or other ones", i, n, m)
			}
		}
		if got.len() != want.Len() || (got.len() == 0) != (got.mem == nil) {
			t.Fatalf("step %d: %d bytes held, want %d; memory %v", i, got.len(), want.Len(), got.mem != nil)
		}
	}
}
