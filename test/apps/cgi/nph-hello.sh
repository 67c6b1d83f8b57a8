#!/bin/sh
# A script with non-parsed headers (RFC 3875, section 5).
printf 'HTTP/1.1 203 Made Here\r\nContent-Type: text/plain\r\nX-Nph: yes\r\nConnection: close\r\n\r\nHello from %s\n' "$0"
