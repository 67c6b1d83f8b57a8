package config

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written 64k, 10m or 1g (powers of 1024).
type Size int64

var sizeUnits = []struct {
	letter string
	bytes  Size
}{{"t", 1 << 40}, {"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}}

// UnmarshalText reads a size as it is written in a file.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := strings.ToLower(string(text)), Size(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.letter); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return badValue("a size", string(text), "write a number of bytes, or 64k, 10m, 1g")
	}
	*s = Size(n) * unit
	return nil
}

// String writes a size in the largest unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.letter
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes a size as it is read.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Switch is true, false, or auto, which leaves it to what else is known. The
// zero value is auto.
type Switch uint8

const (
	Auto Switch = iota
	True
	False
)

var switchNames = [...]string{Auto: "auto", True: "true", False: "false"}

// UnmarshalText reads true, false or auto.
func (s *Switch) UnmarshalText(text []byte) error {
	i := slices.Index(switchNames[:], string(text))
	if i < 0 {
		return badValue("true, false or auto", string(text), "")
	}
	*s = Switch(i)
	return nil
}

// String writes a switch as it is read.
func (s Switch) String() string { return switchNames[s] }

// MarshalYAML writes true and false as YAML's own.
func (s Switch) MarshalYAML() (any, error) {
	if s == Auto {
		return s.String(), nil
	}
	return s == True, nil
}

// Workers is how many processes a pool has.
type Workers struct {
	// Min and Max are the same for a fixed number; Max is at least 1.
	Min, Max int
	// Reason is why auto means these numbers, empty when they were written.
	Reason string

	auto bool // to be chosen when all else of the pool is known
}

// UnmarshalText reads N, MIN:MAX or auto.
func (w *Workers) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*w = Workers{Max: 1, auto: true}
		return nil
	}
	low, high, ranged := strings.Cut(string(text), ":")
	if !ranged {
		high = low
	}
	lo, err1 := strconv.Atoi(low)
	hi, err2 := strconv.Atoi(high)
	switch {
	case err1 != nil || err2 != nil:
		return badValue("a number of workers", string(text), "write a number, MIN:MAX or auto")
	case hi < 1 || lo < 0:
		return fault("a pool needs at least one worker", "0:MAX has none while there are no requests")
	case lo > hi:
		return fault(fmt.Sprintf("the least number of workers, %d, is more than the greatest, %d", lo, hi), "write MIN:MAX")
	}
	*w = Workers{Min: lo, Max: hi}
	return nil
}

// String writes N or MIN:MAX.
func (w Workers) String() string {
	if w.Min == w.Max {
		return strconv.Itoa(w.Min)
	}
	return fmt.Sprintf("%d:%d", w.Min, w.Max)
}

// MarshalText writes a number of workers as it is read.
func (w Workers) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Address is a place to listen on or to connect to.
type Address struct {
	// Network is tcp, unix, or fd for a descriptor that was inherited.
	Network string
	// Address is HOST:PORT (an empty host is every address of the machine),
	// the path of a socket, or the number of the descriptor.
	Address string
}

// UnmarshalText reads HOST:PORT, :PORT, unix:PATH or fd://N.
func (a *Address) UnmarshalText(text []byte) error {
	s := string(text)
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// unix:///run/x.sock is the same path as unix:/run/x.sock.
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest
		}
		if path == "" {
			return badValue("an address", s, "write unix:PATH")
		}
		*a = Address{"unix", path}
		return nil
	}
	if number, ok := strings.CutPrefix(s, "fd://"); ok {
		if n, err := strconv.Atoi(number); err != nil || n < 3 {
			return badValue("a descriptor", s, "write fd://3 or higher: 0 to 2 are the standard streams")
		}
		*a = Address{"fd", number}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return badValue("an address", s, "write HOST:PORT, :PORT or unix:PATH, with brackets around an IPv6 host")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > math.MaxUint16 {
		return badValue("a port", port, "a port is a number from 0 to 65535")
	}
	if strings.ContainsAny(host, "/ @") {
		return badValue("a host", host, "write HOST:PORT without a scheme or a path")
	}
	*a = Address{"tcp", s}
	return nil
}

// String writes an address as it is read.
func (a Address) String() string {
	switch a.Network {
	case "unix":
		return "unix:" + a.Address
	case "fd":
		return "fd://" + a.Address
	}
	return a.Address
}

// MarshalText writes an address as it is read.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Endpoint is an address that clients connect to, and what they speak there.
type Endpoint struct {
	// Scheme is https for TLS, else http.
	Scheme string
	Address
}

// UnmarshalText reads an address that may begin with http:// or https://; that of
// a socket or a descriptor begins with https+unix: or https+fd:// for TLS.
func (e *Endpoint) UnmarshalText(text []byte) error {
	s := string(text)
	for _, scheme := range []string{"https", "http"} {
		rest, tcp := strings.CutPrefix(s, scheme+"://")
		if !tcp {
			var ok bool
			if rest, ok = strings.CutPrefix(s, scheme+"+"); !ok {
				continue
			}
		}
		if err := e.Address.UnmarshalText([]byte(strings.TrimSuffix(rest, "/"))); err != nil {
			return err
		}
		if tcp != (e.Network == "tcp") {
			return badValue("an address", s, "write https://HOST:PORT, https+unix:PATH or https+fd://N")
		}
		e.Scheme = scheme
		return nil
	}
	e.Scheme = "" // which of the two depends on the rest of the configuration
	return e.Address.UnmarshalText(text)
}

// String writes an endpoint as it is read.
func (e Endpoint) String() string {
	switch {
	case e.Scheme != "https":
		return e.Address.String()
	case e.Network == "tcp":
		return "https://" + e.Address.String()
	}
	return "https+" + e.Address.String()
}

// MarshalText writes an endpoint as it is read.
func (e Endpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// parseDuration reads 500ms, 10s, 5m or 1h30m; a bare number is seconds.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if _, bare := strconv.ParseFloat(text, 64); bare == nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return 0, badValue("a duration", text, "write a number of seconds, or 500ms, 10s, 5m, 1h")
	}
	return d, nil
}

// formatDuration writes a duration as it is read, without the zero parts that
// time.Duration writes.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// setText gives a scalar the value that was written. The error is a *Fault
// without a place.
func setText(v reflect.Value, text string) error {
	if strings.ContainsRune(text, 0) {
		return fault("the value has a NUL character in it", "")
	}
	switch p := v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case *time.Duration:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		*p = d
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return badValue("a number", text, "write a whole number, 0 or more")
		}
		*p = n
	case *float64:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
			return badValue("a number", text, "write a number, 0 or more, such as 1.5")
		}
		*p = n
	case *bool:
		if text != "true" && text != "false" {
			return badValue("true or false", text, "")
		}
		*p = text == "true"
	}
	return nil
}

// fault is an error without a place; who reads the value knows the place.
func fault(message, hint string) error { return &Fault{Message: message, Hint: hint} }

func badValue(what, text, hint string) error {
	return fault(fmt.Sprintf("%q is not %s", text, what), hint)
}

// at puts an error at a place.
func at(err error, where position, path string) Fault {
	var f *Fault
	if !errors.As(err, &f) {
		f = &Fault{Message: err.Error()}
	}
	placed := *f
	placed.File, placed.Line, placed.Column, placed.Path = where.file, where.line, where.column, path
	return placed
}
