"""The classes of an ASGI worker that the C extension has a part in: its fields,
and what it does for usual requests; the methods of Python for all others."""

import asyncio
import inspect
from collections import deque

from gatecrew_worker import _asgi, _response, _speed, _tls
from gatecrew_worker._asgi import Exchanging, Handler
from gatecrew_worker._async import Loop, Wakes
from gatecrew_worker._connection import Connection
from gatecrew_worker._scope import Scopes

_speed.prepare_asgi(asyncio.current_task, deque, _tls.describe, _response.STATUS_LINES)


def serve(app, sock, control, options, started):
    """_asgi.serve with the classes below."""
    _asgi.serve(app, sock, control, options, started, NativeLoop, NativeHandler)


class NativeRequest(Wakes, _speed.AsyncRequest):
    __slots__ = ()


class NativeConnection(Connection):
    def _receive_small(self, data, pos, size, begun):
        """Takes in all such requests that lie at pos."""
        end = _speed.take_requests(self, self._make_request, data, pos, begun)
        return end if end != pos else 0


class NativeLoop(_speed.AsyncLoop, Loop):
    _grant = Loop.grant

    def _make_connection(self, concurrency):
        return NativeConnection(concurrency, asynchronous=True, make_request=NativeRequest)


class NativeScopes(_speed.Scopes, Scopes):
    _make = Scopes.make


class NativeExchange(_speed.Exchange, Exchanging):
    __slots__ = ()

    _receive = Exchanging.receive
    _send = Exchanging.send


class NativeHandler(Handler):
    _make_scopes = NativeScopes
    _make_exchange = NativeExchange


def _mark_coroutine_functions():
    """Has asyncio and inspect say of send and receive what they are:
    async_to_sync warns of others, for example."""

    async def model():
        pass

    if hasattr(inspect, "markcoroutinefunction"):  # since Python 3.12
        inspect.markcoroutinefunction(model)
    for kind in (_speed.Exchange, _speed.Receive):
        for name, value in vars(model).items():
            setattr(kind, name, value)
        if hasattr(asyncio.coroutines, "_is_coroutine"):  # until Python 3.13
            kind._is_coroutine = asyncio.coroutines._is_coroutine


_mark_coroutine_functions()
