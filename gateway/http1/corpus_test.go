package http1

import "strings"

// lines makes what is sent of a text with LF at its line ends.
func lines(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// clients are requests as they are sent by what is in use.
var clients = []string{
	// curl
	lines("GET /index.html HTTP/1.1\nHost: www.example.com\nUser-Agent: curl/8.14.1\nAccept: */*\n\n"),
	lines("POST /form HTTP/1.1\nHost: localhost:8000\nUser-Agent: curl/8.14.1\nAccept: */*\nContent-Length: 7\nContent-Type: application/x-www-form-urlencoded\n\na=1&b=2"),
	lines("PUT /up HTTP/1.1\nHost: localhost\nUser-Agent: curl/8.14.1\nAccept: */*\nContent-Length: 2000000\nExpect: 100-continue\n\n"),
	// browsers
	lines("GET /search?q=caf%C3%A9&hl=de HTTP/1.1\nHost: shop.example:8443\nConnection: keep-alive\nsec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\nsec-ch-ua-mobile: ?0\nsec-ch-ua-platform: \"Linux\"\nUpgrade-Insecure-Requests: 1\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\nSec-Fetch-Site: none\nSec-Fetch-Mode: navigate\nSec-Fetch-User: ?1\nSec-Fetch-Dest: document\nAccept-Encoding: gzip, deflate, br, zstd\nAccept-Language: de-DE,de;q=0.9,en;q=0.8\nCookie: session=abc123; theme=dark\n\n"),
	lines("GET /favicon.ico HTTP/1.1\nHost: 127.0.0.1:8000\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0\nAccept: image/avif,image/webp,*/*;q=0.8\nAccept-Language: en-US,en;q=0.5\nAccept-Encoding: gzip, deflate\nConnection: keep-alive\nReferer: http://127.0.0.1:8000/\nPriority: u=6\nPragma: no-cache\nCache-Control: no-cache\n\n"),
	lines("POST /api/items HTTP/1.1\nHost: api.example\nConnection: keep-alive\nContent-Length: 15\nContent-Type: application/json\nOrigin: https://app.example\nX-CSRFToken: t0k3n\n\n{\"name\":\"item\"}"),
	lines("OPTIONS /api/items HTTP/1.1\nHost: api.example\nOrigin: https://app.example\nAccess-Control-Request-Method: PATCH\nAccess-Control-Request-Headers: content-type,x-csrf-token\n\n"),
	lines("POST /upload HTTP/1.1\nHost: h\nContent-Type: multipart/form-data; boundary=----WebKitFormBoundary7MA\nContent-Length: 119\n\n------WebKitFormBoundary7MA\nContent-Disposition: form-data; name=\"f\"\n\nvalue of the field\n------WebKitFormBoundary7MA--\n"),
	// Python: requests, httpx, aiohttp, http.client
	lines("GET / HTTP/1.1\nHost: localhost:8000\nUser-Agent: python-requests/2.32.5\nAccept-Encoding: gzip, deflate\nAccept: */*\nConnection: keep-alive\n\n"),
	lines("POST /json HTTP/1.1\nHost: localhost:8000\nAccept: */*\nAccept-Encoding: gzip, deflate\nConnection: keep-alive\nUser-Agent: python-httpx/0.28.1\nContent-Length: 9\nContent-Type: application/json\n\n{\"a\": 12}"),
	lines("GET /a?b=c HTTP/1.1\nHost: localhost:8000\nAccept: */*\nAccept-Encoding: gzip, deflate\nUser-Agent: Python/3.13 aiohttp/3.12.15\n\n"),
	lines("DELETE /item/5 HTTP/1.1\nHost: localhost:8000\nAccept-Encoding: identity\nContent-Length: 0\n\n"),
	// Java: HttpClient, HttpURLConnection
	lines("GET /v1 HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\nContent-Length: 0\nHost: localhost:8000\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\nUpgrade: h2c\nUser-Agent: Java-http-client/21.0.8\n\n"),
	lines("GET /v1 HTTP/1.1\nUser-Agent: Java/1.8.0_452\nHost: localhost:8000\nAccept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\nConnection: keep-alive\n\n"),
	// probes and proxies
	lines("GET /healthz HTTP/1.1\nHost: 10.0.0.7:8080\nUser-Agent: kube-probe/1.33\nAccept: */*\nConnection: close\n\n"),
	lines("HEAD /ready HTTP/1.1\nHost: [::1]:8000\nUser-Agent: HAProxy\n\n"),
	lines("GET / HTTP/1.0\nHost: backend\nConnection: close\nX-Real-IP: 192.0.2.1\n\n"),
	lines("GET /p HTTP/1.1\nHost: backend\nX-Forwarded-For: 192.0.2.1, 10.0.0.2\nX-Forwarded-Proto: https\nX-Forwarded-Host: www.example\nX-Request-ID: 5f1c\nForwarded: for=192.0.2.1;proto=https\nVia: 1.1 proxy\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n\n"),
	lines("GET / HTTP/1.0\nHost: localhost\nUser-Agent: ApacheBench/2.3\nAccept: */*\nConnection: Keep-Alive\n\n"),
	// git and WebDAV
	lines("GET /repo.git/info/refs?service=git-upload-pack HTTP/1.1\nHost: git.example\nUser-Agent: git/2.51.0\nAccept: */*\nAccept-Encoding: deflate, gzip, br, zstd\nPragma: no-cache\nGit-Protocol: version=2\n\n"),
	lines("POST /repo.git/git-upload-pack HTTP/1.1\nHost: git.example\nUser-Agent: git/2.51.0\nAccept-Encoding: deflate, gzip\nContent-Type: application/x-git-upload-pack-request\nAccept: application/x-git-upload-pack-result\nGit-Protocol: version=2\nContent-Length: 24\n\n0014command=ls-refs\n0000"),
	lines("PROPFIND /dav/ HTTP/1.1\nHost: dav.example\nDepth: 1\nContent-Length: 0\nUser-Agent: gvfs/1.57\n\n"),
	lines("MOVE /dav/a HTTP/1.1\nHost: dav.example\nDestination: http://dav.example/dav/b\nOverwrite: F\n\n"),
	// chunks, WebSocket, conditional, ranges
	lines("POST /chunks HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"),
	lines("GET /ws HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"),
	lines("GET /f HTTP/1.1\nHost: h\nIf-None-Match: \"abc\"\nIf-Modified-Since: Sat, 01 Nov 2025 10:00:00 GMT\nRange: bytes=0-99\nIf-Range: \"abc\"\n\n"),
	lines("PATCH /x HTTP/1.1\nhost: h\ncontent-type: application/merge-patch+json\ncontent-length: 2\nauthorization: Bearer t\n\n{}"),
	lines("POST / HTTP/1.1\nHost: h\nContent-Length: 3\n\nabc\nGET /next HTTP/1.1\nHost: h\n\n"), // with line ends behind its body
	lines("GET / HTTP/1.1\nHost: h\n\nGET /2 HTTP/1.1\nHost: h\n\nPOST /3 HTTP/1.1\nHost: h\nContent-Length: 1\n\nxGET /4 HTTP/1.1\nHost: h\n\n"),
}

// fieldLines are what parsers are known to read in different ways, and what is
// usual. They have no line end.
var fieldLines = []string{
	// a length
	"Content-Length: 0", "Content-Length: 3", "Content-Length: 5", "Content-Length: +3", "Content-Length: -3", "Content-Length: 3,3",
	"Content-Length: 3, 4", "Content-Length: 0x3", "Content-Length: 003", "Content-Length: 3 ", "Content-Length:  3", "Content-Length:\t3",
	"Content-Length: 3 3", "Content-Length: 3;", "Content-Length:", "Content-Length: ", "Content-Length: 3.0", "Content-Length: 1e1",
	"Content-Length: 99999999999999999999", "Content-Length: 18446744073709551619", "Content-Length: 4294967299", "Content-Length: 32769",
	"Content-Length: \"3\"", "Content-Length : 3", " Content-Length: 3", "\tContent-Length: 3", "Content_Length: 3", "content-length: 3",
	"CONTENT-LENGTH: 3", "Content-Length\x00: 3", "Content-Length: 3\x00", "Content-Length: \xb3", "Content-Length\t: 3", "Content-Length: 3\v",
	"Content-Length: 000000003", "Content-Length: 0000000003", "Content-Length: 999999999", "Content-Length: 1_0",
	// a coding
	"Transfer-Encoding: chunked", "Transfer-Encoding:chunked", "Transfer-Encoding:  chunked", "Transfer-Encoding: chunked ", "Transfer-Encoding:\tchunked",
	"Transfer-Encoding:\vchunked", "Transfer-Encoding: Chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity",
	"Transfer-Encoding: identity, chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx", "Transfer-Encoding : chunked",
	" Transfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked", "Transfer-Encoding", "Transfer-Encoding:",
	"Transfer-Encoding:\r\n chunked", "Transfer_Encoding: chunked", "TRANSFER-ENCODING: chunked", "transfer-encoding: gzip, chunked",
	"Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding\x00: chunked", "Transfer-Encoding: c\x00hunked",
	"Transfer-Encoding: \xff", "Transfer\u2010Encoding: chunked", "Transfer-Encoding\xa0: chunked", "Foo: bar\r\n\r\nTransfer-Encoding: chunked",
	// a host
	"Host: other", "Host:", "Host: a b", "Host: a,b", "Host: a/b", "Host: user@a", "Host: a:80", "Host: a:", "Host: a:99999", "Host: [::1]",
	"Host: [::1", "Host: ::1", "Host: [fe80::1%25eth0]", "Host: a..b", "Host: .", "Host: a%00", "Host: \xe4", "Host: a\tb", "HOST: a", "host: A",
	"Host : a", " Host: a", "Host: a#b", "Host: a?b", "Host: *", "Host: a'b", "Host: ~", "Host: a;b=c",
	// the connection
	"Connection: keep-alive", "Connection: Keep-Alive", "Connection: close", "Connection: Close", "Connection: keep-alive, close", "Connection: close, x",
	"Connection: keep-alive, X-Real-Ip", "Connection: Content-Length", "Connection:", "Connection: upgrade", "Connection: te", "Connection: keep-alive,",
	"Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Upgrade: h2c", "Upgrade: websocket", "HTTP2-Settings: AAMAAABk", "TE: trailers", "te: gzip",
	"Trailer: X", "Expect: 100-continue", "Expect: 200-ok", "Expect:", "expect: 100-Continue", "Proxy: http://evil", "Proxy-Authorization: Basic x",
	// names
	"X_Real_Ip: 1", "X-Real_Ip: 1", "x-real-ip: 2", "X-REAL-IP: 3", "X--Y: 1", "-: 1", "_: 1", "!#$%&'*+-.^_`|~: 1", "9: 1", "X.Y: 1", "X Y: 1",
	"X\tY: 1", ": 1", "", "X", "X\x7f: 1", "X\xe4: 1", "X(: 1", "X\"Y: 1", "X/Y: 1", "X@Y: 1", "X[: 1", "Authorization: Basic dTpw", "x-X: 1",
	"Content-Type: text/plain", "content-type:", "Content-Type: a/b; c=\"d\"", "Cookie: a=b", "cookie: c=d", "Pragma: no-cache", "pragma:",
	"Pragma: x", "Cache-Control: no-cache", "cache-control:", "If-Modified-Since: yesterday", "Range: bytes=0-", "Date: now", "Via: 1.1 x",
	// values
	"X:", "X: ", "X:\t \t", "X: a\tb", "X: a  b", "X:a", "X: \xe4\xf6", "X: \x00", "X: \x01", "X: \x1f", "X: \x7f", "X: \x80", "X: a\r", "X: a\rb", "X: a\nb",
	"X: a\r\n b", "X: a\r\n\tb", "X: a\r\n b\r\n c", "X: a\n b", "X: a\r\r", "X: \u00fc", "X: a\vb", "X: a\fb", "X: " + strings.Repeat("v", 4000),
	"X: :", "X::", "X: a: b", strings.Repeat("n", 300) + ": 1",
}

// targets stand in a request line.
var targets = []string{
	"/", "/a", "/a/b/../c", "/a/./b", "/..", "/../x", "/a/..", "/a//b", "//", "//host/path", "///", "/a%2fb", "/a%2Fb", "/a%2f..%2fb", "/%2e%2e/x", "/a/%2e%2e/b", "/a/%2e/",
	"/%00", "/a%00b", "/%", "/%4", "/%zz", "/%g0", "/a%0ab", "/a%20b", "/a b", "/a\tb", "/a#b", "/#", "/?#", "/a?b#c", "/a?b?c", "/?", "/??", "/a?%zz", "/a?%", "/a?b=c&d=%20e",
	"/a;p=1", "/a:b", "/:a", "/a@b", "/!$&'()*+,;=", "/~u", "/a\\b", "/a\"b", "/a<b>", "/a^b", "/a`b", "/a{b}", "/a|b", "/[a]", "/a?[b]", "/a?\"<>^`{|}\\", "/\xe4", "/a?\xe4",
	"/\x7f", "/a?\x7f", "/a?\x01", "/a?a b", "*", "", "a", "a/b", "?", "?a=b", "#", "http://other/x", "http://other", "http://", "http:///x", "HTTP://other/", "https://u:p@other/x",
	"http:x", "http:/x", "other:80", "other", "/a%C3%BC", "/a%c3%bc", "/%41", "/%7e", "/%5B%5d", "/a+b", "/a%2bb", "/a/b.php/c", "/a/", "/.", "/./", "/a/.b", "/.hidden", "/a%2e", "/%2E",
	"/%2e%2e%2fa", "/a%5c..%5cb", "/%25", "/%2525", "/%2f%2fhost", "/.//host", "/a?/../b", "/*", "/a," + strings.Repeat("x", 3000),
}

// methods and versions, of which most are not plain.
var (
	methodWords  = []string{"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PRI", "PROPFIND", "get", "Post", "GETX", "GE", "", "G\x00T", "GET\t", "QUERY", "M-SEARCH", "GET,POST", "\"GET\"", "POST:", "X"}
	versionWords = []string{"HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "HTTP/1.1 x", "HTTP/1.1\t", "http/1.1", "HTTP/1.10", "HTTP/1.", "HTTP/1", "HTTP/01.1", "HTTP/1.01", "HTTP/1,1", "HTTP /1.1", "HTTPS/1.1", "XTTP/1.1", "", "HTTP/+1.1", "HTTP/1.1\x00", "HTTP/3", "ICY/1.1"}
	splices      = []string{"\r\n", "\n", "\r", "\n\n", "\r\n\r\n", "\n\r\n", "\r\r\n", "\x00", " ", "\t", ":", "%", "%0d%0a", "0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "\xff", "\x7f", ",", ";", "\v", "/", "//", "?", "#", "5\r\nhello\r\n0\r\n\r\n", "\u2028", "Host: x\r\n"}
)
