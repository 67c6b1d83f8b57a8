#!/bin/sh
# Counts to ten, a number a second. Each line is a message to the page.
for i in 1 2 3 4 5 6 7 8 9 10; do
	echo "$i"
	sleep 1
done
