package handler

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"gatecrew/gateway/spool"
	"gatecrew/gateway/static"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// statusClientGone is what the access log says of a request whose client left
// before the response; the number is nginx's. It is never sent.
const statusClientGone = 499

// failure is what a client is told, and what the log is.
type failure struct {
	status     int
	text       string // for the client: what happened, nothing about the inside
	retryAfter int    // seconds, 0 = no Retry-After
	closing    bool   // an HTTP/1 connection can't be used any more
	cause      error
}

func (f *failure) Error() string { return f.text }

var (
	errNoRoute       = &failure{status: http.StatusNotFound, text: "Nothing is served at this address."}
	errOnlySockets   = &failure{status: http.StatusUpgradeRequired, text: "This address is for WebSocket connections."}
	errTooManyFields = &failure{status: http.StatusRequestHeaderFieldsTooLarge, text: "The request has too many header fields."}
	errMisdirected   = &failure{status: http.StatusMisdirectedRequest, text: "This connection can't be used for that host."}
	errRedirectLoop  = &failure{status: http.StatusInternalServerError, text: "The application redirects in a circle.",
		cause: fmt.Errorf("more than %d local redirects in a row", maxLocalRedirects)}
)

// byKind is the one table from what went wrong at an application to a status.
var byKind = map[protocol.Kind]failure{
	protocol.Unavailable: {status: http.StatusBadGateway, text: "The application can't be reached."},
	protocol.Overloaded:  {status: http.StatusServiceUnavailable, text: "The application is busy. Try again in a moment.", retryAfter: 1},
	protocol.Died:        {status: http.StatusBadGateway, text: "The application ended before it answered."},
	protocol.Malformed:   {status: http.StatusBadGateway, text: "The application's answer could not be understood."},
	protocol.TimedOut:    {status: http.StatusGatewayTimeout, text: "The application took too long to answer."},
	protocol.ClientGone:  {status: statusClientGone, text: "The client went away."},
	protocol.Returned:    {status: http.StatusServiceUnavailable, text: "The application is busy. Try again in a moment.", retryAfter: 1},
	protocol.Down:        {status: http.StatusServiceUnavailable, text: "The application is not available. Try again in a moment.", retryAfter: 1},
	protocol.Refused:     {status: http.StatusRequestHeaderFieldsTooLarge, text: "The request head is too large for the application."},
}

// byError is the same for errors of the gateway's own parts.
var byError = []struct {
	err error
	failure
}{
	{cgi.ErrNotScript, failure{status: http.StatusNotFound, text: "There is nothing at this address."}},
	{cgi.ErrNotExecutable, failure{status: http.StatusForbidden, text: "This address can't be opened."}},
	{static.ErrMethod, failure{status: http.StatusMethodNotAllowed, text: "Files can only be read (GET, HEAD)."}},
	{spool.ErrTooLarge, failure{status: http.StatusRequestEntityTooLarge, text: "The request body is too large.", closing: true}},
	{spool.ErrQuota, failure{status: http.StatusServiceUnavailable, text: "The server has no room for the request body. Try again in a moment.", retryAfter: 5, closing: true}},
	{spool.ErrDisk, failure{status: http.StatusServiceUnavailable, text: "The server can't store the request body.", retryAfter: 30, closing: true}},
	{fs.ErrNotExist, failure{status: http.StatusNotFound, text: "There is nothing at this address."}},
	{fs.ErrPermission, failure{status: http.StatusForbidden, text: "This address can't be opened."}},
}

// failureOf finds the failure for an error.
func failureOf(err error) *failure {
	var own *failure
	if errors.As(err, &own) {
		return own
	}
	if f := refusalOf(err); f != nil {
		return f
	}
	var bad *cgi.RequestError
	if errors.As(err, &bad) {
		return &failure{status: bad.Status, text: "The request is not well formed.", closing: true, cause: err}
	}
	if f, ok := byKind[protocol.KindOf(err)]; ok {
		f.cause = err
		var e *protocol.Error
		if errors.As(err, &e) && e.RetryAfter > 0 {
			f.retryAfter = int((e.RetryAfter + time.Second - 1) / time.Second)
		}
		return &f
	}
	for i := range byError {
		if errors.Is(err, byError[i].err) {
			f := byError[i].failure
			f.cause = err
			return &f
		}
	}
	return &failure{status: http.StatusInternalServerError, text: "The server failed.", cause: err}
}

// write sends the failure to the client as a short text.
func (f *failure) write(w http.ResponseWriter, r *http.Request, requestID string) {
	h := w.Header()
	clear(h)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", requestID)
	if f.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD")
	}
	if f.status == http.StatusUpgradeRequired {
		h.Set("Sec-WebSocket-Version", "13") // RFC 6455, section 4.2.2
		h.Set("Upgrade", "websocket")        // RFC 9110, section 15.5.22
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	if f.closing && !http2(r) {
		h.Set("Connection", "close")
	}
	text := fmt.Sprintf("%d %s\n\n%s\n", f.status, http.StatusText(f.status), f.text)
	if f.status >= 500 {
		text += "Request " + requestID + "\n"
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(f.status)
	w.Write([]byte(text))
}
