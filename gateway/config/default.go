package config

import (
	"os"
	"time"
)

// Default returns the configuration of an empty file: every default, and
// nothing to serve.
func Default() *Config {
	return &Config{
		Listen: []Endpoint{{Address: Address{Network: "tcp", Address: "127.0.0.1:8000"}}},
		Log:    Log{Level: "info", Format: "console", Access: "-", AccessFormat: "combined", Slow: "-"},
		Limits: Limits{
			MaxBody:        1 << 30,
			BodyMemory:     128 << 10,
			SpoolQuota:     8 << 30,
			SpoolDir:       os.TempDir(),
			HeaderTimeout:  10 * time.Second,
			HeaderBytes:    64 << 10,
			HeaderFields:   200,
			BodyTimeout:    30 * time.Second,
			IdleTimeout:    75 * time.Second,
			WriteTimeout:   60 * time.Second,
			MaxConnections: 8192,

			WebSocketMemory: 512 << 20,
			FileCache:       32 << 20,
		},
		HTTP1:           "fast",
		HTTP2:           HTTP2{MaxConcurrentStreams: 128},
		GracefulTimeout: 30 * time.Second,
	}
}

func defaultQueue() Queue { return Queue{QueueLength: 512, QueueTimeout: 10 * time.Second} }

// setDefaults is called by the decoder on each value that a file or a command
// line begins, before what is written there is read over it.

func (p *Pool) setDefaults() {
	*p = Pool{
		Interface:        "auto",
		Loop:             "auto",
		Lifespan:         "auto",
		CExtension:       "auto",
		Chdir:            ".",
		Workers:          Workers{Max: 1, auto: true},
		Threads:          1,
		Concurrency:      1000,
		Timeout:          30 * time.Second,
		GracefulTimeout:  30 * time.Second,
		StartTimeout:     60 * time.Second,
		IdleTimeout:      60 * time.Second,
		SlowTimeout:      10 * time.Second,
		InterruptTimeout: time.Second,
		StopTimeout:      5 * time.Second,
		Queue:            defaultQueue(),
		ReplayIdempotent: true,
		WebSocket:        defaultWebSocket(),
	}
}

func (t *TLS) setDefaults() { *t = TLS{ClientAuth: "require", MinVersion: "1.2"} }

func (s *Static) setDefaults() { s.Index = []string{"index.html"} }

func (c *CGI) setDefaults() {
	*c = CGI{Timeout: 30 * time.Second, BufferRequests: true, Max: 16, Queue: defaultQueue(), StopTimeout: 5 * time.Second, WarmPreload: "stdlib", WarmScripts: 16}
}

func (p *Program) setDefaults() {
	*p = Program{
		Chdir:        ".",
		Restart:      "always",
		StartTimeout: 60 * time.Second,
		StopSignal:   "TERM",
		StopTimeout:  10 * time.Second,
	}
}

func (f *FastCGI) setDefaults() {
	*f = FastCGI{
		MaxConnections:    5,
		ConnectTimeout:    5 * time.Second,
		Timeout:           60 * time.Second,
		Queue:             defaultQueue(),
		BufferRequests:    true,
		PassAuthorization: true,
	}
}
