package fcgi

import (
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
	_, err := c.Open(get(nil), func() {
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

// TestWhatADeadWorkerHadNotSeen: a worker starts what comes first, so what
// stood behind can be given to another one, whatever its method.
func TestWhatADeadWorkerHadNotSeen(t *testing.T) {
	c, p := negotiated(t, Options{}, "2", "1000", "GATECREW_AHEAD", "3")
	var streams []*Stream
	for range 5 {
		streams = append(streams, mustOpen(t, c, get(nil), nil))
	}
	p.request(1)
	p.end(1, 0, 0) // the first is done: the second and third may have been started
	mustRead(t, streams[0], "", 0)
	p.nc.Close()
	for i, s := range streams[1:] {
		_, err := s.Read(make([]byte, 1))
		if want := i >= 2; unseen(err) != want {
			t.Errorf("request %d: %v, unseen %v, want %v", i+2, err, unseen(err), want)
		}
	}
}
