package handler

import "net/http"

// maxInterim is how many interim responses one answer may have. Rails sends one
// for each style sheet.
const maxInterim = 100

// hints are the fields of an interim response that are sent on: what browsers
// look at (HTML, section "early hints"). All others can wait for the answer, and
// before it they are what a client that knows no 103 trips over.
var hints = [...]string{"Link", "Content-Security-Policy"}

// hint sends the client a 103 (Early Hints, RFC 8297) with those of the fields
// that belong there, if there are any.
func (x *exchange) hint(fields http.Header) {
	switch {
	case !x.request.ProtoAtLeast(1, 1):
		return // it knows no interim responses (RFC 9110, section 15.2)
	case x.request.ProtoMajor == 1 && x.request.Header.Get("Expect") != "":
		return // net/http may be writing its 100 (Continue) just now
	}
	header, found := x.Header(), false
	for _, name := range hints {
		if values := fields[name]; len(values) > 0 {
			header[name] = values
			found = true
		}
	}
	if !found {
		return
	}
	x.WriteHeader(http.StatusEarlyHints)
	for _, name := range hints {
		delete(header, name)
	}
}
