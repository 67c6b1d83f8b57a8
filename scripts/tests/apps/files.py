"""Answers with files, and with what only looks like one."""

import io
import os
import sys
import tempfile

SIZE = 200000
CONTENT = b"".join(b"%07d " % n for n in range(SIZE // 8))


class Mirrored(io.FileIO):
    """A file whose bytes are not what it reads as."""

    def readinto(self, buffer):
        n = super().readinto(buffer)
        buffer[:n] = bytes(buffer[:n]).replace(b"0", b"o")
        return n


class Proxy:
    """As Django's File and others do."""

    def __init__(self, file):
        self.file = file

    read = property(lambda self: self.file.read)
    fileno = property(lambda self: self.file.fileno)

    def close(self):
        sys.stderr.write("proxy closed\n")
        self.file.close()


class Counting:
    """Has a file and reads it in its own way."""

    def __init__(self, file):
        self.file = file
        self.fileno = file.fileno
        self.close = file.close

    def read(self, size=-1):
        return self.file.read(size).upper()


class Shouting(io.BufferedReader):
    def read(self, size=-1):
        return super().read(size).replace(b"0", b"!")


def temporary(content=CONTENT):
    file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(0)
    return file


def opened(by):
    """by(name) of a file that has no name any more."""
    with named() as file:
        file.flush()
        return by(file.name)


def named():
    file = tempfile.NamedTemporaryFile()
    file.write(CONTENT)
    file.seek(0)
    return file


def at(position, file):
    file.seek(position)
    return file


def moved():
    file = named()
    file.read(10)
    return file


def appended():
    file = temporary()
    file.seek(0, 2)
    file.write(b"not flushed")
    file.seek(100)
    return file


def piped():
    r, w = os.pipe()
    os.write(w, b"from a pipe")
    os.close(w)
    return os.fdopen(r, "rb")


def closed():
    file = temporary()
    file.close()
    return file


FILES = {
    "plain": lambda: opened(lambda name: open(name, "rb")),
    "raw": lambda: at(8, opened(io.FileIO)),
    "unlinked": temporary,
    "named": moved,
    "appended": appended,
    "proxy": lambda: Proxy(at(16, temporary())),
    "behind": lambda: at(SIZE + 10, temporary()),
    "small": lambda: temporary(b"small"),
    "memory": lambda: io.BytesIO(CONTENT),
    "pipe": piped,
    "mirrored": lambda: io.BufferedReader(opened(Mirrored)),
    "counting": lambda: Counting(temporary(b"counted " * 10000)),
    "shouting": lambda: Shouting(opened(io.FileIO)),
    "proc": lambda: open("/proc/self/status", "rb"),
    "device": lambda: open("/dev/null", "rb"),
    "closed": closed,
}


def app(environ, start_response):
    kind, _, rest = environ["QUERY_STRING"].partition(",")
    status, _, length = rest.partition(",")
    headers = [("Content-Type", "text/plain")]
    if length:
        headers.append(("Content-Length", length))
    write = start_response(status or "200 OK", headers)
    if environ["PATH_INFO"] == "/behind":
        write(b"before ")
    return environ["wsgi.file_wrapper"](FILES[kind](), 4096)


def hints(environ, start_response):
    early = environ["wsgi.early_hints"]
    early([("Link", "</a.css>; rel=preload"), (b"Link", b"</b.js>"), ("Content-Length", "5")])
    early([("Link", "</c>")])
    start_response("200 OK", [("Content-Type", "text/plain")])
    early([("Link", "</d>")])
    yield b"body"
    early([("Link", "</late>")])
    try:
        early([("Link", "a\r\nb")])
    except ValueError as exc:
        yield str(exc).encode()


def bad_hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "a\r\nb: c")])
