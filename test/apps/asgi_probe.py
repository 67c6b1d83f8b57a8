"""The ASGI application of the black-box tests: it does what the request says.

    GET /any/path?KEY:STEPS

KEY names the log of this run, STEPS is a percent-encoded Python literal: a
list of tuples, see Run. So a test shows both sides of the wire. The log, a
list of (step, outcome, seconds), is read with GET /log/KEY, also while the run
is still going on: the outcome is "…" then. /signal/NAME ends a step ("wait", NAME). Any other target is
answered with the scope. What lifespan events came is written to PROBE_LIFESPAN.
"""
import ast
import asyncio
import os
import time
from urllib.parse import unquote_to_bytes

logs = {}
signals = {}


def full(event):
    """The event with each (CONTENT, TIMES) in it multiplied: a target has no room for megabytes."""
    return {name: value[0] * value[1] if isinstance(value, tuple) else value for name, value in event.items()}


def plain(event):
    """The event as a literal: some servers use enumerations for numbers."""
    return {name: int(value) if isinstance(value, int) and not isinstance(value, bool) else value for name, value in event.items()}


def signal(name):
    return signals.setdefault(name, asyncio.Event())


class Run:
    """One request or socket that follows its steps."""

    def __init__(self, scope, receive, send, log):
        self.scope, self.receive, self.send, self.log = scope, receive, send, log
        self.tasks = []

    async def follow(self, steps):
        for name, *arguments in steps:
            began, place = time.monotonic(), len(self.log)
            self.log.append((name, "…", 0))
            try:
                outcome = await getattr(self, "do_" + name)(*arguments)
            except asyncio.CancelledError:
                self.log[place] = (name, "cancelled", time.monotonic() - began)
                raise
            except Exception as err:  # what send and receive raise is what a test wants to see
                outcome = f"{type(err).__name__}: {err}"
                if isinstance(err, OSError):
                    outcome = f"OSError: {outcome}"
            self.log[place] = (name, outcome, time.monotonic() - began)
            if name in ("raise", "exit"):
                return name, arguments
        return "", ()

    async def do_send(self, event):
        await self.send(full(event))

    async def do_receive(self):
        return plain(await self.receive())

    async def do_until(self, kind):
        """Receives until an event of this kind; how many came before it."""
        count = 0
        while (event := await self.receive())["type"] != kind:
            count += 1
        return count, plain(event)

    async def do_body(self):
        """Reads the request body; its length and the number of events."""
        length = events = 0
        while True:
            event = await self.receive()
            if event["type"] != "http.request":
                return length, events, event
            length, events = length + len(event.get("body", b"")), events + 1
            if not event.get("more_body"):
                return length, events

    async def do_pour(self, event, times):
        """Sends the event again and again; the log shows how often so far."""
        place, event = len(self.log) - 1, full(event)
        for done in range(times):
            self.log[place] = ("pour", f"… {done}", 0)
            await self.send(event)
        return times

    async def do_echo(self):
        """Sends each message back until the socket is closed."""
        while (event := await self.receive())["type"] == "websocket.receive":
            await self.send({**event, "type": "websocket.send"})
        return plain(event)

    async def do_answer(self, text="done"):
        """A whole response with the outcome of the last step, or a text."""
        body = (repr(self.log[-2][1]) if text is None else text).encode()
        await self.send({"type": "http.response.start", "status": 200, "headers": [
            (b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]})
        await self.send({"type": "http.response.body", "body": body})

    async def do_sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def do_wait(self, name):
        await asyncio.wait_for(signal(name).wait(), 30)

    async def do_beside(self, *steps):
        """Follows other steps in a task of their own."""
        self.tasks.append(asyncio.ensure_future(self.follow(steps)))

    async def do_raise(self, text):
        pass

    async def do_exit(self, value):
        pass


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    kind, _, name = scope["path"].rpartition("/")
    key, colon, steps = unquote_to_bytes(scope["query_string"]).decode("utf-8", "replace").partition(":")
    if kind.endswith("/log"):
        return await Run(scope, receive, send, []).do_answer(repr(logs.get(name, [])))
    if kind.endswith("/signal"):
        signal(name).set()
        return await Run(scope, receive, send, []).do_answer()
    if not colon:
        text = repr({name: value for name, value in scope.items() if name != "state"})
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": repr((text, repr(scope.get("state"))))})
            await receive()
            return None
        return await Run(scope, receive, send, []).do_answer(repr((text, repr(scope.get("state")))))
    log = logs[key] = []
    run = Run(scope, receive, send, log)
    last, arguments = await run.follow(ast.literal_eval(steps))
    if last == "raise":
        log.append(("end", None, 0))
        raise RuntimeError(*arguments)
    if run.tasks:
        await asyncio.wait(run.tasks)
    log.append(("end", None, 0))
    return arguments[0] if last == "exit" else None


def note(text):
    if path := os.environ.get("PROBE_LIFESPAN"):
        with open(path, "a") as file:
            file.write(text + "\n")


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    note(f"startup asgi={scope['asgi']['version']} keys={sorted(scope)}")
    scope["state"]["given"] = ["by lifespan"]
    await send({"type": "lifespan.startup.complete"})
    event = await receive()
    await asyncio.sleep(0.05)  # a server that doesn't wait for the end is found out
    note(event["type"].partition(".")[2])
    await send({"type": "lifespan.shutdown.complete"})


async def failing(scope, receive, send):
    """An application that can't start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database here"})


async def without(scope, receive, send):
    """An application that knows nothing of lifespan."""
    assert scope["type"] == "http"
    await Run(scope, receive, send, []).do_answer("state" in scope and repr(scope["state"]) or "no state")


async def hasty(scope, receive, send):
    """An application that returns from lifespan without an answer."""
    if scope["type"] != "lifespan":
        await Run(scope, receive, send, []).do_answer("hasty")
