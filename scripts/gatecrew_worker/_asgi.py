"""ASGI 3: one application, and the exchanges that are its tasks."""

import asyncio
import sys

from gatecrew_worker import _interrupt
from gatecrew_worker import _records as rec
from gatecrew_worker._async import Loop
from gatecrew_worker._interrupt import CURRENT
from gatecrew_worker._lifespan import Lifespan
from gatecrew_worker._loader import StartupFailed
from gatecrew_worker._response import Answering, Response
from gatecrew_worker._scope import Scopes
from gatecrew_worker._websocket import WebSocket


def _event_loop(kind):
    """Returns what makes the event loop that is asked for."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError as exc:
            if kind == "uvloop":
                raise StartupFailed("gatecrew: --loop uvloop: %s\n  next step: install uvloop for %s, or leave the choice to auto\n" % (
                    exc, sys.executable)) from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


class Exchanging(Answering):
    """The two callables of the application."""

    __slots__ = ()

    async def receive(self):
        request = self._request
        loop = self._loop
        chunks = request.input
        while not self._whole and not self.complete:
            ended = request.input_ended  # before the chunks are looked at: none comes after it
            if chunks or ended:
                body = chunks.popleft() if chunks else b""
                while chunks:
                    body += chunks.popleft()
                request.input_read += len(body)
                self._whole = ended
                loop.grant(request, request.input_read)
                return {"type": "http.request", "body": body, "more_body": not ended}
            if loop.gone(request):
                break
            loop.ask(request)
            await loop.wait(request)
        while not (request.ended or loop.gone(request)):
            await loop.wait(request)
        self.told = True
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.body":
            if not self.started or self.complete or self.awaits_trailers:
                raise self._unexpected(kind)
            rest = self.body(message)
            if rest is not None:
                await rest
        elif kind == "http.response.start":
            if self.started:
                raise self._unexpected(kind)
            self.start(message)
        elif kind == "http.response.early_hint" and not self.complete:
            await self.early_hint(message)
        elif kind == "http.response.pathsend" and self.started and not self.complete:
            await self.file(message)
        elif kind == "http.response.trailers" and self.awaits_trailers:
            await self.trailers(message)
        else:
            raise self._unexpected(kind)

    def _unexpected(self, kind):
        if self.complete:
            return RuntimeError("unexpected message %r: the answer is complete" % kind)
        expected = "http.response.body" if self.started else "http.response.start"
        if self.awaits_trailers:
            expected = "http.response.trailers"
        return RuntimeError("unexpected message %r: expected is %r" % (kind, expected))


class Exchange(Exchanging, Response):
    """An http scope."""

    __slots__ = ("_whole",)

    def __init__(self, loop, request, scope):
        super().__init__(loop, request, scope["method"] == "HEAD", "http.response.trailers" in scope["extensions"])
        self._whole = False  # the application has all of the body


class Handler:
    """Runs one application for the requests of a loop."""

    _make_scopes = Scopes
    _make_exchange = Exchange

    def __init__(self, app, loop, root_path="", state=None):
        self._app = app
        self._loop = loop
        self._scopes = self._make_scopes(root_path, state)

    async def handle(self, request):
        """Answers one request, whatever the application does."""
        loop = self._loop
        try:
            if not loop.take(request):
                return
            CURRENT.set(request)
            scope = self._scopes.make(request)
            make = WebSocket if request.role == rec.WEBSOCKET else self._make_exchange
            exchange = make(loop, request, scope)
            try:
                await self._app(scope, exchange.receive, exchange.send)
                if not request.ended:
                    exchange.finish()
            except BaseException as exc:
                # SystemExit and KeyboardInterrupt as well: they end the request
                # of whoever raised them, not the ones of its neighbours.
                exchange.fail(exc)
        except BaseException as exc:  # not the application's
            loop.fail(exc)
        finally:
            loop.done(request)


def serve(app, sock, control, options, started, loop_type=Loop, handler_type=Handler):
    """Serves an application until the gateway, or SIGTERM, ends that. started
    is called with the loop and control before the first request."""
    loop = loop_type(sock, options.concurrency, _event_loop(options.loop))
    lifespan = Lifespan(app, options.lifespan)
    started(loop, control)
    loop.run(handler_type(app, loop, options.root_path, lifespan.state).handle, lifespan)


_interrupt.ENTRIES.update((Handler.handle.__code__, Loop.run.__code__))
