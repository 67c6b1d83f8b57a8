"""WSGI (PEP 3333): a request's parameters to environ, an application's answer
to a CGI response."""

import os
import re
import sys
from _thread import get_ident
from wsgiref.util import is_hop_by_hop

from gatecrew_worker import _connection, _head, _stacks
from gatecrew_worker._loader import set_aside
from gatecrew_worker._records import decode_pairs
from gatecrew_worker._streams import Errors, FileWrapper, Input
from gatecrew_worker._threads import Loop

_STATUS = re.compile(r"[2-9][0-9][0-9] [\t\x20-\x7e\x80-\xff]*")


# Requests that are taken beside those that can be started. The gateway sends
# them only while this worker is quick, and they come with fewer wake-ups.
_AHEAD = 31


# Whose answers may be held back, and before whom others may be: should this process die
# meanwhile, the gateway can't tell whether the application has begun with one of these, and
# may have it run again.
_HELD_METHODS = ("GET", "HEAD")


class Handler:
    """Runs one application for the requests of a loop."""

    def __init__(self, app, loop, root_path=""):
        self._app = app
        self._loop = loop
        self._root_path = root_path.rstrip("/")
        self._base = {
            "SCRIPT_NAME": "",
            "PATH_INFO": "",
            "QUERY_STRING": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.multithread": loop.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.early_hints": self.early_hints,
        }

    def __call__(self, request):
        """Answers one request, whatever the application does."""
        environ = self._environ(request)
        method = environ.get("REQUEST_METHOD")
        if method not in _HELD_METHODS:
            self._loop.hold_nothing()
        response = Response(self._loop, request, environ["wsgi.errors"], method == "HEAD")
        try:
            response.answer(self._app(environ, response.start_response))
        except BaseException as exc:
            # SystemExit and KeyboardInterrupt as well (gunicorn ends the
            # worker): they end the request of whoever raised them, not the
            # ones of its neighbours.
            response.fail(exc)

    def early_hints(self, headers):
        """wsgi.early_hints, as gunicorn has it: sends an interim response 103
        with a list of headers, names and values str or bytes. It does nothing
        once the answer has begun, and outside of the request's own thread.
        Raises ValueError for what can't be a header."""
        me = get_ident()
        for request in self._loop.requests():
            hinted = getattr(request, "hinted", 0)
            if request.thread == me and request.sent == hinted:
                data = _encode_hints(headers)
                request.hinted = hinted + len(data)
                self._loop.write(request, data)

    def _environ(self, request):
        environ = self._base.copy()
        decode_pairs(request.params, environ)
        environ.pop("HTTP_PROXY", None)  # CVE-2016-5385; the gateway sends none
        if environ.get("REQUEST_SCHEME") == "https" or environ.get("HTTPS") in ("on", "1"):
            environ["wsgi.url_scheme"] = "https"
        if self._root_path:
            self._mount(environ)
        environ["wsgi.input"] = Input(self._loop, request)
        environ["wsgi.errors"] = Errors(self._loop, request)
        return environ

    def _mount(self, environ):
        root = self._root_path
        if not environ["SCRIPT_NAME"]:
            environ["SCRIPT_NAME"] = root
            path = environ["PATH_INFO"]
            if path == root or path.startswith(root + "/"):
                environ["PATH_INFO"] = path[len(root):]


def serve(app, sock, control, options, started, loop_type=Loop, handler_type=Handler):
    """Serves an application until the gateway, or SIGTERM, ends that. started
    is called with the loop and control before the first request."""
    set_aside()
    loop = loop_type(sock, options.threads, 0 if control is None else _AHEAD)
    started(loop, control)
    loop.run(handler_type(app, loop, options.root_path))


