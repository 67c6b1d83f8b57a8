package fcgi

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"gatecrew/protocol"
)

// TestRefusesBeforeEnded: whoever gets a slot back because its request could
// not be sent must be able to see that the connection takes no other.
func TestRefusesBeforeEnded(t *testing.T) {
	c, p := foreign(t, Options{})
	if err := p.nc.(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	ended := false
	_, err := c.Open(get(nil), func(time.Duration) {
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

// TestWhatADeadWorkerHadNotSeen: a worker starts what comes first, and a request
// that may be run once only when all before it are known to have ended. So such a
// one that stood behind can be given to another worker. Of others it isn't known.
func TestWhatADeadWorkerHadNotSeen(t *testing.T) {
	c, p := negotiated(t, Options{}, "2", "1000", "GATECREW_AHEAD", "5")
	var streams []*Stream
	methods := []string{"GET", "POST", "GET", "GET", "POST", "DELETE", ""}
	for _, method := range methods {
		req := get(nil)
		req.Label.Method = method
		streams = append(streams, mustOpen(t, c, req, nil))
	}
	p.request(1)
	p.end(1, 0, 0) // the first is done: the second and third may have been started
	mustRead(t, streams[0], "", 0)
	p.nc.Close()
	for i, want := range []struct{ unseen, behind bool }{1: {}, 2: {}, 3: {false, true}, 4: {true, true}, 5: {true, true}, 6: {false, true}} {
		if i == 0 {
			continue
		}
		_, err := streams[i].Read(make([]byte, 1))
		var e *protocol.Error
		if !errors.As(err, &e) || e.Unseen != want.unseen || e.Behind != want.behind {
			t.Errorf("request %d, %s: %+v, want %+v", i+1, methods[i], e, want)
		}
	}
}

// TestKeptConnectionThatEnds: a foreign application that hangs up behind an answer has
// most often not seen the next request, if it has said nothing of it.
func TestKeptConnectionThatEnds(t *testing.T) {
	for _, test := range []struct {
		about  string
		before int    // requests that were answered on the connection
		said   string // of the answer to the last one
		want   bool
	}{
		{"the first request", 0, "", false},
		{"the second", 1, "", true},
		{"the second, half answered", 1, "Content-", false},
	} {
		c, p := foreign(t, Options{})
		for range test.before {
			s := mustOpen(t, c, get(nil), nil)
			p.request(1)
			p.end(1, 0, 0)
			mustRead(t, s, "", 0)
		}
		s := mustOpen(t, c, get(nil), nil)
		p.request(1)
		if test.said != "" {
			p.send(typeStdout, 1, []byte(test.said))
		}
		p.nc.Close()
		_, err := io.ReadAll(s)
		var e *protocol.Error
		if !errors.As(err, &e) || e.Kind != protocol.Died || e.Unseen || e.Behind != test.want {
			t.Errorf("%s: %+v, want behind %v", test.about, e, test.want)
		}
	}
}
