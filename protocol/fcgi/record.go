package fcgi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// recordType is the second byte of a record (PROTOCOL.md, section 1).
type recordType uint8

const (
	typeBeginRequest    recordType = 1
	typeAbortRequest    recordType = 2
	typeEndRequest      recordType = 3
	typeParams          recordType = 4
	typeStdin           recordType = 5
	typeStdout          recordType = 6
	typeStderr          recordType = 7
	typeGetValues       recordType = 9
	typeGetValuesResult recordType = 10
	typeCredit          recordType = 128
	typeBegun           recordType = 129
	typeFile            recordType = 130
	typeTrailers        recordType = 131
)

// protocolStatus is the fifth content byte of END_REQUEST (FastCGI 1.0,
// section 5.5).
type protocolStatus uint8

const (
	statusComplete   protocolStatus = 0
	statusCantMpx    protocolStatus = 1
	statusOverloaded protocolStatus = 2
)

const (
	version    = 1
	headerSize = 8
	maxContent = 65535 // bytes of content in one record
	maxWindow  = 1<<31 - 1
	flagKeep   = 1 // FCGI_KEEP_CONN

	endSize    = 8  // content of END_REQUEST
	creditSize = 4  // content of GATECREW_CREDIT
	begunSize  = 4  // content of GATECREW_BEGUN
	fileSize   = 16 // content of GATECREW_FILE

	maxTrailers = 32 << 10 // content of GATECREW_TRAILERS; not more than readSize
)

var errVersion = errors.New("fcgi: record header: version is not 1")

// header is the fixed part of a record, without the version.
type header struct {
	typ     recordType
	id      uint16
	content int // bytes
	padding int // bytes
}

// parseHeader reads the header that b, of at least headerSize bytes, begins
// with.
func parseHeader(b []byte) (header, error) {
	_ = b[headerSize-1]
	if b[0] != version {
		return header{}, errVersion
	}
	return header{
		typ:     recordType(b[1]),
		id:      binary.BigEndian.Uint16(b[2:]),
		content: int(binary.BigEndian.Uint16(b[4:])),
		padding: int(b[6]),
	}, nil
}

// appendHeader appends the header of a record without padding. content is at
// most maxContent.
func appendHeader(b []byte, typ recordType, id uint16, content int) []byte {
	return append(b, version, byte(typ), byte(id>>8), byte(id), byte(content>>8), byte(content), 0, 0)
}

// appendStream appends content as records of a stream, as few as will hold
// it: none when it is empty, since an empty record is the stream's end.
func appendStream(b []byte, typ recordType, id uint16, content []byte) []byte {
	for len(content) > 0 {
		n := min(len(content), maxContent)
		b = appendHeader(b, typ, id, n)
		b = append(b, content[:n]...)
		content = content[n:]
	}
	return b
}

// appendBegin appends a BEGIN_REQUEST that asks to keep the connection.
func appendBegin(b []byte, id, role uint16) []byte {
	b = appendHeader(b, typeBeginRequest, id, 8)
	return append(b, byte(role>>8), byte(role), flagKeep, 0, 0, 0, 0, 0)
}

// appendCredit appends a grant of increment bytes, 1 to maxWindow.
func appendCredit(b []byte, id uint16, increment int) []byte {
	b = appendHeader(b, typeCredit, id, creditSize)
	return binary.BigEndian.AppendUint32(b, uint32(increment))
}

// parseCredit reads the content of a GATECREW_CREDIT record, creditSize bytes.
func parseCredit(b []byte) (int, error) {
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > maxWindow {
		return 0, fmt.Errorf("fcgi: credit: increment %d is not in 1-%d", n, maxWindow)
	}
	return int(n), nil
}

// parseEnd reads the content of an END_REQUEST record, endSize bytes. Workers of
// our own tell in its reserved bytes how long they have worked; 0 says nothing.
func parseEnd(b []byte) (appStatus uint32, status protocolStatus, worked time.Duration) {
	last := binary.BigEndian.Uint32(b[4:])
	return binary.BigEndian.Uint32(b), protocolStatus(last >> 24), time.Duration(last&0xFFFFFF) * time.Microsecond
}

// parseBegun reads the content of a GATECREW_BEGUN record, begunSize bytes.
func parseBegun(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// parseFile reads the content of a GATECREW_FILE record, fileSize bytes.
func parseFile(b []byte) (offset, length uint64) {
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}
