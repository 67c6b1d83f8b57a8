package fcgi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatecrew/protocol"
)

const fileText = "the content of a file"

// aFile is a file that nothing else has open but what the test gives away.
func aFile(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(fileText), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// left counts the descriptors of this process that have a file open.
func left(t testing.TB, name string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == name {
			n++
		}
	}
	return n
}

// noneLeft waits for the last descriptor of a file to be closed.
func noneLeft(t testing.TB, name string) {
	t.Helper()
	for deadline := time.Now().Add(patience); left(t, name) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors are left", left(t, name))
		}
	}
}

// pass sends bytes, with a new descriptor of each path.
func (p *peer) pass(b []byte, flags int, paths ...string) {
	p.t.Helper()
	var fds []int
	for _, path := range paths {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		defer syscall.Close(fd)
		fds = append(fds, fd)
	}
	if _, _, err := p.nc.(*net.UnixConn).WriteMsgUnix(b, syscall.UnixRights(fds...), nil); err != nil {
		p.t.Errorf("application can't send: %v", err)
	}
}

func fileRecord(id uint16, offset, length uint64) []byte {
	return raw(typeFile, id, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, offset), length))
}

func mustHaveFile(t *testing.T, s *Stream, want string) {
	t.Helper()
	f := s.File()
	if f == nil {
		t.Fatal("no file")
	}
	defer f.Close()
	got := make([]byte, f.Length)
	if _, err := f.ReadAt(got, f.Offset); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if again := s.File(); again != nil {
		t.Error("the file is given away twice")
	}
}

func TestFile(t *testing.T) {
	name := aFile(t)
	c, p := negotiated(t, Options{}, "2", "10")
	for _, cut := range []int{0, 1, 4, 8, 12, 23} { // the rest of the record comes later
		s, neighbour := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
		p.expect(typeBeginRequest, s.id)
		for range 2*4 - 1 {
			if _, err := p.read(); err != nil {
				t.Fatal(err)
			}
		}
		p.send(typeStdout, s.id, []byte("head"))
		p.send(typeStdout, s.id, nil)
		first, second := fileRecord(s.id, 4, 7), fileRecord(neighbour.id, 0, uint64(len(fileText)))
		if cut == 0 { // without a break, and two after each other
			p.pass(first, syscall.O_RDONLY, name)
			p.pass(second, syscall.O_RDONLY, name)
		} else {
			p.pass(first[:cut], syscall.O_RDONLY, name)
			time.Sleep(time.Millisecond)
			p.nc.Write(first[cut:])
			p.pass(second, syscall.O_RDONLY, name)
		}
		p.end(s.id, 0, 0)
		p.end(neighbour.id, 0, 0)
		mustRead(t, s, "head", 0)
		mustHaveFile(t, s, "content")
		mustRead(t, neighbour, "", 0)
		mustHaveFile(t, neighbour, fileText)
		s.Close()
		neighbour.Close()
	}
	noneLeft(t, name)
}

