#!/bin/sh
# A local redirect (RFC 3875, section 6.2.2) to the path in the query string.
printf 'Location: %s\n\n' "$QUERY_STRING"
