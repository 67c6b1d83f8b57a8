package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestPrintedConfigurationReadsBackTheSame(t *testing.T) {
	fixture(t)
	first, err := loadText(t, `
log: {access: off}
pools:
  "web'x y":
    app: site.wsgi
    env: {A: "1: # x", B: "", C: "yes", D: "null", E: "line\nbreak", F: "007"}
    pass_env: [DJANGO_*]
    workers: 1:3
    timeout: 90m
    after: [b]
  wsgi: {app: site.wsgi, workers: 1, interface: wsgi, threads: 2, websocket: {ping_interval: 0}}
  asgi: {app: site.wsgi, workers: 1, interface: asgi, buffer_requests: true}
programs:
  a: {command: [sh, -c, "exec sleep 1"]}
  b: {command: [sh], after: [a], ready: unix:b.sock, restart: never}
sites:
  - hosts: ["*.example.org"]
    routes:
      - {path: /s, static: {dir: public, index: []}}
      - {path: /c, cgi: {dir: cgi-bin, extensions: {.sh: "", .x: sh}, pass_authorization: true}}
      - {path: /f, fastcgi: {address: "h:9", root: htdocs, index: [], static: false, params: {A: b}}}
      - {path: /, pool: "web'x y", pass_authorization: false}
      - {path: /w, pool: wsgi, sendfile: {roots: [public], accel: {/internal/: public}}}
      - {path: /a, pool: asgi}
      - {path: /p, socket: {command: [sh], framing: stream}}
`)
	if err != nil {
		t.Fatal(err)
	}
	text, err := first.YAML()
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadText(t, string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	first.origins, second.origins = nil, nil
	if !reflect.DeepEqual(first, second) {
		again, _ := second.YAML()
		t.Errorf("first\n%s\nsecond\n%s", text, again)
	}
	for _, line := range []string{"max_body: 1g # default", "timeout: 1h30m\n", "workers: \"1:3\"\n", "pass_authorization: false\n"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}
