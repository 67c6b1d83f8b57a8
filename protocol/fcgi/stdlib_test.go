package fcgi

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	stdfcgi "net/http/fcgi"
	"path/filepath"
	"strings"
	"testing"

	"gatecrew/protocol"
)

// The application side of the standard library is a peer that was written
// without regard to this package.

func serveStdlib(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go stdfcgi.Serve(l, h)
	return path
}

func dialStdlib(t *testing.T, path string) *Conn {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(nc, Options{})
	t.Cleanup(func() { c.Close() })
	return c
}

func stdlibRequest(method, uri string, body io.Reader, length int, extra ...protocol.Param) *protocol.Request {
	return &protocol.Request{Role: protocol.Responder, Stdin: body, Params: append([]protocol.Param{
		{Name: "REQUEST_METHOD", Value: method}, {Name: "SERVER_PROTOCOL", Value: "HTTP/1.1"},
		{Name: "REQUEST_URI", Value: uri}, {Name: "HTTP_HOST", Value: "example.test"},
		{Name: "CONTENT_LENGTH", Value: fmt.Sprint(length)},
	}, extra...)}
}

func TestStandardLibraryPeer(t *testing.T) {
	path := serveStdlib(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(500)
			return
		}
		fmt.Fprintf(w, "%s %s %d ", r.Method, r.URL.RequestURI(), len(r.Header.Get("X-Long")))
		w.Write(body)
	}))
	c := dialStdlib(t, path)
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	for _, test := range []struct {
		name string
		body []byte
		long int
	}{
		{"no body", nil, 0}, {"small body", []byte("hello"), 127}, {"large body", big, 128}, {"parameters over two records", nil, 70000},
	} {
		t.Run(test.name, func(t *testing.T) {
			var body io.Reader
			if test.body != nil {
				body = bytes.NewReader(test.body)
			}
			req := stdlibRequest("POST", "/a?b=c", body, len(test.body), protocol.Param{Name: "HTTP_X_LONG", Value: strings.Repeat("v", test.long)})
			s, err := c.Open(req, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := io.ReadAll(s)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("POST /a?b=c %d %s", test.long, test.body)
			if _, rest, _ := bytes.Cut(got, []byte("\r\n\r\n")); string(rest) != want {
				t.Errorf("got %.60q (%d bytes), want %.60q (%d bytes)", rest, len(rest), want, len(want))
			}
		})
	}
}

// Lengths around every form of the length field, counted by the other side.
func TestStandardLibraryPeerReadsAllLengths(t *testing.T) {
	lengths := []int{0, 1, 127, 128, 129, 255, 256, 260, 70000}
	path := serveStdlib(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		env := stdfcgi.ProcessEnv(r)
		for _, n := range lengths[1:] {
			for _, v := range lengths {
				if name := strings.Repeat("N", n) + fmt.Sprint(v); env[name] != strings.Repeat("v", v) {
					fmt.Fprintf(w, "name of %d bytes has a value of %d bytes, want %d\n", len(name), len(env[name]), v)
				}
			}
		}
	}))
	c := dialStdlib(t, path)
	var extra []protocol.Param
	for _, n := range lengths[1:] {
		for _, v := range lengths {
			extra = append(extra, protocol.Param{Name: strings.Repeat("N", n) + fmt.Sprint(v), Value: strings.Repeat("v", v)})
		}
	}
	s := mustOpen(t, c, stdlibRequest("GET", "/", nil, 0, extra...), nil)
	got, err := io.ReadAll(s)
	if _, body, ok := strings.Cut(string(got), "\r\n\r\n"); err != nil || !ok || body != "" {
		t.Errorf("%v: %s", err, body)
	}
}

// An answer that comes in pieces is read in pieces, over a kept connection.
func TestStandardLibraryPeerStreams(t *testing.T) {
	next := make(chan struct{})
	path := serveStdlib(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "event %d", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}))
	c := dialStdlib(t, path)
	s := mustOpen(t, c, stdlibRequest("GET", "/", nil, 0), nil)
	var got strings.Builder
	for i := range 3 {
		buf := make([]byte, 1000)
		for !strings.HasSuffix(got.String(), fmt.Sprint("event ", i)) {
			n, err := s.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		next <- struct{}{}
	}
	mustRead(t, s, "", 0)
}
