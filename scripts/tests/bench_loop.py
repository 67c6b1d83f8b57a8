"""CPU and wall time per request of a worker's loop: python3 bench_loop.py [THREADS|asyncio|uvloop].

C_EXTENSION=off is pure Python. APP is an application, MODULE:NAME, in place of
the smallest. MESSAGES=1 has messages of WebSockets echoed in place of
requests. COUNT is how many, and DEPTH how many of them are sent at once;
PROFILE=1 adds where the time goes. The other end is in the same process's
child, and as plain as can be, so that the figure is the worker's own. Not a
test.
"""

import cProfile
import os
import pstats
import resource
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from gatecrew_worker import _native
from gatecrew_worker import _records as rec
from gatecrew_worker._loader import load

SPEED = _native.load(os.environ.get("C_EXTENSION", "auto"))[0]

PARAMS = [  # of cgi.AppendParams
    ("GATEWAY_INTERFACE", "CGI/1.1"), ("SERVER_SOFTWARE", "gatecrew"), ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REDIRECT_STATUS", "200"), ("SERVER_ADDR", "127.0.0.1"), ("SERVER_NAME", "example.org"), ("SERVER_PORT", "8000"),
    ("REQUEST_SCHEME", "http"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/hello?name=value"), ("QUERY_STRING", "name=value"),
    ("SCRIPT_NAME", ""), ("PATH_INFO", "/hello"), ("DOCUMENT_URI", "/hello"),
    ("REMOTE_ADDR", "127.0.0.1"), ("REMOTE_HOST", "127.0.0.1"), ("REMOTE_PORT", "50000"),
    ("HTTP_HOST", "example.org:8000"), ("HTTP_ACCEPT", "*/*"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br"), ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
    ("HTTP_COOKIE", "sessionid=0123456789abcdef0123456789abcdef"), ("UNIQUE_ID", "0123456789abcdef"),
]


def app(environ, start_response):
    body = b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi_app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": event["text"]})
    body = b"Hello, world!\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def drive(sock, count, depth):
    """Sends count requests, depth of them at once."""
    block = rec.encode_pairs((n.encode(), v.encode()) for n, v in PARAMS)
    asked = rec.encode_pairs([(b"GATECREW_FLOW", b"1"), (b"GATECREW_WINDOW", b"131072")])
    sock.sendall(rec.record(rec.GET_VALUES, 0, asked))
    sock.recv(65536)
    message = b"".join(
        rec.record(rec.BEGIN_REQUEST, i, b"\0\1\1\0\0\0\0\0") + rec.record(rec.PARAMS, i, block)
        + rec.record(rec.PARAMS, i) + rec.record(rec.STDIN, i)
        for i in range(1, depth + 1)
    )
    for _ in range(count // depth):
        sock.sendall(message)
        answers = b""
        while answers.count(b"\1\3") < depth:  # END_REQUEST
            answers += sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)


def echo(sock, count, depth):
    """Has count messages echoed, one of each of depth WebSockets at once."""
    asked = rec.encode_pairs([(b"GATECREW_FLOW", b"1"), (b"GATECREW_WINDOW", b"131072")])
    sock.sendall(rec.record(rec.GET_VALUES, 0, asked))
    sock.recv(65536)
    block = rec.encode_pairs((n.encode(), v.encode()) for n, v in PARAMS)
    sockets = range(1, depth + 1)
    sock.sendall(b"".join(
        rec.record(rec.BEGIN_REQUEST, i, rec.WEBSOCKET.to_bytes(2, "big") + b"\1\0\0\0\0\0")
        + rec.record(rec.PARAMS, i, block) + rec.record(rec.PARAMS, i) for i in sockets))
    answers = b""
    while answers.count(b"\r\n\r\n") < depth:
        answers += sock.recv(65536)
    text = b"Hello, world! Hello."
    message = b"\1" + len(text).to_bytes(4, "big") + text
    messages = b"".join(rec.record(rec.STDIN, i, message) for i in sockets)
    allowed = b"".join(rec.credit(i, 1000 * len(message)) for i in sockets)
    for n in range(count // depth):
        sock.sendall(messages if n % 1000 else messages + allowed)
        answers = b""
        while answers.count(text) < depth:
            answers += sock.recv(65536)
    sock.shutdown(socket.SHUT_WR)


def runner(kind, sock):
    """Returns what serves the socket, with a number of threads or a kind of
    event loop."""
    if kind.isdigit():
        from gatecrew_worker._wsgi import Handler, Loop

        if SPEED is not None:
            from gatecrew_worker._wsgi_native import Handler, Loop
        chosen = load(os.environ["APP"], "wsgi")[0] if "APP" in os.environ else app
        loop = Loop(sock, int(kind), 1000)
        return lambda: loop.run(Handler(chosen, loop))
    from gatecrew_worker import _asgi

    make_loop, make_handler = _asgi.Loop, _asgi.Handler
    if SPEED is not None:
        from gatecrew_worker._asgi_native import NativeHandler as make_handler
        from gatecrew_worker._asgi_native import NativeLoop as make_loop
    loop = make_loop(sock, 1000, _asgi._event_loop(kind))
    asgi = load(os.environ["APP"], "asgi")[0] if "APP" in os.environ else asgi_app
    return lambda: loop.run(make_handler(asgi, loop).handle, _asgi.Lifespan(asgi, "off"))


def main(kind, count, depth):
    near, far = socket.socketpair()
    if os.fork() == 0:
        near.close()
        (echo if os.environ.get("MESSAGES") else drive)(far, count, depth)
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
    print("Python %s, %s, %s: %.1f µs wall, %.1f µs user, %.1f µs system a request" % (
        sys.version.split()[0], "pure" if SPEED is None else "C", kind, wall / count * 1e6, user / count * 1e6, system / count * 1e6))
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "1", int(os.environ.get("COUNT", "100000")), int(os.environ.get("DEPTH", "1")))
