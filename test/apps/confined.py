"""A WSGI application, and a CGI script, that tells as whom it runs and what it
may do. ?read=PATH and ?write=PATH try a file; ?spin=1 never ends; ?take=BYTES
takes memory.
"""
import json
import os
import resource
import sys
import tempfile
from urllib.parse import parse_qs


def attempt(path, mode):
    try:
        with open(path, mode) as f:
            return f.read() if mode == "r" else f.write("written\n") and "written"
    except OSError as exc:
        return type(exc).__name__


def report(query):
    query = {name: values[0] for name, values in parse_qs(query).items()}
    with open("/proc/self/status") as f:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
    told = {
        "uid": list(os.getresuid()), "gid": list(os.getresgid()), "groups": sorted(os.getgroups()),
        "umask": status["Umask"], "nnp": status["NoNewPrivs"], "nice": os.nice(0), "cpus": sorted(os.sched_getaffinity(0)), "group leader": os.getpgrp() == os.getpid(),
        "nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
        "env": dict(os.environ), "cwd": os.getcwd(), "root": sorted(os.listdir("/")) if query.get("root") else None,
        "descriptors": {fd: os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + fd)},
    }
    for name, mode in ("read", "r"), ("write", "w"):
        if name in query:
            told[name] = attempt(query[name], mode)
    if "take" in query:
        try:
            told["take"] = len(b"x" * int(query["take"]))
        except MemoryError:
            told["take"] = "MemoryError"
    while "spin" in query:
        pass
    return json.dumps(told)


def application(environ, start_response):
    body = report(environ["QUERY_STRING"]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    sys.stdout.write("Content-Type: application/json\n\n" + report(os.environ["QUERY_STRING"]))
