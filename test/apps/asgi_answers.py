"""What an answer may have beside head and body: files, trailers, early hints. /file and /named send the file FILE."""

import asyncio
import os
from urllib.parse import parse_qsl

from starlette.responses import FileResponse

FILE = os.environ["FILE"]


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = dict(parse_qsl(scope["query_string"].decode()))
    await {"/file": file, "/behind": behind, "/named": named, "/trailers": trailers, "/hints": hints}[
        scope["path"][len(scope["root_path"]):]](scope, receive, send, query)


def start(headers=(), **more):
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/x-answer"), *headers], **more}


async def file(scope, receive, send, query):
    if "http.response.pathsend" not in scope["extensions"]:
        raise RuntimeError("http.response.pathsend is not offered")

    async def watched(message):
        if message.get("body"):
            raise RuntimeError("the worker reads the file itself")
        await send(message)

    await FileResponse(FILE, media_type="text/x-answer")(scope, receive, watched)


async def behind(scope, receive, send, query):
    """A file behind a piece of body, with trailers behind it."""
    await send(start(trailers=True))
    await send({"type": "http.response.body", "body": b"before ", "more_body": True})
    await send({"type": "http.response.pathsend", "path": FILE})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"behind")]})


async def named(scope, receive, send, query):
    """X-Sendfile with the length of the file, as frameworks send it."""
    await send(start([(b"x-sendfile", FILE.encode()), (b"content-length", str(os.stat(FILE).st_size).encode())]))
    await send({"type": "http.response.body"})


async def trailers(scope, receive, send, query):
    headers = [(b"content-length", query["length"].encode())] if "length" in query else []
    await send(start(headers, trailers=True))
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await asyncio.sleep(float(query.get("pause", 0)))
    await send({"type": "http.response.body", "body": b"two"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1234"), (b"content-type", b"no trailer")]})


async def hints(scope, receive, send, query):
    """The answer comes once the file that the query names is there."""
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await send({"type": "http.response.early_hint", "links": [b"</b.js>"]})
    while not os.path.exists(query["gate"]):
        await asyncio.sleep(0.01)
    await send(start([(b"link", b"</c>")]))
    await send({"type": "http.response.body", "body": b"body"})


def wsgi(environ, start_response):
    stream = open(FILE, "rb")
    start_response("200 OK", [("Content-Type", "text/x-answer"), ("Content-Length", str(os.fstat(stream.fileno()).st_size))])
    return environ["wsgi.file_wrapper"](stream)
