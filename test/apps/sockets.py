"""A WebSocket application for websocket_test.go: the path says what it does."""

import os


async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
        return
    if scope["type"] != "websocket":
        raise RuntimeError("no " + scope["type"])
    await receive()
    what = scope["path"].rsplit("/", 1)[-1]
    if what == "refuse":
        await send({"type": "websocket.close"})
        return
    if what == "wrong":
        await send({"type": "websocket.accept", "subprotocol": "never-offered"})
        return
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None, "headers": [(b"x-app", b"yes")]})
    if what == "close":
        await send({"type": "websocket.close", "code": 4001, "reason": "over"})
    elif what == "fail":
        raise ValueError("on purpose")
    elif what == "scope":
        await send({"type": "websocket.send", "text": "{method} {http_version} {scheme}".format(**{"method": "-", **scope})})
    elif what == "big":
        await send({"type": "websocket.send", "bytes": b"x" * (32 << 20)})
    elif what == "deaf":
        import asyncio
        await asyncio.sleep(3600)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnected", what, message.get("code"), flush=True)
            return
        if message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"]})
        elif what == "count":
            await send({"type": "websocket.send", "text": str(len(message["bytes"]))})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
