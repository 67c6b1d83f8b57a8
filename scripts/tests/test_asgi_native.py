"""The C extension beside the Python code that it stands for: the same scopes,
requests and answers, or the same exceptions, whatever comes.

FUZZ_COUNT is how many cases of each kind, FUZZ_SEED where they begin.
"""

import asyncio
import os
import random
import socket
import sys
import unittest

from gateway import SPEED, rec
from gatecrew_worker import _asgi
from gatecrew_worker._async import AsyncRequest, Loop
from gatecrew_worker._connection import Connection
from gatecrew_worker._scope import Scopes

COUNT = int(os.environ.get("FUZZ_COUNT", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

if SPEED is not None:
    from gatecrew_worker import _asgi_native as native

PARAMS = [
    (b"GATEWAY_INTERFACE", b"CGI/1.1"), (b"SERVER_SOFTWARE", b"gatecrew"), (b"SERVER_PROTOCOL", b"HTTP/1.1"), (b"REDIRECT_STATUS", b"200"),
    (b"SERVER_ADDR", b"127.0.0.1"), (b"SERVER_NAME", b"example.org"), (b"SERVER_PORT", b"8000"), (b"REQUEST_SCHEME", b"http"),
    (b"REQUEST_METHOD", b"GET"), (b"REQUEST_URI", b"/a?b"), (b"QUERY_STRING", b"b"), (b"SCRIPT_NAME", b""), (b"PATH_INFO", b"/a"),
    (b"DOCUMENT_URI", b"/a"), (b"REMOTE_ADDR", b"127.0.0.2"), (b"REMOTE_HOST", b"127.0.0.2"), (b"REMOTE_PORT", b"50000"),
    (b"HTTP_HOST", b"example.org:8000"), (b"HTTP_ACCEPT", b"*/*"), (b"HTTP_COOKIE", b"c" * 200), (b"UNIQUE_ID", b"1"),
]
MORE = [
    (b"HTTPS", b"on"), (b"HTTP_TE", b"trailers"), (b"HTTP_PROXY", b"evil"), (b"CONTENT_TYPE", b"text/plain"), (b"CONTENT_LENGTH", b"3"),
    (b"SSL_PROTOCOL", b"TLSv1.3"), (b"SSL_CLIENT_CERT", b"PEM"), (b"SERVER_PROTOCOL", b"HTTP/2.0"), (b"REQUEST_SCHEME", b"https"),
    (b"SCRIPT_NAME", b"/root"), (b"REQUEST_METHOD", b"BREW"), (b"REQUEST_METHOD", b"\xff"), (b"REQUEST_URI", b"http://x/y"),
    (b"REQUEST_URI", b""), (b"REMOTE_PORT", b"x"), (b"REMOTE_PORT", b"12345678901"), (b"REMOTE_PORT", b""), (b"REMOTE_ADDR", b""),
    (b"HTTP_", b"nothing"), (b"", b"empty"), (b"HTTP_X_" + b"LONG" * 20, b"x"), (b"HTTP_X\xff_Y", b"\xff"), (b"HTTP_COO", b"k"),
    (b"PATH_INFO", b"/\xc3\xa4\xff"), (b"HTTP_SEC_WEBSOCKET_PROTOCOL", b"a, b"), (b"DOCUMENT_ROOT", b"/srv"), (b"X", b"y" * 70000),
]


def pairs(rng):
    """Parameters as no gateway sends them, and as it does."""
    chosen = PARAMS[:]
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        what = rng.randrange(6)
        if what == 0:
            rng.shuffle(chosen)
        elif what == 1:
            del chosen[rng.randrange(len(chosen)):][:rng.randrange(3)]
        elif what == 2:
            chosen.insert(rng.randrange(len(chosen) + 1), rng.choice(MORE))
        elif what == 3:
            at = rng.randrange(len(chosen))
            chosen[at] = chosen[at][0], rng.randbytes(rng.choice((0, 1, 5, 127, 128, 300)))
        elif what == 4:
            chosen += [(b"HTTP_X_%d" % rng.randrange(1000), b"%d" % i) for i in range(rng.choice((1, 3, 150)))]
        else:
            chosen.append(rng.choice(PARAMS + MORE))
        chosen = chosen or PARAMS[:]
    return chosen


def encoded(rng):
    block = rec.encode_pairs(pairs(rng))
    if rng.random() < 0.1:  # several ways to encode a length
        name, value = rng.choice(PARAMS)
        block += b"\x80\0\0%c\x80\0\0%c" % (len(name), len(value)) + name + value
    return mutated(rng, block) if rng.random() < 0.3 else block


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.3:
            del data[at:at + rng.choice((1, 2, 1000))]
        elif rng.random() < 0.5:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif at < len(data):
            data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(data)


class Randoms(random.Random):
    if not hasattr(random.Random, "randbytes"):  # before Python 3.9
        def randbytes(self, n):
            return bytes(self.getrandbits(8) for _ in range(n))


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), str(exc)


@unittest.skipIf(SPEED is None, "there is no C extension")
class SameTest(unittest.TestCase):
    def test_scopes(self):
        for root in ("", "/mounted"):
            reference, quick = Scopes(root, {"a": 1}), native.NativeScopes(root, {"a": 1})
            for seed in range(SEED, SEED + COUNT):
                rng = Randoms(seed)
                block = encoded(rng)
                role = rng.choice((rec.RESPONDER,) * 9 + (rec.WEBSOCKET,))
                got, want = [], []
                for scopes, kind, into in ((reference, AsyncRequest, want), (quick, native.NativeRequest, got)):
                    request = kind(1, 1, role)
                    request.params = block
                    scope = outcome(scopes.make, request)
                    into += [scope, list(scope)]  # also the order
                self.assertEqual(got, want, "seed %d" % seed)

    def test_requests(self):
        for seed in range(SEED, SEED + COUNT):
            rng = Randoms(seed)
            data = self.records(rng)
            limit = rng.choice((1, 3, 1000))
            draining = rng.random() < 0.1
            flow = rng.random() < 0.8
            steps = [rng.choice((7, 100, 65536)) for _ in range(2000)]
            got, want = [], []
            for make, kind, into in ((Connection, AsyncRequest, want), (native.NativeConnection, native.NativeRequest, got)):
                connection = make(limit, asynchronous=True, make_request=kind)
                connection.draining = draining
                connection.flow = flow
                into.append(outcome(self.receive, connection, data, steps, into))
                into += [connection.seen, connection.begun, connection.reply, sorted(connection.requests)]
            self.assertEqual(got, want, "seed %d" % seed)

    @staticmethod
    def records(rng):
        out = []
        for request_id in rng.choices((0, 1, 2, 3, 300, 65535), weights=(1, 20, 20, 20, 20, 20), k=rng.randrange(1, 6)):
            block = rec.encode_pairs(PARAMS[:rng.randrange(len(PARAMS))])
            out += (rec.record(rec.BEGIN_REQUEST, request_id, b"\0\1\1\0\0\0\0\0"), rec.record(rec.PARAMS, request_id, block),
                    rec.record(rec.PARAMS, request_id))
            if rng.random() < 0.2:
                out.append(rec.record(rec.STDIN, request_id, b"body"))
            out.append(rec.record(rec.STDIN, request_id))
        data = b"".join(out)
        return mutated(rng, data) if rng.random() < 0.5 else data

    @staticmethod
    def receive(connection, data, steps, into):
        for step in steps:
            begun, touched = connection.receive(data[:step])
            into += [(r.id, r.role, r.params, list(r.input), r.input_ended, r.granted, r.aborted) for r in begun]
            into += [(r.id, list(r.input), r.input_ended, r.aborted, r.granted) for r in touched]
            data = data[step:]
            if not data:
                return None

    def test_answers(self):
        near, far = socket.socketpair()
        event_loop = asyncio.new_event_loop()
        try:
            loops = [Loop(near, 10), native.NativeLoop(near, 10)]
            for loop in loops:
                loop.event_loop = event_loop
                loop._holding = True  # nothing is sent
            for seed in range(SEED, SEED + COUNT):
                got = [
                    self.answer(Randoms(seed), loop, kind, exchange) for loop, kind, exchange in
                    zip(loops, (AsyncRequest, native.NativeRequest), (_asgi.Exchange, native.NativeExchange))]
                self.assertEqual(got[1], got[0], "seed %d" % seed)
        finally:
            event_loop.close()
            near.close()
            far.close()

    def answer(self, rng, loop, make_request, make_exchange):
        request = make_request(rng.choice((1, 300)), rng.choice((0, 100, 131072)))
        loop._connection.requests[request.id] = request
        loop._connection.flow = True
        for _ in range(rng.randrange(3)):
            request.input.append(b"body")
        request.input_ended = rng.random() < 0.8
        request.aborted = rng.random() < 0.05
        method = rng.choice(("GET", "GET", "HEAD"))
        exchange = make_exchange(loop, request, {"method": method, "extensions": {"http.response.trailers": {}} if rng.random() < 0.3 else {}})
        said = []
        for _ in range(rng.randrange(1, 7)):
            call = exchange.receive() if rng.random() < 0.2 else exchange.send(self.message(rng))
            try:
                call.send(None)
                said.append("waits")
                call.close()
            except StopIteration as exc:
                said.append(exc.value)
            except Exception as exc:
                said.append((type(exc), str(exc)))
            said.append((
                exchange.complete, exchange.started, exchange.awaits_trailers, exchange._length, exchange._written, request.sent, request.ended,
                request.input_read, b"".join(loop._out), request.id in loop._connection.requests))
            del loop._out[:]
        loop._connection.requests.clear()
        return said

    def message(self, rng):
        kind = rng.choice(("http.response.start",) * 4 + ("http.response.body",) * 6 + ("http.response.trailers", "nonsense", 7, None))
        message = {"type": kind}
        if kind == "http.response.start":
            message["status"] = rng.choice((200, 200, 200, 204, 304, 404, 299, 99, True, "200", 10**30, None))
            headers = [rng.choice((
                (b"content-type", b"text/plain"), [b"x-a", b"1"], (b"X-Big", b"b" * rng.choice((10, 5000))), (b"content-length", b"4"),
                (b"Content-Length", b"8"), (b"content-length", b"x"), (b"connection", b"close"), (b"status", b"1"), (b"bad name", b"1"),
                (b"x", b"bad\nvalue"), (b"", b""), (b"x",), ("x", b"y"), (b"x", "y"), (bytearray(b"x"), b"y"), 5, (b"x\xff", b"y"), (b"x", b"\xff\t"),
                (b"te", b"1"), (b"keep-alive", b"1"), (b"CONTENT-length", b"0123456789012345678901"))) if rng.random() < 0.4
                else (b"x-%d" % i, b"v") for i in range(rng.randrange(4))]
            message["headers"] = rng.choice((headers, headers, headers, tuple(headers), iter(headers), None))
            if rng.random() < 0.2:
                message["trailers"] = rng.choice((True, False, 1))
        elif kind == "http.response.body":
            message["body"] = rng.choice((b"", b"1234", b"12345678", b"x" * 40000, bytearray(b"1234"), "text", None))
            message["more_body"] = rng.choice((True, False, False, 1, 0, ""))
        for key in list(message):
            if rng.random() < 0.05:
                del message[key]
        if rng.random() < 0.02:
            return rng.choice((None, [], Message(message)))
        return message


class Message(dict):
    """As a message, but looked up in Python."""

    def get(self, key, default=None):
        return super().get(key, default)


@unittest.skipIf(SPEED is None, "there is no C extension")
class CoroutinesTest(unittest.TestCase):
    """What send() and receive() return behaves as a coroutine."""

    def setUp(self):
        self.near, self.far = socket.socketpair()
        self.event_loop = asyncio.new_event_loop()
        self.loop = native.NativeLoop(self.near, 10)
        self.loop.event_loop = self.event_loop
        self.loop._holding = True
        self.request = native.NativeRequest(1, 131072)
        self.exchange = native.NativeExchange(self.loop, self.request, {"method": "GET", "extensions": {}})

    def tearDown(self):
        self.event_loop.close()
        self.near.close()
        self.far.close()

    START = {"type": "http.response.start", "status": 200}

    def test_nothing_before_it_is_awaited(self):
        call = self.exchange.send(self.START)
        self.assertFalse(self.exchange.started)
        call.close()
        self.assertFalse(self.exchange.started)
        with self.assertWarnsRegex(RuntimeWarning, "coroutine 'send' was never awaited"):
            self.exchange.send(self.START)
        with self.assertWarnsRegex(RuntimeWarning, "coroutine 'receive' was never awaited"):
            self.exchange.receive()

    def test_once(self):
        call = self.exchange.send(message=self.START)
        with self.assertRaises(StopIteration):
            call.send(None)
        with self.assertRaisesRegex(RuntimeError, "cannot reuse already awaited coroutine"):
            call.send(None)
        with self.assertRaisesRegex(RuntimeError, "cannot reuse already awaited coroutine"):
            call.throw(ValueError())
        with self.assertRaises(TypeError):
            self.exchange.send()
        with self.assertRaises(TypeError):
            self.exchange.receive(1)

    def test_as_tasks(self):
        async def run():
            await asyncio.ensure_future(self.exchange.send(self.START))
            self.request.input_ended = True
            event = await asyncio.wait_for(self.exchange.receive(), 5)
            self.assertEqual(event, {"type": "http.request", "body": b"", "more_body": False})
            waits = asyncio.ensure_future(self.exchange.receive())
            await asyncio.sleep(0)
            self.assertFalse(waits.done())
            self.assertIn("receive", repr(waits))
            waits.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waits
            waits = asyncio.ensure_future(self.exchange.receive())
            await asyncio.sleep(0)
            self.request.aborted = True
            self.request.wake()
            self.assertEqual(await waits, {"type": "http.disconnect"})
            with self.assertRaises(ValueError):
                self.exchange.receive().throw(ValueError())

        self.event_loop.run_until_complete(run())

    def test_marked(self):
        for function in (self.exchange.send, self.exchange.receive):
            self.assertTrue(asyncio.iscoroutinefunction(function))
        call = self.exchange.receive()
        self.assertTrue(asyncio.iscoroutine(call))
        call.close()

    def test_fields_of_the_wrong_kind(self):
        """Nobody does this, and nothing worse than an exception comes of it."""
        for thing, names in (
            (self.request, ("params", "input", "waiters", "unsent", "task", "feed")),
            (self.loop, ("_out", "_connection", "_requests", "_ready")),
            (self.exchange, ("_head", "_length", "_trailers")),
        ):
            for name in names:
                before = getattr(thing, name)
                for value in (None, 5, "x", [], {}, b""):
                    setattr(thing, name, value)
                    self.exchange.started, self.exchange.complete = False, False
                    for message in (self.START, {"type": "http.response.body", "body": b"x"}):
                        outcome(self.exchange.send(message).send, None)
                    outcome(self.exchange.receive().close)
                    outcome(self.loop.take, self.request)
                    outcome(native.NativeScopes().make, self.request)
                delattr(thing, name)
                outcome(self.exchange.send(self.START).send, None)
                setattr(thing, name, before)

    def test_references(self):
        """Nothing that all requests share gains or loses references."""
        shared = (None, b"", (), "type", "http.request", type(self.exchange), type(self.request), type(self.exchange.receive), self.loop)

        def rounds(count):
            scopes = native.NativeScopes()
            for i in range(count):
                request = native.NativeRequest(1, 131072)
                request.input_ended = True
                request.params = rec.encode_pairs(PARAMS)
                exchange = native.NativeExchange(self.loop, request, scopes.make(request))
                for call in (exchange.receive(), exchange.send(self.START), exchange.send({"type": "http.response.body", "body": b"x"}),
                             exchange.send({"type": "nonsense"}), exchange.send({})):
                    outcome(call.send, None)
                    call.close()
                del self.loop._out[:]

        rounds(10)
        before = [sys.getrefcount(thing) for thing in shared]
        rounds(2000)
        for thing, count in zip(shared, before):
            self.assertLess(abs(sys.getrefcount(thing) - count), 1000, thing)


if __name__ == "__main__":
    unittest.main()
