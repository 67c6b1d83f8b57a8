"""The WSGI application of the tests: every route does one thing, on request.

Parameters come in the query string. All well-behaved routes run under
wsgiref.validate; those that break the rules on purpose do not.
TEST_DIR names the folder for what the application keeps.
"""
import hashlib
import json
import os
import sqlite3
import sys
import threading
import time
from urllib.parse import parse_qs
from wsgiref.validate import validator

TEXT = [("Content-Type", "text/plain")]
BLOCK = 65536

requests_served = 0  # by this process


def param(environ, name, default=""):
    # keep_blank_values, latin-1: a header value must arrive as it was sent
    query = parse_qs(environ.get("QUERY_STRING", ""), True, encoding="latin-1")
    return query.get(name, [default])[0]


def answer(start_response, body, status="200 OK", headers=()):
    body = body if isinstance(body, bytes) else body.encode()
    start_response(status, TEXT + [("Content-Length", str(len(body))), *headers])
    return [body]


def blocks(stream):
    while block := stream.read(BLOCK):
        yield block


# Well-behaved routes


def index(environ, start_response):
    return answer(start_response, "probe\n")


def show_environ(environ, start_response):
    """All of environ as JSON; what is no string is shown by its repr."""
    shown = {k: v if isinstance(v, (str, bool, int)) or k == "wsgi.version" else repr(v) for k, v in environ.items()}
    body = json.dumps({"environ": shown, "argv": sys.argv, "env": dict(os.environ), "pid": os.getpid()})
    return answer(start_response, body)


def echo(environ, start_response):
    """The request body, block by block as it comes; without a length."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return blocks(environ["wsgi.input"])


def digest(environ, start_response):
    """Reads the body with ?how=read|readline|readlines|iterate; tells its size and sha256."""
    stream, seen, size = environ["wsgi.input"], hashlib.sha256(), 0
    how = param(environ, "how", "read")
    pieces = {
        "read": lambda: blocks(stream),
        "readline": lambda: iter(stream.readline, b""),
        "readlines": lambda: stream.readlines(),
        "iterate": lambda: stream,
    }[how]()
    for piece in pieces:
        seen.update(piece)
        size += len(piece)
    body = json.dumps({"bytes": size, "sha256": seen.hexdigest(), "content_length": environ.get("CONTENT_LENGTH")})
    return answer(start_response, body)


def first_bytes(environ, start_response):
    """Reads ?n= bytes of the body and leaves the rest unread."""
    return answer(start_response, environ["wsgi.input"].read(int(param(environ, "n", "0"))))


def status(environ, start_response):
    """/status/NNN; with a body where HTTP has one."""
    code = environ["PATH_INFO"].rsplit("/", 1)[1]
    if code in ("204", "304"):
        start_response(code + " Probe", [])
        return []
    return answer(start_response, "status %s\n" % code, code + " Probe")


def stream(environ, start_response):
    """?n= pieces of ?chunk= bytes, ?delay= seconds before each; ?length=1 declares the length."""
    n, chunk = int(param(environ, "n", "10")), int(param(environ, "chunk", "10"))
    delay = float(param(environ, "delay", "0"))
    headers = list(TEXT)
    if param(environ, "length"):
        headers.append(("Content-Length", str(n * chunk)))
    start_response("200 OK", headers)
    piece = b"s" * chunk

    def pieces():
        for _ in range(n):
            if delay:
                time.sleep(delay)
            yield piece

    return pieces()


class Closing:
    """An iterable that notes in TEST_DIR/closed that close() was called."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)

    def close(self):
        with open(os.path.join(os.environ["TEST_DIR"], "closed"), "a") as out:
            out.write("closed\n")


def close(environ, start_response):
    """/stream with a close() to be called, also when the client goes away."""
    return Closing(stream(environ, start_response))


def write(environ, start_response):
    """The write() callable of PEP 3333, then an iterable."""
    put = start_response("200 OK", list(TEXT))
    put(b"written, ")
    put(b"written again, ")
    return [b"returned\n"]


