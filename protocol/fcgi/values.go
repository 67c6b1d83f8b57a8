package fcgi

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"gatecrew/protocol"
)

const (
	// flowVersion is the highest version of the extension that is spoken here.
	flowVersion = 1
	// maxValues is how many bytes of a GET_VALUES_RESULT are read; a worker's
	// answer has about a hundred.
	maxValues = 4096
	// maxRequests is how many ids there are: 1-65535.
	maxRequests = 65535
)

// Values is what an application told about itself (FastCGI 1.0, section 4.1).
// What it left out is zero.
type Values struct {
	MaxConns  int  // FCGI_MAX_CONNS: connections it accepts at once
	MaxReqs   int  // FCGI_MAX_REQS: requests it works on at once
	Multiplex bool // FCGI_MPXS_CONNS: requests may share a connection
	Flow      int  // GATECREW_FLOW: version of the extension; 0 is plain FastCGI
	Window    int  // GATECREW_WINDOW: bytes of STDIN that it takes per request before it grants more
	Ahead     int  // GATECREW_AHEAD: requests beyond MaxReqs that it takes before it can start them
	Async     bool // GATECREW_ASYNC: it runs all requests in one event loop
}

// Negotiate asks the application for its values and waits for the answer,
// which is also its word that it is ready. When it multiplexes and speaks our
// extension, the connection takes Capacity requests at once from here on;
// else it stays what it was. To be called once, before the first Open, and
// only for an application of our own: others may answer with silence.
//
// The error is an *protocol.Error: TimedOut or ClientGone when ctx ended
// first, Malformed when the answer is wrong, Died when the application hung
// up. The connection is then to be closed.
func (c *Conn) Negotiate(ctx context.Context) (Values, error) {
	answer := make(chan Values, 1)
	c.w.mu.Lock()
	if c.asked || c.streams != nil {
		c.w.mu.Unlock()
		return Values{}, &protocol.Error{Kind: protocol.Refused, Unseen: true, Err: errors.New("fcgi: values: asked for too late")}
	}
	c.asked, c.answer = true, answer
	c.w.pending = appendGetValues(c.w.pending, c.window)
	c.w.mu.Unlock()
	c.w.flush()

	select {
	case v := <-answer:
		return v, nil
	case <-ctx.Done():
		c.w.mu.Lock()
		c.answer = nil // a late answer changes nothing
		c.w.mu.Unlock()
		err := contextError(ctx)
		err.Unseen = true
		return Values{}, err
	case <-c.done:
		return Values{}, &protocol.Error{Kind: c.failure.Kind, Unseen: true, Err: c.failure.Err}
	}
}

func appendGetValues(b []byte, window int) []byte {
	var pairs []byte
	for _, p := range [...]protocol.Param{
		{Name: "FCGI_MAX_CONNS"}, {Name: "FCGI_MAX_REQS"}, {Name: "FCGI_MPXS_CONNS"},
		{Name: "GATECREW_FLOW", Value: strconv.Itoa(flowVersion)},
		{Name: "GATECREW_WINDOW", Value: strconv.Itoa(window)}, {Name: "GATECREW_AHEAD"}, {Name: "GATECREW_ASYNC"},
	} {
		pairs = protocol.AppendPair(pairs, p.Name, p.Value)
	}
	return append(appendHeader(b, typeGetValues, 0, len(pairs)), pairs...)
}

// values takes the answer to Negotiate; one that nobody waits for is ignored.
func (c *Conn) values(p []byte) error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.answer == nil {
		return nil
	}
	v, err := parseValues(p)
	if err != nil {
		return violation{err}
	}
	if v.Flow > 0 && v.Multiplex {
		c.flow = true
		c.receiveFiles()
		c.capacity = max(1, min(v.MaxReqs, maxRequests))
		c.ahead = min(v.Ahead, maxRequests-c.capacity)
		c.peerWindow = v.Window
		if v.Async {
			c.loop.async.Store(true)
			c.ahead = 0
		}
	}
	c.answer <- v
	c.answer = nil
	return nil
}

func parseValues(p []byte) (Values, error) {
	var v Values
	var bad error
	err := protocol.EachPair(p, func(name, value []byte) {
		limit := maxWindow
		var field *int
		var flag int
		var set *bool
		switch string(name) {
		case "FCGI_MAX_CONNS":
			field = &v.MaxConns
		case "FCGI_MAX_REQS":
			field = &v.MaxReqs
		case "FCGI_MPXS_CONNS":
			field, limit, set = &flag, 1, &v.Multiplex
		case "GATECREW_FLOW":
			field, limit = &v.Flow, flowVersion
		case "GATECREW_WINDOW":
			field = &v.Window
		case "GATECREW_AHEAD":
			field = &v.Ahead
		case "GATECREW_ASYNC":
			field, limit, set = &flag, 1, &v.Async
		default:
			return
		}
		n, err := strconv.ParseUint(string(value), 10, 31)
		if err != nil || int(n) > limit {
			bad = fmt.Errorf("fcgi: values: %s: %.40q is not a number in 0-%d", name, value, limit)
			return
		}
		*field = int(n)
		if set != nil {
			*set = *set || flag == 1
		}
	})
	switch {
	case err != nil:
		return v, fmt.Errorf("fcgi: values: %w", err)
	case bad != nil:
		return v, bad
	case v.Flow > 0 && v.Window == 0:
		return v, errors.New("fcgi: values: GATECREW_FLOW without GATECREW_WINDOW")
	}
	return v, nil
}
