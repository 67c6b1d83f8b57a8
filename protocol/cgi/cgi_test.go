package cgi

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"gatecrew/protocol"
)

// TestMain lets the test binary be the program that exec is tried with.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "exec-me" {
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// gate is the HTTP server of the tests: it refuses what CheckRequest and
// CleanPath refuse and otherwise answers with the meta-variables, one a line.
func gate(target Target) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := CheckRequest(r)
		if err == nil {
			target := target
			target.PathInfo, err = CleanPath(r.URL.EscapedPath())
			if err == nil {
				for _, p := range AppendParams(nil, r, &target) {
					io.WriteString(w, p.Name+"="+strings.ReplaceAll(p.Value, "\n", "\\n")+"\n")
				}
				return
			}
		}
		var refused *RequestError
		if !errors.As(err, &refused) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		http.Error(w, err.Error(), refused.Status)
	})
}

// raw sends bytes to a server over a connection of its own and returns the
// status and the variables of the answer.
func raw(t *testing.T, addr net.Addr, request string) (int, map[string]string) {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return resp.StatusCode, readVars(t, resp)
}

func readVars(t *testing.T, resp *http.Response) map[string]string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	vars := make(map[string]string)
	if resp.StatusCode != http.StatusOK {
		return vars
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := vars[name]; twice {
			t.Errorf("%s is set twice", name)
		}
		vars[name] = value
	}
	return vars
}

// plainServer serves a gate over HTTP/1.
func plainServer(t *testing.T, target Target) net.Addr {
	t.Helper()
	srv := httptest.NewServer(gate(target))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr()
}

// h2Server serves a gate over TLS and HTTP/2 and returns a client for it.
func h2Server(t *testing.T, target Target, config *tls.Config) (*httptest.Server, *http.Client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(gate(target))
	srv.EnableHTTP2 = true
	srv.TLS = config
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, srv.Client()
}

func get(params []protocol.Param, name string) (string, bool) {
	for _, p := range params {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

func wantVars(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if v, ok := got[name]; !ok {
			t.Errorf("%s is not set, want %q", name, value)
		} else if v != value {
			t.Errorf("%s = %q, want %q", name, v, value)
		}
	}
}

func wantUnset(t *testing.T, got map[string]string, names ...string) {
	t.Helper()
	for _, name := range names {
		if v, ok := got[name]; ok {
			t.Errorf("%s = %q, want it unset", name, v)
		}
	}
}

func statusOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *RequestError
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *RequestError", err)
	}
	return e.Status
}
