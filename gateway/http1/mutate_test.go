package http1

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"gatecrew/protocol/cgi"
)

// generator makes streams of requests out of the corpus. The same seed makes the
// same ones.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 0))} }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

// plainLines and plainTargets are those that a plain request may have.
var (
	plainLines   = filter(fieldLines, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n")
	plainTargets = filter(targets, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n")
)

func filter(all []string, format string) (kept []string) {
	for _, s := range all {
		var p cgi.Plain
		if _, v := parse(fmt.Appendf(nil, format, s), &p, 100); v == plain {
			kept = append(kept, s)
		}
	}
	return kept
}

// stream is what one client sends.
func (g generator) stream() []byte {
	var b []byte
	for range 1 + g.IntN(4)/2 {
		if g.IntN(2) == 0 {
			b = append(b, g.written()...)
		} else {
			b = append(b, pick(g, clients)...)
		}
	}
	for range g.IntN(3) {
		b = g.mutate(b)
	}
	if len(b) > 64<<10 {
		b = b[:64<<10]
	}
	return b
}

// written is a request of parts that are, mostly, what they should be.
func (g generator) written() []byte {
	method, target, version := pick(g, methodWords[:7]), pick(g, plainTargets), "HTTP/1.1"
	if g.IntN(8) == 0 {
		target = pick(g, targets)
	}
	if g.IntN(16) == 0 {
		method = pick(g, methodWords)
	}
	if g.IntN(16) == 0 {
		version = pick(g, versionWords)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", method, target, version)
	count := 1 + g.IntN(6)
	host := g.IntN(count)
	for i := range count {
		if i == host {
			b.WriteString("Host: www.example\r\n")
		} else {
			from := plainLines
			if g.IntN(16) == 0 {
				from = fieldLines
			}
			b.WriteString(pick(g, from) + "\r\n")
		}
	}
	body := strings.Repeat("b", g.IntN(40))
	switch g.IntN(12) {
	case 0:
		body = strings.Repeat("0123456789abcdef", g.IntN(2200))
	case 1, 2, 3, 4, 5:
		body = ""
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// mutate changes one thing.
func (g generator) mutate(b []byte) []byte {
	if len(b) == 0 {
		return b
	}
	at := g.IntN(len(b))
	switch g.IntN(16) {
	case 0: // one bit
		b = bytes.Clone(b)
		b[at] ^= 1 << g.IntN(8)
		return b
	case 1: // any byte
		b = bytes.Clone(b)
		b[at] = byte(g.IntN(256))
		return b
	case 2:
		return splice(b, at, at, []byte{byte(g.IntN(256))})
	case 3:
		return splice(b, at, min(len(b), at+1+g.IntN(4)), nil)
	case 4:
		return splice(b, at, at, []byte(pick(g, splices)))
	case 5: // a byte of any kind in the first line
		end := max(1, bytes.IndexByte(b, '\n'))
		at = g.IntN(end)
		return splice(b, at, at+g.IntN(2), []byte{byte(g.IntN(256))})
	case 6:
		return b[:at]
	case 7: // all of it, once more
		return append(bytes.Clone(b), b...)
	case 8, 9, 10:
		return g.mutateLine(b)
	case 11: // many fields
		many := []byte{}
		for i := range g.IntN(120) {
			many = fmt.Appendf(many, "X-%d: %d\r\n", i, i)
		}
		return insertLine(b, g, string(many))
	case 12: // the line ends of others
		if g.IntN(4) == 0 {
			return bytes.ReplaceAll(b, []byte("\r\n"), []byte(pick(g, []string{"\n", "\r", "\r\r\n", "\n\r"})))
		}
		return bytes.Replace(b, []byte("\r\n"), []byte(pick(g, []string{"\n", "\r", "\r\r\n", "\n\r", "\r\n "})), 1+g.IntN(3))
	case 13: // line ends before, or between
		return append([]byte(strings.Repeat(pick(g, []string{"\r\n", "\n", "\r"}), 1+g.IntN(5))), b...)
	case 14: // behind the end of a body, where there are any
		return append(bytes.Clone(b), strings.Repeat(pick(g, []string{"\r\n", "\n", "\r", "\n\r"}), g.IntN(5))+pick(g, clients)...)
	default:
		return insertLine(b, g, pick(g, fieldLines)+"\r\n")
	}
}

// mutateLine changes one line as a whole.
func (g generator) mutateLine(b []byte) []byte {
	all := bytes.SplitAfter(b, []byte("\n"))
	i := g.IntN(len(all))
	line := all[i]
	switch g.IntN(7) {
	case 0:
		all[i] = append(bytes.Clone(line), line...)
	case 1:
		all[i] = nil
	case 2:
		j := g.IntN(len(all))
		all[i], all[j] = all[j], all[i]
	case 3:
		all[i] = bytes.ToUpper(line)
	case 4:
		all[i] = bytes.ToLower(line)
	case 5: // a name's case, a piece of white space
		name, value, ok := bytes.Cut(line, []byte(":"))
		if ok {
			all[i] = append(append(bytes.ToLower(name), pick(g, []string{":", ": ", ":\t", ":  ", " :", "\t:", ": \t "})...), bytes.TrimLeft(value, " ")...)
		}
	case 6:
		words := bytes.SplitN(line, []byte(" "), 3)
		if len(words) == 3 {
			words[g.IntN(3)] = []byte(pick(g, []string{pick(g, targets), pick(g, methodWords), pick(g, versionWords) + "\r\n"}))
			all[i] = bytes.Join(words, []byte(pick(g, []string{" ", " ", " ", "  ", "\t"})))
		}
	}
	return bytes.Join(all, nil)
}

// insertLine inserts before the empty line of a head, or at any other line.
func insertLine(b []byte, g generator, line string) []byte {
	var ends []int
	for i := range b {
		if b[i] == '\n' {
			ends = append(ends, i+1)
		}
	}
	if len(ends) == 0 {
		return splice(b, len(b), len(b), []byte(line))
	}
	at := pick(g, ends)
	return splice(b, at, at, []byte(line))
}

func splice(b []byte, from, to int, with []byte) []byte {
	out := make([]byte, 0, len(b)+len(with))
	out = append(out, b[:from]...)
	out = append(out, with...)
	return append(out, b[to:]...)
}
