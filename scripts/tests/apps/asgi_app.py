"""An ASGI application, a behaviour per path."""

import asyncio
import json
import os
import time


async def read(receive):
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("disconnected")
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send, body, status=200, headers=((b"content-type", b"text/plain"),)):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hello(scope, receive, send):
    await answer(send, b"hello")


async def scope_(scope, receive, send):
    await answer(send, json.dumps(scope, default=lambda b: b.decode("latin-1")).encode())


async def echo(scope, receive, send):
    await answer(send, await read(receive))


async def chat(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnected", message["code"], message["reason"], flush=True)
            return
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"], flush=True)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    name = scope["path"].strip("/").replace("-", "_")
    await globals()[name](scope, receive, send)
