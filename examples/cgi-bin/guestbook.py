#!/usr/bin/env python3
"""A guest book as it was done in 1998, without the mistakes of 1998.

GET shows the form and the latest entries, POST adds one. The file that
GUESTBOOK names keeps them, one JSON object a line.
"""
import fcntl
import html
import json
import os
import sys
import time
from urllib.parse import parse_qs

MOST = 4096  # bytes of a form that are read
SHOWN = 20  # entries on the page


def redirect_to(url):
    print("Status: 303 See Other")
    print(f"Location: {url}")
    print()


def fail(status, text):
    print(f"Status: {status}")
    print("Content-Type: text/plain")
    print()
    print(text)


def add():
    try:
        length = int(os.environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = 0
    if length > MOST:
        return fail("413 Content Too Large", "That is too long for a guest book.")
    form = parse_qs(sys.stdin.buffer.read(length).decode("utf-8", "replace"))
    entry = {field: form.get(field, [""])[0].strip()[:limit] for field, limit in (("name", 60), ("text", 1000))}
    if not entry["text"]:
        return fail("400 Bad Request", "Please write something.")
    entry["time"] = int(time.time())
    with open(os.environ["GUESTBOOK"], "a", encoding="utf-8") as book:
        fcntl.flock(book, fcntl.LOCK_EX)  # another guest may write at the same moment
        book.write(json.dumps(entry) + "\n")
    redirect_to(os.environ["SCRIPT_NAME"])


def entries():
    try:
        with open(os.environ["GUESTBOOK"], encoding="utf-8") as book:
            return [json.loads(line) for line in book][-SHOWN:][::-1]
    except FileNotFoundError:
        return []


def show():
    rows = "".join(
        "<blockquote class='card'><p>{text}</p><span class='soft'>{name}, {when}</span></blockquote>\n".format(
            text=html.escape(entry["text"]),
            name=html.escape(entry["name"]) or "somebody",
            when=time.strftime("%d %B %Y, %H:%M", time.localtime(entry["time"])),
        )
        for entry in entries()
    )
    page = f"""<!DOCTYPE html>
<html lang="en"><head><title>guestbook.py</title><link rel="stylesheet" href="/style.css"></head>
<body>
<a class="back" href="/">&larr; all examples</a>
<h1>Guest book</h1>
<p class="lead">A form, a POST, a file with a lock: what half of the web once was.</p>
<form method="post">
  <label>Name <input name="name" maxlength="60"></label>
  <label>Message <textarea name="text" rows="3" maxlength="1000" required></textarea></label>
  <button>Sign</button>
</form>
<h2>Latest entries</h2>
{rows or "<p class='soft'>None yet. Be the first.</p>"}
</body></html>"""
    sys.stdout.buffer.write(b"Content-Type: text/html; charset=utf-8\n\n" + page.encode())


if os.environ.get("REQUEST_METHOD") == "POST":
    add()
else:
    show()
