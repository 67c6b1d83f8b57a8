package http1

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"gatecrew/protocol/cgi"
)

// newRequest makes of a plain head what net/http would have made of it.
func newRequest(ctx context.Context, p *cgi.Plain, body []byte, remoteAddr string) (*http.Request, error) {
	u, err := url.ParseRequestURI(p.Target)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: p.Method, URL: u, RequestURI: p.Target, Host: p.Host, RemoteAddr: remoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(p.Fields)), Body: http.NoBody,
	}
	values := make([]string, len(p.Fields))
	for i := range p.Fields {
		values[i] = p.Fields[i].Value
		// The capacity makes a second value move away from the shared array.
		r.Header[http.CanonicalHeaderKey(p.Fields[i].Name)] = values[i : i+1 : i+1]
	}
	if len(body) > 0 {
		r.ContentLength, r.Body = int64(len(body)), io.NopCloser(bytes.NewReader(body))
	}
	return r.WithContext(ctx), nil
}
