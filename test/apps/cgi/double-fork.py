#!/usr/bin/python3
"""Makes a daemon the classic way: fork, setsid, fork; the middle one exits.

sleep=S   how long the daemon lives (0: it ends at once and must be reaped)
setsid=0  it stays in the script's session and process group
name=NAME the daemon writes its pid to TEST_DIR/NAME
"""
import os
import re
import sys
import time
from urllib.parse import parse_qs

query = {name: values[0] for name, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
name = query.get("name", "daemon")
if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
    sys.exit("double-fork.py: name: only letters, digits, - and _")

middle = os.fork()
if middle == 0:
    if query.get("setsid") != "0":
        os.setsid()
    if os.fork() > 0:
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if "name" in query:
        path = os.path.join(os.environ["TEST_DIR"], name)
        with open(path + ".part", "w") as out:
            out.write(f"{os.getpid()}\n")
        os.rename(path + ".part", path)
    time.sleep(float(query.get("sleep", 0)))
    os._exit(0)
os.waitpid(middle, 0)
os.write(1, b"Content-Type: text/plain\n\nbody\n")
