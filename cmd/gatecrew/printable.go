package main

import (
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// printable is an encoder of log lines that do nothing to a terminal and are
// one line each, whatever a client or an application put into them: zap's
// console encoder writes messages as they are, and its JSON leaves DEL, the C1
// controls and the marks that turn text around.
type printable struct{ zapcore.Encoder }

// Clone implements zapcore.Encoder.
func (p printable) Clone() zapcore.Encoder { return printable{p.Encoder.Clone()} }

// EncodeEntry implements zapcore.Encoder.
func (p printable) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := p.Encoder.EncodeEntry(entry, fields)
	if err != nil {
		return nil, err
	}
	line.TrimNewline()
	if text, changed := escape(line.String()); changed {
		line.Reset()
		line.AppendString(text)
	}
	line.AppendByte('\n')
	return line, nil
}

// escape writes what is not printable as \uhhhh, which means the same within a
// JSON string, and a byte that is no UTF-8 as \xhh. Tabs stay: they separate
// the columns of a console line.
func escape(s string) (text string, changed bool) {
	var out []byte
	done := 0
	for i, size := 0, 0; i < len(s); i += size {
		var c rune
		c, size = utf8.DecodeRuneInString(s[i:])
		invalid := c == utf8.RuneError && size == 1
		if !invalid && (c == '\t' || unicode.IsPrint(c)) {
			continue
		}
		out = append(out, s[done:i]...)
		done = i + size
		switch high, low := utf16.EncodeRune(c); {
		case invalid:
			out = fmt.Appendf(out, `\x%02x`, s[i])
		case c > 0xffff:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
	}
	if done == 0 {
		return s, false
	}
	return string(append(out, s[done:]...)), true
}
