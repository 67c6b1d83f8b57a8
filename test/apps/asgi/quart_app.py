"""The site of frameworks_test.go in Quart."""
import asyncio
import hashlib
import os

from quart import Quart, jsonify, request, send_file, send_from_directory, url_for, websocket

members, done, ended = set(), [], []
app = Quart(__name__, static_folder=None)
app.config["MAX_CONTENT_LENGTH"] = 64 << 20


@app.before_serving
async def begin():
    app.motto = "started"


@app.get("/")
async def index():
    return f"Quart {app.motto} {url_for('index', _external=True)}"


@app.websocket("/chat")
async def chat():
    own = websocket._get_current_object()
    await own.accept(subprotocol="chat")
    members.add(own)
    try:
        while True:
            text = await own.receive()
            for member in members:
                await member.send(text)
    except asyncio.CancelledError:  # Quart's way to tell that the client has gone
        ended.append("chat")
        raise
    finally:
        members.discard(own)


@app.get("/events")
async def events():
    async def ticks():
        try:
            for tick in range(1000):
                yield f"data: {tick}\n\n".encode()
                await asyncio.sleep(0.05)
        finally:
            ended.append("events")

    return ticks(), {"Content-Type": "text/event-stream"}


@app.post("/upload")
async def upload():
    file = (await request.files)["file"]
    digest, size = hashlib.sha256(), 0
    while block := file.read(65536):
        digest.update(block)
        size += len(block)
    return jsonify(bytes=size, sha256=digest.hexdigest())


@app.post("/later")
async def later():
    async def work():
        await asyncio.sleep(0.3)
        done.append("work")

    app.add_background_task(work)
    return "soon"


@app.get("/file")
async def file():
    return await send_file(os.environ["SITE_FILE"])


@app.get("/static/<name>")
async def static_file(name):
    return await send_from_directory(os.path.dirname(os.environ["SITE_FILE"]), name)


@app.get("/report")
async def report():
    return jsonify(done=done, ended=ended)


@app.get("/fail")
async def fail():
    raise RuntimeError("raised in Quart")
