// Package websocket keeps the WebSocket connections of clients (RFC 6455, and
// RFC 8441 over HTTP/2): it checks the opening handshake, turns frames into the
// messages of a protocol.Socket and back, pings clients and closes connections.
// The frames themselves are github.com/gobwas/ws's.
package websocket

import (
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
)

// Options are a route's settings.
type Options struct {
	// MaxMessage is the largest message of a client in bytes, decompressed;
	// at most 4294967295.
	MaxMessage int64
	// PingInterval is how often a client is pinged, 0 never; PingTimeout is
	// how long it may be silent after a ping, 0 for ever.
	PingInterval, PingTimeout time.Duration
	// MaxAge is how long a connection may last, IdleTimeout how long it may
	// be without a message in either direction, 0 for ever. It is closed with
	// 1001 then.
	MaxAge, IdleTimeout time.Duration
	// Compression takes and sends compressed messages where the client offers
	// that, RFC 7692.
	Compression bool
	// Origins are the values of the Origin field that may connect, in lower
	// case; "same" is the host that the request names, "*" is all. Empty
	// allows all.
	Origins []string
}

// Asked reports whether r asks to become a WebSocket connection: by an upgrade
// (RFC 6455, section 4.2.1), or by an extended CONNECT (RFC 8441, section 5).
func Asked(r *http.Request) bool {
	if r.ProtoMajor != 1 {
		return r.Method == http.MethodConnect && Protocol(r) == "websocket"
	}
	return r.Method == http.MethodGet && r.ProtoMinor >= 1 && hasToken(r.Header["Upgrade"], "websocket") && hasToken(r.Header["Connection"], "upgrade")
}

// Protocol is the pseudo-header field :protocol of an extended CONNECT, "" for
// any other request.
func Protocol(r *http.Request) string {
	if values := r.Header[":protocol"]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// Refusal says why a handshake is not even shown to the application.
type Refusal struct {
	// Status is 400, 403, or 426 for a version other than 13, which the
	// answer then has to name.
	Status int
	// Reason is for the client and the log.
	Reason string
}

func (r *Refusal) Error() string { return "websocket: handshake: " + r.Reason }

// Handshake is an opening handshake that is well formed.
type Handshake struct {
	accept    string   // Sec-WebSocket-Accept; "" over HTTP/2
	protocols []string // offered
	bits      int      // of the window that messages are compressed with; 0 without compression
	extension string   // Sec-WebSocket-Extensions of the answer
}

// Check reads the handshake of a request that has Asked. The error is a
// *Refusal.
func (o *Options) Check(r *http.Request) (*Handshake, error) {
	if !o.allows(r) {
		return nil, &Refusal{http.StatusForbidden, "This origin may not connect."}
	}
	if !slices.Equal(r.Header["Sec-Websocket-Version"], []string{"13"}) {
		return nil, &Refusal{http.StatusUpgradeRequired, "Only version 13 of the WebSocket protocol is spoken here."}
	}
	h := &Handshake{}
	if r.ProtoMajor == 1 {
		keys := r.Header["Sec-Websocket-Key"]
		if len(keys) != 1 {
			return nil, &Refusal{http.StatusBadRequest, "The handshake needs one Sec-WebSocket-Key."}
		}
		if raw, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(raw) != 16 {
			return nil, &Refusal{http.StatusBadRequest, "The Sec-WebSocket-Key is not 16 bytes in base64."}
		}
		if r.ContentLength != 0 {
			return nil, &Refusal{http.StatusBadRequest, "A WebSocket handshake has no body."}
		}
		sum := sha1.Sum([]byte(keys[0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, section 1.3
		h.accept = base64.StdEncoding.EncodeToString(sum[:])
	}
	for token := range tokens(r.Header["Sec-Websocket-Protocol"]) {
		h.protocols = append(h.protocols, token)
	}
	if o.Compression {
		h.negotiate(r.Header["Sec-Websocket-Extensions"])
	}
	return h, nil
}

// allows reports whether the page that connects may do so.
func (o *Options) allows(r *http.Request) bool {
	values := r.Header["Origin"]
	if len(o.Origins) == 0 || len(values) == 0 || slices.Contains(o.Origins, "*") {
		return true
	}
	if len(values) > 1 {
		return false
	}
	origin := strings.ToLower(values[0])
	if slices.Contains(o.Origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && slices.Contains(o.Origins, "same") && u.Host != "" && u.Host == strings.ToLower(r.Host)
}

// negotiate takes the first offer of permessage-deflate that can be met (RFC
// 7692, section 7.1). Neither side keeps its window from one message to the
// next: it would be 32 KiB and more for a connection.
func (h *Handshake) negotiate(offers []string) {
	options, ok := httphead.ParseOptions([]byte(strings.Join(offers, ", ")), nil)
	if !ok {
		return
	}
	for _, option := range options {
		var p wsflate.Parameters
		if string(option.Name) != wsflate.ExtensionName || p.Parse(option) != nil {
			continue
		}
		h.bits, h.extension = maxBits, wsflate.ExtensionName+"; server_no_context_takeover; client_no_context_takeover"
		if p.ServerMaxWindowBits.Defined() {
			h.bits = int(p.ServerMaxWindowBits)
			h.extension += "; server_max_window_bits=" + itoa(h.bits)
		}
		return
	}
}

// Accept makes the fields of the answer that accepts the handshake from those
// that the application sent. ok is false when the application chose a
// subprotocol that was not offered.
func (h *Handshake) Accept(app http.Header) (answer http.Header, ok bool) {
	answer = http.Header{}
	for name, values := range app {
		switch name {
		case "Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Version",
			"Content-Length", "Content-Type", "Transfer-Encoding":
		default:
			answer[name] = values
		}
	}
	if chosen := app["Sec-Websocket-Protocol"]; len(chosen) > 1 || len(chosen) == 1 && !slices.Contains(h.protocols, chosen[0]) {
		return nil, false
	}
	if h.extension != "" {
		answer["Sec-Websocket-Extensions"] = []string{h.extension}
	}
	if h.accept != "" {
		answer["Upgrade"], answer["Connection"] = []string{"websocket"}, []string{"Upgrade"}
		answer["Sec-Websocket-Accept"] = []string{h.accept}
	}
	return answer, true
}

// tokens are the elements of a field that is a list.
func tokens(values []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range values {
			for token := range strings.SplitSeq(v, ",") {
				if token = strings.Trim(token, " \t"); token != "" && !yield(token) {
					return
				}
			}
		}
	}
}

func hasToken(values []string, token string) bool {
	for t := range tokens(values) {
		if strings.EqualFold(t, token) {
			return true
		}
	}
	return false
}
