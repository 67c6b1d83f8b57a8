package static

import "net/http"

// Hot is an answer from memory. Its bytes are shared and must not be changed.
type Hot struct {
	Status int // 200 or 304
	// Fields are the header fields of the file, each line with its end: all of
	// the answer's but Date and Connection.
	Fields []byte
	// Body is nil for a 304 and for HEAD.
	Body []byte
}

// Hot answers a request for a small file as Serve would, for a caller that has
// no http.ResponseWriter. path is the same as Serve's. Nothing is allocated for
// a file that is in the cache; one that is not is read. It is false for
// all else, errors included, which Serve then answers: other methods, ranges,
// large files, folders without a slash, and everything without a Cache.
func (f *Files) Hot(method, path string, given *Conditions) (answer Hot, ok bool) {
	if !f.hot(method, given) {
		return Hot{}, false
	}
	v, _ := f.cached(path, given.AcceptEncoding)
	if v == nil || v.content == nil {
		return Hot{}, false
	}
	c := v.content
	if c.notModified(given) {
		return Hot{Status: http.StatusNotModified, Fields: c.unchanged.fields}, true
	}
	answer = Hot{Status: http.StatusOK, Fields: c.full.fields, Body: c.body}
	if method == http.MethodHead {
		answer.Body = nil
	}
	return answer, true
}

// hot reports whether a request may be answered from memory.
func (f *Files) hot(method string, given *Conditions) bool {
	return f.cache != nil && !given.Other && (method == http.MethodGet || method == http.MethodHead)
}
