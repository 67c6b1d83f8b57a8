#!/bin/sh
# Makes ready what the bench needs beside gatecrew: wrk and the peers, from
# Debian, PyPI (in .build/bench-venv) and as a Go module. Safe to run again at
# any time; takes under a second when everything is there. Without root, and
# with all Debian packages in place, it needs none.
set -eu
cd "$(dirname "$0")/.."
. test/install.sh

packages() {
	command -v wrk >/dev/null                            || echo wrk
	command -v nginx >/dev/null                          || echo nginx-light
	command -v apache2 >/dev/null                        || echo apache2
	command -v lighttpd >/dev/null                       || echo lighttpd
	command -v fcgiwrap >/dev/null                       || echo fcgiwrap
	ls /usr/sbin/php-fpm* >/dev/null 2>&1                || echo php-fpm
	command -v git >/dev/null                            || echo git
	[ -x /usr/lib/git-core/git-http-backend ]            || echo git
	[ -e /etc/mime.types ]                               || echo media-types
	echo '#include <ev.h>' | gcc -E - >/dev/null 2>&1    || echo gcc libc6-dev libev-dev # bjoern
	python3 -c 'import ensurepip, venv' 2>/dev/null      || echo python3-venv
	[ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
		echo python3-dev # uWSGI, bjoern
}

command -v go >/dev/null || fail "no go here; install the version that go.mod names"
install_missing packages
make_venv .build/bench-venv bench/requirements.txt

if ! command -v caddy >/dev/null && [ ! -x "$(go env GOPATH)/bin/caddy" ]; then
	say "building Caddy (minutes)"
	nice go install github.com/caddyserver/caddy/v2/cmd/caddy@latest
fi
