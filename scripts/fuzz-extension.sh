#!/bin/sh
# Compares the C extension with the reference on COUNT inputs of each kind
# (default 200000), with the extension under AddressSanitizer and
# UndefinedBehaviorSanitizer; SEED (default: by the clock) is where they begin.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/gatecrew_worker"
cp gatecrew_worker/*.py gatecrew_worker/_speed.c "$work/gatecrew_worker"
cp build-extension.sh "$work"
cp -R tests "$work"
CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" "$work/build-extension.sh"
[ -f "$work/gatecrew_worker/_speed.abi3.so" ] || exit 1
# The interpreter is not built with the sanitizers, so their library is loaded
# before it; what it allocates must come from them too.
count=${COUNT:-200000} seed=${SEED:-$(date +%s)}
echo "seed $seed"
LD_PRELOAD="$(${CC:-cc} -print-file-name=libasan.so) $(${CC:-cc} -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	"${PYTHON:-python3}" "$work/tests/differential.py" "$count" "$seed"