// Whatever a worker does with descriptors, and whenever a request ends, none is
// left behind.
func TestFilesThatAreNotSent(t *testing.T) {
	const (
		lives   = iota // the request ends well, without a file
		refused        // the request fails as Malformed
		fails          // and the connection with it
	)
	begin := fileRecord(1, 0, 3)
	for _, test := range []struct {
		name string
		send func(p *peer, file string)
		want int
	}{
		{"id not open", func(p *peer, file string) { p.pass(fileRecord(2, 0, 3), 0, file) }, lives},
		{"id 0", func(p *peer, file string) { p.pass(fileRecord(0, 0, 3), 0, file) }, lives},
		{"a file of no bytes", func(p *peer, file string) { p.pass(fileRecord(1, 21, 0), 0, file) }, lives},
		{"beyond the end", func(p *peer, file string) { p.pass(fileRecord(1, 0, 22), 0, file) }, refused},
		{"behind the end", func(p *peer, file string) { p.pass(fileRecord(1, 22, 0), 0, file) }, refused},
		{"for writing alone", func(p *peer, file string) { p.pass(begin, syscall.O_WRONLY, file) }, refused},
		{"for nothing", func(p *peer, file string) { p.pass(begin, 0x200000, file) }, refused},
		{"a directory", func(p *peer, file string) { p.pass(begin, 0, filepath.Dir(file)) }, refused},
		{"a device", func(p *peer, file string) { p.pass(begin, 0, "/dev/zero") }, refused},
		{"two descriptors", func(p *peer, file string) { p.pass(begin, 0, file, file) }, fails},
		{"twenty descriptors", func(p *peer, file string) { p.pass(begin, 0, slices20(file)...) }, fails},
		{"a descriptor with output", func(p *peer, file string) { p.pass(raw(typeStdout, 1, []byte("head")), 0, file) }, fails},
		{"a descriptor with a part of another header", func(p *peer, file string) { p.pass(raw(typeStderr, 1, nil)[:5], 0, file) }, fails},
		{"a flood of descriptors", func(p *peer, file string) {
			// Two, and one record so far; a third might find the connection closed.
			p.pass([]byte{1, byte(typeFile)}, 0, file)
			p.pass(raw(typeFile, 1, nil)[2:7], 0, file)
		}, fails},
		{"two files", func(p *peer, file string) {
			p.pass(begin, 0, file)
			p.pass(begin, 0, file)
		}, fails},
		{"output behind a file", func(p *peer, file string) {
			p.pass(begin, 0, file)
			p.send(typeStdout, 1, []byte("x"))
		}, fails},
		{"a file behind trailers", func(p *peer, file string) {
			p.send(typeTrailers, 1, []byte("A: 1"))
			p.pass(begin, 0, file)
		}, fails},
		{"15 bytes", func(p *peer, file string) { p.pass(raw(typeFile, 1, make([]byte, 15)), 0, file) }, fails},
		{"a large offset", func(p *peer, file string) { p.pass(fileRecord(1, math.MaxInt64+1, 0), 0, file) }, fails},
		{"a large length", func(p *peer, file string) { p.pass(fileRecord(1, 1, math.MaxInt64), 0, file) }, fails},
		{"hangs up within the record", func(p *peer, file string) {
			p.pass(begin[:11], 0, file)
			p.nc.Close()
		}, fails},
		{"hangs up behind the record", func(p *peer, file string) {
			p.pass(begin, 0, file)
			p.nc.Close()
		}, fails},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := aFile(t)
			c, p := negotiated(t, Options{}, "1", "10")
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			test.send(p, name)
			if test.want != fails {
				p.end(1, 0, 0)
			}
			_, err := io.ReadAll(s)
			if kind := protocol.KindOf(err); test.want == lives && err != nil || test.want == refused && kind != protocol.Malformed ||
				test.want == fails && kind != protocol.Malformed && kind != protocol.Died {
				t.Errorf("answer ended with %v", err)
			}
			if test.want == fails {
				mustClose(t, "Done", c.Done())
			} else if c.Err() != nil {
				t.Errorf("connection died: %v", c.Err())
			}
			s.Close()
			noneLeft(t, name)
		})
	}
}

func slices20(file string) []string { return strings.Fields(strings.Repeat(file+" ", 20)) }

func TestFileOfAnAbortedRequest(t *testing.T) {
	name := aFile(t)
	c, p := negotiated(t, Options{}, "2", "10")
	early, late := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	early.Close()
	p.expect(typeAbortRequest, 1)
	for id := range uint16(2) {
		p.pass(fileRecord(id+1, 0, 3), 0, name)
		p.end(id+1, 0, 0)
	}
	mustRead(t, late, "", 0)
	if left(t, name) == 0 {
		t.Error("the file is closed before anybody took it")
	}
	late.Close()
	noneLeft(t, name)
	if f := late.File(); f != nil {
		t.Error("a closed stream gives a file away")
	}
}

// A foreign application passes descriptors in vain: the kernel drops them.
func TestFileOfAForeignApplication(t *testing.T) {
	name := aFile(t)
	c, p := foreign(t, Options{})
	s := mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.pass(fileRecord(1, 0, 3), 0, name)
	p.send(typeTrailers, 1, []byte("A: 1"))
	p.end(1, 0, 0)
	mustRead(t, s, "", 0)
	if s.File() != nil || s.Trailers() != nil {
		t.Error("a file or trailers of a foreign application")
	}
	noneLeft(t, name)
}

// Without a free number for a descriptor the request fails that needs it, and
// not its neighbours.
func TestFileWithoutAFreeDescriptor(t *testing.T) {
	name := aFile(t)
	c, p := negotiated(t, Options{}, "2", "10")
	s, neighbour := mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)
	p.request(1)
	p.request(2)
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	record, rights := append(fileRecord(1, 0, 3), raw(typeEndRequest, 1, endContent(0, 0))...), syscall.UnixRights(fd)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, _, err = p.nc.(*net.UnixConn).WriteMsgUnix(record, rights, nil)
	if err == nil {
		mustRead(t, s, "", protocol.Unavailable)
	}
	if again := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); again != nil {
		t.Fatal(again)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.pass(fileRecord(2, 0, 3), 0, name)
	p.end(2, 0, 0)
	mustRead(t, neighbour, "", 0)
	mustHaveFile(t, neighbour, "the")
}

