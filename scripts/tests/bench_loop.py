"""CPU and wall time per request of a worker's loop: python3 bench_loop.py [THREADS|asyncio|uvloop].

The other end is in the same process's child, and as plain as can be, so that
the figure is the worker's own. Not a test.
"""

import cProfile
import os
import pstats
import resource
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gatecrew_worker import _records as rec

PARAMS = [
    ("GATEWAY_INTERFACE", "CGI/1.1"), ("SERVER_SOFTWARE", "gatecrew"), ("SERVER_NAME", "example.org"),
    ("SERVER_PORT", "8000"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("SERVER_ADDR", "127.0.0.1"),
    ("REMOTE_ADDR", "127.0.0.1"), ("REMOTE_PORT", "50000"), ("REQUEST_METHOD", "GET"),
    ("REQUEST_SCHEME", "http"), ("REQUEST_URI", "/hello?name=value"), ("QUERY_STRING", "name=value"),
    ("SCRIPT_NAME", ""), ("PATH_INFO", "/hello"), ("DOCUMENT_ROOT", "/srv"),
    ("HTTP_HOST", "example.org:8000"), ("HTTP_ACCEPT", "*/*"), ("HTTP_CONNECTION", "keep-alive"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"), ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
    ("HTTP_COOKIE", "sessionid=0123456789abcdef0123456789abcdef"),
]


def app(environ, start_response):
    body = b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi_app(scope, receive, send):
    body = b"Hello, world!\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def drive(sock, count):
    block = rec.encode_pairs((n.encode(), v.encode()) for n, v in PARAMS)
    message = (
        rec.record(rec.BEGIN_REQUEST, 1, b"\0\1\1\0\0\0\0\0") + rec.record(rec.PARAMS, 1, block)
        + rec.record(rec.PARAMS, 1) + rec.record(rec.STDIN, 1)
    )
    for _ in range(count):
        sock.sendall(message)
        sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)


def runner(kind, sock):
    """Returns what serves the socket, with a number of threads or a kind of
    event loop."""
    if kind.isdigit():
        from gatecrew_worker._threads import Loop
        from gatecrew_worker._wsgi import Handler

        loop = Loop(sock, int(kind))
        return lambda: loop.run(Handler(app, loop))
    from gatecrew_worker import _asgi

    loop = _asgi.Loop(sock, 1000, _asgi._event_loop(kind))
    return lambda: loop.run(_asgi.Handler(asgi_app, loop), _asgi.Lifespan(asgi_app, "off"))


def main(kind, count):
    near, far = socket.socketpair()
    if os.fork() == 0:
        near.close()
        drive(far, count)
        os._exit(0)
    far.close()
    run = runner(kind, near)
    profile = cProfile.Profile() if os.environ.get("PROFILE") else None
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    if profile:
        profile.enable()
    run()
    if profile:
        profile.disable()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    print("Python %s, %s: %.1f µs wall, %.1f µs user, %.1f µs system a request" % (
        sys.version.split()[0], kind, wall / count * 1e6, user / count * 1e6, system / count * 1e6))
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "1", int(os.environ.get("COUNT", "100000")))
