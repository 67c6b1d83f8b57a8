"""An application that tells about the process that it runs in."""

import atexit
import gc
import json
import os
import random
import signal
import socket
import sys
import threading
import time

LOADED_BY = os.getpid()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
atexit.register(lambda: os.write(1, b"exit of %d\n" % os.getpid()))
sys.stdout.write("begun")
random.seed(1)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/print":
        print("out")
        print("err", file=sys.stderr)
    return [json.dumps({
        "loaded_by": LOADED_BY, "pid": os.getpid(), "name": os.environ["GATECREW_WORKER"], "random": random.random(),
        "frozen": gc.get_freeze_count(), "descriptors": _descriptors(),
    }).encode()]


def _descriptors():
    held = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            held[fd] = os.readlink("/proc/self/fd/" + fd)
        except FileNotFoundError:
            pass  # that of the listing
    return held


def unsafe():
    """The application, with what does not survive a fork."""
    for name in ("one", "two"):
        threading.Thread(target=time.sleep, args=(1000,), name=name, daemon=True).start()
    app.server = socket.create_server(("127.0.0.1", 0))
    app.client = socket.create_connection(app.server.getsockname())
    app.pair = socket.socketpair()
    app.datagrams = socket.socket(type=socket.SOCK_DGRAM)
    return app
