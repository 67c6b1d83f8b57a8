#!/usr/bin/python3
"""Writes 64 KiB blocks for ever, as fast as they are taken; a client that goes
away is noticed by the failing write, a stalled one holds the script there.
name=NAME writes the pid to TEST_DIR/NAME first."""
import os
import re
import sys

query = os.environ.get("QUERY_STRING", "")
if query:
    match = re.fullmatch(r"name=([A-Za-z0-9_-]+)", query) or sys.exit("endless.py: only name=NAME")
    path = os.path.join(os.environ["TEST_DIR"], match.group(1))
    with open(path + ".part", "w") as out:
        out.write(f"{os.getpid()}\n")
    os.rename(path + ".part", path)
os.write(1, b"Content-Type: application/octet-stream\n\n")
block = b"x" * 65536
while True:
    os.write(1, block)
