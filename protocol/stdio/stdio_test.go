package stdio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"gatecrew/protocol"
)

type message struct {
	kind    protocol.MessageKind
	content string
}

func framed(messages ...message) (b []byte) {
	for _, m := range messages {
		b = append(protocol.AppendMessage(b, m.kind, len(m.content)), m.content...)
	}
	return b
}

// parse takes framed messages apart; the last may lack its end.
func parse(t testing.TB, b []byte) (messages []message, cut bool) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < protocol.MessageHeader {
			t.Fatalf("half a header: %q", b)
		}
		kind, length, ok := protocol.ParseMessage(b)
		if !ok {
			t.Fatalf("kind %d", kind)
		}
		b = b[protocol.MessageHeader:]
		if length > len(b) {
			return append(messages, message{kind, string(b)}), true
		}
		messages = append(messages, message{kind, string(b[:length])})
		b = b[length:]
	}
	return messages, false
}

// through feeds pieces and reads with a buffer of so many bytes.
func through(o *Output, buffer int, pieces ...string) (out []byte, err error) {
	p := make([]byte, buffer)
	for _, piece := range pieces {
		err = o.Feed([]byte(piece))
		for o.Pending() {
			out = append(out, p[:o.Read(p)]...)
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func texts(lines ...string) (m []message) {
	for _, l := range lines {
		m = append(m, message{protocol.Text, l})
	}
	return m
}

func TestLinesOut(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []string
		want   []message
		err    error
	}{
		{"lines", []string{"a\nbc\n\n"}, texts("a", "bc", ""), nil},
		{"in pieces", []string{"a", "b", "", "c\nd", "\n"}, texts("abc", "d"), nil},
		{"carriage returns", []string{"a\r\nb\rc\r", "\n\r\r\n"}, texts("a", "b\rc", "\r"), nil},
		{"no end yet", []string{"a\nb"}, texts("a"), nil},
		{"not UTF-8", []string{"a\xffb\n\xe2\x82", "\n\xe2\x82\xac\n"}, texts("a\uFFFDb", "\uFFFD", "€"), nil},
		{"a character in pieces", []string{"\xe2", "\x82", "\xac\n"}, texts("€"), nil},
		{"the longest", []string{strings.Repeat("x", 10) + "\r\n"}, texts(strings.Repeat("x", 10)), nil},
		{"too long", []string{"a\n" + strings.Repeat("x", 11) + "\n"}, texts("a"), ErrTooLong},
		{"too long without an end", []string{"a\n", strings.Repeat("x", 6), strings.Repeat("x", 6)}, texts("a"), ErrTooLong},
		{"too long by replacement", []string{strings.Repeat("\xffx", 5) + "\n"}, nil, ErrTooLong},
	} {
		for _, buffer := range []int{1, 3, 100} {
			o := NewOutput(Lines, 10)
			out, err := through(&o, buffer, c.pieces...)
			if got, cut := parse(t, out); !slices.Equal(got, c.want) || cut || !errors.Is(err, c.err) {
				t.Errorf("%s: %q (cut: %v), %v", c.name, got, cut, err)
			}
		}
	}
}

func TestLengthsOut(t *testing.T) {
	o := NewOutput(Lengths, 10)
	out, err := through(&o, 3, "\x00\x00\x00\x02ab\x00\x00\x00\x00", "\x00", "\x00\x00", "\x05he", "llo\x00")
	want := []message{{protocol.Binary, "ab"}, {protocol.Binary, ""}, {protocol.Binary, "hello"}}
	if got, cut := parse(t, out); !slices.Equal(got, want) || cut || err != nil {
		t.Errorf("%q (cut: %v), %v", got, cut, err)
	}
	if err := o.End(true); !errors.Is(err, ErrCut) {
		t.Errorf("an end inside of a length: %v", err)
	}

	o = NewOutput(Lengths, 10)
	out, _ = through(&o, 100, "\x00\x00\x00\x05he")
	if got, cut := parse(t, out); !cut || !slices.Equal(got, []message{{protocol.Binary, "he"}}) || !o.Inside() {
		t.Errorf("a message under way is not handed on: %q (cut: %v)", got, cut)
	}
	if err := o.End(false); !errors.Is(err, ErrCut) {
		t.Errorf("an end inside of a message: %v", err)
	}

	o = NewOutput(Lengths, 10)
	if out, err := through(&o, 100, "hello\n"); !errors.Is(err, ErrTooLong) || !strings.Contains(err.Error(), `"hell"`) || len(out) > 0 {
		t.Errorf("text: %q, %v", out, err)
	}
}

func TestStreamOut(t *testing.T) {
	o := NewOutput(Stream, 10)
	out, err := through(&o, 3, "a\n", "", "\xff\x00")
	if got, cut := parse(t, out); !slices.Equal(got, []message{{protocol.Binary, "a\n"}, {protocol.Binary, "\xff\x00"}}) || cut || err != nil {
		t.Errorf("%q (cut: %v), %v", got, cut, err)
	}
	if err := o.End(true); err != nil {
		t.Error(err)
	}
}

// The last line counts without its end only when the program meant to end there.
func TestLastLine(t *testing.T) {
	for _, peaceful := range []bool{true, false} {
		o := NewOutput(Lines, 10)
		_, _ = through(&o, 9, "a\nlast")
		if err := o.End(peaceful); err != nil {
			t.Error(err)
		}
		o.Close(1000, "bye")
		out, _ := through(&o, 9, "")
		want := []message{{protocol.Close, "\x03\xe8bye"}}
		if peaceful {
			want = append(texts("last"), want...)
		}
		if got, _ := parse(t, out); !slices.Equal(got, want) {
			t.Errorf("peaceful %v: %q", peaceful, got)
		}
	}
}

// A long line is not kept once it was read, and a silent program holds nothing.
func TestOutputReleases(t *testing.T) {
	o := NewOutput(Lines, 1<<20)
	_, _ = through(&o, 1<<16, strings.Repeat("x", 1<<20), "\na")
	_, _ = through(&o, 1<<16, "b")
	if cap(o.buf) > keep {
		t.Errorf("%d bytes are kept", cap(o.buf))
	}
	o.Release()
	if out, _ := through(&o, 100, "c\n"); !bytes.Equal(out, framed(texts("abc")...)) {
		t.Errorf("Release has lost the begun line: %q", out)
	}
	o.Release()
	if o.buf != nil {
		t.Errorf("%d bytes are kept", cap(o.buf))
	}
}

func TestInput(t *testing.T) {
	text, bin := message{protocol.Text, "a\nb"}, message{protocol.Binary, "\x00\xff"}
	for _, c := range []struct {
		framing  Framing
		messages []byte
		want     string
		err      error
	}{
		{Lines, framed(text, message{protocol.Text, ""}, message{protocol.Text, "c"}), "a\nb\n\nc\n", nil},
		{Lines, framed(text, bin, text), "a\nb\n", ErrBinary},
		{Lengths, framed(text, bin, message{protocol.Binary, ""}), "\x00\x00\x00\x03a\nb\x00\x00\x00\x02\x00\xff\x00\x00\x00\x00", nil},
		{Stream, framed(text, bin), "a\nb\x00\xff", nil},
	} {
		for size := 1; size < len(c.messages)+1; size++ {
			in := NewInput(c.framing)
			var got []byte
			var err error
			for piece := range slices.Chunk(c.messages, size) {
				if got, err = in.Append(got, piece); err != nil {
					break
				}
			}
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("framing %d in pieces of %d: %q, %v", c.framing, size, got, err)
			}
		}
	}
	for _, bad := range []string{"\x08\x00\x00\x00\x00", "\x00\x00\x00\x00\x00", "\x03\x00\x00\x00\x00"} {
		in := NewInput(Stream)
		if out, err := in.Append(nil, []byte(bad)); err == nil || len(out) > 0 {
			t.Errorf("%q: %q, %v", bad, out, err)
		}
	}
}

// FuzzOutput: however a program's output is cut, the messages are those of the
// whole, each is well formed, and no more is held than there may be.
func FuzzOutput(f *testing.F) {
	f.Add(byte(Lines), []byte("a\r\nb\xff\nccc"), byte(1))
	f.Add(byte(Lengths), []byte("\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x01"), byte(3))
	f.Add(byte(Stream), []byte("\x00a"), byte(1))
	f.Fuzz(func(t *testing.T, framing byte, data []byte, size byte) {
		const most = 16
		how := Framing(framing%3) + Lines
		read := func(size int) ([]message, bool, error) {
			o := NewOutput(how, most)
			var out []byte
			var err error
			for piece := range slices.Chunk(data, size) {
				var got []byte
				got, err = through(&o, 1+size%7, string(piece))
				out = append(out, got...)
				if held := len(o.buf) - o.given; held > protocol.MessageHeader+most+1 {
					t.Fatalf("%d bytes are held", held)
				}
				if err != nil {
					break
				}
			}
			messages, cut := parse(t, out)
			if cut != o.Inside() {
				t.Fatalf("cut: %v, Inside: %v", cut, o.Inside())
			}
			return messages, cut, err
		}
		whole, _, err := read(max(1, len(data)))
		pieces, _, pieceErr := read(int(size%32) + 1)
		if (err == nil) != (pieceErr == nil) {
			t.Fatalf("%v as a whole, %v in pieces", err, pieceErr)
		}
		if how == Stream {
			whole, pieces = joined(whole), joined(pieces)
		}
		if !slices.Equal(whole, pieces) {
			t.Fatalf("%q as a whole, %q in pieces", whole, pieces)
		}
		for _, m := range whole {
			if how == Lines && (m.kind != protocol.Text || !utf8.ValidString(m.content) || strings.Contains(m.content, "\n")) || how != Stream && len(m.content) > most {
				t.Fatalf("%v", m)
			}
		}
	})
}

func joined(messages []message) []message {
	all := message{kind: protocol.Binary}
	for _, m := range messages {
		all.content += m.content
	}
	return []message{all}
}

// FuzzInput: what a program reads doesn't depend on how messages are cut, and
// with lengths the messages can be told apart again.
func FuzzInput(f *testing.F) {
	f.Add(byte(Lines), framed(texts("a", "")...), byte(2))
	f.Add(byte(Lengths), framed(message{protocol.Binary, "\x00"}), byte(1))
	f.Fuzz(func(t *testing.T, framing byte, data []byte, size byte) {
		how := Framing(framing%3) + Lines
		encode := func(size int) (out []byte, err error) {
			in := NewInput(how)
			for piece := range slices.Chunk(data, size) {
				if out, err = in.Append(out, piece); err != nil {
					return out, err
				}
			}
			return out, nil
		}
		whole, err := encode(max(1, len(data)))
		pieces, pieceErr := encode(int(size%32) + 1)
		if !bytes.Equal(whole, pieces) || (err == nil) != (pieceErr == nil) {
			t.Fatalf("%q, %v as a whole; %q, %v in pieces", whole, err, pieces, pieceErr)
		}
		if how == Lengths {
			for rest := whole; len(rest) > 0; {
				length := int(binary.BigEndian.Uint32(rest))
				rest = rest[4:]
				rest = rest[min(length, len(rest)):]
			}
		}
	})
}
