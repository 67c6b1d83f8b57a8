package fcgi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/protocol"
)

// vector is a line of a file in testdata; README.md there has the format.
type vector struct {
	name    string
	bytes   []byte
	meaning string
}

func vectors(t testing.TB, file string) []vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		column := strings.SplitN(line, "|", 3)
		if len(column) != 3 {
			t.Fatalf("%s: %.40q: want three columns", file, line)
		}
		all = append(all, vector{strings.TrimSpace(column[0]), unhex(t, column[1]), strings.TrimSpace(column[2])})
	}
	if len(all) == 0 {
		t.Fatalf("%s: no vectors", file)
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '+' || r == '-' }) {
		digits, times, _ := strings.Cut(word, "*")
		part, err := hex.DecodeString(digits)
		n := 1
		if times != "" && err == nil {
			n, err = strconv.Atoi(times)
		}
		if err != nil {
			t.Fatalf("%.40q: %v", word, err)
		}
		b = append(b, bytes.Repeat(part, n)...)
	}
	return b
}

func TestRecordVectors(t *testing.T) {
	for _, v := range vectors(t, "records.hex") {
		t.Run(v.name, func(t *testing.T) {
			if v.meaning == "incomplete" && len(v.bytes) < headerSize {
				return // parseHeader is only asked when there is one
			}
			h, err := parseHeader(v.bytes)
			switch v.meaning {
			case "version":
				if !errors.Is(err, errVersion) {
					t.Errorf("parseHeader: %v", err)
				}
				return
			case "incomplete":
				if err != nil || len(v.bytes) >= headerSize+h.content+h.padding {
					t.Errorf("parseHeader: %+v, %v", h, err)
				}
				return
			}
			var want header
			var content string
			if _, err := fmt.Sscan(v.meaning, &want.typ, &want.id, &want.padding, &content); err != nil {
				t.Fatal(err)
			}
			want.content = len(unhex(t, content))
			if err != nil || h != want {
				t.Errorf("parseHeader: %+v, %v; want %+v", h, err, want)
			}
			if h.padding == 0 && v.bytes[7] == 0 { // what is never sent can't be compared
				got := append(appendHeader(nil, want.typ, want.id, want.content), unhex(t, content)...)
				if !bytes.Equal(got, v.bytes) {
					t.Errorf("appendHeader: %x", got[:headerSize])
				}
			}
			var numbers []any // of a record whose name has them
			switch h.typ {
			case typeBegun:
				numbers = []any{parseBegun(v.bytes[headerSize:])}
			case typeFile:
				offset, length := parseFile(v.bytes[headerSize:])
				numbers = []any{offset, length}
			}
			kind, _, _ := strings.Cut(v.name, "-")
			if name := strings.TrimSuffix(fmt.Sprintln(append([]any{kind}, numbers...)...), "\n"); numbers != nil && name != strings.ReplaceAll(v.name, "-", " ") {
				t.Errorf("the content says %s", name)
			}
		})
	}
	question := appendGetValues(nil, 131072)
	for _, v := range vectors(t, "records.hex") {
		if v.name == "get-values-question" && !bytes.Equal(question, v.bytes) {
			t.Errorf("%s: got %q", v.name, question)
		}
	}
}

func TestPairVectors(t *testing.T) {
	for _, v := range vectors(t, "pairs.hex") {
		t.Run(v.name, func(t *testing.T) {
			var got []protocol.Param
			err := protocol.EachPair(v.bytes, func(name, value []byte) {
				got = append(got, protocol.Param{Name: string(name), Value: string(value)})
			})
			if v.meaning == "truncated" {
				if !errors.Is(err, protocol.ErrPairs) {
					t.Errorf("EachPair: %v", err)
				}
				return
			}
			want := params(t, strings.Fields(v.meaning))
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("EachPair: %.80v, %v; want %.80v", got, err, want)
			}
			again := appendPairs(nil, want)
			if !strings.HasPrefix(v.name, "long-form") && !bytes.Equal(again, v.bytes) {
				t.Errorf("appendPairs: %.40x", again)
			}
			if size, err := paramsSize(want); size != len(again) || err != nil {
				t.Errorf("paramsSize: %d, %v; want %d", size, err, len(again))
			}
		})
	}
}

