"""The C extension against the reference: whatever comes in, both do the same.

    python3 differential.py [COUNT [SEED]]

COUNT inputs for each kind of comparison. `make fuzz` runs it under
AddressSanitizer and UndefinedBehaviorSanitizer; test_native.py has a short run.
"""

import random
import socket
import sys

import gateway  # noqa: F401  (sets sys.path)
from gatecrew_worker import _connection, _speed, _threads, _wsgi, _wsgi_native
from gatecrew_worker import _records as rec

NAMES = [b"REQUEST_METHOD", b"SCRIPT_NAME", b"PATH_INFO", b"QUERY_STRING", b"HTTP_HOST", b"HTTP_PROXY", b"HTTPS", b"REQUEST_SCHEME",
         b"GATEWAY_INTERFACE", b"SERVER_NAME", b"SERVER_PORT", b"HTTP_X_A", b"HTTP_X_B" * 20, b"", b"\xe9", b"wsgi.input"]
VALUES = [b"", b"GET", b"HEAD", b"/", b"https", b"on", b"1", b"example.org", b"x" * 127, b"y" * 128, b"z" * 300, b"\xff\x00", b"80"]


class Difference(AssertionError):
    pass


def same(seed, *both):
    if both[0] != both[1]:
        raise Difference("seed %d: the reference has\n%r\nand the C extension\n%r" % ((seed,) + both))


def attempt(function, *args):
    """What a call returns or raises."""
    try:
        return function(*args)
    except Exception as exc:
        return type(exc), str(exc)


def mutated(r, data):
    """Data, with a few bytes changed, left out, or doubled."""
    data = bytearray(data)
    for _ in range(r.choice((0, 0, 1, 1, 2, 5))):
        if not data:
            break
        at = r.randrange(len(data))
        kind = r.randrange(4)
        if kind == 0:
            data[at] = r.choice((0, 1, 2, 127, 128, 255, r.randrange(256)))
        elif kind == 1:
            del data[at:at + r.choice((1, 2, 8))]
        elif kind == 2:
            data[at:at] = data[at:at + r.choice((1, 4, 16))]
        else:
            data = data[:at]
    return bytes(data)


def block(r):
    """Encoded parameters, server's first as the gateway has them, or not."""
    pairs = [(r.choice(NAMES), r.choice(VALUES)) for _ in range(r.randrange(12))]
    if r.randrange(3):
        pairs[:0] = [(b"GATEWAY_INTERFACE", b"CGI/1.1"), (b"SERVER_NAME", r.choice((b"a", b"b")))]
    return rec.encode_pairs(pairs)


# -- What is compared ---------------------------------------------------------


def pairs(seed):
    r = random.Random(seed)
    data = mutated(r, block(r))

    def decode(function):
        return list(function(data, {}).items())

    same(seed, attempt(decode, rec.decode_pairs), attempt(decode, _speed.decode_pairs))


def padded(r, kind, request_id, content=b""):
    """A record, sometimes with padding or with something in its reserved byte."""
    if r.randrange(10):
        return rec.record(kind, request_id, content)
    padding = r.randrange(4)
    return bytearray(rec.HEADER.pack(1, kind, request_id, len(content), padding)[:7]) + b"%c" % r.randrange(2) + content + bytes(padding)


def stream(r):
    """Records of a few requests and of the management."""
    out = []
    for _ in range(r.randrange(1, 8)):
        i = r.choice((0, 1, 2, 3, 300, 65535))
        kind = r.randrange(9)
        params = block(r)
        if kind < 4:
            # Mostly as the gateway writes it, which is decoded at once.
            out.append(padded(r, rec.BEGIN_REQUEST, i, b"\0\1%c\0\0\0\0\0" % r.choice((1, 1, 1, 0))) + padded(r, rec.PARAMS, i, params)
                       + padded(r, rec.PARAMS, i) + padded(r, rec.STDIN, r.choice((i, i, i, i, 2))))
        elif kind == 4:
            out.append(rec.record(rec.BEGIN_REQUEST, i, b"\0%c\1\0\0\0\0\0" % r.choice((1, 2, 128))))
            out.append(rec.record(rec.PARAMS, i, params))
        elif kind == 5:
            out.append(rec.record(rec.STDIN, i, b"body" * r.randrange(3)))
        elif kind == 6:
            out.append(rec.record(rec.GET_VALUES, 0, rec.encode_pairs([
                (b"FCGI_MAX_REQS", b""), (b"GATECREW_FLOW", r.choice((b"1", b"0", b"x"))),
                (b"GATECREW_WINDOW", r.choice((b"1000", b"", b"99999999999")))])))
        elif kind == 7:
            out.append(rec.credit(i, r.choice((1, 1000, 0, 0x80000000))))
        else:
            out.append(rec.record(r.choice((rec.ABORT_REQUEST, rec.DATA, 11, 77)), i, params[:20]))
    return b"".join(out)


