"""ASGI lifespan: the startup and the shutdown of an application."""

import asyncio
import sys

from gatecrew_worker import _stacks
from gatecrew_worker._loader import StartupFailed


class Lifespan:
    """The lifespan of an application. mode is auto, on or off; state is what
    every scope gets a copy of."""

    def __init__(self, app, mode):
        self.state = {}
        self._app = app
        self._mode = mode
        self._task = None
        self._messages = None
        self._asked = False  # the application has received its first event
        self._answer = None  # a future: the outcome of startup, or of shutdown

    async def startup(self):
        """Returns when requests may come. Raises StartupFailed."""
        if self._mode == "off":
            return
        loop = asyncio.get_running_loop()
        self._messages = asyncio.Queue()
        self._answer = loop.create_future()
        self._task = loop.create_task(self._run())
        self._messages.put_nowait({"type": "lifespan.startup"})
        outcome = await self._answer
        if outcome is None:
            return
        kind, value = outcome
        if kind == "failed":
            raise StartupFailed("gatecrew: the application failed to start%s\n" % (": %s" % value if value else ""))
        # It ended, by an exception or in peace, before it answered.
        self._task = None
        if self._mode == "on":
            raise StartupFailed(_stacks.failure(
                "the application ended its lifespan before lifespan.startup.complete (--lifespan on asks for it)", value))
        if value is not None and self._asked:
            sys.stderr.write(
                "gatecrew: lifespan events are taken as unsupported, since the application failed on the first one: %s: %s "
                "(lifespan: on makes that an error, with its traceback)\n" % (type(value).__name__, value))

    async def shutdown(self):
        """Returns when the application has cleaned up."""
        if self._task is None:
            return
        self._answer = asyncio.get_running_loop().create_future()
        if self._task.done():
            return
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        outcome = await self._answer
        if outcome is not None:
            kind, value = outcome
            if kind == "failed":
                sys.stderr.write("gatecrew: the application failed to shut down%s\n" % (": %s" % value if value else ""))
            elif value is not None:
                sys.stderr.write(_stacks.failure("the application failed at its shutdown", value))

    async def _run(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        error = None
        try:
            await self._app(scope, self._receive, self._send)
        except BaseException as exc:
            error = exc
        if self._answer.done() and error is not None and not isinstance(error, asyncio.CancelledError):
            sys.stderr.write(_stacks.failure("the application failed in its lifespan", error))
        self._settle(("ended", error))

    async def _receive(self):
        self._asked = True
        return await self._messages.get()

    async def _send(self, message):
        kind = message["type"]
        if kind in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            self._settle(None)
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._settle(("failed", message.get("message", "")))
        else:
            raise RuntimeError("unexpected message %r of a lifespan" % kind)

    def _settle(self, outcome):
        if not self._answer.done():
            self._answer.set_result(outcome)
