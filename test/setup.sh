#!/bin/sh
# Makes ready what the tests need beside Go: Debian packages, a Python virtual
# environment in .build/venv, and the Autobahn test suite with its own Python
# 2.7 in .build/autobahn. Safe to run again at any time; takes
# under a second when everything is there. What cannot be installed is named,
# and the set-up fails: a test that is skipped proves nothing.
set -eu
cd "$(dirname "$0")/.."

. test/install.sh

# packages prints the Debian packages that are still missing. Each line tries
# the thing itself, so that one which came from elsewhere is as good.
packages() {
	command -v git >/dev/null                            || echo git
	command -v curl >/dev/null                           || echo curl
	[ -x /usr/lib/git-core/git-http-backend ]            || echo git
	[ -x /usr/lib/cgit/cgit.cgi ]                        || echo cgit
	echo 'int main(void) { return 0; }' |
		gcc -x c -o /dev/null - 2>/dev/null              || echo gcc libc6-dev
	python3 -c 'import ensurepip, venv' 2>/dev/null      || echo python3-venv
	[ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
		echo python3-dev
	perl -MJSON::PP -e 1 2>/dev/null                     || echo perl
	perl -MCGI -e 1 2>/dev/null                          || echo libcgi-pm-perl
	perl -MFCGI -e 1 2>/dev/null                         || echo libfcgi-perl
	command -v php-cgi >/dev/null                        || echo php-cgi
	ls /usr/sbin/php-fpm* >/dev/null 2>&1                || echo php-fpm
	command -v redis-server >/dev/null                   || echo redis-server
	command -v chromium >/dev/null                       || echo chromium
	command -v wrk >/dev/null                            || echo wrk
}

# python27 prints the path of a Python 2.7 with pip. Debian has none any more:
# it comes from the PATH or from pyenv.
python27() {
	for python in "$(command -v python2.7 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
		# A shim of pyenv is there and does not run.
		if [ -n "$python" ] && "$python" -m pip --version >/dev/null 2>&1; then
			echo "$python"
			return
		fi
	done
	return 1
}

command -v go >/dev/null || fail "no go here; install the version that go.mod names"

install_missing packages

make_venv .build/venv test/requirements.txt

autobahn=.build/autobahn suite=autobahntestsuite==25.10.1
if [ "$(cat $autobahn/suite 2>/dev/null)" != $suite ]; then
	python=$(python27) ||
		fail "the Autobahn test suite (WebSocket) needs Python 2.7 with pip, and there is none: put a python2.7 on the PATH, or run: pyenv install 2.7.18"
	say "making $autobahn (a minute)"
	rm -rf $autobahn
	mkdir -p .build
	"$python" -m pip --disable-pip-version-check install -qq --target $autobahn/tools 'virtualenv<20.16'
	PYTHONPATH=$autobahn/tools "$python" -m virtualenv --quiet $autobahn
	$autobahn/bin/python -m pip --disable-pip-version-check install -qq $suite
	$autobahn/bin/wstest --autobahnversion >/dev/null 2>&1 || fail "$autobahn/bin/wstest does not run"
	echo $suite >$autobahn/suite
fi
