package procpool

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The packets between gateway and zygote, as WARM.md has them.

// maxWarmPacket is the largest packet, in bytes.
const maxWarmPacket = 64 << 10

// appendStart makes the packet that a zygote gets first.
func appendStart(b []byte, spares int, preload string, layer bool, modules []string) []byte {
	b = append(b, "start"...)
	if runtime.GOARCH != "s390x" { // where the arguments are in another order
		b = append(b, "\x00clone="...)
		b = strconv.AppendInt(b, unix.SYS_CLONE, 10)
	}
	b = append(b, "\x00spares="...)
	b = strconv.AppendInt(b, int64(spares), 10)
	b = append(append(b, "\x00preload="...), preload...)
	if layer {
		b = append(b, "\x00layer=1"...)
	}
	for _, name := range modules {
		b = append(append(b, "\x00module="...), name...)
	}
	return b
}

// appendRun makes the packet of one request.
func appendRun(b []byte, id uint64, argv, env []string) []byte {
	b = append(b, "run\x00"...)
	b = strconv.AppendUint(b, id, 10)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(len(argv)), 10)
	for _, arg := range argv {
		b = append(append(b, 0), arg...)
	}
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		b = append(append(b, 0), name...)
		b = append(append(b, 0), value...)
	}
	return b
}

// warmPacket is what a zygote or a child of it says.
type warmPacket struct {
	kind string
	// id is the request's that is answered, in started and failed.
	id uint64
	// pid is of the process that has the request, in started.
	pid int
	// text is the reason, in refuse and failed.
	text string
	// fields are the rest, in ready and learned.
	fields []string
}

var errWarmPacket = errors.New("it sent a packet that makes no sense")

// parseWarm reads a packet. Of an unknown kind it returns no more than that.
func parseWarm(b []byte) (p warmPacket, err error) {
	kind, rest, _ := bytes.Cut(b, []byte{0})
	switch p.kind = string(kind); p.kind {
	case "ready", "learned":
		if len(rest) > 0 {
			p.fields = strings.Split(string(rest), "\x00")
		}
	case "refuse":
		p.text = string(rest)
	case "started", "failed":
		id, last, ok := bytes.Cut(rest, []byte{0})
		if p.id, err = strconv.ParseUint(string(id), 10, 64); err != nil || !ok {
			return p, fmt.Errorf("%w: %.100q", errWarmPacket, b)
		}
		if p.kind == "failed" {
			p.text = string(last)
			break
		}
		if p.pid, err = strconv.Atoi(string(last)); err != nil || p.pid <= 1 {
			return p, fmt.Errorf("%w: %.100q", errWarmPacket, b)
		}
	}
	return p, nil
}