func params(t testing.TB, words []string) []protocol.Param {
	var all []protocol.Param
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			t.Fatalf("%.40q: want name=value", word)
		}
		all = append(all, protocol.Param{Name: string(unhex(t, name)), Value: string(unhex(t, value))})
	}
	return all
}

// What a Conn sends for a request, byte by byte.
func TestRequestVectors(t *testing.T) {
	tested := 0
	for _, v := range vectors(t, "requests.hex") {
		if !strings.HasPrefix(v.name, "exact-") {
			continue
		}
		tested++
		t.Run(v.name, func(t *testing.T) {
			c, p := foreign(t, Options{})
			var got []byte
			for group := range strings.SplitSeq(v.meaning, ";") {
				words := strings.Fields(group) // id= role= flags= params … stdin BYTES
				last := len(words) - 1
				if words[3] != "params" || words[last-1] != "stdin" {
					t.Fatalf("meaning %.60q", group)
				}
				req := &protocol.Request{Role: protocol.Responder, Params: params(t, words[4:last-1])}
				if body := unhex(t, words[last]); body != nil {
					req.Stdin = bytes.NewReader(body)
				}
				s := mustOpen(t, c, req, nil)
				for empty := 0; empty < 2 && !t.Failed(); {
					r, err := p.read()
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, raw(r.typ, r.id, r.content)...)
					if len(r.content) == 0 {
						empty++
					}
				}
				p.end(1, 0, 0)
				mustRead(t, s, "", 0)
			}
			if !bytes.Equal(got, v.bytes) {
				t.Errorf("sent %d bytes %.60x, want %d bytes %.60x", len(got), got, len(v.bytes), v.bytes)
			}
		})
	}
	if tested == 0 {
		t.Error("no vector to encode")
	}
}

