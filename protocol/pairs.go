package protocol

import (
	"encoding/binary"
	"errors"
)

// ErrPairs is the error of EachPair.
var ErrPairs = errors.New("fcgi: name-value pairs: truncated")

// PairSize is the number of bytes that AppendPair adds.
func PairSize(name, value string) int {
	return lengthSize(len(name)) + lengthSize(len(value)) + len(name) + len(value)
}

func lengthSize(n int) int {
	if n < 128 {
		return 1
	}
	return 4
}

// AppendPair appends one name-value pair as FastCGI encodes it (FastCGI 1.0,
// section 3.4; fcgi/PROTOCOL.md, section 2). Neither part may be longer than
// 2147483647 bytes.
func AppendPair(b []byte, name, value string) []byte {
	if len(name)|len(value) < 128 {
		b = append(b, byte(len(name)), byte(len(value)))
	} else {
		b = appendLength(b, len(name))
		b = appendLength(b, len(value))
	}
	b = append(b, name...)
	return append(b, value...)
}

func appendLength(b []byte, n int) []byte {
	if n < 128 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}

// EachPair calls visit for each pair of b, with slices of b. Nothing is
// allocated, so that a length which lies costs nothing; it ends with ErrPairs.
func EachPair(b []byte, visit func(name, value []byte)) error {
	for len(b) > 0 {
		n, rest, ok := cutLength(b)
		if !ok {
			return ErrPairs
		}
		v, rest, ok := cutLength(rest)
		if !ok || len(rest) < n || len(rest)-n < v {
			return ErrPairs
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
