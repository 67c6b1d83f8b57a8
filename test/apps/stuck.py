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


def nap():
    """Is beside one that is stuck, and not stuck itself."""
    time.sleep(0.15)


STUCK = {"/" + f.__name__: f for f in (loop, c_function, c_function_that_holds, sleep, lock, task, nap)}


def app(environ, start_response):
    STUCK.get(environ["PATH_INFO"], lambda: None)()
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