// What a Conn makes of answers, also when they arrive byte by byte.
func TestAnswerVectors(t *testing.T) {
	for _, v := range vectors(t, "answers.hex") {
		for _, piece := range []int{1, 7, 1000, len(v.bytes)} {
			t.Run(fmt.Sprintf("%s in pieces of %d", v.name, piece), func(t *testing.T) {
				if piece == 1 && len(v.bytes) > 4096 {
					piece = 100
				}
				c, p := negotiated(t, Options{}, "2", "10")
				streams := make([]*Stream, 3)
				logs := make([]bytes.Buffer, 3)
				for id := 1; id <= 2; id++ {
					req := get(nil)
					req.Stderr = &logs[id]
					streams[id] = mustOpen(t, c, req, nil)
					p.request(uint16(id))
				}
				for b := v.bytes; len(b) > 0; {
					n := min(piece, len(b))
					if _, err := p.nc.Write(b[:n]); err != nil {
						t.Fatal(err)
					}
					b = b[n:]
				}
				for group := range strings.SplitSeq(v.meaning, ";") {
					words := strings.Fields(group) // id= stdout BYTES stderr BYTES app= protocol=
					var id int
					var app uint32
					var status int
					if _, err := fmt.Sscanf(words[0]+" "+words[5]+" "+words[6], "id=%d app=%d protocol=%d", &id, &app, &status); err != nil {
						t.Fatalf("meaning %.60q: %v", group, err)
					}
					kind := protocol.Kind(0)
					switch {
					case status != 0:
						kind = protocol.Returned
					case app != 0:
						kind = protocol.Died
					}
					mustRead(t, streams[id], string(unhex(t, words[2])), kind)
					if want := string(unhex(t, words[4])); logs[id].String() != want {
						t.Errorf("stderr %q, want %q", logs[id].String(), want)
					}
				}
			})
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, v := range vectors(f, "records.hex") {
		if len(v.bytes) >= headerSize {
			f.Add(v.bytes[:headerSize])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader(b)
		if (err == nil) != (b[0] == 1) {
			t.Fatalf("version %d: %v", b[0], err)
		}
		if err != nil {
			return
		}
		again := appendHeader(nil, h.typ, h.id, h.content)
		if !bytes.Equal(again[:6], b[:6]) || h.padding != int(b[6]) {
			t.Fatalf("%x became %+v", b[:headerSize], h)
		}
	})
}

func FuzzPairs(f *testing.F) {
	for _, v := range vectors(f, "pairs.hex") {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []protocol.Param
		if protocol.EachPair(b, func(name, value []byte) {
			got = append(got, protocol.Param{Name: string(name), Value: string(value)})
		}) != nil {
			return
		}
		again := appendPairs(nil, got)
		if size, err := paramsSize(got); err != nil || size != len(again) || size > len(b) {
			t.Fatalf("size %d, %v; encoded in %d bytes, from %d", size, err, len(again), len(b))
		}
		i := 0
		err := protocol.EachPair(again, func(name, value []byte) {
			if string(name) != got[i].Name || string(value) != got[i].Value {
				t.Fatalf("pair %d changed", i)
			}
			i++
		})
		if err != nil || i != len(got) {
			t.Fatalf("decoded %d pairs again, %v; want %d", i, err, len(got))
		}
	})
}

// FuzzConn lets an application say anything. Whatever it is, every Read
// returns, every request ends exactly once, and the connection dies with it. kind
// is what the application is: 0 foreign, 1 a worker of our own, otherwise one with
// an event loop, whose last request is a WebSocket.
func FuzzConn(f *testing.F) {
	for _, file := range []string{"answers.hex", "records.hex"} {
		for _, v := range vectors(f, file) {
			for kind := range uint8(3) {
				f.Add(v.bytes, kind)
			}
		}
	}
	f.Add(append(raw(typeCredit, 1, []byte{0, 0, 0, 9}), raw(typeEndRequest, 1, make([]byte, 8))...), uint8(1))
	f.Add(append(raw(typeBegun, 0, []byte{0, 0, 0, 2}), append(raw(typeStdout, 3, []byte("Status: 101\r\n\r\n\x01\x00\x00\x00\x01x")), raw(typeCredit, 3, []byte{0, 0, 0, 9})...)...), uint8(2))
	f.Add(append(raw(typeBegun, 0, []byte{0, 0, 0, 3}), raw(typeBegun, 0, []byte{0, 0, 0, 2})...), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		var c *Conn
		var p *peer
		open := 1
		switch kind {
		case 0:
			c, p = foreign(t, Options{Window: 4096})
		case 1:
			c, p = negotiated(t, Options{Window: 4096}, "3", "64")
			open = 3
		default:
			c, p = async(t, Options{Window: 4096}, "64")
			c.OnBegun(func() { c.Owed() })
			open = 3
		}
		var reads sync.WaitGroup
		var ended sync.WaitGroup
		for i := range open {
			ended.Add(1)
			req := get(nil)
			if i == 0 {
				req.Stdin = io.LimitReader(endless{}, 1000)
			}
			socket := kind > 1 && i == open-1
			if socket {
				req.Role = protocol.WebSocket
			}
			req.Stderr = io.Discard
			s, err := c.Open(req, func(time.Duration) { ended.Done() }) // panics when called twice
			if err != nil {
				t.Fatal(err)
			}
			reads.Go(func() {
				defer s.Close()
				io.Copy(io.Discard, s)
			})
			if socket {
				reads.Go(func() {
					for n, err := 0, error(nil); err == nil; n++ {
						_, err = s.Write(append(protocol.AppendMessage(nil, 1, 4), "fuzz"...))
						if n == 100 {
							s.WriteClose(1000, "")
						}
					}
				})
			}
		}
		go io.Copy(io.Discard, p.nc)
		p.nc.Write(b)
		p.nc.(interface{ CloseWrite() error }).CloseWrite()
		over := make(chan struct{})
		go func() {
			reads.Wait()
			ended.Wait()
			<-c.Done()
			close(over)
		}()
		select {
		case <-over:
		case <-time.After(patience):
			t.Fatal("hangs")
		}
	})
}