class Response:
    """The answer to one request: start_response, write, and its end."""

    __slots__ = ("_loop", "_request", "_errors", "_is_head", "_head", "_head_sent", "_body_allowed", "_length", "_written")

    def __init__(self, loop, request, errors, is_head):
        self._loop = loop
        self._request = request
        self._errors = errors
        self._is_head = is_head
        self._head = None  # encoded, without the empty line that ends it
        self._head_sent = False
        self._body_allowed = True  # by the status
        self._length = None  # the application's Content-Length
        self._written = 0  # bytes of body the application has given

    # -- The application's side ---------------------------------------------

    def start_response(self, status, headers, exc_info=None):
        """PEP 3333, "The start_response() Callable". Raises AssertionError,
        TypeError or ValueError when the application breaks its rules."""
        if exc_info:
            try:
                if self._head_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame
        elif self._head is not None:
            raise AssertionError("start_response() was called a second time without exc_info")
        head, length = _encode_head(status, headers)
        self._head = head
        self._length = length
        self._body_allowed = status[:3] not in ("204", "304")
        return self.write

    def write(self, data):
        """The write() callable. What it is given is sent before it returns."""
        if not isinstance(data, bytes):
            raise TypeError("the body must be bytes, not %s" % type(data).__name__)
        if self._head is None:
            raise AssertionError("the body began before start_response() was called")
        if not data:
            return
        data = self._clip(data)
        if not self._head_sent:
            data = b"%b\r\n%b" % (self._head, data)
            self._head_sent = True
        if data:
            self._loop.write(self._request, data, self._written == self._length)

    # -- The handler's side -------------------------------------------------

    def answer(self, result):
        """Answers with what the application has returned."""
        kind = type(result)
        if kind is list or kind is tuple:
            # All of it is there, and there is no close(): one send.
            self.finish(result[0] if len(result) == 1 else b"".join(result), len(result) == 1)
            return
        try:
            self.write_all(result)
        finally:
            _close(result, self._errors)
        self.finish()

    def write_all(self, result):
        if type(result) is FileWrapper and self._send_file(result):
            return
        for chunk in result:
            if chunk or type(chunk) is not bytes:
                self.write(chunk)

    def _send_file(self, wrapper):
        """Has the gateway send a file. False when it is to be read instead."""
        if self._head is None:
            return False  # which is found out there
        if self._is_head or not self._body_allowed or self._length is not None and self._written >= self._length:
            return True  # it would be read for nothing
        opened = wrapper.reopen()
        if opened is None:
            return False
        fd, offset, length = opened
        try:
            if self._length is not None:
                length = min(length, self._length - self._written)
            if not self._head_sent:
                self._head_sent = True
                if self._length is None:
                    self._length = length
                    self._head += b"Content-Length: %d\r\n" % length
                self._loop.write(self._request, self._head + b"\r\n")
            try:
                self._loop.send_file(self._request, fd, offset, length)
            except _connection.ClientDisconnected:
                raise
            except OSError:
                return False  # the descriptor could not be handed over
            self._written += length
        finally:
            os.close(fd)
        return True

    def finish(self, data=b"", whole=False):
        """Ends the answer, with the last part of its body. whole says that
        data is the one element of the application's result, whose length may
        then be made known."""
        if type(data) is not bytes and not isinstance(data, bytes):
            raise TypeError("the body must be bytes, not %s" % type(data).__name__)
        if self._head is None:
            raise AssertionError("the application returned without having called start_response()")
        size = len(data)
        data = self._clip(data)
        status = 0
        if not self._head_sent:
            # The body of a HEAD is often left out; then its length is unknown.
            if whole and self._length is None and self._body_allowed and (size or not self._is_head):
                data = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, size, data)
            else:
                data = b"%b\r\n%b" % (self._head, data)
            self._head_sent = True
        if (self._length is not None and self._written < self._length and self._body_allowed and not self._is_head
                and not _head.names_file(self._head)):
            self._log("the answer is incomplete: %d bytes of a Content-Length of %d" % (self._written, self._length))
            status = 1
        self._errors.flush()
        self._loop.end(self._request, data, status)

    def fail(self, exc):
        """Ends the answer after an exception: with a 500 as long as nothing
        was sent, as an incomplete one otherwise."""
        gone = isinstance(exc, _connection.ClientDisconnected)
        if self._request.interruption is not None:
            # Its client has its answer, and its errors go nowhere.
            sys.stderr.write("gatecrew: request %s was interrupted: %s\n" % (
                _stacks.params(self._request).get("UNIQUE_ID", ""), self._request.interruption.reason))
            gone = True
        elif not gone:
            self._log("the application failed", exc)
        self._errors.flush()
        if gone or self._head_sent:
            self._loop.end(self._request, b"", 1)
        else:
            self._loop.end(self._request, _head.internal_error(self._is_head))

    def _clip(self, data):
        """Counts data, and returns what of it may be sent."""
        before = self._written
        self._written = before + len(data)
        if self._is_head or not self._body_allowed:
            return b""
        length = self._length
        if length is None or self._written <= length:
            return data
        if before <= length:  # said once
            self._log("the body is longer than its Content-Length of %d; the rest is dropped" % length)
        return data[:max(0, length - before)]

    def _log(self, message, exc=None):
        _log(self._errors, message, exc)


