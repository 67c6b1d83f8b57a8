package site

import (
	"errors"
	"testing"

	"gatecrew/protocol"
)

func TestSite(t *testing.T) {
	plain, wild, deep, fallback := &Site{Hosts: []string{"example.org", "www.example.org"}}, &Site{Hosts: []string{"*.example.org"}},
		&Site{Hosts: []string{"*.a.example.org"}}, &Site{}
	table := NewTable([]*Site{plain, wild, deep, fallback})
	for _, test := range []struct {
		host string
		want *Site
		name string
	}{
		{"example.org", plain, "example.org"},
		{"EXAMPLE.org:8080", plain, "example.org"},
		{"example.org.", plain, "example.org"},
		{"www.example.org", plain, "www.example.org"},
		{"x.example.org", wild, "x.example.org"},
		{"y.x.example.org", wild, "y.x.example.org"},
		{"x.a.example.org", deep, "x.a.example.org"},
		{"a.example.org", wild, "a.example.org"},
		{"badexample.org", fallback, ""},
		{"example.org.evil", fallback, ""},
		{"127.0.0.1:8000", fallback, ""},
		{"[::1]:8000", fallback, ""},
		{"", fallback, ""},
	} {
		if got, name := table.Site(test.host); got != test.want || name != test.name {
			t.Errorf("%q: site %v, name %q; want %v, %q", test.host, got.Hosts, name, test.want.Hosts, test.name)
		}
	}
}

// TestUnknownHostIsNoName: what a client calls the server never becomes
// SERVER_NAME.
func TestUnknownHostIsNoName(t *testing.T) {
	only := &Site{Hosts: []string{"*.example.org", "example.org"}}
	if got, name := NewTable([]*Site{only}).Site("evil.example"); got != only || name != "example.org" {
		t.Errorf("site %v, name %q", got.Hosts, name)
	}
}

func TestRoute(t *testing.T) {
	s := &Site{}
	for _, prefix := range []string{"", "/app", "/app/static", "/a b"} {
		s.Routes = append(s.Routes, &Route{Prefix: prefix})
	}
	NewTable([]*Site{s})
	for path, want := range map[string]string{
		"/": "", "/x": "", "/app": "/app", "/app/": "/app", "/app/x/y": "/app", "/apple": "", "/app/static": "/app/static",
		"/app/static/x": "/app/static", "/app/statics": "/app", "/APP": "", "/a b/c": "/a b",
	} {
		r := s.Route(path)
		if r == nil || r.Prefix != want {
			t.Errorf("%q: %+v, want %q", path, r, want)
			continue
		}
		if got := r.Prefix + r.Below(path); got != path {
			t.Errorf("%q: prefix and rest make %q", path, got)
		}
	}
	s.Routes = s.Routes[:1]
	if r := s.Route("/nothing"); r != nil {
		t.Errorf("a route for a path that none holds: %q", r.Prefix)
	}
}

func TestLocateWithoutScripts(t *testing.T) {
	if _, err := (&Route{}).Locate("/x", "/x"); !errors.Is(err, ErrStatic) {
		t.Errorf("a route of files: %v", err)
	}
	nph := &protocol.Request{Params: []protocol.Param{{Name: "SCRIPT_FILENAME", Value: "/srv/nph-a.cgi"}}}
	for _, r := range []*Route{{Script: true}, {}} {
		if got := r.NPH(nph); got != r.Script {
			t.Errorf("NPH of a route with Script %v: %v", r.Script, got)
		}
	}
}
