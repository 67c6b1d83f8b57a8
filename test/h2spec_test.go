package test

import (
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gatecrew/test/harness"
)

// h2specKnown are the cases of h2spec that net/http doesn't pass, each with what
// it does in their place. See docs/tls.md.
var h2specKnown = []string{
	"http2/6.5.3 Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE",                                            // refused, although RFC 9113 allows it
	"http2/8.1.2.2 Sends a HEADERS frame that contains the connection-specific header field",                       // 400 instead of a reset
	"http2/8.1.2.2 Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"", // 400 instead of a reset
}

// TestH2spec runs h2spec, an independent suite of 145 cases, over TLS. Its cases
// want a page that is slow and large: on a quick one some are skipped, others
// race with the end of the answer.
func TestH2spec(t *testing.T) {
	t.Parallel()
	s := startTLS(t, `
sites:
  - hosts: [a.example]
    tls: {certificate: "%DIR%/a.example.pem", key: "%DIR%/a.example.key"}
    routes: [{path: /, cgi: {script: "`+script(t, t.TempDir(), "slow.sh",
		"#!/bin/sh\nsleep 0.3\nprintf 'Content-Type: text/plain\\r\\nContent-Length: 65536\\r\\n\\r\\n'\nhead -c 65536 /dev/zero\n")+`", max: 64}}]
`, "a.example")
	host, port, err := net.SplitHostPort(s.secure)
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Package string  `xml:"package,attr"`
				Name    string  `xml:"classname,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
				Skipped *string `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	// They mostly wait: side by side they take a third of the time.
	for i, sections := range [][]string{{"generic"}, {"hpack"}, {"http2/3", "http2/4", "http2/5"}, {"http2/6"}, {"http2/7", "http2/8"}} {
		running.Go(func() {
			file := filepath.Join(s.dir, fmt.Sprint("report", i, ".xml"))
			cmd := exec.Command("go", append([]string{"tool", "h2spec", "-h", host, "-p", port, "-t", "-k", "-o", "4", "-P", "/", "-j", file}, sections...)...)
			cmd.Dir = harness.Root(t)
			out, _ := cmd.CombinedOutput() // its status says that a case failed
			data, err := os.ReadFile(file)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = xml.Unmarshal(data, &report)
			}
			if err != nil {
				t.Errorf("h2spec %v: %v\n%s", sections, err, out)
			}
		})
	}
	running.Wait()
	cases := 0
	var failed []string
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			cases++
			if c.Failure != nil || c.Error != nil || c.Skipped != nil {
				name := c.Package + " " + c.Name
				failed = append(failed, name)
				if !slices.Contains(h2specKnown, name) {
					t.Errorf("%s failed", name)
				}
			}
		}
	}
	t.Logf("%d cases, %d failed:\n%s", cases, len(failed), strings.Join(failed, "\n"))
	if cases != 145 {
		t.Errorf("h2spec ran %d cases, want 145", cases)
	}
}
