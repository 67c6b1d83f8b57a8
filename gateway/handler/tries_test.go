package handler

import (
	"testing"

	"gatecrew/gateway/site"
	"gatecrew/protocol"
)

// TestTries: how often a request is given to another worker when its own has died.
func TestTries(t *testing.T) {
	for _, c := range []struct {
		about  string
		err    protocol.Error
		method string
		replay bool
		want   int // further tries
	}{
		{"a POST that was not seen", protocol.Error{Kind: protocol.Died, Unseen: true}, "POST", true, maxFailed - 1},
		{"a POST that may have been", protocol.Error{Kind: protocol.Died}, "POST", true, 0},
		{"a POST that stood behind another request", protocol.Error{Kind: protocol.Died, Behind: true}, "POST", true, 0},
		{"a GET that has been seen", protocol.Error{Kind: protocol.Died}, "GET", true, 1},
		{"a GET that stood behind another request", protocol.Error{Kind: protocol.Died, Behind: true}, "GET", true, maxFailed - 1},
		{"the same where nothing is run twice", protocol.Error{Kind: protocol.Died, Behind: true}, "GET", false, 0},
		{"a GET that was not seen there", protocol.Error{Kind: protocol.Died, Unseen: true}, "GET", false, maxFailed - 1},
		{"no worker took it", protocol.Error{Kind: protocol.Overloaded, Unseen: true}, "GET", true, 0},
	} {
		var tries tries
		got := 0
		for tries.another(&c.err, c.method, &site.Route{ReplayIdempotent: c.replay}) && got < 10 {
			got++
		}
		if got != c.want {
			t.Errorf("%s: %d further tries, want %d", c.about, got, c.want)
		}
	}
}
