package fcgi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatecrew/protocol"
)

// TestParamsKeepPairsWhole reads each record of a large FCGI_PARAMS stream by
// itself, as php-fpm does.
func TestParamsKeepPairsWhole(t *testing.T) {
	for _, size := range []int{1, 20, 100, 127, 128, 1000, 21840, 32761, 32762, 65529} {
		var params []protocol.Param
		total := 0
		for i := 0; total < 5*maxContent; i++ {
			p := protocol.Param{Name: fmt.Sprintf("%05d", i)[:1+i%5], Value: strings.Repeat("v", max(0, size-i%3))}
			params = append(params, p)
			total += protocol.PairSize(p.Name, p.Value)
		}
		params = slices.DeleteFunc(params, func(p protocol.Param) bool { return protocol.PairSize(p.Name, p.Value) > maxContent })
		stream := appendParams(nil, 1, params, total)
		var got []protocol.Param
		for len(stream) > 0 {
			h, err := parseHeader(stream)
			if err != nil || h.typ != typeParams {
				t.Fatalf("size %d: %+v, %v", size, h, err)
			}
			if err := protocol.EachPair(stream[headerSize:][:h.content], func(name, value []byte) {
				got = append(got, protocol.Param{Name: string(name), Value: string(value)})
			}); err != nil {
				t.Fatalf("size %d: after %d pairs: %v", size, len(got), err)
			}
			stream = stream[headerSize+h.content:]
		}
		if !slices.Equal(got, params) {
			t.Errorf("size %d: %d pairs come back, want the same %d", size, len(got), len(params))
		}
	}
}
