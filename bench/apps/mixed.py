"""A hello world, and at /slow one that takes 60 ms of CPU time."""
import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        end = time.thread_time() + 0.06
        while time.thread_time() < end:
            pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, World!"]
