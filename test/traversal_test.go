package test

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A path is decoded once and does not leave its folder, however its dots and
// slashes are written.
func TestClass07Traversal(t *testing.T) {
	s := newGate(t, "", `
      - {path: /static, static: {dir: "@CGI@/../static"}}
      - {path: /reference, static: {dir: "@CGI@/../static-not"}}
      - {path: /reference-cgi, cgi: {dir: "@CGI@/../cgi-not"}}`, "")
	const canary = "the-canary-sings"
	parent := filepath.Dir(s.cgi)
	script := "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nthe-canary''-sings'\n"
	writeScript(t, filepath.Join(parent, "static", "index.html"), "static", 0o644)
	for _, dir := range []string{parent, filepath.Join(parent, "static-not"), filepath.Join(parent, "cgi-not")} {
		writeScript(t, filepath.Join(dir, "canary.txt"), canary, 0o644)
		writeScript(t, filepath.Join(dir, "canary.php"), "<?php echo 'the-canary' . '-sings';", 0o644)
		writeScript(t, filepath.Join(dir, "canary"), script, 0o755)
	}
	for _, dir := range []string{s.cgi, s.php, filepath.Join(parent, "static")} {
		writeScript(t, filepath.Join(dir, ".env"), canary, 0o755)
		writeScript(t, filepath.Join(dir, "sub", "deep", "file.txt"), "file", 0o644)
		if err := os.Symlink(filepath.Join(parent, "canary"), filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(parent, filepath.Join(dir, "uplink")); err != nil {
			t.Fatal(err)
		}
	}
	s.Start()
	c := s.client()
	// The canary can be heard, or the test says nothing.
	for _, path := range []string{"/reference/canary.txt", "/reference-cgi/canary"} {
		if r := c.get(path); !strings.Contains(r.Body, canary) {
			t.Fatalf("%s: %d %q", path, r.Status, r.Body)
		}
	}
	secrets := []string{canary, "root:x:0:", "the-canary''", "the-canary' ."}
	for _, path := range traversals(2000) {
		r := c.get(path)
		for _, secret := range secrets {
			if strings.Contains(r.Body, secret) {
				t.Errorf("%s: %d %.100q", path, r.Status, r.Body)
			}
		}
		switch r.Status {
		case http.StatusOK:
			for _, m := range mirrors {
				got, err := m.read(r.Body)
				if err != nil {
					continue
				}
				if told := got.vars["SCRIPT_NAME"] + got.vars["PATH_INFO"]; strings.Contains(told+"/", "/../") {
					t.Errorf("%s: the application is told %q", path, told)
				}
			}
		case http.StatusMovedPermanently:
			if to := r.Header.Get("Location"); !strings.HasPrefix(to, "./") {
				t.Errorf("%s: redirected to %q", path, to)
			}
		case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
		default:
			t.Errorf("%s: status %d: %.200s", path, r.Status, r.Body)
		}
	}
	s.healthy()
}

// traversals makes n paths that try to leave a folder; the same ones each time.
func traversals(n int) []string {
	random := rand.New(rand.NewPCG(7, 7))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	starts := []string{"/static", "/cgi", "/cgi/env", "/php", "/php/index.php", "/pool/environ", "/fcgi", "", "/static/sub/deep", "/cgi/sub", "/php/sub/deep", "/static/uplink", "/cgi/link"}
	ups := []string{"..", "%2e%2e", "%2E.", ".%2e", "..;", "..;a=b", "..%00", "%252e%252e", "%25%32%65%25%32%65", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "...", "....", ". .", "..%20", "%20..",
		"..%09", "..%0d", ".%00.", "%u002e%u002e", "..\\..", "..%5c..", "%uff0e%uff0e", "%ef%bc%8e%ef%bc%8e", ".", "", "x", "uplink", "sub"}
	slashes := []string{"/", "/", "/", "%2f", "%2F", "//", "\\", "%5c", "/./", "%252f", "%c0%af", "/%2e/", "%2f%2f", "/;/", "%e2%88%95", "%ef%bc%8f", "%u2215", ""}
	ends := []string{"canary.txt", "canary.php", "canary", "canary/x", "canary.php/x.php", ".env", "link", "uplink/canary", "cgi-not/canary", "static-not/canary.txt", "etc/passwd", "etc%2fpasswd", "..", "canary.txt%00.html",
		"canary.txt%20", "canary.txt;", "canary.php.", "env", "index.php"}
	paths := make([]string, 0, n)
	for len(paths) < n {
		path := pick(starts) + pick(slashes)
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		// Two kinds of each at most, so that many paths are consistent.
		up, slash := pick(ups), pick(slashes)
		for range 1 + random.IntN(7) {
			if random.IntN(8) == 0 {
				path += pick(ups) + pick(slashes)
			} else {
				path += up + slash
			}
		}
		paths = append(paths, path+pick(ends))
	}
	return paths
}
