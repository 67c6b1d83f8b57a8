#!/usr/bin/python3
"""Forks children and hangs with all of them, until killed.

children=N     how many, each with a child of its own (0)
name=NAME      writes all process ids to TEST_DIR/NAME, one a line, when all run
head=1         writes the head and the word "waiting" before it hangs
ignore_term=1  every one of them ignores TERM
setsid=1       the children leave the session and the process group
spin=1         the script burns CPU where it would sleep
"""
import os
import re
import signal
import sys
import time
from urllib.parse import parse_qs

query = {name: values[0] for name, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
if query.get("ignore_term"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def hang():
    while True:
        time.sleep(60)


pids, told = [os.getpid()], os.pipe()
for _ in range(int(query.get("children", 0))):
    if os.fork() == 0:
        if query.get("setsid"):
            os.setsid()
        os.fork()  # from here on two: the child and its own child
        os.write(told[1], b"%d\n" % os.getpid())
        hang()
expected = 2 * int(query.get("children", 0))
os.close(told[1])
if expected:
    with os.fdopen(told[0]) as lines:
        pids += [int(next(lines)) for _ in range(expected)]
if "name" in query:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", query["name"]):
        sys.exit("hang.py: name: only letters, digits, - and _")
    path = os.path.join(os.environ["TEST_DIR"], query["name"])
    with open(path + ".part", "w") as out:
        out.writelines(f"{pid}\n" for pid in pids)
    os.rename(path + ".part", path)  # whoever waits for the file sees all of it
if query.get("head"):
    os.write(1, b"Content-Type: text/plain\n\nwaiting\n")
while query.get("spin"):
    pass
hang()
