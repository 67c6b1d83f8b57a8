package http1

import (
	"net/http"
	"sync/atomic"
	"time"
)

// dateField is a Date field, and the second that it is of.
type dateField struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dateField]

// Date returns the Date field of a response (RFC 9110, section 6.6.1), with its
// CRLF. It is made once in a second.
func Date(now time.Time) string {
	second := now.Unix()
	if d := lastDate.Load(); d != nil && d.second == second {
		return d.text
	}
	d := &dateField{second, "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
	lastDate.Store(d)
	return d.text
}
