"""A WSGI application (PEP 3333) in one file, without a framework.

    gatecrew run clockwork:app --chdir examples/app --workers 2 --threads 4
"""
import html
import itertools
import os
import threading
import time

served = itertools.count(1)  # by this process; next() on it is atomic

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="/style.css"></head>
<body>
<a class="back" href="/">&larr; all examples</a>
{body}
</body></html>"""


def respond(start_response, status, title, body):
    page = PAGE.format(title=title, body=body).encode()
    start_response(status, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(page)))])
    return [page]


def index(environ, start_response):
    """Who answers, and what it was told."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>\n"
        for name, value in sorted(environ.items())
    )
    root = html.escape(environ.get("SCRIPT_NAME", ""))
    return respond(start_response, "200 OK", "clockwork", f"""
<h1>One of the crew</h1>
<p class="lead">Reload a few times: requests go to whoever is free. It is now
<span id="clock">{time.strftime("%H:%M:%S")}</span>, and the worker keeps saying so.</p>
<div class="facts">
  <p class="card"><span class="number">{os.getpid()}</span>process</p>
  <p class="card"><span class="number">{threading.get_native_id()}</span>thread</p>
  <p class="card"><span class="number">{next(served)}</span>requests of this process so far</p>
</div>
<h2>environ</h2>
<table>
{rows}</table>
<script>
// The clock below /clock is an event stream; the browser shows each line as it arrives.
new EventSource("{root}/clock").onmessage = event => document.getElementById("clock").textContent = event.data;
</script>""")


def clock(environ, start_response):
    """One event a second, for a minute; the browser then asks again."""
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    for _ in range(60):
        yield time.strftime("data: %H:%M:%S\n\n").encode()
        time.sleep(1)


def raise_error(environ, start_response):
    raise RuntimeError("this is what an error in an application looks like in the log")


ROUTES = {"": index, "/": index, "/clock": clock, "/raise": raise_error}


def app(environ, start_response):
    route = ROUTES.get(environ.get("PATH_INFO", ""))
    if route is None:
        return respond(start_response, "404 Not Found", "not found", "<h1>There is no such page here</h1>")
    return route(environ, start_response)
