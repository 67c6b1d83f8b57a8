#!/usr/bin/python3
"""Answers with a head from the table below, named by the query string.

?list gives the table itself as JSON: {name: status}, the status that the
gateway is to answer with.
"""
import json
import os

TEXT = b"Content-Type: text/plain\n"
OK, BAD = 200, 502

HEADS = {
    # Accepted, because RFC 3875 allows it or scripts have always done it.
    "lf": (OK, TEXT + b"\nbody"),
    "crlf": (OK, b"Content-Type: text/plain\r\n\r\nbody"),
    "mixed-line-ends": (OK, b"Content-Type: text/plain\r\nX-A: 1\n\r\nbody"),
    "no-space-after-colon": (OK, b"Content-Type:text/plain\n\nbody"),
    "lower-case": (OK, b"content-type: text/plain\nstatus: 200 OK\n\nbody"),
    "tab-after-colon": (OK, b"Content-Type:\ttext/plain\n\nbody"),
    "trailing-space": (OK, b"Content-Type: text/plain  \n\nbody"),
    "empty-value": (OK, TEXT + b"X-Empty:\n\nbody"),
    "status-without-reason": (OK, TEXT + b"Status: 200\n\nbody"),
    "same-content-type-twice": (OK, TEXT + TEXT + b"\nbody"),
    "status-only": (OK, b"Status: 200 OK\n\nbody"),
    "high-bytes-in-value": (OK, TEXT + b"X-A: caf\xc3\xa9\n\nbody"),
    "many-fields": (OK, TEXT + b"".join(b"X-%d: v\n" % i for i in range(500)) + b"\nbody"),
    "long-value": (OK, TEXT + b"X-A: " + b"v" * 32768 + b"\n\nbody"),
    # Refused.
    "nothing": (BAD, b""),
    "empty-line-only": (BAD, b"\n"),
    "empty-line-first": (BAD, b"\n" + TEXT + b"\nbody"),
    "no-head": (BAD, b"Hello, World!\n"),
    "no-head-html": (BAD, b"<!DOCTYPE html>\n<html><body>hello</body></html>\n"),
    "no-line-end": (BAD, b"Content-Type: text/plain"),
    "no-empty-line": (BAD, TEXT),
    "text-before-head": (BAD, b"debug output\n" + TEXT + b"\nbody"),
    "no-colon": (BAD, TEXT + b"oops\n\nbody"),
    "no-name": (BAD, TEXT + b": value\n\nbody"),
    "space-before-colon": (BAD, b"Content-Type : text/plain\n\nbody"),
    "space-in-name": (BAD, TEXT + b"X A: 1\n\nbody"),
    "control-in-name": (BAD, TEXT + b"X\x01A: 1\n\nbody"),
    "high-byte-in-name": (BAD, TEXT + b"X\xe9: 1\n\nbody"),
    "nul-in-name": (BAD, TEXT + b"X\x00A: 1\n\nbody"),
    "nul-in-value": (BAD, TEXT + b"X-A: 1\x002\n\nbody"),
    "cr-in-value": (BAD, TEXT + b"X-A: 1\r2\n\nbody"),
    "escape-in-value": (BAD, TEXT + b"X-A: \x1b[2J\n\nbody"),
    "folded": (BAD, TEXT + b"X-A: 1\n 2\n\nbody"),
    "indented-first-line": (BAD, b" Content-Type: text/plain\n\nbody"),
    "http-status-line": (BAD, b"HTTP/1.1 200 OK\n" + TEXT + b"\nbody"),
    "status-word": (BAD, TEXT + b"Status: abc\n\nbody"),
    "status-empty": (BAD, TEXT + b"Status:\n\nbody"),
    "status-99": (BAD, TEXT + b"Status: 99\n\nbody"),
    "status-099": (BAD, TEXT + b"Status: 099\n\nbody"),
    "status-100": (BAD, TEXT + b"Status: 100 Continue\n\nbody"),
    "status-1000": (BAD, TEXT + b"Status: 1000\n\nbody"),
    "status-negative": (BAD, TEXT + b"Status: -200\n\nbody"),
    "status-twice": (BAD, TEXT + b"Status: 200\nStatus: 404\n\nbody"),
    "content-type-twice": (BAD, TEXT + b"Content-Type: text/html\n\nbody"),
    "content-length-twice": (BAD, TEXT + b"Content-Length: 4\nContent-Length: 5\n\nbody"),
    "content-length-word": (BAD, TEXT + b"Content-Length: four\n\nbody"),
    "content-length-negative": (BAD, TEXT + b"Content-Length: -1\n\nbody"),
    "content-length-plus": (BAD, TEXT + b"Content-Length: +4\n\nbody"),
    "content-length-huge": (BAD, TEXT + b"Content-Length: 99999999999999999999\n\nbody"),
    "location-empty": (BAD, b"Location:\n\n"),
    "location-twice": (BAD, b"Location: /a\nLocation: /b\n\n"),
    "large-head": (BAD, TEXT + b"X-A: " + b"v" * (1 << 20) + b"\n\nbody"),
    "too-many-fields": (BAD, TEXT + b"".join(b"X-%d: v\n" % i for i in range(5000)) + b"\nbody"),
    "python-traceback": (BAD, b"Traceback (most recent call last):\n  File \"a.py\", line 1\nNameError: x\n"),
}

name = os.environ.get("QUERY_STRING", "")
if name == "list":
    table = {name: status for name, (status, _) in HEADS.items()}
    answer = b"Content-Type: application/json\n\n" + json.dumps(table).encode()
else:
    answer = HEADS[name][1]
while answer:
    answer = answer[os.write(1, answer):]
