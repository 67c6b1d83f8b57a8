package cgi

import (
	"net/http"
	"strings"
	"testing"
)

// TestClass01Httpoxy: CVE-2016-5385. No spelling of Proxy reaches HTTP_PROXY.
func TestClass01Httpoxy(t *testing.T) {
	addr := plainServer(t, Target{PassAuthorization: true})
	for _, field := range []string{"Proxy", "proxy", "PROXY", "pRoXy"} {
		status, got := raw(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n"+field+": http://evil\r\nProxy-Url: x\r\n\r\n")
		if status != 200 {
			t.Errorf("%s: status %d", field, status)
		}
		for name := range got {
			if strings.EqualFold(name, "http_proxy") {
				t.Errorf("%s reached %s", field, name)
			}
		}
	}
	srv, client := h2Server(t, Target{}, nil)
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header["proxy"] = []string{"http://evil"}
	req.Header.Set("X-Seen", "yes")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	got := readVars(t, resp)
	wantVars(t, got, map[string]string{"HTTP_X_SEEN": "yes"})
	wantUnset(t, got, "HTTP_PROXY")
}

// TestClass02Underscore: CVE-2015-0219. A name with an underscore never gives
// a second value to the one with a hyphen, whatever the order.
func TestClass02Underscore(t *testing.T) {
	addr := plainServer(t, Target{})
	fields := []string{"X-Real: good", "X_Real: evil", "X.Real: evil", "X!Real: evil", "x_REAL: evil", "X-Real_: evil"}
	for i := range 200 {
		// Rotated, so that each comes first and last.
		k := i % len(fields)
		head := strings.Join(append(fields[k:len(fields):len(fields)], fields[:k]...), "\r\n")
		status, got := raw(t, addr, "GET / HTTP/1.1\r\nHost: h\r\n"+head+"\r\n\r\n")
		if status != 200 {
			t.Fatalf("status %d", status)
		}
		wantVars(t, got, map[string]string{"HTTP_X_REAL": "good"})
		for name, value := range got {
			if value == "evil" {
				t.Fatalf("%s = evil", name)
			}
		}
	}
}

func TestFieldVariable(t *testing.T) {
	for name, want := range map[string]string{
		"Accept": "HTTP_ACCEPT", "X-0": "HTTP_X_0", "X-": "HTTP_X_", "-": "HTTP__", "Content-Range": "HTTP_CONTENT_RANGE",
		"Httpproxy": "HTTP_HTTPPROXY", "Expect": "HTTP_EXPECT",
		// Not passed: by rule, by character, by form.
		"Proxy": "", "Host": "", "Content-Length": "", "Content-Type": "", "Connection": "", "Keep-Alive": "", "Te": "",
		"Trailer": "", "Transfer-Encoding": "", "Upgrade": "", "Proxy-Connection": "", "Http2-Settings": "",
		"Authorization": "", "Proxy-Authorization": "",
		"X_A": "", "X.a": "", "X a": "", "X=a": "", "X\x00a": "", "X\na": "", "": "", "Xé": "", "X-\u212a": "",
		"accept": "", "ACCEPT": "", "X-a": "",
	} {
		got, ok := fieldVariable(name, false)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// TestClass03DuplicateFields over HTTP/1 and HTTP/2, whose clients split Cookie.
func TestClass03DuplicateFields(t *testing.T) {
	addr := plainServer(t, Target{})
	status, got := raw(t, addr, "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nCookie: b=2\r\n"+
		"X-Forwarded-For: 1\r\nx-forwarded-for: 2\r\nContent-Type: text/plain\r\nContent-Type: text/plain\r\n\r\n")
	if status != 200 {
		t.Fatalf("status %d", status)
	}
	wantVars(t, got, map[string]string{"HTTP_COOKIE": "a=1; b=2", "HTTP_X_FORWARDED_FOR": "1, 2", "CONTENT_TYPE": "text/plain"})

	for name, fields := range map[string]string{
		"two hosts":         "Host: h\r\nHost: h\r\n",
		"two lengths":       "Host: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
		"two content types": "Host: h\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n",
	} {
		if status, _ := raw(t, addr, "POST / HTTP/1.1\r\n"+fields+"\r\n"); status != 400 {
			t.Errorf("%s: status %d, want 400", name, status)
		}
	}

	srv, client := h2Server(t, Target{}, nil)
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header["Cookie"] = []string{"a=1", "b=2"}
	req.Header["X-Forwarded-For"] = []string{"1", "2"}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	wantVars(t, readVars(t, resp), map[string]string{"HTTP_COOKIE": "a=1; b=2", "HTTP_X_FORWARDED_FOR": "1, 2"})
}

// TestClass15Authorization: credentials reach a script only where the site says so.
func TestClass15Authorization(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Basic YTpi\r\nProxy-Authorization: Basic YTpi\r\n" +
		"Remote-User: evil\r\nRemote_user: evil\r\nAuth-Type: evil\r\n\r\n"
	_, got := raw(t, plainServer(t, Target{}), request)
	wantUnset(t, got, "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "REMOTE_USER", "AUTH_TYPE")
	_, got = raw(t, plainServer(t, Target{PassAuthorization: true, AuthType: "Basic", RemoteUser: "alice"}), request)
	wantVars(t, got, map[string]string{
		"HTTP_AUTHORIZATION": "Basic YTpi", "HTTP_PROXY_AUTHORIZATION": "Basic YTpi", "AUTH_TYPE": "Basic", "REMOTE_USER": "alice",
	})
}

// TestConnectionFieldsStay: a client can't make the gateway forget a field by
// naming it in Connection; the connection's own fields are not passed.
func TestConnectionFieldsStay(t *testing.T) {
	_, got := raw(t, plainServer(t, Target{}), "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Forwarded-For\r\n"+
		"X-Forwarded-For: 1\r\nTE: gzip;q=0.5, trailers\r\nKeep-Alive: 1\r\nUpgrade: x\r\nProxy-Connection: close\r\n\r\n")
	wantVars(t, got, map[string]string{"HTTP_X_FORWARDED_FOR": "1", "HTTP_TE": "trailers"})
	wantUnset(t, got, "HTTP_CONNECTION", "HTTP_KEEP_ALIVE", "HTTP_UPGRADE", "HTTP_PROXY_CONNECTION")
}

// FuzzFieldVariable: no name reaches HTTP_PROXY or a variable of the gateway's
// own, and no two names reach the same variable.
func FuzzFieldVariable(f *testing.F) {
	for _, name := range []string{"Proxy", "proxy", "X-Real", "X_Real", "Pro-Xy", "Host", "", "X-\xe2\x84\xaa", "Content-Length"} {
		f.Add(name, true)
	}
	f.Fuzz(func(t *testing.T, name string, auth bool) {
		variable, ok := fieldVariable(name, auth)
		if !ok {
			return
		}
		if variable == "HTTP_PROXY" || variable == "HTTP_HOST" || !strings.HasPrefix(variable, "HTTP_") || CheckName(variable) != nil {
			t.Fatalf("%q gives %q", name, variable)
		}
		// The name can be told from the variable: so no other gives it.
		back := http.CanonicalHeaderKey(strings.ReplaceAll(variable[len("HTTP_"):], "_", "-"))
		if back != name {
			t.Fatalf("%q gives %q, as %q does", name, variable, back)
		}
	})
}

func BenchmarkFieldVariable(b *testing.B) {
	for _, name := range []string{"User-Agent", "X-Some-Other-Field"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := fieldVariable(name, false); !ok {
					b.Fatalf("%s is not passed", name)
				}
			}
		})
	}
}
