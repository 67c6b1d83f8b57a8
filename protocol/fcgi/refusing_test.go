package fcgi

import (
	"context"
	"net"
	"testing"
)

// TestRefusesBeforeEnded: whoever gets a slot back because its request could
// not be sent must be able to see that the connection takes no other.
func TestRefusesBeforeEnded(t *testing.T) {
	c, p := foreign(t, Options{})
	if err := p.nc.(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	ended := false
	_, err := c.Open(context.Background(), get(nil), func() {
		ended = true
		select {
		case <-c.Refusing():
		default:
			t.Error("the slot was given back while the connection seemed to take requests")
		}
	})
	if err == nil || !unseen(err) || !ended {
		t.Errorf("Open on a connection that the peer does not read: %v, ended %v", err, ended)
	}
}