def exc_info(environ, start_response):
    """Begins an answer, fails before the first byte, and replaces it."""
    start_response("200 OK", list(TEXT))
    try:
        raise ValueError("changed my mind")
    except ValueError:
        body = b"replaced\n"
        start_response("500 Replaced", TEXT + [("Content-Length", str(len(body)))], sys.exc_info())
        return [body]


def file(environ, start_response):
    """TEST_DIR/?name= through wsgi.file_wrapper."""
    name = os.path.basename(param(environ, "name"))
    opened = open(os.path.join(os.environ["TEST_DIR"], name), "rb")
    start_response("200 OK", TEXT + [("Content-Length", str(os.fstat(opened.fileno()).st_size))])
    return environ["wsgi.file_wrapper"](opened, BLOCK)


def sleep(environ, start_response):
    time.sleep(float(param(environ, "s", "1")))
    return answer(start_response, "slept\n")


def spin(environ, start_response):
    """Holds the interpreter for ?s= seconds."""
    end = time.monotonic() + float(param(environ, "s", "1"))
    while time.monotonic() < end:
        pass
    return answer(start_response, "spun\n")


def pid(environ, start_response):
    """The process, and how many requests it has served with this one."""
    return answer(start_response, json.dumps({"pid": os.getpid(), "ppid": os.getppid(), "served": requests_served}))


def thread(environ, start_response):
    """The thread, and the flags that promise something about it. Waits ?s=
    seconds so that others can run meanwhile."""
    time.sleep(float(param(environ, "s", "0")))
    return answer(start_response, json.dumps({
        "pid": os.getpid(), "thread": threading.get_ident(), "name": threading.current_thread().name,
        "multithread": environ["wsgi.multithread"], "multiprocess": environ["wsgi.multiprocess"],
    }))


def token(environ, start_response):
    """?x= back, in a field and in the body: a foreign one would be cross-talk."""
    x = param(environ, "x")
    return answer(start_response, x, headers=[("X-Token", x)])


def count(environ, start_response):
    """POST notes that ?id= was executed, GET tells how often it was. ?s= seconds
    pass between the noting and the answer."""
    id = param(environ, "id")
    db = sqlite3.connect(os.path.join(os.environ["TEST_DIR"], "count.sqlite3"), timeout=30)
    try:
        with db:
            db.execute("CREATE TABLE IF NOT EXISTS executed (id TEXT)")
            if environ["REQUEST_METHOD"] == "POST":
                db.execute("INSERT INTO executed VALUES (?)", (id,))
        times = db.execute("SELECT count(*) FROM executed WHERE id = ?", (id,)).fetchone()[0]
    finally:
        db.close()
    time.sleep(float(param(environ, "s", "0")))
    return answer(start_response, str(times))


def print_(environ, start_response):
    """Stray output, as applications have it: Python's, the descriptor's, a child's."""
    print("printed by the application", flush=True)
    os.write(1, b"written to descriptor 1\n")
    os.system("echo echoed by a child")
    return answer(start_response, "quiet\n")


def stderr(environ, start_response):
    """?n= bytes to wsgi.errors in lines of 80; ?fd=1 to descriptor 2 instead."""
    line, left = "e" * 79 + "\n", int(param(environ, "n", "80"))
    while left > 0:
        text = (line * 800)[:left]
        if param(environ, "fd"):
            left -= os.write(2, text.encode())
        else:
            environ["wsgi.errors"].write(text)
            left -= len(text)
    environ["wsgi.errors"].flush()
    return answer(start_response, "noisy\n")


def leak(environ, start_response):
    """Keeps ?mb= more megabytes."""
    leaked.append(b"l" * (int(param(environ, "mb", "1")) << 20))
    return answer(start_response, str(len(leaked)))


leaked = []


# Routes that break the rules, or the process


def die(environ, start_response):
    """The process ends before it answers."""
    os._exit(int(param(environ, "code", "1")))


