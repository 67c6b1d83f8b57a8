package reload

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"gatecrew/procpool"
	"gatecrew/protocol"
)

// fault is why an application can't be loaded, as its developer is told.
type fault struct {
	Pool   string
	Reason string // one line
	File   string // where to look first; "" when the output does not say
	Line   string
	Output string // what the worker wrote: the traceback
	ID     string // of this fault and no other, so that a page knows when it is out of date
}

var (
	// loadError is the line in which a worker sums up why it gives up.
	loadError = regexp.MustCompile(`^gatecrew: cannot load the application ".*?": (.*)$`)
	// tracebackFile is a line of a traceback.
	tracebackFile = regexp.MustCompile(`^\s*File "([^"]+)", line (\d+)`)
	// installed is code that its developer most likely has not written.
	installed = regexp.MustCompile(`/(?:site|dist)-packages/|/lib/python\d[^/]*/|^<`)
)

// newFault makes a fault of a failed start.
func newFault(pool string, failure *procpool.StartFailure) *fault {
	f := &fault{Pool: pool, Reason: failure.Err.Error(), Output: strings.Join(failure.Output, "\n"), ID: strconv.FormatInt(failure.At.UnixNano(), 36)}
	own := false
	for _, line := range failure.Output {
		if m := loadError.FindStringSubmatch(line); m != nil {
			f.Reason = m[1]
		}
		// The innermost is the last one.
		if m := tracebackFile.FindStringSubmatch(line); m != nil && (!own || !installed.MatchString(m[1])) {
			f.File, f.Line = m[1], m[2]
			own = !installed.MatchString(m[1])
		}
	}
	return f
}

// fields are what the log has of it; the pool has logged the output.
func (f *fault) fields() []zap.Field {
	fields := []zap.Field{zap.String("reason", f.Reason)}
	if f.File != "" {
		fields = append(fields, zap.String("at", f.File+":"+f.Line))
	}
	return fields
}

// idHeader has a fault's ID, for the page that looks whether it is still true.
const idHeader = "Gatecrew-Load-Error"

//go:embed fault.html
var pageSource string

var page = template.Must(template.New("fault").Parse(pageSource))

// answer is the response to a request while the application can't be loaded.
func (f *fault) answer(req *protocol.Request) protocol.Exchange {
	header := [][2]string{
		{"Status", "503 " + http.StatusText(http.StatusServiceUnavailable)},
		{"Cache-Control", "no-store"},
		{"X-Content-Type-Options", "nosniff"},
	}
	var body bytes.Buffer
	switch {
	case !fromHere(req):
		header = append(header, [2]string{"Content-Type", "text/plain; charset=utf-8"})
		body.WriteString("503 Service Unavailable\n\nThe application can't be loaded at the moment.\n")
	case strings.Contains(req.Get("HTTP_ACCEPT"), "text/html"):
		nonce := rand.Text()
		header = append(header, [2]string{idHeader, f.ID}, [2]string{"Content-Type", "text/html; charset=utf-8"},
			[2]string{"Content-Security-Policy", "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
				"style-src 'nonce-" + nonce + "'; script-src 'nonce-" + nonce + "'"})
		data := struct {
			*fault
			Nonce   string
			Refresh bool // the page may load itself again
		}{f, nonce, req.Get("REQUEST_METHOD") == http.MethodGet}
		if err := page.Execute(&body, data); err != nil {
			panic(err) // the template and its data are this file's
		}
	default:
		header = append(header, [2]string{idHeader, f.ID}, [2]string{"Content-Type", "text/plain; charset=utf-8"})
		f.text(&body)
	}
	var head bytes.Buffer
	for _, h := range header {
		head.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	fmt.Fprintf(&head, "Content-Length: %d\r\n\r\n", body.Len())
	return exchange{io.MultiReader(&head, &body)}
}

// text is the page for a terminal.
func (f *fault) text(w io.Writer) {
	fmt.Fprintf(w, "The application of pool %s can't be loaded: %s\n", f.Pool, f.Reason)
	if f.File != "" {
		fmt.Fprintf(w, "Look at %s, line %s, and save it to try again.\n", f.File, f.Line)
	} else {
		fmt.Fprintln(w, "Save a file of it to try again.")
	}
	if f.Output != "" {
		fmt.Fprintf(w, "\n%s\n", f.Output)
	}
	fmt.Fprintln(w, "\nThis is shown because the pool runs with reload, and to clients on this machine only.")
}

// fromHere reports whether a request is from a client on this machine, as far
// as that can be known. A proxy on this machine speaks for others, a Unix
// socket is most likely such a proxy's; both don't count. Nor does a browser
// that was led here by a name that somebody else has given to this address, so
// that a foreign page could read the answer (DNS rebinding).
//
// A header field can only make the answer no.
func fromHere(req *protocol.Request) bool {
	client, err := netip.ParseAddr(req.Get("REMOTE_ADDR"))
	if err != nil || !client.Unmap().IsLoopback() {
		return false
	}
	// No browser, nor curl, speaks it; nginx does to its upstreams unless it is
	// told otherwise, and adds no field that would give it away.
	if req.Get("SERVER_PROTOCOL") == "HTTP/1.0" {
		return false
	}
	for _, p := range req.Params {
		switch p.Name {
		case "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_CF_CONNECTING_IP", "HTTP_TRUE_CLIENT_IP":
			return false
		}
		if strings.HasPrefix(p.Name, "HTTP_X_FORWARDED") {
			return false
		}
	}
	host := req.Get("HTTP_HOST")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || host == req.Get("SERVER_NAME") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// exchange is an answer that is there already.
type exchange struct{ io.Reader }

// Close implements [protocol.Exchange].
func (exchange) Close() error { return nil }