def _close(result, errors):
    """Calls close() of the application's result, if it has one. The answer is
    what it is by then, so that an exception is logged only."""
    close = getattr(result, "close", None)
    if close is not None:
        try:
            close()
        except BaseException as exc:
            _log(errors, "close() of the application's result failed", exc)


def _log(errors, message, exc=None):
    errors.write(_stacks.failure(message, exc))


# -- The head ---------------------------------------------------------------

_STATUS_LINES = {}  # status -> its line; applications use few
_NAMES = {}  # header name as the application spells it -> lower case
_CACHED = 1000  # entries of each, for the ones that use many


def _encode_head(status, headers):
    """Returns the head, without the empty line that ends it, and the value of
    Content-Length or None."""
    try:
        line = _STATUS_LINES.get(status) or _check_status(status)
        if not isinstance(headers, list):
            raise TypeError("the headers must be a list, not %s" % type(headers).__name__)
        lines = [line]
        length = None
        for item in headers:
            name, value = item
            lower = _NAMES.get(name) or _check_name(name)
            if not value.isprintable():
                _head.check_value(name, value)
            if lower == "content-length":
                length = _head.content_length(value, length)
            lines.append("%s: %s\r\n" % item)
        return "".join(lines).encode("latin-1"), length
    except (TypeError, AttributeError, ValueError) as exc:
        raise _explain(status, headers, exc) from None


def _encode_hints(headers):
    lines = ["Status: 103 Early Hints\r\n"]
    for item in headers:
        name, value = (part.decode("latin-1") if isinstance(part, bytes) else part for part in item)
        if _check_name(name) != "content-length":
            _head.check_value(name, value)
            lines.append("%s: %s\r\n" % (name, value))
    return ("".join(lines) + "\r\n").encode("latin-1")


def _check_status(status):
    if not isinstance(status, str):
        raise TypeError("the status must be a str, not %s" % type(status).__name__)
    if not _STATUS.fullmatch(status):
        raise ValueError("the status %r is not of the form '200 OK'" % status)
    line = "Status: %s\r\n" % status
    if len(_STATUS_LINES) < _CACHED:
        _STATUS_LINES[status] = line
    return line


def _check_name(name):
    lower = _head.check_name(name)
    if is_hop_by_hop(lower):
        raise ValueError("the header %r belongs to the connection, which is the gateway's" % name)
    if lower == "status":
        raise ValueError("the header 'Status' is the gateway's; the status goes into start_response's first argument")
    if len(_NAMES) < _CACHED:
        _NAMES[name] = lower
    return lower


def _explain(status, headers, exc):
    """The clearest form of the exception exc that _encode_head met."""
    if isinstance(headers, list):
        for item in headers:
            if not (isinstance(item, tuple) and len(item) == 2):
                return TypeError("a header must be a tuple of a name and a value, not %r" % (item,))
            for part in item:
                if not isinstance(part, str):
                    return TypeError("names and values of headers must be str: %r" % (item,))
                try:
                    part.encode("latin-1")
                except UnicodeEncodeError:
                    return ValueError("a header has characters outside latin-1: %r" % (item,))
    return exc
