#!/bin/sh
# Makes ready what the tests need beside Go: Debian packages, a Python virtual
# environment in .build/venv, and the Autobahn test suite with its own Python
# 2.7 in .build/autobahn. Safe to run again at any time; takes
# under a second when everything is there. What cannot be installed is named,
# and the set-up fails: a test that is skipped proves nothing.
set -eu
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }
fail() { say "$@"; exit 1; }

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
	perl -MJSON::PP -e 1 2>/dev/null                     || echo perl
	perl -MCGI -e 1 2>/dev/null                          || echo libcgi-pm-perl
	perl -MFCGI -e 1 2>/dev/null                         || echo libfcgi-perl
	command -v php-cgi >/dev/null                        || echo php-cgi
	ls /usr/sbin/php-fpm* >/dev/null 2>&1                || echo php-fpm
	command -v redis-server >/dev/null                   || echo redis-server
	command -v chromium >/dev/null                       || echo chromium
}

# run_as_root runs a command as root, or returns 1 where that is impossible.
run_as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo "$@"
	else
		return 1
	fi
}

install_packages() {
	command -v apt-get >/dev/null || fail "no apt-get here; install by hand: $*"
	run_as_root true || fail "neither root nor sudo; an administrator must run: apt-get install $*"
	say "installing: $*"
	# shellcheck disable=SC2016 # the inner shell expands it
	run_as_root env DEBIAN_FRONTEND=noninteractive sh -euc '
		# Packages come as files for the tests, not as services of this
		# machine: exit status 101 tells maintainer scripts not to start any.
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $policy ]; then
			trap "rm -f $policy" EXIT
			printf "#!/bin/sh\nexit 101\n" >$policy
			chmod +x $policy
		fi
		apt-get -qq update
		apt-get -qq -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" >&2
		case " $* " in *" php-fpm "*)
			if command -v systemctl >/dev/null; then
				# It says no where systemd is installed and does not run.
				systemctl --quiet disable $(basename -a /lib/systemd/system/php*-fpm.service) phpsessionclean.timer || true
			fi
		esac
	' sh "$@" || fail "apt-get could not install: $*"
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

# shellcheck disable=SC2046 # one word a package
set -- $(packages | tr ' ' '\n' | sort -u)
if [ $# -gt 0 ]; then
	install_packages "$@"
	left=$(packages | sort -u | tr '\n' ' ')
	[ -z "$left" ] || fail "still missing after the installation: $left"
fi

venv=.build/venv
if ! cmp -s test/requirements.txt $venv/requirements.txt || ! $venv/bin/python -c '' 2>/dev/null; then
	say "making $venv"
	python3 -m venv --clear $venv
	$venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement test/requirements.txt
	cp test/requirements.txt $venv/requirements.txt
fi

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
