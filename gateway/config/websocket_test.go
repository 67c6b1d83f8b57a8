package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWebSocketSettings(t *testing.T) {
	load := func(settings string) (*Config, error) {
		dir := t.TempDir()
		app := filepath.Join(dir, "app.py")
		if err := os.WriteFile(app, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "gatecrew.yaml")
		text := "pools: {web: {app: app.py, python: /bin/sh, websocket: " + settings + "}}\nsites: [{routes: [{path: /, pool: web}]}]\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	c, err := load("{max_message: 1m, idle_timeout: 1h, max_age: 24h, origins: [same, 'HTTPS://Example.org:8443/']}")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Pools["web"].WebSocket
	if got.MaxMessage != 1<<20 || got.PingInterval != 20*time.Second || !got.Compression || got.IdleTimeout != time.Hour || got.MaxAge != 24*time.Hour ||
		strings.Join(got.Origins, " ") != "same https://example.org:8443" {
		t.Errorf("read as %+v", got)
	}
	for settings, want := range map[string]string{
		"{max_message: 0}":                          "max_message",
		"{max_message: 1g}":                         "raise limits.websocket_memory",
		"{idle_timeout: -1s}":                       "idle_timeout",
		"{max_message: 4g}":                         "more than a message can have",
		"{origins: [example.org]}":                  "no origin",
		"{origins: ['https://example.org/app']}":    "no origin",
		"{ping_interval: 0, ping_timeout: 5s}":      "does nothing without ping_interval",
		"{origins: ['https://user@example.org']}":   "no origin",
		"{ping_interval: 20s, compression: likely}": "compression",
	} {
		if _, err := load(settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the fault is %v, want one about %q", settings, err, want)
		}
	}
}
