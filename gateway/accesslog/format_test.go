package accesslog

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var sample = Entry{
	Time:       time.Date(2000, 10, 10, 13, 55, 36, 123456789, time.FixedZone("", -7*3600)),
	Duration:   1234567 * time.Microsecond,
	RemoteAddr: "127.0.0.1",
	User:       "frank",
	Method:     "GET",
	URI:        "/apache_pb.gif?a=b",
	Proto:      "HTTP/1.0",
	Status:     200,
	Bytes:      2326,
	Referer:    "http://www.example.com/start.html",
	UserAgent:  "Mozilla/4.08 [en] (Win98; I ;Nav)",
	Host:       "example.com",
	RequestID:  "r-1",
	Route:      "app",
	Upstream:   "app/3",
	Queue:      50 * time.Microsecond,
}

func TestCombined(t *testing.T) {
	hostile := sample
	hostile.User = "a b"
	hostile.URI = "/\"\\\r\n\x1b[2J\x00\xff\u00e9"
	hostile.UserAgent = "x\" \"y\t\b\v\f\x7f"
	empty := Entry{Time: sample.Time}
	for _, c := range []struct {
		name  string
		entry Entry
		want  string
	}{
		{"the manual's example", sample, `127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif?a=b HTTP/1.0" 200 2326 "http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"`},
		{"nothing known", empty, `- - - [10/Oct/2000:13:55:36 -0700] "-" - - "-" "-"`},
		{"hostile", hostile, `127.0.0.1 - a\x20b [10/Oct/2000:13:55:36 -0700] "GET /\"\\\r\n\x1b[2J\x00\xff\xc3\xa9 HTTP/1.0" 200 2326 "http://www.example.com/start.html" "x\" \"y\t\b\v\x0c\x7f"`},
	} {
		if got := string(appendCombined(nil, &c.entry)); got != c.want+"\n" {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestJSON(t *testing.T) {
	hostile := sample
	hostile.User = "\u202e\u009b\U000e0001é\U0001f600"
	hostile.URI = "/\"\\\r\n\t\x1b[2J\x00\xff\u2028"
	want := `{"time":"2000-10-10T13:55:36.123456789-07:00","duration":1.234567,"remote_addr":"127.0.0.1","user":"\u202e\u009b\udb40\udc01é` + "\U0001f600" + `","method":"GET",` +
		`"uri":"/\"\\\r\n\t\u001b[2J\u0000\ufffd\u2028","proto":"HTTP/1.0","status":200,"bytes":2326,"referer":"http://www.example.com/start.html",` +
		`"user_agent":"Mozilla/4.08 [en] (Win98; I ;Nav)","host":"example.com","request_id":"r-1","route":"app","upstream":"app/3","queue":0.000050}` + "\n"
	if got := string(appendJSON(nil, &hostile)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000000", 999: "0.000000", 1000: "0.000001", time.Second: "1.000000",
		time.Hour + time.Microsecond: "3600.000001", -time.Millisecond: "-0.001000",
	} {
		if got := string(appendSeconds(nil, d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestLongFieldsAreCut(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{strings.Repeat("a", maxField), strings.Repeat("a", maxField)},
		{strings.Repeat("a", maxField+1), strings.Repeat("a", maxField) + cutMark},
		{strings.Repeat("a", maxField-1) + "é", strings.Repeat("a", maxField-1) + cutMark},
		{strings.Repeat("a", maxField-2) + "é!", strings.Repeat("a", maxField-2) + "é" + cutMark},
	} {
		if got := string(appendJSONString(nil, c.in)); got != c.want {
			t.Errorf("JSON: a field of %d bytes ends in %q, want %q", len(c.in), got[len(got)-5:], c.want[len(c.want)-5:])
		}
	}
	if got := len(appendLogItem(nil, strings.Repeat("\xff", 1<<20))); got != 4*maxField+len(cutMark) {
		t.Errorf("combined: a megabyte became %d bytes", got)
	}
}

// combinedLine is what a reader of the format expects.
var combinedLine = regexp.MustCompile(`^(\S+) (\S+) (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d+|-) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"\n$`)

// unescape undoes appendLogItem with the standard library's reader of the
// same escapes.
func unescape(t *testing.T, s string) string {
	t.Helper()
	out, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		t.Fatalf("%q can't be read back: %v", s, err)
	}
	return out
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func FuzzCombined(f *testing.F) {
	f.Add("1.2.3.4", "u", "GET", "/", "HTTP/1.1", "ref", "agent")
	f.Add("", "", "", "", "", "", "")
	f.Add("\n", "a \" b", "\r", "\x1b]0;x\a", "\\", "\\\"", "\xff\xfe\u2028")
	f.Fuzz(func(t *testing.T, addr, user, method, uri, proto, referer, agent string) {
		if max(len(addr), len(user), len(method), len(uri), len(proto), len(referer), len(agent)) > maxField {
			return
		}
		e := Entry{Time: sample.Time, RemoteAddr: addr, User: user, Method: method, URI: uri, Proto: proto, Status: 404, Bytes: 7, Referer: referer, UserAgent: agent}
		line := appendCombined(nil, &e)
		for i, c := range line[:len(line)-1] {
			if c < ' ' || c >= 0x7f {
				t.Fatalf("byte %#x at %d of %q", c, i, line)
			}
		}
		m := combinedLine.FindSubmatch(line)
		if m == nil {
			t.Fatalf("%q is not the combined format", line)
		}
		request := "-"
		if method != "" || uri != "" {
			request = method + " " + uri + " " + proto
		}
		for i, want := range map[int]string{1: orDash(addr), 2: "-", 3: orDash(user), 4: "10/Oct/2000:13:55:36 -0700", 5: request, 6: "404", 7: "7", 8: orDash(referer), 9: orDash(agent)} {
			if got := unescape(t, string(m[i])); got != want {
				t.Fatalf("field %d of %q reads %q, want %q", i, line, got, want)
			}
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add("1.2.3.4", "u", "GET", "/", "ref", "agent", 200, int64(5), int64(time.Second))
	f.Add("\n", "a \" b", "\r", "\x1b]0;x\a", "\\", "\xff\xfe\u2028\u202e\U0001f600\U000e0001", -1, int64(-1), int64(-5000))
	f.Fuzz(func(t *testing.T, addr, user, method, uri, referer, agent string, status int, size, duration int64) {
		if max(len(addr), len(user), len(method), len(uri), len(referer), len(agent)) > maxField {
			return
		}
		e := Entry{Time: sample.Time, Duration: time.Duration(duration), RemoteAddr: addr, User: user, Method: method, URI: uri, Status: status, Bytes: size, Referer: referer, UserAgent: agent}
		line := appendJSON(nil, &e)
		if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
			t.Fatalf("the line ends at %d of %q", n, line)
		}
		for _, r := range string(line[:len(line)-1]) {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", line, r)
			}
		}
		if !utf8.Valid(line) {
			t.Fatalf("%q is not UTF-8", line)
		}
		var got struct {
			Time       time.Time
			RemoteAddr string `json:"remote_addr"`
			User       string
			Method     string
			URI        string
			Referer    string
			UserAgent  string `json:"user_agent"`
			Status     int
			Bytes      int64
			Duration   json.Number
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, pair := range [][2]string{{got.RemoteAddr, addr}, {got.User, user}, {got.Method, method}, {got.URI, uri}, {got.Referer, referer}, {got.UserAgent, agent}} {
			if want := string([]rune(pair[1])); pair[0] != want { // each byte that is not UTF-8 is a U+FFFD
				t.Fatalf("%q reads %q, want %q", line, pair[0], want)
			}
		}
		if got.Status != status || got.Bytes != size || !got.Time.Equal(e.Time) {
			t.Fatalf("%q reads %+v", line, got)
		}
	})
}
