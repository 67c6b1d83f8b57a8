package static

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// content is a file in memory with the heads of its answers. It is never
// changed.
type content struct {
	body            []byte
	tag             string
	modified        time.Time
	full, unchanged head // of 200 and of 304
}

// head is the fields of a response head that come from the file: for net/http,
// and as they are sent by those who do without it.
type head struct {
	header http.Header
	fields []byte
}

func newHead(header http.Header) head {
	var b bytes.Buffer
	_ = header.Write(&b) // a Buffer takes all
	return head{header, b.Bytes()}
}

// newContent makes the same heads as send does.
func newContent(body []byte, modified time.Time, describe http.Header) *content {
	c := &content{body: body, modified: modified, tag: describe.Get("Etag")}
	full := maps.Clone(describe)
	full.Set("Accept-Ranges", "bytes")
	full.Set("Content-Length", strconv.Itoa(len(body)))
	if hasTime(modified) {
		full.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
	unchanged := maps.Clone(describe) // RFC 9110, section 15.4.5
	unchanged.Del("Content-Type")
	unchanged.Del("Content-Encoding")
	c.full, c.unchanged = newHead(full), newHead(unchanged)
	return c
}

// hasTime reports whether a time of modification says anything: archives and
// reproducible builds set it to the beginning of 1970, for net/http, too, none.
func hasTime(t time.Time) bool { return !t.IsZero() && !t.Equal(time.Unix(0, 0)) }

// Conditions are the fields of a request that decide how a file is sent. A
// field that the request doesn't have is "", and one that it has several times
// is their values with commas between them.
type Conditions struct {
	IfNoneMatch     string
	IfModifiedSince string
	AcceptEncoding  string
	// Other is true when the request has any of Range, If-Range, If-Match and
	// If-Unmodified-Since.
	Other bool
}

// Add notes a field of a request, with its name in any spelling, if it is one of
// those.
func (c *Conditions) Add(name, value string) {
	to := &c.IfNoneMatch
	switch is := func(known string) bool { return strings.EqualFold(name, known) }; {
	case len(name) < len("Range") || name[0]|0x20 != 'i' && name[0]|0x20 != 'r' && name[0]|0x20 != 'a':
		return
	case is("If-None-Match"):
	case is("If-Modified-Since"):
		to = &c.IfModifiedSince
	case is("Accept-Encoding"):
		to = &c.AcceptEncoding
	case is("Range"), is("If-Range"), is("If-Match"), is("If-Unmodified-Since"):
		c.Other = true
		return
	default:
		return
	}
	if *to != "" {
		value = *to + "," + value
	}
	*to = value
}

func conditionsOf(h http.Header) Conditions {
	return Conditions{
		IfNoneMatch:     h.Get("If-None-Match"),
		IfModifiedSince: h.Get("If-Modified-Since"),
		AcceptEncoding:  strings.Join(h["Accept-Encoding"], ","),
		Other:           h["Range"] != nil || h["If-Range"] != nil || h["If-Match"] != nil || h["If-Unmodified-Since"] != nil,
	}
}

// notModified decides about a GET or HEAD as net/http does (RFC 9110, section
// 13.2.2): the tag first, and the time only without one.
func (c *content) notModified(given *Conditions) bool {
	if given.IfNoneMatch != "" {
		return hasTag(given.IfNoneMatch, c.tag)
	}
	if given.IfModifiedSince == "" || !hasTime(c.modified) {
		return false
	}
	since, err := http.ParseTime(given.IfModifiedSince)
	return err == nil && !c.modified.Truncate(time.Second).After(since)
}

// hasTag reports whether the value of If-None-Match has the tag or is "*". Tags
// are compared weakly (RFC 9110, section 13.1.2); what follows a broken one is
// not read.
func hasTag(list, tag string) bool {
	for {
		list = strings.TrimLeft(list, ", \t\r\n")
		if strings.HasPrefix(list, "*") {
			return true
		}
		list = strings.TrimPrefix(list, "W/")
		end := tagEnd(list)
		if end == 0 {
			return false
		}
		if list[:end] == tag {
			return true
		}
		list = list[end:]
	}
}

// tagEnd is the length of the opaque-tag that s begins with, 0 when there is
// none (RFC 9110, section 8.8.3).
func tagEnd(s string) int {
	if s == "" || s[0] != '"' {
		return 0
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c <= ' ' || c == 0x7f:
			return 0
		}
	}
	return 0
}

// serve answers a GET or HEAD.
func (c *content) serve(w http.ResponseWriter, r *http.Request, given *Conditions) error {
	if c.notModified(given) {
		maps.Copy(w.Header(), c.unchanged.header)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	maps.Copy(w.Header(), c.full.header)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := w.Write(c.body); err != nil {
		return fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	return nil
}
