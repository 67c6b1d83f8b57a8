package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// WebSocket is how the gateway keeps WebSocket connections, RFC 6455.
type WebSocket struct {
	// MaxMessage is the largest message that a client may send, in bytes
	// and decompressed; a larger one closes its connection with 1009.
	// Default: 16m.
	MaxMessage Size `yaml:"max_message"`
	// PingInterval is how often a client is asked whether it is still there.
	// It also keeps connections through proxies that end silent ones. 0
	// never asks. Default: 20s.
	PingInterval time.Duration `yaml:"ping_interval"`
	// PingTimeout is how long the client may take to answer; then its
	// connection is closed with 1011. 0 waits for ever. Default: 20s.
	PingTimeout time.Duration `yaml:"ping_timeout"`
	// MaxAge is how long a connection may last, then it is closed with 1001.
	// Default: 0, no limit.
	MaxAge time.Duration `yaml:"max_age"`
	// IdleTimeout is how long a connection may be without a message in either
	// direction, pings aside; then it is closed with 1001. Default: 0, no
	// limit.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// Compression compresses messages for clients that offer it, RFC 7692:
	// each by itself, so that a connection needs no memory for it. Default:
	// true.
	Compression bool `yaml:"compression"`
	// Origins are the sites whose pages may connect, as a browser says in the
	// Origin field: SCHEME://HOST[:PORT], or same for pages from the host that
	// they connect to, or * for any. Others are answered 403, and clients that are no
	// browsers and send no Origin are let in. Default: empty, any; the
	// application has to know who is asking, since a browser sends its
	// cookies along from the pages of any site.
	Origins []string `yaml:"origins,omitempty"`
}

func defaultWebSocket() WebSocket {
	return WebSocket{MaxMessage: 16 << 20, PingInterval: 20 * time.Second, PingTimeout: 20 * time.Second, Compression: true}
}

// maxMessage is how long a message can be on its way to an application
// (protocol.AppendMessage).
const maxMessage = 1<<32 - 1

// websocket checks how WebSocket connections are kept.
func (c *checker) websocket(at string, w *WebSocket) {
	c.positive(at+".max_message", int64(w.MaxMessage))
	if w.MaxMessage > maxMessage {
		c.fault(at+".max_message", fmt.Sprintf("%v is more than a message can have", w.MaxMessage), "write less than 4g")
	}
	for key, d := range map[string]time.Duration{".ping_interval": w.PingInterval, ".ping_timeout": w.PingTimeout, ".max_age": w.MaxAge, ".idle_timeout": w.IdleTimeout} {
		if d < 0 {
			c.fault(at+key, "the time is less than zero", "")
		}
	}
	if most := c.cfg.Limits.WebSocketMemory; w.MaxMessage > most && most > 0 {
		c.fault(at+".max_message", fmt.Sprintf("%v is more than limits.websocket_memory, %v, so that no such message can ever come", w.MaxMessage, most), "raise limits.websocket_memory")
	}
	if w.PingInterval == 0 && w.PingTimeout > 0 && w.PingTimeout != defaultWebSocket().PingTimeout {
		c.fault(at+".ping_timeout", "it does nothing without ping_interval", "leave it out")
	}
	for i, origin := range w.Origins {
		if origin == "same" || origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.TrimSuffix(u.Path, "/")+u.RawQuery+u.Fragment != "" {
			c.fault(fmt.Sprintf("%s.origins[%d]", at, i), fmt.Sprintf("%q is no origin", origin), "write https://example.org, same for the host that is connected to, or * for any")
			continue
		}
		w.Origins[i] = strings.ToLower(u.Scheme + "://" + u.Host)
	}
}
