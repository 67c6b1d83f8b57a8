"""The answer of an ASGI application: its messages to a CGI response."""

import os
import stat
import sys
from http import HTTPStatus
from wsgiref.util import is_hop_by_hop

from gatecrew_worker import _head, _stacks
from gatecrew_worker._connection import ClientDisconnected


class Answering:
    """What becomes of an application's messages. The fields are those of
    Response, or the C extension's."""

    __slots__ = ()

    def start(self, message):
        """http.response.start. Nothing is sent before the body begins."""
        if self._loop.gone(self._request):
            raise ClientDisconnected("the client went away")
        status, headers = message["status"], message.get("headers", ())
        self._trails = bool(message.get("trailers", False))
        if self._trails:
            headers = list(headers)
        self._head, self._length = encode_head(status, headers)
        if self._trails and self._can_trail and self._length is not None:
            # HTTP/1 has trailers only where no length is told.
            self._head, _ = encode_head(status, [h for h in headers if bytes(h[0]).lower() != b"content-length"])
        self._body_allowed = status != 204 and status != 304
        self.started = True

    def body(self, message):
        """http.response.body. Returns None, or what to await until there is
        leave to send all of it."""
        data = message.get("body", b"")
        if type(data) is not bytes:
            data = _as_bytes(data)
        more = message.get("more_body", False) or self._trails
        size = len(data)
        if self._is_head or not self._body_allowed or self._length is not None:
            data = self._clip(data)
        else:
            self._written += size
        if not self._head_sent:
            self._head_sent = True
            # The body of a HEAD is often left out; then its length is unknown.
            if not more and self._length is None and self._body_allowed and (size or not self._is_head):
                data = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, size, data)
            else:
                data = self._head + b"\r\n" + data
        if more:
            last = self._trails and not message.get("more_body", False)
            if data and not self._loop.write_soon(self._request, data):
                return self._write_on(data, last)
            self.awaits_trailers = last
            return None
        self.complete = True
        length = self._length
        if self._cut or length is not None and self._written < length and self._is_short() or not self._loop.end_soon(self._request, data):
            return self._write_last(data)
        return None

    async def _write_on(self, data, last):
        await self._write(data)
        self.awaits_trailers = last

    async def _write_last(self, data):
        await self._write(data)
        self._end()

    async def _write(self, data):
        cut, self._cut = self._cut, True
        await self._loop.write(self._request, data)
        self._cut = cut

    async def file(self, message):
        """http.response.pathsend: a file as the rest of the body. The gateway
        reads it, or whoever it sends it to, not this process."""
        path = message["path"]
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise ValueError("http.response.pathsend: %s is no regular file" % path)
            size = about.st_size
            loop, request = self._loop, self._request
            if not self._head_sent:
                self._head_sent = True
                head = self._head
                if self._length is None and self._body_allowed and not self._trails:
                    head += b"Content-Length: %d\r\n" % size
                await self._write(head + b"\r\n")
            if self._length is not None and self._written + size > self._length:
                self._log("the body is longer than its Content-Length of %d; the rest is dropped" % self._length)
                size = self._length - self._written
            self._written += size
            if size > 0 and self._body_allowed and not self._is_head:
                try:
                    loop.send_file(request, fd, 0, size)
                except ClientDisconnected:
                    raise
                except OSError:
                    await self._read_file(fd, size)
        finally:
            os.close(fd)
        if self._trails:
            self.awaits_trailers = True
            return
        self.complete = True
        self._end()

    async def _read_file(self, fd, size):
        pos = 0
        while pos < size:
            data = os.pread(fd, min(size - pos, 131072), pos)
            if not data:
                raise OSError("the file became shorter while it was sent")
            pos += len(data)
            await self._write(data)

    async def trailers(self, message):
        """http.response.trailers, which may come in parts."""
        self._trailers = [*self._trailers, *message.get("headers", ())]
        if message.get("more_trailers", False):
            return
        if self._can_trail and self._trailers:
            lines, _ = encode_fields(b"", self._trailers)
            if len(lines) > _LONGEST_TRAILERS:
                raise ValueError("the trailers have %d bytes, more than %d" % (len(lines), _LONGEST_TRAILERS))
            self._loop.send_trailers(self._request, lines)
        self.awaits_trailers = False
        self.complete = True
        self._end()

    def _is_short(self):
        return (self._length is not None and self._written < self._length and self._body_allowed and not self._is_head
                and not _head.names_file(self._head))

    def _end(self):
        """Ends an answer that is complete."""
        if self._is_short():
            self._log("the answer is incomplete: %d bytes of a Content-Length of %d" % (self._written, self._length))
        elif self._cut:
            self._log("the answer is incomplete: a send() was cancelled before its part was sent")
        self._loop.end(self._request, 1 if self._cut or self._is_short() else 0)

    async def early_hint(self, message):
        """http.response.early_hint: a head of its own, before the answer's."""
        if self._head_sent:
            return
        lines = [b"Status: 103 Early Hints\r\n"]
        for link in message.get("links", ()):
            link = bytes(link)
            _head.check_value("link", link.decode("latin-1"))
            lines.append(b"Link: %b\r\n" % link)
        if len(lines) > 1:
            await self._loop.write(self._request, b"".join(lines) + b"\r\n")

    def finish(self):
        """Called when the application has returned."""
        if self.complete or self._loop.gone(self._request):
            if not self._request.ended:  # the last part was not sent
                self._end() if self.complete else self._loop.end(self._request, 1)
        elif not self.started:
            self.fail(None, "the application returned without having answered")
        else:
            self.fail(None, "the application returned before its answer was complete")

    def fail(self, exc, message="the application failed"):
        """Ends the answer after an exception: with a 500 as long as nothing
        was sent, as an incomplete one otherwise."""
        request, loop = self._request, self._loop
        gone = is_disconnect(exc)
        if request.interruption is not None and not request.ended:
            # Its client has its answer, and its errors go nowhere.
            sys.stderr.write("gatecrew: request %s was interrupted: %s\n" % (
                _stacks.params(request).get("UNIQUE_ID", ""), request.interruption.reason))
            gone = True
        elif not gone:
            log_failure(loop, request, message, exc, self.told)
        if request.ended:
            return
        if not gone and not self._head_sent and loop.end_soon(request, _head.internal_error(self._is_head)):
            self.complete = True
        else:
            loop.end(request, 1)

    def _clip(self, data):
        """Counts data, and returns what of it may be sent."""
        before = self._written
        self._written = before + len(data)
        if self._is_head or not self._body_allowed:
            return b""
        length = self._length
        if self._written <= length:
            return data
        if before <= length:  # said once
            self._log("the body is longer than its Content-Length of %d; the rest is dropped" % length)
        return data[:max(0, length - before)]

    def _log(self, message, exc=None):
        self._loop.write_errors(self._request, _stacks.failure(message, exc))


