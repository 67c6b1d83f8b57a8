"""Applications that stay busy until the FIFO that QUERY_STRING names was opened
for writing and closed."""

import os
import threading
import time

from applications import PLAIN, raw, say


def released(environ):
    with open(environ["QUERY_STRING"]) as fifo:
        fifo.read()


def sleeps(environ, start_response):
    """In a system call."""
    say("busy")
    released(environ)
    start_response("200 OK", list(PLAIN))
    return [b"slept"]


def spins(environ, start_response):
    """In a loop that never gives up the interpreter by itself."""
    ended = []
    threading.Thread(target=lambda: ended.append(released(environ))).start()
    say("busy")
    while not ended:
        pass
    start_response("200 OK", list(PLAIN))
    return [b"spun"]


def lingers(environ, start_response):
    """After it has given all of its body."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    yield b"whole"
    say("busy")
    released(environ)


def naps(environ, start_response):
    """For as many seconds as QUERY_STRING says; a client may ask for an answer in parts, or by write()."""
    time.sleep(float(environ["QUERY_STRING"]))
    write = start_response("200 OK", list(PLAIN))
    if environ["PATH_INFO"] == "/naps/parts":
        return (part for part in (b"one", b"two"))
    if environ["PATH_INFO"] == "/naps/write":
        write(b"written")
        return []
    return [b"slept"]


def dies(environ, start_response):
    """And its process with it."""
    os._exit(7)


def app(environ, start_response):
    return {"/sleeps": sleeps, "/spins": spins, "/lingers": lingers, "/dies": dies,
            "/naps": naps, "/naps/parts": naps, "/naps/write": naps}.get(environ["PATH_INFO"], raw)(environ, start_response)
