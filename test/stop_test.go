package test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// TestStopWithUnusedConnections: browsers open connections in reserve; they
// must not hold up a stop.
func TestStopWithUnusedConnections(t *testing.T) {
	g := harness.Start(t, "run", harness.App(t, "wsgi_probe.py"), "--workers", "1")
	for range 5 {
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if r := g.Get("/pid"); r.Status != 200 { // behind them in the queue, so they are accepted
		t.Fatalf("%d", r.Status)
	}
	began := time.Now()
	g.Signal(syscall.SIGTERM)
	if !g.Wait(10 * time.Second) {
		t.Fatal("the gateway does not stop")
	}
	// net/http alone waits for five seconds.
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("stopping took %v", took)
	}
}
