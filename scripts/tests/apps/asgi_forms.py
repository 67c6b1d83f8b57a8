"""ASGI applications in every form, and what isn't quite one."""

import asyncio
import functools


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["root_path"].encode() or b"app"})


class Callable:
    async def __call__(self, scope, receive, send):
        await app(scope, receive, send)


class Slot:
    """As middleware that chooses its method."""

    def __init__(self):
        self._call = app

    def __call__(self, scope, receive, send):
        return self._call(scope, receive, send)


class Double:
    def __init__(self, scope):
        self._scope = scope

    async def __call__(self, receive, send):
        await app(self._scope, receive, send)


def double(scope):
    return Double(scope)


async def more(extra, scope, receive, send):
    await app(scope, receive, send)


instance = Callable()
slot = Slot()
partial = functools.partial(more, "extra")


def create_app():
    return app


async def create_late():
    return app


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]


async def fails_to_start(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raises_at_start(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        raise RuntimeError("no database")
    await app(scope, receive, send)


async def never_starts(scope, receive, send):
    print("starting", flush=True)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("given up", flush=True)


async def fails_between(scope, receive, send):
    if scope["type"] != "lifespan":
        await app(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    raise RuntimeError("lost its database")


async def fails_to_stop(scope, receive, send):
    if scope["type"] != "lifespan":
        await app(scope, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("left open")


async def which_loop(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": type(asyncio.get_running_loop()).__module__.encode()})
