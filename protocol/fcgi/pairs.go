package fcgi

import (
	"fmt"

	"gatecrew/protocol"
)

// appendParams appends the FCGI_PARAMS stream of a request, with the empty
// record that ends it. size is the sum of the params' PairSize.
func appendParams(b []byte, id uint16, params []protocol.Param, size int) []byte {
	switch {
	case size == 0:
	case size <= maxContent: // nearly every request: encoded in place
		b = appendHeader(b, typeParams, id, size)
		b = appendPairs(b, params)
	default:
		b = appendLargeParams(b, id, params)
	}
	return appendHeader(b, typeParams, id, 0)
}

// appendLargeParams appends the records of params that don't fit into one. The
// pairs may be cut anywhere, but php-fpm reads each record by itself: only a
// pair that is larger than a record is cut.
func appendLargeParams(b []byte, id uint16, params []protocol.Param) []byte {
	content := make([]byte, 0, 2*maxContent)
	for i := range params {
		name, value := params[i].Name, params[i].Value
		if size := protocol.PairSize(name, value); len(content)+size > maxContent && size <= maxContent {
			b = appendStream(b, typeParams, id, content)
			content = content[:0]
		}
		content = protocol.AppendPair(content, name, value)
		if whole := len(content) - len(content)%maxContent; whole > 0 {
			b = appendStream(b, typeParams, id, content[:whole])
			content = append(content[:0], content[whole:]...)
		}
	}
	return appendStream(b, typeParams, id, content)
}

func appendPairs(b []byte, params []protocol.Param) []byte {
	for i := range params {
		b = protocol.AppendPair(b, params[i].Name, params[i].Value)
	}
	return b
}

// paramsSize is the length of the encoded parameters, or an error when one of
// them can't be encoded.
func paramsSize(params []protocol.Param) (int, error) {
	size := 0
	for i := range params {
		if name, value := params[i].Name, params[i].Value; len(name) > maxWindow || len(value) > maxWindow {
			return 0, fmt.Errorf("fcgi: parameter %.40q: longer than %d bytes", name, maxWindow)
		}
		size += protocol.PairSize(params[i].Name, params[i].Value)
	}
	return size, nil
}
