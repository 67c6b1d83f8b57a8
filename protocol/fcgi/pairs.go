package fcgi

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gatecrew/protocol"
)

var errPairsTruncated = errors.New("fcgi: name-value pairs: truncated")

// pairSize is the number of bytes that appendPair adds.
func pairSize(name, value string) int {
	return lengthSize(len(name)) + lengthSize(len(value)) + len(name) + len(value)
}

func lengthSize(n int) int {
	if n < 128 {
		return 1
	}
	return 4
}

// appendPair appends one name-value pair (PROTOCOL.md, section 2). Neither
// part is longer than maxWindow bytes.
func appendPair(b []byte, name, value string) []byte {
	b = appendLength(b, len(name))
	b = appendLength(b, len(value))
	b = append(b, name...)
	return append(b, value...)
}

func appendLength(b []byte, n int) []byte {
	if n < 128 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}

// appendParams appends the FCGI_PARAMS stream of a request, with the empty
// record that ends it. size is the sum of the params' pairSize.
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
		if size := pairSize(name, value); len(content)+size > maxContent && size <= maxContent {
			b = appendStream(b, typeParams, id, content)
			content = content[:0]
		}
		content = appendPair(content, name, value)
		if whole := len(content) - len(content)%maxContent; whole > 0 {
			b = appendStream(b, typeParams, id, content[:whole])
			content = append(content[:0], content[whole:]...)
		}
	}
	return appendStream(b, typeParams, id, content)
}

func appendPairs(b []byte, params []protocol.Param) []byte {
	for i := range params {
		b = appendPair(b, params[i].Name, params[i].Value)
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
		size += pairSize(params[i].Name, params[i].Value)
	}
	return size, nil
}

// decodePairs calls visit for each pair of b, with slices of b. Nothing is
// allocated, so that a length which lies costs nothing.
func decodePairs(b []byte, visit func(name, value []byte)) error {
	for len(b) > 0 {
		n, rest, ok := cutLength(b)
		if !ok {
			return errPairsTruncated
		}
		v, rest, ok := cutLength(rest)
		if !ok || len(rest) < n || len(rest)-n < v {
			return errPairsTruncated
		}
		visit(rest[:n], rest[n:n+v])
		b = rest[n+v:]
	}
	return nil
}

func cutLength(b []byte) (n int, rest []byte, ok bool) {
	switch {
	case len(b) == 0:
		return 0, nil, false
	case b[0] < 128:
		return int(b[0]), b[1:], true
	case len(b) < 4:
		return 0, nil, false
	}
	return int(binary.BigEndian.Uint32(b) &^ (1 << 31)), b[4:], true
}
