// Package site finds out what a request is for: host name → site, path →
// route, path below the route → script and PATH_INFO.
package site

import (
	"net"
	"slices"
	"strings"

	"gatecrew/gateway/certificate"
)

// Table holds all sites. It is built once and never changed; a reload builds
// another one.
type Table struct {
	exact    map[string]*Site
	wildcard map[string]*Site // by what follows "*", with its dot
	fallback *Site
	secure   *Site // the TLS of sites that have none of their own
	sites    []*Site
}

// Site is a set of routes for a set of host names.
type Site struct {
	// Hosts are names as in a configuration, in lower case: example.org or
	// *.example.org. None makes it the default site.
	Hosts []string
	// Routes in any order; NewTable sorts them.
	Routes []*Route
	// TLS are the site's certificates; nil when it has none of its own.
	TLS *certificate.Set
	// HSTS is the Strict-Transport-Security field of answers over TLS; "" is
	// none.
	HSTS string
	// RedirectToHTTPS sends requests without TLS to HTTPSPort with it.
	RedirectToHTTPS bool
	// HTTPSPort is known when the listeners are; 443 is left out of URLs.
	HTTPSPort int
}

// NewTable makes a table. Without a site that has no hosts the first one
// answers to unknown names.
func NewTable(sites []*Site) *Table {
	t := &Table{exact: map[string]*Site{}, wildcard: map[string]*Site{}, sites: sites}
	for _, s := range sites {
		// The longest prefix comes first, so that the first match wins.
		slices.SortStableFunc(s.Routes, func(a, b *Route) int { return len(b.Prefix) - len(a.Prefix) })
		if len(s.Hosts) == 0 && t.fallback == nil {
			t.fallback = s
		}
		for _, h := range s.Hosts {
			if rest, ok := strings.CutPrefix(h, "*"); ok {
				t.wildcard[rest] = s
			} else {
				t.exact[h] = s
			}
		}
	}
	if t.fallback == nil && len(sites) > 0 {
		t.fallback = sites[0]
	}
	if t.secure = t.fallback; t.secure == nil || t.secure.TLS == nil {
		if i := slices.IndexFunc(sites, func(s *Site) bool { return s.TLS != nil }); i >= 0 {
			t.secure = sites[i]
		}
	}
	return t
}

// Certificates finds the certificates for a name in a TLS handshake (RFC 6066,
// section 3), nil when no site has any.
func (t *Table) Certificates(name string) *certificate.Set {
	if s, _ := t.Site(name); s.TLS != nil {
		return s.TLS
	}
	return t.secure.TLS
}

// Misdirected reports whether a request for host must not be served on a
// connection whose TLS handshake was for name: the two ask for different client
// certificates (RFC 9110, section 7.4).
func (t *Table) Misdirected(name, host string) bool {
	if name == host {
		return false
	}
	asked, due := t.Certificates(name), t.Certificates(host)
	return asked != due && asked.Clients() != due.Clients()
}

// Sites are all sites, in the order of the configuration.
func (t *Table) Sites() []*Site { return t.sites }

// Site finds the site for the Host of a request, which may carry a port. The
// second result is the name to use as SERVER_NAME: a name that the
// configuration has, so that a client can't choose it; "" when the site has none.
func (t *Table) Site(host string) (*Site, string) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if s := t.exact[host]; s != nil {
		return s, host
	}
	for i := strings.IndexByte(host, '.'); i >= 0; {
		if s := t.wildcard[host[i:]]; s != nil {
			return s, host
		}
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	for _, name := range t.fallback.Hosts {
		if !strings.HasPrefix(name, "*") {
			return t.fallback, name
		}
	}
	return t.fallback, ""
}

// Route finds the route of a path by its longest prefix of whole segments,
// nil when there is none.
func (s *Site) Route(path string) *Route {
	for _, r := range s.Routes {
		if r.holds(path) {
			return r
		}
	}
	return nil
}

// holds reports whether a path is the route's prefix or lies below it.
func (r *Route) holds(path string) bool {
	return strings.HasPrefix(path, r.Prefix) && (len(path) == len(r.Prefix) || path[len(r.Prefix)] == '/' || r.Prefix == "")
}

// Close gives back what the routes hold open.
func (t *Table) Close() {
	for _, s := range t.sites {
		for _, r := range s.Routes {
			r.close()
		}
	}
}
