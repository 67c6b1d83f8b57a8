"""The site of frameworks_test.go in Litestar."""
import asyncio
import hashlib
import os
from typing import Annotated

from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body
from litestar.response import File, Response, Stream
from litestar.static_files import create_static_files_router

members, done, ended = set(), [], []


async def begin(app: Litestar) -> None:
    app.state.motto = "started"


@get("/", media_type=MediaType.TEXT, name="index")
async def index(request: Request, state: State) -> str:
    return f"Litestar {state.motto} {request.url_for('index')}"


@websocket("/chat")
async def chat(socket: WebSocket) -> None:
    await socket.accept(subprotocols="chat")
    members.add(socket)
    try:
        while True:
            text = await socket.receive_text()
            for member in members:
                await member.send_text(text)
    except WebSocketDisconnect as gone:
        ended.append(f"chat {gone.code}")
    finally:
        members.discard(socket)


@get("/events")
async def events() -> Stream:
    async def ticks():
        try:
            for tick in range(1000):
                yield f"data: {tick}\n\n"
                await asyncio.sleep(0.05)
        finally:
            ended.append("events")

    return Stream(ticks(), media_type="text/event-stream")


@post("/upload", request_max_body_size=64 << 20, status_code=200)
async def upload(data: Annotated[dict[str, UploadFile], Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict:
    digest, size = hashlib.sha256(), 0
    while block := await data["file"].read(65536):
        digest.update(block)
        size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


@post("/later", status_code=200)
async def later() -> Response[str]:
    async def work() -> None:
        await asyncio.sleep(0.3)
        done.append("work")

    return Response("soon", media_type=MediaType.TEXT, background=BackgroundTask(work))


@get("/file")
async def file() -> File:
    return File(os.environ["SITE_FILE"])


@get("/report")
async def report() -> dict:
    return {"done": done, "ended": ended}


@get("/fail")
async def fail() -> None:
    raise RuntimeError("raised in Litestar")


app = Litestar(
    [index, chat, events, upload, later, file, report, fail,
     create_static_files_router("/static", [os.path.dirname(os.environ["SITE_FILE"])])],
    on_startup=[begin])