def records(seed):
    r = random.Random(seed)
    data = stream(r)
    if r.randrange(2):
        data = mutated(r, data)
    cut = sorted(r.randrange(len(data) + 1) for _ in range(r.choice((0, 0, 1, 3))))
    limits = r.choice((1, 2, 100)), r.choice((0, 1))
    drain, end = r.randrange(6), r.randrange(3)

    def feed(connection):
        begun_ids = []
        for n, (start, stop) in enumerate(zip([0] + cut, cut + [len(data)])):
            connection.draining = n == drain
            try:
                begun, touched = connection.receive(data[start:stop])
            except rec.ProtocolError as exc:
                yield "error", str(exc)
                return
            yield [describe(q) for q in begun], [q.id for q in touched]
            begun_ids += [q.id for q in begun]
            if begun and not end:
                connection.give_back(begun[-1])
            if begun_ids and end == 1 and begun_ids[0] in connection.requests:
                del connection.requests[begun_ids.pop(0)]
            yield (connection.reply, connection._rest, connection.begun, connection.seen, connection.flow,
                   [describe(q) for q in connection.requests.values()], sorted(connection._params))

    same(seed, list(feed(_connection.Connection(*limits))), list(feed(_wsgi_native.Connection(*limits))))


def describe(q):
    return (q.id, q.role, q.params, list(q.input), q.input_ended, q.input_received, q.input_read, q.input_granted,
            q.granted, q.sent, q.aborted, q.ended, q.thread, q.guarded, q.interruption, getattr(q, "hinted", None))


class Ends:
    """A loop of each kind, on a socket pair whose other end is read here."""

    def __init__(self, loop_type, handler_type):
        near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.loop = loop_type(near, 2)  # two: nothing waits for other answers
        self.root = {root: handler_type(self.app, self.loop, root) for root in ("", "/mnt")}
        self.kept = []

    def app(self, environ, start_response):
        return self.behaviour(environ, start_response)

    def answer(self, request, root, behaviour):
        """Runs one request; returns all that was sent for it."""
        self.behaviour = behaviour
        self.loop._connection.requests[request.id] = request
        request.guarded = False
        self.root[root](request)
        sent = b""
        try:
            while True:
                piece = self.far.recv(1 << 20)
                if not piece:
                    return sent
                sent += piece
        except BlockingIOError:
            return sent


ENDS = None

STATUSES = ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found", "599 Odd \xe9", "200", "99 X", "200 \u20ac", "200 OK\n", b"200 OK", 7]
FIELDS = ["Content-Type", "content-length", "Content-Length", "X-A", "Set-Cookie", "Connection", "Status", "a b", "", "X-\xe9", b"X", 5]
CONTENTS = ["text/plain", "5", "0", "00012", "-1", "\xb2", "9" * 30, "", "a\tb", "a\nb", "\x7f", "\xad\xe9", "\u20ac", "\u0100", "v" * 1024, "v" * 1500, b"x", 5]
BODIES = [b"", b"12345", b"x" * 100, b"y" * 32000, b"z" * 70000, "text", bytearray(b"array"), None, 5]


def environs(seed):
    r = random.Random(seed)
    data = mutated(r, block(r))
    root = r.choice(("", "/mnt"))
    found = []
    for (_, ends), request_type in zip(both_ends(), (_connection.Request, _speed.Request)):
        request = request_type(1, 1000)
        request.params = data
        environ = attempt(ends.root[root]._environ, request)
        if isinstance(environ, dict):
            # Unless a parameter stands in their place.
            environ = [(n, type(v).__name__ if n in ("wsgi.input", "wsgi.errors", "wsgi.early_hints") else v) for n, v in environ.items()]
        found.append(environ)
    same(seed, *found)


