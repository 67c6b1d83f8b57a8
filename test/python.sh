#!/bin/sh
# Runs the tests in Python, side by side: those of the worker in pure Python and
# with the C extension, and those of the bench. They mostly wait. What each has said
# is printed when it has ended; the status is 0 when all have passed.
set -u
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

run() { # NAME, PYTHONPATH, FOLDER
	C_EXTENSION=$1 PYTHONPATH=$2 python3 -m unittest discover -s "$3" >"$scratch/$1" 2>&1
	echo $? >"$scratch/$1.status"
}
run off scripts scripts/tests &
run require scripts scripts/tests &
run auto bench bench/tests &
wait
failed=0
for name in off require auto; do
	echo "C_EXTENSION=$name:"
	cat "$scratch/$name"
	[ "$(cat "$scratch/$name.status")" = 0 ] || failed=1
done
exit $failed
