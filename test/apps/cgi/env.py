#!/usr/bin/python3
"""What a script is given, as JSON; the same from env.pl, env.sh and env.c.

{"argv": [...], "cwd": "...", "env": {...}, "fds": {"0": "pipe:[1]", ...},
 "pid": n, "ppid": n, "pgid": n, "sid": n}

Values are bytes: each stands as the character of the same number (Latin-1).
The interpreter's own additions are shown, too: Python sets LC_CTYPE where no
locale is set, and the shell PWD.
"""
import json
import os
import sys


def text(value):
    return value.decode("latin-1")


def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink("/proc/self/fd/" + number)
        except FileNotFoundError:  # the one that the listing itself used
            pass
    return found


print("Content-Type: application/json\n")
json.dump({
    "argv": [text(os.fsencode(arg)) for arg in sys.argv],
    "cwd": os.getcwd(),
    "env": {text(name): text(value) for name, value in os.environb.items()},
    "fds": descriptors(),
    "pid": os.getpid(), "ppid": os.getppid(), "pgid": os.getpgrp(), "sid": os.getsid(0),
}, sys.stdout)