def both_ends():
    global ENDS
    if ENDS is None:
        ENDS = [(None, Ends(_threads.Loop, _wsgi.Handler)), (_speed, Ends(_wsgi_native.Loop, _wsgi_native.Handler))]
    return ENDS


def answers(seed):
    r = random.Random(seed)
    status, body = r.choice(STATUSES[:3] * 4 + STATUSES), [r.choice(BODIES[:3] * 4 + BODIES) for _ in range(r.choice((0, 1, 1, 1, 2, 3, 20)))]
    headers = [(r.choice(FIELDS[:4] * 3 + FIELDS), r.choice(CONTENTS[:3] * 4 + CONTENTS)) for _ in range(r.randrange(5))]
    if not r.randrange(20):
        headers = r.choice((tuple(headers), [list(h) for h in headers], headers + ["AB", 5], headers + [("A", "b", "c")], None))
    script = r.randrange(12)
    fields = {"REQUEST_METHOD": r.choice(("GET", "GET", "HEAD")), "SCRIPT_NAME": "", "PATH_INFO": "/"}
    params = rec.encode_pairs((n.encode(), v.encode()) for n, v in fields.items())
    aborted = not r.randrange(15)
    granted = r.choice((1 << 62, 1 << 62, 1 << 62, 1 << 20))
    keep = not r.randrange(10)

    def behaviour(ends):
        def app(environ, start_response):
            if keep:
                ends.kept[:] = [environ, start_response, environ["wsgi.input"].read]
            if script == 0:
                raise ValueError("at once")
            if script == 1:
                try:
                    return body
                finally:
                    environ["wsgi.errors"].write("never started")
            if script == 2:
                start_response("500 Before", [("X-Old", "1")])
                try:
                    raise KeyError("replaced")
                except KeyError:
                    start_response(status, headers, sys.exc_info())
            elif script == 3:
                start_response(status=status, headers=headers)
            elif script == 4:
                write = start_response(status, headers, None)
                for piece in body[:1]:
                    write(piece)
            elif script == 5:
                start_response(status, headers)
                start_response(status, headers)
            else:
                start_response(status, headers)
            if script == 6:
                return tuple(body)
            if script == 7:
                return iter(body)
            if script == 8:
                return Closing(body)
            if script == 9:
                environ["wsgi.errors"].write("a line\nand a part")
            if script == 10:
                return (piece for piece in body)
            return body
        return app

    found = []
    for (_, ends), request_type in zip(both_ends(), (_connection.Request, _speed.Request)):
        request = request_type(7, granted)
        request.params, request.input_ended, request.aborted = params, True, aborted
        sent = attempt(ends.answer, request, "", behaviour(ends))
        found.append((sent if isinstance(sent, tuple) else untraced(sent), request.sent, request.ended, request.guarded,
                      request.aborted, 7 in ends.loop._connection.requests, ends.loop._broken))
    same(seed, *found)


def untraced(sent):
    """Records, without the lines of tracebacks that name this package's
    callers, and with the parts of one stream put together."""
    out = []
    pos = 0
    while pos < len(sent):
        _, kind, request_id, length, _ = rec.HEADER.unpack_from(sent, pos)
        content = sent[pos + 8:pos + 8 + length]
        if kind in (rec.STDOUT, rec.STDERR) and out and out[-1][:2] == (kind, request_id):
            content = out.pop()[2] + content
        out.append((kind, request_id, content))
        pos += 8 + length
    return out


class Closing:
    def __init__(self, body):
        self._body = body

    def __iter__(self):
        return iter(self._body)

    def close(self):
        if not self._body:
            raise RuntimeError("close failed")


KINDS = (pairs, records, environs, answers)


def run(kind, count, seed=0):
    """Compares so many inputs. Raises Difference."""
    for n in range(seed, seed + count):
        kind(n)


def main(count, seed):
    for kind in KINDS:
        run(kind, count, seed)
        print("%s: %d inputs, no difference" % (kind.__name__, count), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10000, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
