"""The applications of the tests, one function per path. `checked` is held to
PEP 3333 by wsgiref.validate; `raw` is not, for the ones that break it."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from wsgiref.validate import validator

PLAIN = [("Content-Type", "text/plain")]


def say(line):
    """A line in the log, in one piece whatever other threads print."""
    sys.stdout.write(line + "\n")


def hello(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return [b"hello"]


def environ(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, (str, int, bool, tuple))}).encode()]


def parts(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return [b"one ", b"", b"two ", b"three"]


def empty(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return []


def lazy(environ, start_response):
    """start_response when the iteration has begun already."""
    start_response("200 OK", list(PLAIN))
    yield b"a"
    yield b""
    yield b"b"


def late_start(environ, start_response):
    yield b""
    start_response("200 OK", list(PLAIN))
    yield b"late"


class Closing:
    """An iterable without a length that says in the log that it was closed."""

    def __init__(self, chunks):
        self._chunks = iter(chunks)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._chunks)

    def close(self):
        say("closed")


def closing(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return Closing([b"x", b"y"])


def closing_fails(environ, start_response):
    class Fails(Closing):
        def close(self):
            super().close()
            raise RuntimeError("close failed")

    start_response("200 OK", list(PLAIN) + [("Content-Length", "2")])
    return Fails([b"x", b"y"])


def stream_fails(environ, start_response):
    def chunks():
        yield b"begun"
        raise RuntimeError("in the middle")

    start_response("200 OK", list(PLAIN))
    return Closing(chunks())


def endless(environ, start_response):
    def chunks():
        while True:
            yield b"z" * 1000

    start_response("200 OK", list(PLAIN))
    return Closing(chunks())


def slow_endless(environ, start_response):
    def chunks():
        while True:
            yield b"tick\n"
            time.sleep(0.001)

    start_response("200 OK", list(PLAIN))
    return Closing(chunks())


def steps(environ, start_response):
    """Each chunk says how many lines of the body had been read before it."""
    start_response("200 OK", list(PLAIN))

    def chunks():
        yield b"ready\n"
        line = environ["wsgi.input"].readline()
        while line:
            yield b"got " + line
            line = environ["wsgi.input"].readline()

    return chunks()


def write(environ, start_response):
    send = start_response("200 OK", list(PLAIN))
    send(b"written ")
    send(b"")
    environ["wsgi.input"].readline()
    send(b"twice ")
    return [b"returned"]


def write_fails(environ, start_response):
    send = start_response("200 OK", list(PLAIN))
    send(b"written")
    raise RuntimeError("after write")


def fails(environ, start_response):
    raise RuntimeError("at once é")


def fails_started(environ, start_response):
    start_response("200 OK", list(PLAIN))
    raise RuntimeError("after start_response")


def exits(environ, start_response):
    sys.exit("leaving")


def interrupts(environ, start_response):
    raise KeyboardInterrupt


def replaced(environ, start_response):
    start_response("200 OK", list(PLAIN) + [("X-Old", "1")])
    try:
        raise ValueError("changed its mind")
    except ValueError:
        start_response("503 Service Unavailable", list(PLAIN), sys.exc_info())
    return [b"replaced"]


def reraised(environ, start_response):
    send = start_response("200 OK", list(PLAIN))
    send(b"sent")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oops", list(PLAIN), sys.exc_info())
    raise AssertionError("start_response returned")


def twice(environ, start_response):
    start_response("200 OK", list(PLAIN))
    start_response("200 OK", list(PLAIN))
    return [b""]


def no_start(environ, start_response):
    return [b"x"]


def text_body(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return ["text"]


def text_later(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return iter([b"bytes", "text"])


def head_from_query(environ, start_response):
    """start_response with a status and headers given as a Python literal;
    answers what it raised."""
    import ast

    status, headers = ast.literal_eval(environ["QUERY_STRING"])
    try:
        start_response(status, headers)
    except Exception as exc:
        start_response("200 OK", list(PLAIN))
        return [("%s: %s" % (type(exc).__name__, exc)).encode("utf-8", "backslashreplace")]
    return [b"accepted"]


def length(environ, start_response):
    """QUERY_STRING is the Content-Length, a status, then a size per chunk."""
    declared, status, *sizes = environ["QUERY_STRING"].split(",")
    headers = [("Content-Length", declared)] if declared else []
    if status[:3] not in ("204", "304"):
        headers += PLAIN
    start_response(status, headers)
    chunks = [b"b" * int(size) for size in sizes]
    return chunks if len(chunks) == 1 else Closing(chunks)


def one(environ, start_response):
    """One element of that many bytes."""
    start_response("200 OK", list(PLAIN))
    return (b"m" * int(environ["QUERY_STRING"]),)


def echo(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])

    def chunks():
        while True:
            data = environ["wsgi.input"].read(10000)
            if not data:
                return
            yield data

    return chunks()


def reads(environ, start_response):
    """What the reading methods of wsgi.input say, as JSON."""
    body = environ["wsgi.input"]
    said = [
        body.read(3), body.read(0), body.readline(2), body.readline(), body.readline(-1),
        body.readlines(1), next(iter(body)), list(body), body.read(5), body.readline(), body.readlines(),
    ]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said, default=bytes.decode).encode()]


def swallow(environ, start_response):
    size = len(environ["wsgi.input"].read(-1))
    start_response("200 OK", list(PLAIN))
    return [b"%d" % size]


def read_reports(environ, start_response):
    say("reading")
    try:
        size = len(environ["wsgi.input"].read(-1))
    except OSError as exc:
        say("read raised" + " " + type(exc).__name__)
        raise
    start_response("200 OK", list(PLAIN))
    return [b"%d" % size]


def write_reports(environ, start_response):
    send = start_response("200 OK", list(PLAIN))
    try:
        while True:
            send(b"w" * 1000)
    except OSError as exc:
        say("write raised" + " " + type(exc).__name__)
        raise


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    stream.write("line \u20ac \ud800\n")
    stream.writelines(["a", "b\n"])
    print("printed", file=stream)
    stream.write("flushed")
    stream.flush()
    stream.write(" no end of line")
    start_response("200 OK", list(PLAIN))
    return [b""]


def stale_errors(environ, start_response):
    """Writes to the wsgi.errors of this request after it has ended."""
    stream = environ["wsgi.errors"]

    def later():
        time.sleep(0.1)
        stream.write("from the past\n")

    threading.Thread(target=later).start()
    start_response("200 OK", list(PLAIN))
    return [b""]


def prints(environ, start_response):
    print("a stray print \udcff")
    os.write(1, b"a raw write\n")
    start_response("200 OK", list(PLAIN))
    return [sys.stdin.read().encode()]


class File(io.BytesIO):
    def read(self, size=-1):
        say("read %d" % size)
        return super().read(size)

    def close(self):
        say("file closed")
        super().close()


def file(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return environ["wsgi.file_wrapper"](File(b"f" * 150000), 4096)


barrier = threading.Barrier(2, timeout=10)


def meet(environ, start_response):
    """Answers when two of it run at the same time."""
    barrier.wait()
    start_response("200 OK", list(PLAIN))
    return [threading.current_thread().name.encode()]


gate = threading.Event()


def wait(environ, start_response):
    """Answers when `open` was called."""
    say("waiting")
    gate.wait(10)
    start_response("200 OK", list(PLAIN))
    return [b"waited"]


def open_gate(environ, start_response):
    gate.set()
    start_response("200 OK", list(PLAIN))
    return [b"opened"]


def fork(environ, start_response):
    """A child of the application that falls out of its request."""
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    start_response("200 OK", list(PLAIN))
    return [b"%d" % os.WEXITSTATUS(os.waitpid(pid, 0)[1])]


def fork_and_terminate(environ, start_response):
    """A child that lives on, and is told to end: it must, and nobody else."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"!")
        time.sleep(10)
        os._exit(0)
    os.read(read, 1)
    os.close(read)
    os.close(write)
    os.kill(pid, 15)
    start_response("200 OK", list(PLAIN))
    return [b"%d" % os.WTERMSIG(os.waitpid(pid, 0)[1])]


def descriptors(environ, start_response):
    """The ones that a program sees which the application starts."""
    start_response("200 OK", list(PLAIN))
    return [subprocess.check_output(["ls", "/proc/self/fd"], close_fds=False)]


def path(environ, start_response):
    start_response("200 OK", list(PLAIN))
    return [json.dumps(sys.path).encode()]


def raw(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)


checked = validator(raw)