class Response(Answering):
    """The answer to one request: its head, its body, its end."""

    __slots__ = (
        "complete", "started", "awaits_trailers", "told",
        "_loop", "_request", "_is_head", "_can_trail", "_trails", "_trailers",
        "_head", "_head_sent", "_body_allowed", "_length", "_written", "_cut",
    )

    def __init__(self, loop, request, is_head=False, can_trail=False):
        self.complete = False
        self.started = False
        self.awaits_trailers = False  # the body is complete
        self.told = False  # the application has received that its client has gone
        self._can_trail = can_trail  # the client wants trailers
        self._trails = False  # the application has announced them
        self._trailers = ()
        self._loop = loop
        self._request = request
        self._is_head = is_head
        self._head = b""  # encoded, without the empty line that ends it
        self._head_sent = False
        self._body_allowed = True  # by the status
        self._length = None  # the application's Content-Length
        self._written = 0  # bytes of body the application has given
        self._cut = False  # a part of it was not sent


def is_disconnect(exc):
    """Whether ClientDisconnected, which send() raised, is what ended the
    application, maybe as another exception of its framework."""
    seen = set()
    pending = [exc]
    while pending:
        exc = pending.pop()
        if isinstance(exc, ClientDisconnected):
            return True
        if exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            pending += [exc.__cause__, exc.__context__, *getattr(exc, "exceptions", ())]
    return False


def log_failure(loop, request, message, exc, told):
    """Tells of a failure. told says that the application has received that its
    client has gone: frameworks make an exception of that, whose traceback
    would say nothing."""
    if told and exc is not None:
        loop.write_errors(request, "gatecrew: %s after its client had gone: %s\n" % (message, _stacks.last_line(exc)))
    else:
        loop.write_errors(request, _stacks.failure(message, exc))


def _as_bytes(data):
    if isinstance(data, (bytearray, memoryview, bytes)):
        return bytes(data)
    raise TypeError("the body must be bytes, not %s" % type(data).__name__)


# -- The head ---------------------------------------------------------------

STATUS_LINES = {s.value: b"Status: %d %b\r\n" % (s.value, s.phrase.encode("ascii")) for s in HTTPStatus if s >= 200}
_LINES = {}  # header -> its line; many are the same in all answers
_CACHED = 1000
_LONGEST = 100  # bytes of value that are worth it
_LONGEST_TRAILERS = 32768  # PROTOCOL.md, section 9


def encode_head(status, headers):
    """Returns the head, without the empty line that ends it, and the value of
    Content-Length or None. Raises TypeError and ValueError."""
    return encode_fields(STATUS_LINES.get(status) or _status_line(status), headers)


def encode_fields(first, headers):
    """The same behind a first line."""
    lines = [first]
    length = None
    known = _LINES.get
    for item in headers:
        if type(item) is not tuple:
            item = tuple(item)
        line = known(item)
        if line is None:
            line, length = _encode(item, length)
        lines.append(line)
    return b"".join(lines), length


def _status_line(status):
    if not isinstance(status, int):
        raise TypeError("the status must be an int, not %s" % type(status).__name__)
    if not 200 <= status <= 999:
        raise ValueError("the status %d is not between 200 and 999" % status)
    return STATUS_LINES.get(int(status)) or b"Status: %d\r\n" % status


def _encode(item, length):
    """Returns the line of a header, and the Content-Length that holds."""
    try:
        name, value = item
    except ValueError:
        raise TypeError("a header must be a name and a value, not %r" % (item,)) from None
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise TypeError("names and values of headers must be bytes: %r" % (item,))
    if name == b"content-length" and length is None and value.isdigit():  # nearly every answer has one
        return b"Content-Length: %b\r\n" % value, int(value)
    text = value.decode("latin-1")
    lower = _head.check_name(name.decode("latin-1"))
    _head.check_value(lower, text)
    if lower == "content-length":
        return b"Content-Length: %b\r\n" % value, _head.content_length(text, length)
    if lower == "status":
        raise ValueError("the header 'status' is the gateway's; the status goes into http.response.start itself")
    # What belongs to the connection is the gateway's; frameworks set it, for
    # the servers that would use it.
    line = b"" if is_hop_by_hop(lower) else b"%b: %b\r\n" % item
    if len(value) <= _LONGEST and lower != "set-cookie":
        if len(_LINES) >= _CACHED:
            _LINES.clear()
        _LINES[item] = line
    return line, length
