"""A WebSocket: the messages of PROTOCOL.md, section 8, and the two callables
of an ASGI application."""

from collections import deque
from struct import Struct

from gatecrew_worker._connection import ClientDisconnected
from gatecrew_worker._response import Response, encode_fields, is_disconnect, log_failure

_TEXT = 1
_BINARY = 2
_CLOSE = 8

_HEADER = Struct(">BI")
_HEADER_SIZE = 5
_LONGEST_REASON = 123

_CONNECTING, _OPEN, _CLOSED, _DENYING = range(4)


class WebSocket:
    """A websocket scope."""

    __slots__ = (
        "_loop", "_request", "_response", "_state", "_told",
        "_messages",  # (kind, content) that the application has not received
        "_parts", "_have", "_need",  # of a message that is not whole yet
        "_close",  # (code, reason) of whoever closed first
        "_received",  # bytes of messages that the application has
    )

    def __init__(self, loop, request, scope):
        self._loop = loop
        self._request = request
        self._response = Response(loop, request)
        self._state = _CONNECTING
        self._told = False  # websocket.connect
        self._messages = deque()
        self._parts = []
        self._have = 0
        self._need = 0
        self._close = None
        self._received = 0
        request.feed = self._feed

    # -- From the client ----------------------------------------------------

    def _feed(self):
        chunks = self._request.input
        while chunks:
            self._decode(chunks.popleft())

    def _decode(self, data):
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts = []
            self._have = 0
        pos = 0
        size = len(data)
        need = _HEADER_SIZE
        while size - pos >= _HEADER_SIZE:
            kind, length = _HEADER.unpack_from(data, pos)
            start = pos + _HEADER_SIZE
            end = start + length
            if end > size:
                need += length
                break
            if kind != _CLOSE:
                self._messages.append((kind, data[start:end]))
            elif self._close is None:
                code = int.from_bytes(data[start:start + 2], "big") if length >= 2 else 1005
                self._close = code, data[start + 2:end].decode("utf-8", "replace")
                self._request.closed = True
            pos = end
        if pos < size:
            self._parts.append(data[pos:])
            self._have = size - pos
            self._need = need

    def _gone(self):
        return self._request.input_ended or self._loop.gone(self._request)

    async def receive(self):
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        loop, request = self._loop, self._request
        messages = self._messages
        while not messages or self._state != _OPEN:
            if self._gone() or self._state == _CLOSED or request.ended:
                code, reason = self._close or (1006, "")
                self._response.told = True
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            # A message that is larger than the window would never be whole.
            loop.grant(request, self._received + self._have)
            await loop.wait(request)
        kind, content = messages.popleft()
        self._received += _HEADER_SIZE + len(content)
        loop.grant(request, self._received)
        if kind == _TEXT:
            return {"type": "websocket.receive", "text": content.decode("utf-8"), "bytes": None}
        return {"type": "websocket.receive", "bytes": content, "text": None}

    # -- To the client ------------------------------------------------------

    async def send(self, message):
        kind = message["type"]
        state = self._state
        if state == _OPEN:
            if kind == "websocket.send":
                await self._send_message(message)
                return
            if kind == "websocket.close":
                await self._send_close(message.get("code") or 1000, message.get("reason") or "")
                return
            expected = "'websocket.send' or 'websocket.close'"
        elif state == _CONNECTING:
            if kind == "websocket.accept":
                await self._accept(message)
                return
            if kind == "websocket.close":
                self._state = _CLOSED
                self._close = self._close or (1006, "")
                self._response.start({"status": 403})
                await self._answer({})
                return
            if kind == "websocket.http.response.start":
                self._response.start(message)
                self._state = _DENYING
                return
            expected = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'"
        elif state == _DENYING:
            if kind == "websocket.http.response.body" and not self._response.complete:
                await self._answer(message)
                return
            expected = "nothing" if self._response.complete else "'websocket.http.response.body'"
        else:
            raise RuntimeError("unexpected message %r: the connection is closed" % kind)
        raise RuntimeError("unexpected message %r: expected is %s" % (kind, expected))

    async def _answer(self, message):
        rest = self._response.body(message)
        if rest is not None:
            await rest

    async def _accept(self, message):
        if self._gone():
            raise ClientDisconnected("the client went away")
        subprotocol = message.get("subprotocol")
        headers = [(n, v) for n, v in message.get("headers") or () if not _is_of_handshake(n)]
        if subprotocol:
            headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        head, _ = encode_fields(b"Status: 101 Switching Protocols\r\n", headers)
        self._state = _OPEN
        await self._write(head + b"\r\n")

    async def _send_message(self, message):
        if self._gone():
            raise ClientDisconnected("the client went away")
        content = message.get("bytes")
        kind = _BINARY
        if content is None:
            kind = _TEXT
            content = message.get("text")
            if content is None:
                raise ValueError("'websocket.send' has neither bytes nor text")
            content = content.encode("utf-8")
        await self._write(_HEADER.pack(kind, len(content)) + content)

    async def _send_close(self, code, reason):
        self._state = _CLOSED
        if self._gone():
            return
        self._close = code, reason
        content = b""
        if code != 1005:
            reason = reason.encode("utf-8")[:_LONGEST_REASON].decode("utf-8", "ignore")  # no half character
            content = code.to_bytes(2, "big") + reason.encode("utf-8")
        await self._write(_HEADER.pack(_CLOSE, len(content)) + content)
        self._request.wake()

    async def _write(self, data):
        if not self._loop.write_soon(self._request, data):
            await self._loop.write(self._request, data)

    # -- The end ------------------------------------------------------------

    def finish(self):
        if self._state == _CONNECTING and not self._loop.gone(self._request):
            self._response.fail(None, "the application returned without having accepted the WebSocket or refused it")
        elif self._state == _DENYING:
            self._response.finish()
        else:
            self._loop.end(self._request)

    def fail(self, exc):
        if self._state == _OPEN or self._state == _CLOSED:
            if not is_disconnect(exc):
                log_failure(self._loop, self._request, "the application failed", exc, self._response.told)
            self._loop.end(self._request, 1)
        else:
            self._response.fail(exc)


def _is_of_handshake(name):
    return name.lower() in (b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-version")
