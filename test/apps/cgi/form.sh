#!/bin/sh
# What was posted, see form.py.
printf 'Content-Type: text/plain\n\n'
echo "$REQUEST_METHOD $CONTENT_TYPE $CONTENT_LENGTH"
head -c "$CONTENT_LENGTH" | tr '&' '\n'
echo