func TestTrailers(t *testing.T) {
	type fields = []protocol.Param
	for _, test := range []struct {
		send string
		want fields
		kind protocol.Kind
	}{
		{"X-Sum: 1\r\nx-more:  2 \r\nX-Sum: 3", fields{{Name: "X-Sum", Value: "1"}, {Name: "X-More", Value: "2"}, {Name: "X-Sum", Value: "3"}}, 0},
		{"Content-Length: 1\nTransfer-Encoding: chunked\nSet-Cookie: a=b\nIf-Match: x\nOk: 1\n", fields{{Name: "Ok", Value: "1"}}, 0},
		{"", nil, 0},
		{"A: " + strings.Repeat("x", 32765), fields{{Name: "A", Value: strings.Repeat("x", 32765)}}, 0},
		{"no colon", nil, protocol.Malformed},
		{"A: 1\n\nB: 2\n", nil, protocol.Malformed},
		{"A: 1\rB: 2\n", nil, protocol.Malformed},
		{strings.Repeat("A: 1\n", 1001), nil, protocol.Malformed},
	} {
		t.Run(fmt.Sprintf("%.20q", test.send), func(t *testing.T) {
			c, p := negotiated(t, Options{}, "1", "10")
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			p.send(typeStdout, 1, []byte("body"))
			p.send(typeTrailers, 1, []byte(test.send))
			p.end(1, 0, 0)
			mustRead(t, s, "body", test.kind)
			if got := s.Trailers(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("%.200q, want %.200q", got, test.want)
			}
			if c.Err() != nil {
				t.Errorf("connection died: %v", c.Err())
			}
		})
	}
}

// FuzzFiles lets a worker pass descriptors anywhere in what it says. None is
// left when its connection and its requests have ended.
func FuzzFiles(f *testing.F) {
	good := bytes.Join([][]byte{raw(typeStdout, 1, []byte("head")), fileRecord(1, 0, 3), raw(typeEndRequest, 1, make([]byte, 8))}, nil)
	f.Add(good, 12, byte(1))
	f.Add(good, 11, byte(1))
	f.Add(good, 13, byte(1))
	f.Add(good, 12, byte(2))
	f.Add(append(good, good...), 12, byte(1))
	f.Add(append(fileRecord(1, 0, 3), fileRecord(2, 0, 3)...), 24, byte(1))
	name := filepath.Join(f.TempDir(), "file")
	if err := os.WriteFile(name, []byte(fileText), 0o644); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int, many byte) {
		if at < 0 || at >= len(b) || len(b) > 64<<10 {
			return
		}
		c, p := negotiated(t, Options{Window: 4096}, "2", "64")
		streams := []*Stream{mustOpen(t, c, get(nil), nil), mustOpen(t, c, get(nil), nil)}
		go io.Copy(io.Discard, p.nc)
		if at > 0 {
			p.nc.Write(b[:at])
		}
		fds := make([]int, many%5)
		for i := range fds {
			var err error
			if fds[i], err = syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
		}
		p.nc.(*net.UnixConn).WriteMsgUnix(b[at:], syscall.UnixRights(fds...), nil)
		for _, fd := range fds {
			syscall.Close(fd)
		}
		p.nc.(*net.UnixConn).CloseWrite()
		for _, s := range streams {
			io.Copy(io.Discard, s)
			s.Close()
		}
		mustClose(t, "Done", c.Done())
		noneLeft(t, name)
	})
}

// Whoever comes first, Close, File, the end of the request or of the connection:
// no descriptor is left.
func TestNoDescriptorIsLeft(t *testing.T) {
	name := aFile(t)
	for round := range 50 {
		c, p := negotiated(t, Options{}, "4", "10")
		var streams [4]*Stream
		for i := range streams {
			streams[i] = mustOpen(t, c, get(nil), nil)
		}
		var users sync.WaitGroup
		for i, s := range streams {
			users.Go(func() {
				switch (i + round) % 4 {
				case 1:
					if f := s.File(); f != nil {
						f.Close()
					}
				case 2:
					io.Copy(io.Discard, s)
					if f := s.File(); f != nil {
						f.Close()
					}
				case 3:
					c.Close()
				}
				s.Close()
			})
		}
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range streams { // a connection that is closed takes none
			_, _, _ = p.nc.(*net.UnixConn).WriteMsgUnix(fileRecord(s.id, 0, 5), syscall.UnixRights(fd), nil)
			_, _ = p.nc.Write(raw(typeEndRequest, s.id, make([]byte, endSize)))
		}
		syscall.Close(fd)
		c.Close()
		users.Wait()
	}
	noneLeft(t, name)
}
