"""The site of frameworks_test.go in FastAPI."""
import asyncio
import contextlib
import hashlib
import os

from fastapi import BackgroundTasks, FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

members, done, ended = set(), [], []


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"motto": "started"}


app = FastAPI(lifespan=lifespan)
app.mount("/static", StaticFiles(directory=os.path.dirname(os.environ["SITE_FILE"])))


@app.get("/", response_class=PlainTextResponse)
async def index(request: Request):
    return f"FastAPI {request.state.motto} {request.url_for('index')}"


@app.websocket("/chat")
async def chat(websocket: WebSocket):
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


@app.get("/events")
async def events():
    async def ticks():
        try:
            for tick in range(1000):
                yield f"data: {tick}\n\n"
                await asyncio.sleep(0.05)
        finally:
            ended.append("events")

    return StreamingResponse(ticks(), media_type="text/event-stream")


@app.post("/upload")
def upload(file: UploadFile):  # not async: it runs in a thread
    digest, size = hashlib.sha256(), 0
    while block := file.file.read(65536):
        digest.update(block)
        size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


@app.post("/later", response_class=PlainTextResponse)
async def later(tasks: BackgroundTasks):
    async def work():
        await asyncio.sleep(0.3)
        done.append("work")

    tasks.add_task(work)
    return "soon"


@app.get("/file")
async def file():
    return FileResponse(os.environ["SITE_FILE"])


@app.get("/report")
async def report(request: Request):
    return {"done": done, "ended": ended, "pathsend": "http.response.pathsend" in request.scope.get("extensions", {})}


@app.get("/fail")
def fail():
    raise RuntimeError("raised in FastAPI")
