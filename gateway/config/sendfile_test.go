package config

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSendfile(t *testing.T) {
	dir := fixture(t)
	const route = "sites:\n  - routes:\n      - {path: /, cgi: {script: script.py}, sendfile: {"
	cfg, err := loadText(t, route+"roots: [public, ./htdocs], accel: {/internal/: plain, /: htdocs}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	want := &Sendfile{Roots: []string{in("public"), in("htdocs")}, Accel: map[string]string{"/internal/": in("plain"), "/": in("htdocs")}}
	if got := cfg.Sites[0].Routes[0].Sendfile; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for text, want := range map[string]string{
		route + "}}\n": "3:45: sites[0].routes[0].sendfile: it names no folder",
		route + "pass: true, roots: [public]}}\n":      "sendfile.pass: what is passed on is not sent from a folder",
		route + "pass: true, accel: {/a/: public}}}\n": "sendfile.pass: what is passed on is not sent from a folder",
		route + "roots: [public, nowhere]}}\n":         "sendfile.roots[1]: there is no folder " + in("nowhere"),
		route + "roots: ['']}}\n":                      "sendfile.roots[0]: the folder is missing",
		route + "roots: [script.py]}}\n":               "sendfile.roots[0]: " + in("script.py") + " is not a folder",
		route + "roots: [.]}}\n":                       "gatecrew.yaml",
		route + "accel: {/a: public}}}\n":              `"/a" is not the beginning of a path`,
		route + "accel: {a/: public}}}\n":              `"a/" is not the beginning of a path`,
		route + "accel: {/a//: public}}}\n":            `"/a//" is not the beginning of a path`,
		route + "accel: {/a/../b/: public}}}\n":        `"/a/../b/" is not the beginning of a path`,
		route + "accel: {/a/: nowhere}}}\n":            "there is no folder " + in("nowhere"),
		strings.Replace(route, "cgi: {script: script.py}", "static: {dir: public}", 1) + "roots: [public]}}\n":            "sendfile: only a route with pool, cgi or fastcgi has it",
		strings.Replace(route, "cgi: {script: script.py}", "socket: {command: [./script.py]}", 1) + "roots: [public]}}\n": "sendfile: only a route with pool, cgi or fastcgi has it",
	} {
		cfg, err := loadText(t, text)
		var faults Faults
		if !errors.As(err, &faults) || cfg != nil || len(faults) != 1 || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}
