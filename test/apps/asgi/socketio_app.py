"""A Socket.IO application (python-socketio) for socketio_test.go."""
import os

import socketio

# A poll of a client that has gone ends with the next ping, so often pings come.
sio = socketio.AsyncServer(async_mode="asgi", ping_interval=2, ping_timeout=5)


@sio.event
async def connect(sid, environ, auth):
    if auth == {"token": "wrong"}:
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await sio.emit("welcome", {"pid": os.getpid(), "transport": sio.transport(sid)}, to=sid)


@sio.event
async def add(sid, numbers):
    """The return value is the acknowledgement."""
    return sum(numbers)


@sio.event
async def everybody(sid, text):
    await sio.emit("said", {"text": text, "transport": sio.transport(sid)})


@sio.event
async def picture(sid, data):
    await sio.emit("negative", bytes(255 - byte for byte in data), to=sid)


app = socketio.ASGIApp(sio)
