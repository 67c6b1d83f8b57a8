"""A chat over WebSockets, an ASGI 3 application in one file, without a framework.

    gatecrew run chat:app --chdir examples/app --workers 1

The room is this process's memory, so there is one process: one event loop has
thousands of sockets. With more workers, people would meet by chance only.
"""
import asyncio
import collections
import json
import os
import pathlib
import time

PAGE = pathlib.Path(__file__).with_suffix(".html").read_bytes()

room = set()  # a queue for each open socket
history = collections.deque(maxlen=20)


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await talk(receive, send)
    elif scope["type"] == "http":
        path = scope["path"][len(scope["root_path"]):]
        if path in ("", "/"):
            await respond(send, 200, b"text/html; charset=utf-8", PAGE)
        elif path == "/clock":
            await clock(receive, send)
        else:
            await respond(send, 404, b"text/plain", b"There is no such page here\n")
    else:
        raise NotImplementedError(scope["type"])  # lifespan: nothing to do at the start


async def respond(send, status, kind, body):
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", kind), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def talk(receive, send):
    """One socket: what one says, all hear."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    # Its own queue, so that one slow reader holds nobody else up; who falls far behind is let go.
    queue = asyncio.Queue(maxsize=1000)
    for message in history:
        queue.put_nowait(message)
    room.add(queue)
    announce()
    writer = asyncio.ensure_future(write(queue, send))
    try:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect" or writer.done():
                return
            try:
                said = json.loads(event.get("text") or "")
                message = {"name": str(said["name"])[:40], "text": str(said["text"])[:2000], "at": time.strftime("%H:%M:%S")}
            except (ValueError, TypeError, KeyError):
                continue
            history.append(message)
            tell(message)
    finally:
        room.discard(queue)
        writer.cancel()
        announce()


async def write(queue, send):
    while (message := await queue.get()) is not None:
        await send({"type": "websocket.send", "text": json.dumps(message)})
    await send({"type": "websocket.close", "code": 1013, "reason": "too far behind"})


def announce():
    tell({"people": len(room)})


def tell(message):
    for queue in list(room):
        if queue.full():
            room.discard(queue)
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
        else:
            queue.put_nowait(message)


async def clock(receive, send):
    """Server-sent events: the time and who tells it, until the browser leaves."""
    left = asyncio.ensure_future(departure(receive))
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]})
    while not left.done():
        event = f"data: {time.strftime('%H:%M:%S')} {os.getpid()}\n\n"
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await asyncio.wait([left], timeout=1)


async def departure(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
