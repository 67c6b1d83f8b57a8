"""ASGI: a hello world, at /slow one that blocks its event loop for 60 ms, and WebSockets that echo."""
import time

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), (b"content-length", b"13")]}
BODY = {"type": "http.response.body", "body": b"Hello, World!"}


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/slow":
            time.sleep(0.06)
        await send(HEAD)
        await send(BODY)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text")
            await send({"type": "websocket.send", "text": text} if text is not None else {"type": "websocket.send", "bytes": event["bytes"]})
    else:
        while True:  # lifespan
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
