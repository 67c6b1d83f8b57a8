#!/bin/sh
# A client redirect to the URL in the query string; with a document (RFC 3875,
# section 6.2.4) when it has path information.
if [ -n "$PATH_INFO" ]; then
	printf 'Status: 301 Moved Permanently\nLocation: %s\nContent-Type: text/plain\n\nmoved\n' "$QUERY_STRING"
else
	printf 'Location: %s\n\n' "$QUERY_STRING"
fi
