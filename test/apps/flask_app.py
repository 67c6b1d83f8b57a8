"""A Flask application as people write them: JSON, a form, an upload, a session, a stream."""
import hashlib
import os
import time

from flask import Flask, Response, jsonify, redirect, request, session, stream_with_context, url_for

app = Flask(__name__)
app.secret_key = "only for tests"


@app.get("/")
def index():
    return "Hello, World!"


@app.get("/json")
def show():
    return jsonify(
        args=request.args.to_dict(flat=False), path=request.path, root=request.script_root, url=request.url,
        remote=request.remote_addr, scheme=request.scheme, host=request.host, headers=dict(request.headers),
        pid=os.getpid(),
    )


@app.post("/form")
def form():
    return jsonify(form=request.form.to_dict(flat=False))


@app.post("/upload")
def upload():
    digest, size = hashlib.sha256(), 0
    source = request.files["file"].stream if request.files else request.stream
    while block := source.read(65536):
        digest.update(block)
        size += len(block)
    return jsonify(bytes=size, sha256=digest.hexdigest())


@app.route("/login", methods=["POST"])
def login():
    session["name"] = request.form["name"]
    return redirect(url_for("whoami"))


@app.get("/whoami")
def whoami():
    return jsonify(name=session.get("name"))


@app.get("/events")
def events():
    """Five server-sent events, a tenth of a second apart."""

    @stream_with_context
    def lines():
        for i in range(5):
            yield f"data: {i} of {request.path}\n\n"
            time.sleep(0.1)

    return Response(lines(), mimetype="text/event-stream")


@app.get("/fail")
def fail():
    raise RuntimeError("raised in a Flask view")
