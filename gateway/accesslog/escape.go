package accesslog

import (
	"unicode"
	"unicode/utf8"
)

const (
	// maxField cuts one field of a line; a header may be a megabyte long.
	maxField = 8 << 10
	// cutMark stands at the end of a field that was cut.
	cutMark = "..."
)

const lowerHex = "0123456789abcdef"

// cut shortens s to maxField, between two characters when it is UTF-8.
func cut(s string) (head string, isCut bool) {
	if len(s) <= maxField {
		return s, false
	}
	n := maxField
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			n = i
			break
		}
	}
	return s[:n], true
}

// appendLogItem escapes s as Apache's ap_escape_logitem does: a backslash
// before quotes and backslashes, C escapes for the usual control characters,
// \xhh for every other byte that is not printable ASCII.
func appendLogItem(b []byte, s string) []byte {
	s, isCut := cut(s)
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\v':
			b = append(b, `\v`...)
		default:
			b = append(b, '\\', 'x', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	b = append(b, s[from:]...)
	if isCut {
		b = append(b, cutMark...)
	}
	return b
}

// appendJSONString escapes s as the inside of a JSON string (RFC 8259,
// section 7). Characters that are not printable are written as \u escapes
// although JSON would allow some of them as they are: a terminal obeys C1
// controls and bidirectional marks too. A byte that is not UTF-8 becomes
// U+FFFD, as in encoding/json.
func appendJSONString(b []byte, s string) []byte {
	s, isCut := cut(s)
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if (r != utf8.RuneError || size > 1) && unicode.IsPrint(r) {
				i += size
				continue
			}
		}
		b = append(b, s[from:i]...)
		i += size
		from = i
		switch r {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = appendUnicode(b, r)
		}
	}
	b = append(b, s[from:]...)
	if isCut {
		b = append(b, cutMark...)
	}
	return b
}

// appendUnicode appends r as \uhhhh, as two of them above the basic plane.
func appendUnicode(b []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		b = appendUnicode(b, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(b, '\\', 'u', lowerHex[r>>12&15], lowerHex[r>>8&15], lowerHex[r>>4&15], lowerHex[r&15])
}
