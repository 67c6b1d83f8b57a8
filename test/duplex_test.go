package test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Both bodies go on at the same time: what is sent comes back before the next is
// sent.
func TestBidirectionalStreams(t *testing.T) { harness.EachReader(t, testBidirectionalStreams) }

func testBidirectionalStreams(t *testing.T) {
	s := startStreams(t, false)
	const n, line = 5, "a line of sixteen\n"
	for _, tt := range []struct{ kind, framing string }{{"asgi", "chunked"}, {"asgi", "length"}, {"wsgi", "length"}, {"cgi", "length"}} {
		t.Run(tt.kind+" "+tt.framing, func(t *testing.T) {
			field := "Transfer-Encoding: chunked"
			if tt.framing == "length" {
				field = fmt.Sprintf("Content-Length: %d", n*len(line))
			}
			c := s.begin(t, "POST", "/"+tt.kind+"/echo", field)
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			var body *bufio.Reader
			for i := range n {
				if tt.framing == "chunked" {
					fmt.Fprintf(c, "%x\r\n%s\r\n", len(line), line)
				} else {
					io.WriteString(c, line)
				}
				if body == nil {
					body = bufio.NewReader(c.response(t).Body)
				}
				if got, err := body.ReadString('\n'); err != nil || got != line {
					t.Fatalf("line %d came back as %q, %v", i, got, err)
				}
			}
			if tt.framing == "chunked" {
				io.WriteString(c, "0\r\n\r\n")
			}
			if rest, err := io.ReadAll(body); err != nil || len(rest) > 0 {
				t.Errorf("at the end %q, %v", rest, err)
			}
			// The connection is as good as new.
			io.WriteString(c, "GET /asgi/ HTTP/1.1\r\nHost: x\r\n\r\n")
			if resp := c.response(t); resp.StatusCode != 200 {
				t.Errorf("the next request: %d", resp.StatusCode)
			}
		})
	}
}

// The client is told to continue when the application asks for the body, and not
// at all when it does not: then nothing has been sent in vain.
func TestBodyOnDemand(t *testing.T) { harness.EachReader(t, testBodyOnDemand) }

func testBodyOnDemand(t *testing.T) {
	s := startStreams(t, false)
	const interim = "HTTP/1.1 100 Continue\r\n\r\n"
	for _, kind := range []string{"asgi", "wsgi"} {
		t.Run(kind, func(t *testing.T) {
			c := s.begin(t, "POST", "/"+kind+"/echo?name=expect-"+kind, "Expect: 100-continue", "Content-Length: 6")
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if b, err := c.in.Peek(1); err == nil {
				t.Errorf("an answer before the application wants the body: %q", b)
			}
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			s.goOn(t, "expect-"+kind)
			got := make([]byte, len(interim))
			if _, err := io.ReadFull(c.in, got); err != nil || string(got) != interim {
				t.Fatalf("%q, %v", got, err)
			}
			io.WriteString(c, "hello\n")
			resp := c.response(t)
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello\n" {
				t.Errorf("%q, %v", body, err)
			}

			c = s.begin(t, "POST", "/"+kind+"/", "Expect: 100-continue", "Content-Length: 6")
			if resp := c.response(t); resp.StatusCode != 200 {
				t.Errorf("an application that wants no body: %d, want a 200 at once", resp.StatusCode)
			}
		})
	}
}

// Fields behind the body, and an answer without them for a client that can't take
// them.
func TestResponseTrailers(t *testing.T) { harness.EachReader(t, testResponseTrailers) }

func testResponseTrailers(t *testing.T) {
	s := startStreams(t, false)
	if r := s.Get("/asgi/trailers"); r.Status != 200 || r.Body != "a body" {
		t.Errorf("HTTP/1.1: %+v", r)
	}
	check := func(client *http.Client, major int) {
		t.Helper()
		req, _ := http.NewRequest("GET", s.URL+"/asgi/trailers", nil)
		req.Header.Set("TE", "trailers")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "a body" || resp.ProtoMajor != major {
			t.Errorf("%s: %q, %v", resp.Proto, body, err)
		}
		if resp.Trailer.Get("X-Sum") != "1234" || resp.Trailer.Get("X-Late") != "yes" {
			t.Errorf("%s: trailers %v", resp.Proto, resp.Trailer)
		}
	}
	check(harness.Client, 1)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	check(&http.Client{Transport: transport}, 2)
}
