package accesslog

import (
	"strconv"
	"time"
)

// appendCombined appends e in Apache's combined format:
//
//	%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-agent}i"
//
// A space within %h or %u is escaped too, which Apache does not do: the
// fields stand there without quotes, and a user name with a space would shift
// all that follow.
func appendCombined(b []byte, e *Entry) []byte {
	b = appendBare(b, e.RemoteAddr)
	b = append(b, " - "...)
	b = appendBare(b, e.User)
	b = append(b, ' ')
	b = e.Time.AppendFormat(b, "[02/Jan/2006:15:04:05 -0700]")
	b = append(b, ` "`...)
	if e.Method == "" && e.URI == "" {
		b = append(b, '-') // a request that could not be parsed
	} else {
		b = appendLogItem(b, e.Method)
		b = append(b, ' ')
		b = appendLogItem(b, e.URI)
		b = append(b, ' ')
		b = appendLogItem(b, e.Proto)
	}
	b = append(b, `" `...)
	if e.Status == 0 {
		b = append(b, '-')
	} else {
		b = strconv.AppendInt(b, int64(e.Status), 10)
	}
	b = append(b, ' ')
	if e.Bytes == 0 {
		b = append(b, '-') // %b, unlike %B, writes a dash for zero
	} else {
		b = strconv.AppendInt(b, e.Bytes, 10)
	}
	b = append(b, ` "`...)
	b = appendOrDash(b, e.Referer)
	b = append(b, `" "`...)
	b = appendOrDash(b, e.UserAgent)
	return append(b, "\"\n"...)
}

func appendOrDash(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	return appendLogItem(b, s)
}

// appendBare is appendOrDash for a field without quotes.
func appendBare(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	from := len(b)
	b = appendLogItem(b, s)
	for i := from; i < len(b); i++ {
		if b[i] == ' ' {
			b = append(b, "   "...)
			copy(b[i+4:], b[i+1:len(b)-3])
			copy(b[i:], `\x20`)
		}
	}
	return b
}

// appendJSON appends e as one JSON object. Every line has every member, in
// the same order; durations are seconds with a resolution of a microsecond.
func appendJSON(b []byte, e *Entry) []byte {
	b = append(b, `{"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","duration":`...)
	b = appendSeconds(b, e.Duration)
	b = appendMember(b, "remote_addr", e.RemoteAddr)
	b = appendMember(b, "user", e.User)
	b = appendMember(b, "method", e.Method)
	b = appendMember(b, "uri", e.URI)
	b = appendMember(b, "proto", e.Proto)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, `,"bytes":`...)
	b = strconv.AppendInt(b, e.Bytes, 10)
	b = appendMember(b, "referer", e.Referer)
	b = appendMember(b, "user_agent", e.UserAgent)
	b = appendMember(b, "host", e.Host)
	b = appendMember(b, "request_id", e.RequestID)
	b = appendMember(b, "route", e.Route)
	b = appendMember(b, "upstream", e.Upstream)
	b = append(b, `,"queue":`...)
	b = appendSeconds(b, e.Queue)
	return append(b, "}\n"...)
}

func appendMember(b []byte, name, value string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":"`...)
	b = appendJSONString(b, value)
	return append(b, '"')
}

// appendSeconds appends d as seconds with six decimals, in whole numbers all
// the way: a float would cost more and round.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	if us < 0 {
		b = append(b, '-')
		us = -us
	}
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	for unit, rest := int64(1e5), us%1e6; unit > 0; unit /= 10 {
		b = append(b, byte('0'+rest/unit%10))
	}
	return b
}
