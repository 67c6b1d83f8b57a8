#!/usr/bin/python3
"""Streams in both directions, the same from ASGI (app), WSGI (wsgi) and CGI (this file run).

What comes next waits for a file in TEST_DIR, which the test writes: so nothing here depends on time. Times that are told are
of CLOCK_MONOTONIC, in nanoseconds, which is the same clock for every process of the machine.
"""
import asyncio
import os
import time
from urllib.parse import parse_qs

PATTERN = bytes(i % 251 for i in range((64 << 10) + 251))
BLOCK = 64 << 10


def may_go_on(name, began):
    if time.monotonic() > began + 20:
        raise TimeoutError(f"nobody wrote {name}")
    return os.path.exists(os.path.join(os.environ["TEST_DIR"], name))


class Query:
    def __init__(self, text):
        self.values = parse_qs(text)

    def __call__(self, name, default="0"):
        return self.values.get(name, [default])[0]


def piece(number):
    """28 bytes that tell when they were made."""
    return b"data: %03d %016d\n\n" % (number, time.monotonic_ns())


def head_of_steps(query):
    fields = [("Content-Type", query("type", "text/plain"))]
    if query("length") != "0":
        fields.append(("Content-Length", str(int(query("n")) * len(piece(0)))))
    return fields


def pour(query):
    """?bytes= whose value depends on their place."""
    at, end = 0, int(query("bytes"))
    while at < end:
        size = min(BLOCK, end - at)
        yield PATTERN[at % 251:at % 251 + size]
        at += size


class Sink:
    """Takes in what pour would have sent."""

    def __init__(self):
        self.at, self.wrong = 0, 0

    def take(self, data):
        for start in range(0, len(data), BLOCK):
            part = data[start:start + BLOCK]
            self.wrong += part != PATTERN[self.at % 251:self.at % 251 + len(part)]
            self.at += len(part)

    def answer(self):
        return b"%d bytes, %d wrong\n" % (self.at, self.wrong)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    query, path = Query(scope["query_string"].decode()), scope["path"]
    name = query("name", "")

    async def start(fields=(("Content-Type", "application/octet-stream"),), trailers=False):
        await send({"type": "http.response.start", "status": 200, "headers": [(k.lower().encode(), v.encode()) for k, v in fields], "trailers": trailers})

    async def body(data, more=True):
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def until(name):
        began = time.monotonic()
        while not may_go_on(name, began):
            await asyncio.sleep(0.002)

    async def blocks():
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            more = event.get("more_body", False)
            yield event.get("body", b"")

    if path.endswith("/steps"):
        await start(head_of_steps(query))
        for i in range(int(query("n"))):
            await body(piece(i))
            await until(f"{name}.{i}")
        await body(b"", False)
    elif path.endswith("/poll"):
        await until(name)
        await start()
        await body(piece(0), False)
    elif path.endswith("/echo"):
        if name:
            await until(name)
        await start()
        async for data in blocks():
            await body(data)
        await body(b"", False)
    elif path.endswith("/pour"):
        await start()
        for data in pour(query):
            await body(data)
        await body(b"", False)
    elif path.endswith("/sink"):
        sink = Sink()
        async for data in blocks():
            sink.take(data)
        await start()
        await body(sink.answer(), False)
    elif path.endswith("/trailers"):
        possible = "http.response.trailers" in scope["extensions"]
        await start(trailers=possible)
        await body(b"a body")
        await body(b"", False)
        if possible:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1234"), (b"x-late", b"yes")], "more_trailers": False})
    else:
        await start([("Content-Type", "text/plain"), ("Content-Length", "6")])
        await body(b"quick\n", False)


def wsgi(environ, start_response):
    query, path, stream = Query(environ.get("QUERY_STRING", "")), environ.get("PATH_INFO", ""), environ["wsgi.input"]
    name, length = query("name", ""), int(environ.get("CONTENT_LENGTH") or 0)

    def until(name):
        began = time.monotonic()
        while not may_go_on(name, began):
            time.sleep(0.002)

    def steps():
        for i in range(int(query("n"))):
            yield piece(i)
            until(f"{name}.{i}")

    def lines():
        left = length
        while left > 0 and (line := stream.readline()):
            left -= len(line)
            yield line

    if path.endswith("/steps"):
        start_response("200 OK", head_of_steps(query))
        return steps()
    if path.endswith("/poll"):
        until(name)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [piece(0)]
    if path.endswith("/echo"):
        if name:
            until(name)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return lines()
    if path.endswith("/pour"):
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return pour(query)
    if path.endswith("/sink"):
        sink, left = Sink(), length
        while left > 0 and (data := stream.read(min(BLOCK, left))):
            sink.take(data)
            left -= len(data)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [sink.answer()]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"quick\n"]


if __name__ == "__main__":
    from wsgiref.handlers import CGIHandler

    CGIHandler().run(wsgi)