def die_mid(environ, start_response):
    """The process ends after ?sent= bytes of body; ?length= declares more.

    The bytes are given time to leave the process: what a worker had not sent
    when it died says nothing about the gateway."""
    headers = list(TEXT)
    if param(environ, "length"):
        headers.append(("Content-Length", param(environ, "length")))
    start_response("200 OK", headers)

    def pieces():
        yield b"m" * int(param(environ, "sent", "10"))
        time.sleep(0.2)
        os._exit(1)

    return pieces()


def raise_(environ, start_response):
    raise RuntimeError("raised by the application")


def raise_mid(environ, start_response):
    """An exception after ?sent= bytes of body; ?length= declares more."""
    headers = list(TEXT)
    if param(environ, "length"):
        headers.append(("Content-Length", param(environ, "length")))
    start_response("200 OK", headers)

    def pieces():
        yield b"m" * int(param(environ, "sent", "10"))
        raise RuntimeError("raised in mid-body")

    return pieces()


def short(environ, start_response):
    """Declares 100 bytes and sends 10."""
    start_response("200 OK", TEXT + [("Content-Length", "100")])
    return [b"s" * 10]


def long(environ, start_response):
    """Declares 10 bytes and sends 100."""
    start_response("200 OK", TEXT + [("Content-Length", "10")])
    return [b"l" * 100]


def no_start(environ, start_response):
    """Never calls start_response."""
    return [b"body without a head"]


def header_injection(environ, start_response):
    """?v= in the value, ?n= as the name, ?status= as the status: unchecked."""
    name, value = param(environ, "n", "X-Echo"), param(environ, "v")
    start_response(param(environ, "status", "200 OK"), TEXT + [(name, value)])
    return [b"echo\n"]


def hop_by_hop(environ, start_response):
    """Sets fields that belong to the connection, which PEP 3333 forbids."""
    start_response("200 OK", TEXT + [
        ("Connection", "keep-alive, X-Secret"), ("Keep-Alive", "timeout=99"), ("Transfer-Encoding", "chunked"),
        ("Upgrade", "probe"), ("Trailer", "X-Late"), ("X-Secret", "kept"),
    ])
    return [b"body\n"]


def body_anyway(environ, start_response):
    """A body under ?status=, also where HTTP has none."""
    start_response(param(environ, "status", "204 No Content"), list(TEXT))
    return [b"a body that must not be sent\n"]


def text_body(environ, start_response):
    """Returns str instead of bytes."""
    start_response("200 OK", list(TEXT))
    return ["text\n"]


def exit_(environ, start_response):
    """sys.exit() in a request; ?thread=1 in a thread of its own."""
    if param(environ, "thread"):
        threading.Thread(target=sys.exit, args=(3,)).start()
        return answer(start_response, "a thread left\n")
    sys.exit(3)


GOOD = {
    "/": index, "/environ": show_environ, "/echo": echo, "/digest": digest, "/first-bytes": first_bytes,
    "/status": status, "/stream": stream, "/close": close, "/write": write, "/exc-info": exc_info, "/file": file,
    "/sleep": sleep, "/spin": spin, "/pid": pid, "/thread": thread, "/token": token, "/count": count,
    "/print": print_, "/stderr": stderr, "/leak": leak,
}
BAD = {
    "/die": die, "/die-mid": die_mid, "/raise": raise_, "/raise-mid": raise_mid, "/short": short, "/long": long,
    "/no-start": no_start, "/header-injection": header_injection, "/hop-by-hop": hop_by_hop,
    "/body-anyway": body_anyway, "/text-body": text_body, "/exit": exit_,
}
ROUTES = {**{path: validator(route) for path, route in GOOD.items()}, **BAD}


def not_found(environ, start_response):
    return answer(start_response, "no such route\n", "404 Not Found")


def application(environ, start_response):
    global requests_served
    requests_served += 1
    path = environ.get("PATH_INFO", "")
    route = ROUTES.get(path) or ROUTES.get("/" + path.split("/")[1] if "/" in path else path) or not_found
    return route(environ, start_response)


app = application


def make_app():
    """For targets that name a factory."""
    return application
