package test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"path/filepath"
	"strings"
	"testing"
)

// pattern is n bytes of which no part looks like another at a wrong offset.
func pattern(n int) string {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%x.", i)
	}
	return string(b[:n])
}

// The largest string that Linux gives to a program has one byte less than
// 128 KiB; php-fpm reads each record of parameters by itself, so that for it
// a name and its value have to fit into one.
const (
	largestString = 128<<10 - 1
	largestPair   = 65535
)

// A request head that is too large for an application is refused as too large,
// and the others still get it. Nobody is harmed.
func TestClass13LargeHeads(t *testing.T) {
	t.Parallel()
	t.Run("default limits", func(t *testing.T) {
		s := startGate(t, "", "", "")
		c := s.client().on(t)
		for _, m := range mirrors {
			for _, fields := range [][]string{
				{"X-Large: " + pattern(200_000)},
				{"Cookie: " + pattern(70_000)},
				{"X" + strings.Repeat("x", 200_000) + ": 1"},
				many(201, 1), many(5000, 1), many(50_000, 1),
			} {
				if r := c.get(m.path, fields...); r.Status != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("%s, %d fields, the first with %d bytes: status %d", m.name, len(fields), len(fields[0]), r.Status)
				}
			}
			// The limit is the configuration's, and two of net/http's buffers, one
			// of which it may have read before it begins to count.
			fill := 64<<10 - len(rawRequest("GET", m.path, "Cookie: "))
			arrive(t, m, c, "the largest head", m.path, []string{"Cookie: " + pattern(fill)})
			if r := c.get(m.path, "Cookie: "+pattern(fill+3*4096)); r.Status != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: status %d for a head that is too large", m.name, r.Status)
			}
		}
		s.healthy()
	})
	t.Run("raised limits", func(t *testing.T) {
		s := startGate(t, "header_bytes: 8m, header_fields: 10000", "", "")
		c := s.client().on(t)
		tests := []struct {
			what    string
			fields  []string
			refused string // by whom
		}{
			{"5,000 small fields", many(5000, 20), ""},
			{"a cookie of 120,000 bytes", []string{"Cookie: " + pattern(120_000)}, "php-fpm"},
			{"the largest string", []string{"X-A: " + pattern(largestString-len("HTTP_X_A="))}, "php-fpm"},
			{"one byte more", []string{"X-A: " + pattern(largestString-len("HTTP_X_A=")+1)}, "php-fpm CGI"},
			{"a field of 200,000 bytes", []string{"X-Large: " + pattern(200_000)}, "php-fpm CGI"},
			{"4 fields of 60,000 bytes", many(4, 60_000), ""},
			{"32 fields of 60,000 bytes", many(32, 60_000), "CGI"},
		}
		for _, m := range mirrors {
			for _, tt := range tests {
				if strings.Contains(tt.refused, m.name) {
					want := http.StatusRequestHeaderFieldsTooLarge
					if m.name == "php-fpm" { // it is php-fpm that refuses, by closing the connection
						want = http.StatusBadGateway
					}
					if r := c.get(m.path, tt.fields...); r.Status != want {
						t.Errorf("%s, %s: status %d, want %d", m.name, tt.what, r.Status, want)
					}
					continue
				}
				arrive(t, m, c, tt.what, m.path, tt.fields)
			}
		}
		s.healthy()
	})
}

// many makes n fields with values of this size.
func many(n, size int) []string {
	fields := make([]string, n)
	for i := range fields {
		fields[i] = fmt.Sprintf("X-Number-%d: %s", i, pattern(size))
	}
	return fields
}

// arrive demands that all fields reach the application as they are.
func arrive(t *testing.T, m mirror, c *rawClient, what, path string, fields []string) {
	t.Helper()
	got := m.see(t, c, path, fields...).vars
	wrong := 0
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		variable := "HTTP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if got[variable] != value {
			if wrong++; wrong <= 3 {
				t.Errorf("%s, %s: %.60s… has %d bytes, want %d: %.60q", m.name, what, variable, len(got[variable]), len(value), got[variable])
			}
		}
	}
}

// Lengths have one byte or four, and parameters may span records: names and
// values of every size at the borders reach each implementation of the
// receiving side as they are.
func TestClass14LongNames(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "go")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go fcgi.Serve(l, http.HandlerFunc(mirrorGo)) // ends with l
	s := startGate(t, "header_bytes: 8m", `- {path: /go, fastcgi: {address: "unix:`+socket+`"}}`, "")
	c := s.client()
	sizes := []int{127, 128, 129, 255, 256, 260, 65_000, 65_530, 65_535, 65_536, 70_000}
	for _, m := range append([]mirror{{"net/http/fcgi", "/go", readScript}}, mirrors...) {
		t.Run(m.name, func(t *testing.T) {
			c := c.on(t)
			var all []string
			for _, n := range sizes {
				for _, size := range [][2]int{{n, 1}, {10, n}, {n, n}} {
					if total := size[0] + size[1]; m.name == "CGI" && total+len("=") > largestString || m.name == "php-fpm" && total+8 > largestPair {
						continue
					}
					field := "X" + strings.Repeat("abcdefghij", size[0]/10+1)[:size[0]-len("HTTP_X")] + ": " + pattern(size[1])
					arrive(t, m, c, fmt.Sprint("sizes ", size), m.path, []string{field})
					if size[1] == n && size[0] == n {
						all = append(all, field)
					}
				}
			}
			if m.name == "CGI" {
				all = all[:len(all)-3] // together they are too large
			}
			arrive(t, m, c, "all sizes at once", m.path, all)
		})
	}
	s.healthy()
}

// mirrorGo answers as responder.pl does.
func mirrorGo(w http.ResponseWriter, r *http.Request) {
	env := fcgi.ProcessEnv(r)
	for name, values := range r.Header {
		env["HTTP_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = values[0]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"env": env})
}
