package fcgi

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"gatecrew/protocol"
)

// reply answers every request on nc, as a worker does: it reads a large
// block, handles all that is in it, and writes once.
func reply(nc net.Conn, head []byte) {
	in, out := make([]byte, 64<<10), make([]byte, 0, 64<<10)
	have := 0
	for {
		n, err := nc.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		b := in[:have]
		for len(b) >= headerSize {
			h, _ := parseHeader(b)
			if len(b) < headerSize+h.content {
				break
			}
			b = b[headerSize+h.content:]
			switch {
			case h.typ == typeGetValues:
				v := values("FCGI_MAX_REQS", "64", "FCGI_MPXS_CONNS", "1", "GATECREW_FLOW", "1", "GATECREW_WINDOW", "131072")
				out = append(out, raw(typeGetValuesResult, 0, v)...)
			case h.typ == typeStdin && h.content == 0:
				out = appendStream(out, typeStdout, h.id, head)
				out = append(appendHeader(out, typeEndRequest, h.id, 8), 0, 0, 0, 0, 0, 0, 0, 0)
			}
		}
		if len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		have = copy(in, b)
	}
}

var typicalParams = []protocol.Param{
	{Name: "GATEWAY_INTERFACE", Value: "CGI/1.1"}, {Name: "SERVER_PROTOCOL", Value: "HTTP/1.1"}, {Name: "SERVER_SOFTWARE", Value: "gatecrew"},
	{Name: "REQUEST_METHOD", Value: "GET"}, {Name: "REQUEST_URI", Value: "/hello?name=value"}, {Name: "SCRIPT_NAME", Value: ""},
	{Name: "PATH_INFO", Value: "/hello"}, {Name: "QUERY_STRING", Value: "name=value"}, {Name: "REQUEST_SCHEME", Value: "http"},
	{Name: "SERVER_NAME", Value: "example.test"}, {Name: "SERVER_PORT", Value: "80"}, {Name: "REMOTE_ADDR", Value: "192.0.2.1"}, {Name: "REMOTE_PORT", Value: "54321"},
	{Name: "HTTP_HOST", Value: "example.test"}, {Name: "HTTP_USER_AGENT", Value: "bench/1.0"}, {Name: "HTTP_ACCEPT", Value: "*/*"},
}

var hello = []byte("Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!")

func replying(t testing.TB, multiplexed bool) *Conn {
	gateway, application := socketPair(t)
	go reply(application, hello)
	c := NewConn(gateway, Options{})
	t.Cleanup(func() { c.Close() })
	if multiplexed {
		if _, err := c.Negotiate(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func roundTrip(c *Conn, req *protocol.Request, ended func(time.Duration), buf []byte) error {
	s, err := c.Open(req, ended)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if _, err := s.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("multiplexed/clients=%d", clients), func(b *testing.B) {
			c := replying(b, true)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for client := range clients {
				wg.Go(func() {
					req := &protocol.Request{Role: protocol.Responder, Params: typicalParams}
					buf := make([]byte, 4096)
					for i := client; i < b.N; i += clients {
						if err := roundTrip(c, req, nil, buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
	b.Run("foreign", func(b *testing.B) {
		c := replying(b, false)
		req := &protocol.Request{Role: protocol.Responder, Params: typicalParams}
		buf := make([]byte, 4096)
		b.ReportAllocs()
		for b.Loop() {
			if err := roundTrip(c, req, nil, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDownload moves an answer of 1 MiB.
func BenchmarkDownload(b *testing.B) {
	gateway, application := socketPair(b)
	go reply(application, make([]byte, 1<<20))
	c := NewConn(gateway, Options{})
	defer c.Close()
	req := &protocol.Request{Role: protocol.Responder, Params: typicalParams}
	buf := make([]byte, 32<<10)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if err := roundTrip(c, req, nil, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// A request without a body costs its Stream and little else; 210 KiB each
// would be a garbage collector's day.
func TestAllocationsPerRequest(t *testing.T) {
	c := replying(t, true)
	req := &protocol.Request{Role: protocol.Responder, Params: typicalParams}
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(500, func() {
		if err := roundTrip(c, req, nil, buf); err != nil {
			t.Fatal(err)
		}
	}); n > 4 {
		t.Errorf("%.1f allocations per request, want at most 4", n)
	}
	const runs = 500
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if err := roundTrip(c, req, nil, buf); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 4096 {
		t.Errorf("%d bytes allocated per request, want at most 4096", n)
	}
}
