package site

import (
	"errors"
	"path"
	"strings"

	"gatecrew/gateway/backend"
	"gatecrew/gateway/sendfile"
	"gatecrew/gateway/static"
	"gatecrew/gateway/websocket"
	"gatecrew/protocol"
	"gatecrew/protocol/cgi"
)

// ErrStatic means that the route's Files serve the path and no application.
var ErrStatic = errors.New("site: a static file")

// Route is what answers below one path.
type Route struct {
	// Prefix is the path without a slash at its end; "" is the whole site.
	Prefix string
	// Name is what logs call the route: "pool web", "cgi /cgi-bin".
	Name string
	// Files serves static files; nil when the route has none.
	Files *static.Files
	// Sendfile are the files that the application may name; nil when none.
	Sendfile *sendfile.Files
	// Backend is the application; nil for a route of static files only.
	Backend backend.Backend
	// Scripts finds scripts on the disk; nil when the application answers
	// every path, with the rest of it as PATH_INFO.
	Scripts *cgi.Resolver
	// Target is what AppendParams needs to know and the path doesn't change.
	Target cgi.Target
	// RootPath is put before Prefix in SCRIPT_NAME.
	RootPath string
	// Bodies says how request bodies get to the application at present; nil
	// means whole.
	Bodies func() backend.Bodies
	// ReplayIdempotent allows to give an idempotent request to a second
	// worker when the first one died before its response head.
	ReplayIdempotent bool
	// OnlySockets is true when the application serves WebSockets and nothing
	// else.
	OnlySockets bool
	// WebSocket is how WebSocket connections are kept; nil when the route has
	// none.
	WebSocket *websocket.Options
	// Sockets reports whether the application takes WebSocket connections at
	// present; nil means yes.
	Sockets func() bool
	// Quick is true when Backend understands Request.Pairs, or there is none.
	Quick bool
	// Script is true for CGI, where a script may be an NPH script.
	Script bool
}

// Below is the part of a path that the route's prefix leaves, with its slash.
func (r *Route) Below(path string) string { return path[len(r.Prefix):] }

// Locate splits a path that the route holds into script and PATH_INFO. path is
// decoded and clean, escaped the same as the client wrote it. The error is
// ErrStatic, one of the Resolver's, or nil.
func (r *Route) Locate(path, escaped string) (cgi.Target, error) {
	t := r.Target
	switch {
	case r.Backend == nil:
		return t, ErrStatic
	case r.Scripts == nil:
		t.ScriptName, t.PathInfo = r.RootPath+r.Prefix, path[len(r.Prefix):]
		return t, nil
	}
	script, err := r.Scripts.Resolve(escaped)
	if err != nil {
		// A file that is no script, or a folder without an index script.
		if r.Files != nil && errors.Is(err, cgi.ErrNotScript) {
			return t, ErrStatic
		}
		return t, err
	}
	t.ScriptName, t.PathInfo, t.ScriptFilename = script.Name, script.PathInfo, script.Filename
	return t, nil
}

// NPH reports whether the request's script writes the whole HTTP response head
// itself (RFC 3875, section 5).
func (r *Route) NPH(req *protocol.Request) bool {
	return r.Script && strings.HasPrefix(path.Base(req.Get("SCRIPT_FILENAME")), "nph-")
}

// BodiesNow is how request bodies get to the application at present.
func (r *Route) BodiesNow() backend.Bodies {
	if r.Bodies == nil {
		return backend.WholeBodies
	}
	return r.Bodies()
}

// TakesWebSockets reports whether a request for a WebSocket connection is one.
// Elsewhere it is a request like every other.
func (r *Route) TakesWebSockets() bool {
	return r.WebSocket != nil && (r.Sockets == nil || r.Sockets())
}

func (r *Route) close() {
	if r.Files != nil {
		r.Files.Close()
	}
	if r.Scripts != nil {
		r.Scripts.Root.Close()
	}
	r.Sendfile.Close()
}
