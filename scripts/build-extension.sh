#!/bin/sh
# Builds the optional C extension of the Python worker beside its source, for
# the stable ABI: one file for CPython 3.8 and later. Says in one line why when it
# can't; the worker then runs in pure Python. $PYTHON is whose Python.h is used,
# $CC the compiler, $CFLAGS more of its flags.
set -eu
cd "$(dirname "$0")/gatecrew_worker"
python=${PYTHON:-python3} cc=${CC:-cc} target=${1:-_speed.abi3.so}

skip() {
	rm -f "$target"
	echo "gatecrew is built without the C extension of its Python worker: $1" >&2
	exit 0
}

command -v "$cc" >/dev/null || skip "there is no C compiler ($cc); Debian has it in gcc and libc6-dev"
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null) ||
	skip "there is no $python, whose Python.h is needed"
[ -f "$include/Python.h" ] || skip "$include/Python.h is missing; Debian has it in python3-dev"
echo 'int main(void) { return 0; }' | "$cc" -x c -o /dev/null - 2>/dev/null ||
	skip "$cc can't compile and link; Debian has what it needs in libc6-dev"
# A worker that loads it reads a whole file or none.
# shellcheck disable=SC2086 # several flags
"$cc" -std=c11 -O2 -g0 -fPIC -fvisibility=hidden -Wall -Wextra -Werror=implicit-function-declaration ${CFLAGS:-} \
	-shared -I "$include" -o "$target.new" _speed.c
mv "$target.new" "$target"
