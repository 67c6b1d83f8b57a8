#!/usr/bin/python3
"""Writes a lot to standard error: bytes=N in lines of line=N bytes (80; 0 for
one endless line), when=before (the head), between (head and body) or after."""
import os
from urllib.parse import parse_qs

query = {name: values[0] for name, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
left, line, when = int(query.get("bytes", 80)), int(query.get("line", 80)), query.get("when", "before")
unit = b"e" * (line - 1) + b"\n" if line else b"e" * 4096
block = unit * max(1, 65536 // len(unit))


def flood():
    global left
    while left > 0:
        left -= os.write(2, block[:left])


if when == "before":
    flood()
os.write(1, b"Content-Type: text/plain\n\n")
if when == "between":
    flood()
os.write(1, b"body\n")
if when == "after":
    flood()
