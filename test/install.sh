# What the set-up scripts share: how Debian packages and virtual environments
# are installed. Sourced, from the root of the tree.

say() { echo "setup: $*" >&2; }
fail() { say "$@"; exit 1; }

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
		units=$(mktemp)
		trap "rm -f $units" EXIT
		if [ ! -e $policy ]; then
			trap "rm -f $units $policy" EXIT
			printf "#!/bin/sh\nexit 101\n" >$policy
			chmod +x $policy
		fi
		ls /lib/systemd/system >$units 2>/dev/null || true
		apt-get -qq -o DPkg::Lock::Timeout=600 update
		apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" >&2
		# Nor at its next start. What was there before stays as it is.
		if command -v systemctl >/dev/null; then
			for unit in $(ls /lib/systemd/system | grep -vxFf $units | grep -E "\.(service|socket|timer)\$"); do
				# It says no where systemd is installed and does not run.
				systemctl --quiet disable "$unit" || true
			done
		fi
	' sh "$@" || fail "apt-get could not install: $*"
}

# install_missing installs what the function $1 prints: the packages that are
# not there yet.
install_missing() {
	missing=$("$1" | tr ' ' '\n' | sort -u)
	[ -n "$missing" ] || return 0
	# shellcheck disable=SC2086 # one word a package
	install_packages $missing
	missing=$("$1" | sort -u | tr '\n' ' ')
	[ -z "$missing" ] || fail "still missing after the installation: $missing"
}

# make_venv makes the virtual environment $1 with the packages of the file $2,
# unless it has been made of this very file, in this very place: its programs name it.
make_venv() {
	if ! cmp -s "$2" "$1/requirements.txt" || ! grep -qF "$PWD/$1" "$1/bin/activate" || ! "$1/bin/python" -c '' 2>/dev/null; then
		say "making $1"
		python3 -m venv --clear "$1"
		"$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2"
		cp "$2" "$1/requirements.txt"
	fi
}
