package test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// Over HTTP/2 too a body reaches an ASGI application as it is sent, and what the
// application makes of it comes back meanwhile; one that is left open by a client
// that waits holds nobody up.
func TestHTTP2BidirectionalASGI(t *testing.T) {
	app := harness.WriteFile(t, "app.py", asgiDispatch)
	g := harness.Start(t, "run", app+":app", "--workers", "1", "--h2c", "--access-log", "off")
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	post := func(path string, body io.Reader) *http.Response {
		t.Helper()
		resp, err := client.Post(g.URL+path, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("%s: %s", path, resp.Proto)
		}
		return resp
	}
	body, sending := io.Pipe()
	go fmt.Fprint(sending, "piece 0;")
	resp := post("/echo", body)
	for i := range 20 {
		want := fmt.Sprintf("piece %d;", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
		if i < 19 {
			fmt.Fprintf(sending, "piece %d;", i+1)
		}
	}
	sending.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
	for path, status := range map[string]int{"/refuse": 403, "/die": 502} {
		body, sending := io.Pipe()
		go fmt.Fprint(sending, "x")
		began := time.Now()
		resp := post(path, body)
		_, _ = io.ReadAll(resp.Body)
		if resp.StatusCode != status || time.Since(began) > 10*time.Second {
			t.Errorf("%s beside an open body: %d after %v", path, resp.StatusCode, time.Since(began))
		}
		sending.Close()
	}
}
