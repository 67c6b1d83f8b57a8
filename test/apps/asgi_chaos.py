"""ASGI for tests that kill workers: what is answered can be checked, and what was executed is on record.

WebSocket: every text comes back. GET: the query string comes back. POST: so does the body, and TEST_DIR/executed has a line with it.
"""
import asyncio
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body, more = body + event.get("body", b""), event.get("more_body", False)
    if scope["method"] == "POST":
        record = os.open(os.path.join(os.environ["TEST_DIR"], "executed"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(record, body + b"\n")
        os.close(record)
    else:
        body = scope["query_string"]
    await asyncio.sleep(0.002)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
