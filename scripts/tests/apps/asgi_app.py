"""An ASGI application, a behaviour per path."""

import asyncio
import json
import os
import time

PLAIN = ((b"content-type", b"text/plain"),)
FILE = os.path.abspath(__file__)


class Disconnected(Exception):
    pass


async def read(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message["body"]
        if not message["more_body"]:
            return body


def start(status=200, headers=PLAIN, **more):
    return dict(type="http.response.start", status=status, headers=headers, **more)


def body(data=b"", more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer(send, data, status=200, headers=PLAIN):
    await send(start(status, headers))
    await send(body(data))


async def hello(scope, receive, send):
    await answer(send, b"hello")


async def scope_(scope, receive, send):
    await answer(send, json.dumps(scope, default=lambda b: b.decode("latin-1")).encode())


async def echo(scope, receive, send):
    await answer(send, await read(receive))


async def length(scope, receive, send):
    """DECLARED,STATUS,SIZE,SIZE..."""
    declared, status, *sizes = scope["query_string"].decode().split(",")
    headers = list(PLAIN)
    if declared:
        headers.append((b"content-length", declared.encode()))
    await send(start(int(status), headers))
    for i, size in enumerate(sizes):
        await send(body(b"b" * int(size), i < len(sizes) - 1))


async def big(scope, receive, send):
    await answer(send, b"m" * int(scope["query_string"]))


async def endless(scope, receive, send):
    await send(start())
    try:
        while True:
            await send(body(b"x" * 1000, True))
            await asyncio.sleep(0)
    except OSError as exc:
        print("send raised", type(exc).__name__, flush=True)
        raise Disconnected  # as frameworks do


async def waits(scope, receive, send):
    """For the client to go."""
    await read(receive)
    print("waiting", flush=True)
    print("got", (await receive())["type"], flush=True)


async def background(scope, receive, send):
    await answer(send, b"answered")
    await asyncio.sleep(0.05)
    print("then", (await receive())["type"], flush=True)


async def fails(scope, receive, send):
    raise ValueError("as asked")


async def fails_late(scope, receive, send):
    await send(start())
    await send(body(b"sent", True))
    raise ValueError("too late")


async def returns(scope, receive, send):
    pass


async def returns_early(scope, receive, send):
    await send(start())
    await send(body(b"sent", True))


async def exits(scope, receive, send):
    raise SystemExit(7)


async def header(scope, receive, send):
    name, _, value = scope["query_string"].partition(b"=")
    await answer(send, b"header", headers=[[name, value.replace(b"%0A", b"\n")]])


async def messages(scope, receive, send):
    """Sends what the query has, and tells what that raised."""
    for message in json.loads(await read(receive)):
        for key in ("body",):
            if key in message:
                message[key] = message[key].encode()
        try:
            await send(message)
        except Exception as exc:
            print("%s: %s" % (type(exc).__name__, exc), flush=True)
            raise


async def hints(scope, receive, send):
    await send(start())
    await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload", b"</b>; rel=preload"]})
    await send(body(b"hinted"))


async def trails(scope, receive, send):
    """With the headers of the query: NAME=VALUE&..."""
    headers = [tuple(field.split(b"=", 1)) for field in scope["query_string"].split(b"&") if field]
    await send(start(headers=iter(headers), trailers=True))
    await send(body(b"one", True))
    await send(body(b"two"))
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"3")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-more", b"4")]})


async def named(scope, receive, send):
    await answer(send, b"", headers=[tuple(field.split(b"=", 1)) for field in scope["query_string"].split(b"&")])


async def file(scope, receive, send):
    await send(start())
    await send({"type": "http.response.pathsend", "path": scope["query_string"].decode() or FILE})


async def holds(scope, receive, send):
    """Holds up the event loop until somebody opens the fifo."""
    print("holds", flush=True)
    with open(scope["query_string"].decode()) as fifo:
        fifo.read()
    await answer(send, b"held")


# -- Stuck requests -----------------------------------------------------------


async def sleeps(scope, receive, send):
    print("busy", flush=True)
    time.sleep(60)


async def spins(scope, receive, send):
    print("busy", flush=True)
    while True:
        pass


async def spins_in_task(scope, receive, send):
    await asyncio.ensure_future(spins(scope, receive, send))


async def innermost():
    await asyncio.get_running_loop().create_future()


async def awaits(scope, receive, send):
    print("busy", flush=True)
    await innermost()


async def cleans_up(scope, receive, send):
    print("busy", flush=True)
    try:
        await innermost() if scope["query_string"] == b"awaits" else time.sleep(60)
    except Exception:
        print("taken for an Exception", flush=True)
    finally:
        print("cleaned up", flush=True)


async def cleans_up_slowly(scope, receive, send):
    print("busy", flush=True)
    try:
        await innermost()
    finally:
        time.sleep(0.2)
        print("cleaned up", flush=True)


async def sends(scope, receive, send):
    """For ever, without a turn of the loop."""
    print("busy", flush=True)
    while True:
        try:
            await send({"type": "http.response.early_hint", "links": []})
        except ValueError:
            pass


async def takes(scope, receive, send):
    """Some milliseconds of work and of waiting."""
    end = time.monotonic() + 0.004
    while time.monotonic() < end:
        pass
    await asyncio.sleep(0.003)
    await answer(send, b"took")


async def streams(scope, receive, send):
    """Until it is told to end."""
    await send(start())
    await send(body(b"begun", True))
    await read(receive)
    await send(body(b" ended"))


# -- WebSockets ---------------------------------------------------------------


async def accept(receive, send, **more):
    assert (await receive())["type"] == "websocket.connect"
    await send(dict(type="websocket.accept", **more))


async def chat(scope, receive, send):
    await accept(receive, send, subprotocol=(scope["subprotocols"] or [None])[0], headers=[(b"x-y", b"z")])
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnected", message["code"], message["reason"], flush=True)
            return
        if message["text"] == "bye":
            await send({"type": "websocket.close", "code": 4000, "reason": "said \u20ac" + "x" * 130})
            print((await receive()), flush=True)
            return
        if message["text"] == "leave":
            return
        if message["text"] == "fail":
            raise ValueError("as told")
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


async def slow(scope, receive, send):
    """Receives a message when a byte can be read from the fifo."""
    await accept(receive, send)
    loop = asyncio.get_running_loop()
    fifo = await loop.run_in_executor(None, lambda: open(scope["query_string"].decode(), "rb", 0))
    while await loop.run_in_executor(None, fifo.read, 1):
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": str(len(message["bytes"]))})


async def floods(scope, receive, send):
    await accept(receive, send)
    try:
        while True:
            await send({"type": "websocket.send", "bytes": b"f" * 1000})
    except OSError as exc:
        print("send raised", type(exc).__name__, flush=True)
    print((await receive()), flush=True)


async def broadcasts(scope, receive, send):
    """Many tasks send at once, and the last one closes."""
    await accept(receive, send)
    sizes = [50000, 10, 200000, 0, 1, 70000, 300] * 3
    tasks = [asyncio.ensure_future(send({"type": "websocket.send", "bytes": b"%c" % (97 + i) * n})) for i, n in enumerate(sizes)]
    await asyncio.sleep(0)
    await send({"type": "websocket.close", "code": 4001})
    await asyncio.gather(*tasks)


async def talks(scope, receive, send):
    """Answers while another task sends."""
    await accept(receive, send)
    task = asyncio.ensure_future(send({"type": "websocket.send", "bytes": b"t" * 50000}))
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
    await task


async def gives_up(scope, receive, send):
    """Cancels one send that has begun, and one that has not."""
    await accept(receive, send)
    for content in (b"a" * 30000, b"b" * 30000):
        try:
            await asyncio.wait_for(send({"type": "websocket.send", "bytes": content}), 0.05)
        except asyncio.TimeoutError:
            print("gave up", flush=True)
    await send({"type": "websocket.send", "text": "after"})


async def gives_up_body(scope, receive, send):
    """The same with the parts of a body."""
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    last = scope["query_string"] == b"last"
    try:
        await send({"type": "http.response.body", "body": b"a" * 20000, "more_body": True})
        await asyncio.wait_for(send({"type": "http.response.body", "body": b"b" * 20000, "more_body": not last}), 0.05)
    except asyncio.TimeoutError:
        print("gave up", flush=True)
    if not last:
        await send({"type": "http.response.body", "body": b"the end"})


async def refuses(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})
    print((await receive())["type"], flush=True)


async def denies(scope, receive, send):
    await receive()
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]})
    await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b" entry"})


async def early(scope, receive, send):
    await receive()
    await send({"type": "websocket.send", "text": "too early"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    await globals()[scope["path"].strip("/").replace("-", "_")](scope, receive, send)


async def lifespan(scope, receive, send):
    scope["state"]["started"] = "yes"
    while True:
        message = await receive()
        print(message["type"], flush=True)
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
