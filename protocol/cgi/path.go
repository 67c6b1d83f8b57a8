package cgi

import (
	"net/url"
	"strings"
)

// CleanPath decodes the path of a request, as (*url.URL).EscapedPath gives it,
// once, and removes its dot segments (RFC 3986, section 5.2.4), also those that
// were written with escapes. Empty segments stay. An empty path, which an
// absolute-form target may have, is "/".
//
// It returns a *RequestError with status 400 for a path that doesn't begin
// with "/", climbs above the root, holds NUL or a broken escape, or in which an
// escaped slash stands beside a dot segment: "a%2f..%2fb" has no one meaning.
//
// A slash in the result may have been "%2f", so that the result says what the
// application is told, not which files it names; that is a Resolver's work.
func CleanPath(escapedPath string) (decoded string, err error) {
	if strings.HasPrefix(escapedPath, "/") && strings.IndexByte(escapedPath, '%') < 0 &&
		!strings.Contains(escapedPath, "/.") && strings.IndexByte(escapedPath, 0) < 0 {
		return escapedPath, nil
	}
	segs, err := segments(escapedPath)
	if err != nil {
		return "", err
	}
	return joinSegments(segs), nil
}

// joinSegments puts a slash before each segment.
func joinSegments(segs []string) string {
	if len(segs) == 0 {
		return ""
	}
	return "/" + strings.Join(segs, "/")
}

// segments returns the decoded segments of an escaped path with the dot
// segments removed; at least one, which is empty for "/". The last one is empty
// when the path ends with a slash.
func segments(escapedPath string) ([]string, error) {
	if escapedPath == "" {
		escapedPath = "/"
	}
	if escapedPath[0] != '/' {
		return nil, badRequest("path: does not begin with a slash")
	}
	segs := make([]string, 0, strings.Count(escapedPath, "/"))
	for rest, more := escapedPath[1:], true; more; {
		var raw string
		raw, rest, more = strings.Cut(rest, "/")
		seg, err := url.PathUnescape(raw)
		if err != nil {
			return nil, badRequest("path: %v", err)
		}
		switch {
		case seg == ".":
		case seg == "..":
			if len(segs) == 0 {
				return nil, badRequest("path: leaves the root")
			}
			segs = segs[:len(segs)-1]
		case strings.IndexByte(seg, 0) >= 0:
			return nil, badRequest("path: NUL")
		case hidesDots(seg):
			return nil, badRequest("path: dot segment behind an escaped slash")
		default:
			segs = append(segs, seg)
			continue
		}
		if !more { // what a dot segment at the end leaves is a directory
			segs = append(segs, "")
		}
	}
	return segs, nil
}

// hidesDots reports whether a decoded segment has slashes of its own with a
// dot segment between them.
func hidesDots(seg string) bool {
	if strings.IndexByte(seg, '/') < 0 {
		return false
	}
	for part := range strings.SplitSeq(seg, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}
