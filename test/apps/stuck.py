"""A WSGI application whose requests get stuck, each in its own way."""
import hashlib
import os
import re
import threading
import time


def loop():
    while True:
        pass


def c_function():
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", (1 << 31) - 1)  # releases the interpreter


def c_function_that_holds():
    re.match("(a+)+$", "a" * 64 + "b")


def sleep():
    time.sleep(1000)


def lock():
    held = threading.Lock()
    held.acquire()
    held.acquire()


def task():
    import asyncio

    async def never():
        await asyncio.Event().wait()

    async def main():
        await asyncio.gather(never(), asyncio.sleep(1000))

    asyncio.run(main())


def swallows():
    import asyncio

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass

    asyncio.run(stubborn())


def crowd():
    """Costs little while it is stuck, for a great many."""
    while True:
        time.sleep(0.05)


def stream(environ, start_response):
    """Begins its answer and stops in the middle."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    yield b"data: 1\n\n"
    STUCK["/" + environ["QUERY_STRING"]]()
    yield b"data: 2\n\n"


def nap():
    """Is beside one that is stuck, and not stuck itself."""
    time.sleep(0.15)


STUCK = {"/" + f.__name__: f for f in (loop, c_function, c_function_that_holds, sleep, lock, task, swallows, crowd, nap)}


def app(environ, start_response):
    if environ["PATH_INFO"] == "/stream":
        return stream(environ, start_response)
    STUCK.get(environ["PATH_INFO"], lambda: None)()
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
