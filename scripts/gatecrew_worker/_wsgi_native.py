"""WSGI with the C extension: the loop and the handler.

Each class is that of the same name with its fields, and what is done with them
for a usual request, in C. Everything else is done by the methods of the
reference: they are the same ones.
"""

import types

from gatecrew_worker import _connection, _speed, _streams, _threads, _wsgi
from gatecrew_worker._interrupt import RequestTimeout

_speed.use(_wsgi._check_status, _wsgi._check_name, _wsgi._close, _wsgi.FileWrapper, _wsgi.Response.start_response)


def serve(app, sock, control, options, started):
    """_wsgi.serve with the classes below."""
    _wsgi.serve(app, sock, control, options, started, Loop, Handler)


def _over(fields, reference):
    """The methods of a class with slots, reference, over the fields of a type
    of the C extension."""
    body = {
        name: value for name, value in vars(reference).items()
        if not isinstance(value, types.MemberDescriptorType) and name not in vars(fields)
    }
    body["__slots__"] = ()
    return type(reference.__name__, (fields,), body)


Response = _over(_speed.Response, _wsgi.Response)
Input = _over(_speed.Input, _streams.Input)
Errors = _over(_speed.Errors, _streams.Errors)


class Connection(_speed.Connection, _connection.Connection):
    def __init__(self, max_requests, ahead=0):
        _connection.Connection.__init__(self, max_requests, ahead, make_request=_speed.Request)


class Loop(_speed.Loop, _threads.Loop):
    """Answers are collected, and sent together: when nothing more can be begun,
    before whatever is sent otherwise, and before anybody waits long for them."""

    connection_type = Connection

    def __init__(self, sock, threads, ahead=0):
        _threads.Loop.__init__(self, sock, threads, ahead)
        self._prepare(self._connection, sock, self._ready, self._lock, self._send_lock, self._blocked, self._idle)

    def _work(self, handle):
        if self.threads > 1:
            _threads.Loop._work(self, handle)
            return
        while True:
            try:
                self._serve(handle)
                return
            except RequestTimeout:  # it came while handle was about to end the request
                if not self._current.ended:
                    self.end(self._current, b"", 1)
            except BaseException as exc:  # not the application's: handle keeps those
                self._fail(exc)

    def _send_or_hold(self, payload, ended=0):
        self._send(payload, ended)

    def _read(self, flags=0):
        self._flush()
        _threads.Loop._read(self, flags)


class Handler(_speed.Handler, _wsgi.Handler):
    def __init__(self, app, loop, root_path=""):
        _wsgi.Handler.__init__(self, app, loop, root_path)
        self._prepare(app, loop, self._root_path, self._base, Response, Input, Errors)

    def _conclude(self, response, *result):
        """Answers with what the application has returned, or ends what has
        been answered, when there is something unusual about it."""
        try:
            if result:
                response.answer(*result)
            else:
                response.finish()
        except BaseException as exc:
            response.fail(exc)
