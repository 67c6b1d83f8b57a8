#!/bin/sh
# Copies standard input to standard output as it comes, until its end.
printf 'Content-Type: application/octet-stream\n\n'
exec cat
