#!/usr/bin/python3
"""Answers slowly: n=N pieces of bytes=N (1) "d" each, delay=S seconds before
each (0.1). stream=1 makes it an event stream; endless=1 never stops."""
import itertools
import os
import time
from urllib.parse import parse_qs

query = {name: values[0] for name, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
kind = b"text/event-stream" if query.get("stream") else b"text/plain"
piece, delay = b"d" * int(query.get("bytes", 1)), float(query.get("delay", 0.1))
if query.get("stream"):
    piece = b"data: " + piece + b"\n\n"
os.write(1, b"Content-Type: " + kind + b"\n\n")
for _ in itertools.count() if query.get("endless") else range(int(query.get("n", 10))):
    time.sleep(delay)
    left = piece
    while left:
        left = left[os.write(1, left):]
