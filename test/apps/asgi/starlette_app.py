"""The site of frameworks_test.go in Starlette."""
import asyncio
import contextlib
import hashlib
import os

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect

members, done, ended = set(), [], []


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"motto": "started"}


async def index(request):
    return PlainTextResponse(f"Starlette {request.state.motto} {request.url_for('index')}")


async def chat(websocket):
    await websocket.accept(subprotocol="chat")
    members.add(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for member in members:
                await member.send_text(text)
    except WebSocketDisconnect as gone:
        ended.append(f"chat {gone.code}")
    finally:
        members.discard(websocket)


async def events(request):
    async def ticks():
        try:
            for tick in range(1000):
                yield f"data: {tick}\n\n"
                await asyncio.sleep(0.05)
        finally:
            ended.append("events")

    return StreamingResponse(ticks(), media_type="text/event-stream")


async def upload(request):
    async with request.form() as form:
        digest, size = hashlib.sha256(), 0
        while block := await form["file"].read(65536):
            digest.update(block)
            size += len(block)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest()})


async def later(request):
    async def work():
        await asyncio.sleep(0.3)
        done.append("work")

    return PlainTextResponse("soon", background=BackgroundTask(work))


async def file(request):
    return FileResponse(os.environ["SITE_FILE"])


async def report(request):
    return JSONResponse({"done": done, "ended": ended, "pathsend": "http.response.pathsend" in request.scope.get("extensions", {})})


async def fail(request):
    raise RuntimeError("raised in Starlette")


app = Starlette(lifespan=lifespan, routes=[
    Route("/", index, name="index"), WebSocketRoute("/chat", chat), Route("/events", events), Route("/upload", upload, methods=["POST"]),
    Route("/later", later, methods=["POST"]), Route("/file", file), Route("/report", report), Route("/fail", fail),
    Mount("/static", StaticFiles(directory=os.path.dirname(os.environ["SITE_FILE"]))),
])
