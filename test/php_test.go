package test

import (
	"encoding/json"
	"fmt"
	"html"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// infoRow is a row of phpinfo()'s tables.
var infoRow = regexp.MustCompile(`<tr><td class="e">(.+?) ?</td><td class="v">(.*?) ?</td></tr>`)

// phpinfo() shows what an administrator checks first: that PHP knows where it
// runs, for whom, and what it was asked.
func TestPHPInfo(t *testing.T) {
	s := startGate(t, "", "", "")
	c := s.client()
	r := c.get("/php/info.php/a%20b/c?d=e%20f&g=%3C", "User-Agent: probe/1.0", "Cookie: session=1; theme=dark", "Accept-Language: de", "Referer: http://other.test/")
	if r.Status != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("%d %q %.200s", r.Status, r.Header, r.Body)
	}
	got := map[string]string{}
	for _, row := range infoRow.FindAllStringSubmatch(r.Body, -1) {
		got[html.UnescapeString(row[1])] = html.UnescapeString(row[2])
	}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "127.0.0.1", "SERVER_ADDR": "127.0.0.1", "SERVER_PORT": port,
		"REQUEST_METHOD": "GET", "REQUEST_SCHEME": "http", "REQUEST_URI": "/php/info.php/a%20b/c?d=e%20f&g=%3C", "QUERY_STRING": "d=e%20f&g=%3C",
		"SCRIPT_NAME": "/php/info.php", "PATH_INFO": "/a b/c", "PHP_SELF": "/php/info.php/a b/c", "DOCUMENT_URI": "/php/info.php/a b/c",
		"DOCUMENT_ROOT": s.php, "SCRIPT_FILENAME": s.php + "/info.php", "PATH_TRANSLATED": s.php + "/a b/c",
		"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": fmt.Sprint(c.conn.LocalAddr().(*net.TCPAddr).Port), "REDIRECT_STATUS": "200",
		"HTTP_HOST": "gateway.test", "HTTP_USER_AGENT": "probe/1.0", "HTTP_COOKIE": "session=1; theme=dark", "HTTP_ACCEPT_LANGUAGE": "de",
		"HTTP_REFERER": "http://other.test/", "FCGI_ROLE": "RESPONDER",
	}
	for name, value := range want {
		if shown := got["$_SERVER['"+name+"']"]; shown != value {
			t.Errorf("$_SERVER['%s'] = %q, want %q", name, shown, value)
		}
	}
	for name, value := range map[string]string{"Server API": "FPM/FastCGI", "$_GET['d']": "e f", "$_GET['g']": "<", "$_COOKIE['theme']": "dark"} {
		if got[name] != value {
			t.Errorf("%s = %q, want %q", name, got[name], value)
		}
	}
	for _, name := range []string{"HTTPS", "CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_USER", "AUTH_TYPE", "HTTP_PROXY"} {
		if value := got["$_SERVER['"+name+"']"]; value != "" && value != "no value" {
			t.Errorf("$_SERVER['%s'] = %q", name, value)
		}
	}
	if !strings.HasPrefix(got["$_SERVER['SERVER_SOFTWARE']"], "gatecrew") {
		t.Errorf("SERVER_SOFTWARE = %q", got["$_SERVER['SERVER_SOFTWARE']"])
	}
}

// Forms, uploads and folders work as PHP's manual says.
func TestPHPRequests(t *testing.T) {
	s := newGate(t, "", "", "")
	writeScript(t, filepath.Join(s.php, "shop", "index.php"), "<?php echo $_SERVER['SCRIPT_NAME'], ' ', $_SERVER['SCRIPT_FILENAME'];", 0o644)
	s.Start()
	c := s.client()
	var page struct {
		Server      map[string]any
		Post, Files json.RawMessage // an array when it is empty
		Body        struct{ Bytes int }
	}
	ask := func(request string) {
		t.Helper()
		r := c.send(request)
		if err := json.Unmarshal([]byte(r.Body), &page); err != nil || r.Status != http.StatusOK {
			t.Fatalf("%d %.300s: %v", r.Status, r.Body, err)
		}
	}
	ask(post("/php/index.php", "a=1&b=c+d%26", "Content-Type: application/x-www-form-urlencoded"))
	if string(page.Post) != `{"a":"1","b":"c d&"}` || page.Server["CONTENT_LENGTH"] != "12" || page.Server["CONTENT_TYPE"] != "application/x-www-form-urlencoded" || page.Body.Bytes != 12 {
		t.Errorf("form: %v", page)
	}
	file := strings.Repeat("0123456789", 50_000)
	ask(post("/php/index.php", "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"ü.txt\"\r\nContent-Type: text/plain\r\n\r\n"+file+"\r\n--x--\r\n",
		"Content-Type: multipart/form-data; boundary=x"))
	var files map[string]struct {
		Name        string
		Size, Error int
	}
	if err := json.Unmarshal(page.Files, &files); err != nil {
		t.Fatalf("upload: %s: %v", page.Files, err)
	}
	if f := files["f"]; f.Name != "ü.txt" || f.Size != len(file) || f.Error != 0 {
		t.Errorf("upload: %+v", f)
	}
	ask(rawRequest("POST", "/php/index.php", "Content-Type: application/x-www-form-urlencoded", "Transfer-Encoding: chunked") + "3\r\na=2\r\n0\r\n\r\n")
	if string(page.Post) != `{"a":"2"}` || page.Server["CONTENT_LENGTH"] != "3" {
		t.Errorf("chunked form: %v", page)
	}
	if r := c.get("/php/shop?a=b"); r.Status != http.StatusMovedPermanently || r.Header.Get("Location") != "./shop/?a=b" {
		t.Errorf("a folder: %d %q", r.Status, r.Header)
	}
	if r := c.get("/php/shop/"); r.Body != "/php/shop/index.php "+s.php+"/shop/index.php" {
		t.Errorf("a folder's index: %d %q", r.Status, r.Body)
	}
	s.healthy()
}
