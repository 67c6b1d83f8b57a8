"""The counterpart of _threads.py: an event loop that has one connection.

The loop reads a block when the socket has something, has it decoded, starts a
task for each request that begins, and wakes what waits for input or credit.
What the tasks send is collected and goes out in one send at the end of the
turn, together with GATECREW_BEGUN, which tells the gateway that the loop turns.

While code of the application holds the loop up, another thread obeys the
gateway's `recall`: it reads what is in the socket in the loop's place, gives
back the requests that the loop has not begun, and leaves everything else to it.

The gateway takes everything that is sent within the windows, whatever else it
does, so that sending may simply block.
"""

import asyncio
import errno
import select
import socket
import sys
from _thread import allocate_lock, get_ident
from collections import deque
from time import perf_counter

from gatecrew_worker import _files
from gatecrew_worker import _records as rec
from gatecrew_worker._connection import INPUT_WINDOW, ClientDisconnected, Connection, Request, held_back
from gatecrew_worker._loader import set_aside

_BLOCK = 65536  # bytes read at once

# STDOUT content of one record, and of one send, as in _threads.py.
_RECORD = 32768
_SEND = 131072

# Seconds that an answer is held back for those of requests that were read
# together with it.
_HELD = 0.001

# A task that starts at once saves a turn of the loop, and nearly all of a
# request that waits for nothing.
_EAGER = sys.version_info >= (3, 12)

_pack_header = rec.HEADER.pack
_pack_end = rec.END.pack


class Wakes:
    """A request that something waits for."""

    __slots__ = ()

    def wake(self):
        """Has all that wait look again."""
        waiters, self.waiters = self.waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class AsyncRequest(Wakes, Request):
    """A request that is a task of the event loop."""

    __slots__ = (
        "task",
        "waiters",  # futures of the ones that wait for input, credit or the abort
        "unsent",  # the parts of the answer that wait for credit, in order; () when there are none
        "feed",  # called when any of these came, before the waiters are woken
        "closed",  # the client's side of a WebSocket
    )

    def __init__(self, request_id, window, role=rec.RESPONDER):
        super().__init__(request_id, window, role)
        self.task = None
        self.waiters = ()
        self.unsent = ()
        self.feed = None
        self.closed = False


class _Part:
    """A part of an answer that waits for credit."""

    __slots__ = ("left", "begun", "waiter")

    def __init__(self, data):
        self.left = memoryview(data)
        self.begun = False
        self.waiter = None  # a future of the one that waits until it is sent

    def settle(self, error=None):
        if self.waiter is not None and not self.waiter.done():
            if error is None:
                self.waiter.set_result(None)
            else:
                self.waiter.set_exception(error)


class Loop:
    """Serves the requests of one connected socket in an event loop.

    concurrency is how many it has at once. new_event_loop makes the event
    loop, when run is called.
    """

    def __init__(self, sock, concurrency, new_event_loop=asyncio.new_event_loop):
        self.event_loop = None
        self.end_of_input = False  # nothing more will arrive
        self._new_event_loop = new_event_loop
        self._sock = sock
        self._connection = self._make_connection(concurrency)
        self._requests = self._connection.requests
        self._lock = allocate_lock()  # guards reading and decoding
        self._ready = {}  # requests that no application code has seen; whoever removes one has it
        self._running = set()  # tasks
        self._handle = None
        self._stopping = False
        self._main = None  # the task of _serve
        self._finished = None  # a future: the end of the input, and of all tasks
        self._failure = None
        self._thread = 0
        # What is to be sent. The event loop appends, whoever has the send lock
        # takes away.
        self._out = []
        self._holding = False  # whoever set it flushes, or has the event loop do it
        self._broken = False  # nothing more can be sent
        self._send_lock = allocate_lock()
        self._told = 0  # the count of the last GATECREW_BEGUN

    def _make_connection(self, concurrency):
        return Connection(concurrency, asynchronous=True, make_request=AsyncRequest)

    # -- The worker's side --------------------------------------------------

    def run(self, handle, lifespan):
        """Has a task await handle(request) for every request, between the
        lifespan's startup and its shutdown, until the gateway, or stop(), ends
        that. Raises the failure that ended it, if any."""
        self._handle = handle
        self._thread = get_ident()
        self.event_loop = event_loop = self._new_event_loop()
        asyncio.set_event_loop(event_loop)
        try:
            self._main = event_loop.create_task(self._serve(lifespan))
            event_loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass  # stopped while it started
        finally:
            try:
                _wind_up(event_loop)
            finally:
                asyncio.set_event_loop(None)
                event_loop.close()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, lifespan):
        if not self._stopping:
            await lifespan.startup()
        set_aside()
        self._finished = self.event_loop.create_future()
        self.event_loop.add_reader(self._sock.fileno(), self._readable)
        if self._stopping:
            self._drain()
        await self._finished
        self.event_loop.remove_reader(self._sock.fileno())
        self._flush()
        await lifespan.shutdown()

    def stop(self):
        """Makes run return once the requests that have begun are answered and
        their tasks have ended.

        Requests that begin later are refused, so that the gateway gives them
        to another worker. May be called from a signal handler, more than once
        and by any thread: takes no lock.
        """
        self._stopping = True
        self._call(self._drain)

    def _call(self, function, *args):
        """Has the event loop call function. For other threads."""
        try:
            if self.event_loop is not None:
                self.event_loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # closed: it is all over

    def _drain(self):
        if self._finished is None:
            self._main.cancel()
            return
        self._connection.draining = True
        self._stop_if_done()

    def _stop_if_done(self):
        if self._connection.draining and not self._requests:
            # What the gateway has sent by now can still be read, and is
            # refused; then the reader sees the end of the stream.
            self._shutdown(socket.SHUT_RD)

    def _shutdown(self, how):
        try:
            self._sock.shutdown(how)
        except OSError:
            pass  # the gateway has gone: the reader sees that by itself

    def requests(self):
        """The requests in progress, those included that have not begun."""
        return self._requests.copy().values()

    def give_back(self):
        """Returns the requests that have not begun to the gateway, which gives
        them to other workers. Called from a thread of its own while the event
        loop is held up, or seems to be."""
        if self._finished is None:
            return  # nothing was read yet, nor asked for
        connection = self._connection
        begun, touched = [], []
        ended = failure = None
        with self._lock:
            # Also those that the gateway sent before it asked.
            while not (self.end_of_input or ended or failure):
                try:
                    ended = not self._read(begun, touched, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except rec.ProtocolError as exc:
                    failure = exc
            for request in begun + list(self._ready):
                if self._ready.pop(request, None):
                    connection.give_back(request)
            reply, connection.reply = connection.reply, b""
        # With what the event loop had no turn to send.
        self._flush(reply)
        self._call(self._recalled, touched, ended, failure)

    def _recalled(self, touched, ended, failure):
        for request in touched:
            self._touch(request)
        if failure is not None:
            self.fail(failure)
        elif ended:
            self._set_end_of_input()
        self._told = -1  # the gateway waits for it
        self._release_soon()
        self._stop_if_done()

    # -- Reading ------------------------------------------------------------

    def _read(self, begun, touched, flags=0):
        """Takes in a block; False at the end of the stream. The lock is held
        by the caller. Raises BlockingIOError and ProtocolError."""
        try:
            data = self._sock.recv(_BLOCK, flags)
        except BlockingIOError:
            raise
        except OSError:
            return False  # a reset: the gateway has gone
        if not data:
            return False
        new, given = self._connection.receive(data)
        for request in new:
            self._ready[request] = request
        begun += new
        touched += given
        return True

    def _readable(self):
        connection = self._connection
        begun, touched = [], []
        with self._lock:
            try:
                more = self._read(begun, touched, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return  # the other thread was quicker
            except rec.ProtocolError as exc:
                self.fail(exc)
                return
            reply, connection.reply = connection.reply, b""
        if reply:
            self._send(reply)
        for request in touched:
            self._touch(request)
        if begun:
            if _EAGER:
                self._start(begun)
            else:
                create_task, handle, running = self.event_loop.create_task, self._handle, self._running
                for request in begun:
                    request.task = task = create_task(handle(request))
                    running.add(task)
        if connection.seen != self._told:
            self._release_soon()
        if not more:
            self._set_end_of_input()
        if reply:
            self._stop_if_done()  # a refusal may have been all that was left

    def _start(self, begun):
        """Runs the requests to where they wait, or end."""
        event_loop, handle = self.event_loop, self._handle
        holding, self._holding = self._holding, True
        since = perf_counter()
        for request in begun:
            task = asyncio.Task(handle(request), loop=event_loop, eager_start=True)
            if not task.done():
                self._running.add(task)
            now = perf_counter()
            if now - since > _HELD:
                since = now
                self._flush()
        self._holding = holding
        if not holding:
            self._release()

    def _touch(self, request):
        if request.feed is not None:
            request.feed()
        if request.unsent:
            self._write_unsent(request)
        if request.waiters:
            request.wake()

    def fail(self, exc):
        """Ends the worker because of exc, which no application raised."""
        if self._failure is None:
            self._failure = exc
        self._broken = True
        self._shutdown(socket.SHUT_RDWR)
        self._ready.clear()
        for task in self._running.copy():
            task.cancel()
            task.add_done_callback(self._lost)  # one that hasn't begun never calls done()
        self._set_end_of_input()

    def _lost(self, task):
        self._running.discard(task)
        self._finish_if_done()

    def _set_end_of_input(self):
        """Nothing more will arrive: everybody who waits is told."""
        if self.end_of_input:
            return
        self.end_of_input = True
        self.event_loop.remove_reader(self._sock.fileno())
        for request in self.requests():
            self._touch(request)
        self._finish_if_done()

    def _finish_if_done(self):
        if self.end_of_input and not self._running and not self._finished.done():
            self._finished.set_result(None)

    # -- What a request does ------------------------------------------------

    def take(self, request):
        """Whether the request is to be handled: not, when it was given back or
        has been aborted."""
        if self._ready.pop(request, None) is None:
            return False
        if request.aborted:
            self.end(request, 1)
            return False
        if request.task is None:  # it runs before whoever starts it has it
            request.task = asyncio.current_task()
        request.thread = self._thread
        request.guarded = False
        return True

    def done(self, request):
        """To be called when the task of a request is about to end."""
        self._running.discard(request.task or asyncio.current_task())
        # Its context refers to the request: without this, only the collector
        # of cycles would free them.
        request.task = None
        if self.end_of_input:
            self._finish_if_done()

    def gone(self, request):
        """Whether nobody wants the request's answer, and no input will come."""
        return request.aborted or request.closed or self.end_of_input or self._broken

    def wait(self, request):
        """Returns a future that is done when something has come for the
        request, or its end has."""
        waiter = self.event_loop.create_future()
        request.waiters = [w for w in request.waiters if not w.done()] + [waiter]
        return waiter

    def ask(self, request):
        """Asks for a body that is held back."""
        if self._connection.flow and held_back(request):
            request.input_granted += 1
            self._send(rec.credit(request.id, 1))

    def grant(self, request, read):
        """Grants input, when so many bytes of it have been consumed."""
        if self._connection.flow and not request.input_ended and not request.ended:
            # Granted together once half of the window has been consumed.
            increment = read + INPUT_WINDOW - request.input_granted
            if increment >= INPUT_WINDOW // 2:
                request.input_granted += increment
                self._send(rec.credit(request.id, increment))

    def write_soon(self, request, data):
        """Sends a part of the answer that others follow, if there is leave for
        all of it; otherwise does nothing and returns False."""
        size = len(data)
        if size > _RECORD or size > request.granted - request.sent or request.unsent or request.aborted or request.ended or self._broken:
            return False
        request.sent += size
        self._send(_pack_header(1, 6, request.id, size, 0) + data)
        return True

    def end_soon(self, request, data):
        """The same for the last part of an answer that is complete."""
        size = len(data)
        if size > _RECORD or size > request.granted - request.sent or request.unsent or request.aborted or request.ended or self._broken:
            return False
        request.sent += size
        if size:  # an empty record would be an end of its own
            self._close(request, _pack_header(1, 6, request.id, size, 0) + data + _pack_end(1, 3, request.id, 8, 0, 0, 0))
        else:
            self.end(request)
        return True

    async def write(self, request, data):
        """Sends a part of the answer, when there is leave, behind those that
        other tasks have still to send. Raises ClientDisconnected when nobody
        wants it. Who is cancelled has sent nothing; but a part that has begun
        is sent whole, since the next one can't stand in the middle of it."""
        part = _Part(data)
        if not request.unsent:
            request.unsent = deque()
        request.unsent.append(part)
        part.waiter = waiter = self.event_loop.create_future()
        self._write_unsent(request)
        try:
            await waiter
        finally:
            if not part.begun and part in request.unsent:
                request.unsent.remove(part)
            # Its exception refers to this frame: what the application holds
            # would wait for the collector of cycles, a generator for its end.
            part.waiter = waiter = None

    def _write_unsent(self, request):
        """Sends what waits for credit, as far as there is some."""
        unsent = request.unsent
        while unsent:
            room = min(request.granted - request.sent, _SEND)
            if request.aborted or request.closed or request.ended or self._broken or (room <= 0 and self.end_of_input):
                while unsent:
                    unsent.popleft().settle(ClientDisconnected("the client went away"))
                return
            part = unsent[0]
            left = part.left
            if room <= 0 and left:
                return
            part.begun = True
            stop = min(len(left), room)
            request.sent += stop
            pieces = []
            for pos in range(0, stop, _RECORD):
                piece = left[pos:min(pos + _RECORD, stop)]
                pieces += (_pack_header(1, 6, request.id, len(piece), 0), piece)
            if pieces:
                self._send(b"".join(pieces))
            part.left = left[stop:]
            if stop == len(left):
                unsent.popleft().settle()

    def send_file(self, request, fd, offset, length):
        """Hands length bytes of an open regular file to the gateway, which
        sends them behind what was written, and in place of anything more.
        The file's offset must be nobody else's; fd may be closed afterwards.
        Raises ClientDisconnected when nobody wants it, and another OSError
        when fd can't be handed over: then nothing was sent."""
        if not self._connection.flow:
            raise OSError(errno.ENOTSUP, "the gateway takes no files")
        self._flush()  # what the file follows
        if request.aborted or request.ended or self._broken:
            raise ClientDisconnected("the client went away")
        with self._send_lock:
            self._await_room()
            try:
                _files.send(self._sock, request.id, fd, offset, length)
            except OSError as exc:
                if exc.errno in _files.NOT_SENT:
                    raise
                self._broken = True  # the gateway has gone: the reader sees it too

    def send_trailers(self, request, lines):
        """Sends what follows the body, encoded as a head is."""
        if self._connection.flow and not (request.aborted or request.ended):
            self._send(rec.record(rec.TRAILERS, request.id, lines))

    def end(self, request, app_status=0):
        """Ends the answer."""
        if not request.ended:
            self._close(request, rec.end_request(request.id, app_status))

    def write_errors(self, request, text):
        """Sends diagnostics of a request, to the log of this process when the
        request has ended."""
        if request.ended:
            sys.stderr.write(text)
            return
        data = text.encode("utf-8", "backslashreplace")
        for start in range(0, len(data), _RECORD):
            self._send(rec.record(rec.STDERR, request.id, data[start:start + _RECORD]))

    # -- Sending ------------------------------------------------------------

    def _close(self, request, payload):
        """Sends the payload that ends a request. The id is given back first:
        the gateway may use it again as soon as it has the payload."""
        request.ended = True
        self._requests.pop(request.id, None)
        self._send(payload)
        if request.unsent:
            self._write_unsent(request)
        if request.waiters:
            request.wake()
        if self._connection.draining:
            self._stop_if_done()

    def _send(self, payload):
        self._out.append(payload)
        if not self._holding:
            self._release_soon()

    def _release_soon(self):
        if not self._holding:
            self._holding = True
            self.event_loop.call_soon(self._release)

    def _release(self):
        """Sends what was held, and tells that the loop turns."""
        self._holding = False
        count = self._connection.seen
        if count != self._told:
            self._told = count
            if self._connection.flow:
                self._out.append(rec.begun(count))
        self._flush()

    def _flush(self, more=b""):
        out = self._out
        with self._send_lock:
            count = len(out)  # more may be appended at any time, behind these
            if not count and not more:
                return
            payload = out[0] + more if count == 1 else b"".join(out[:count]) + more
            del out[:count]
            try:
                view = memoryview(payload)
                while view:
                    try:
                        view = view[self._sock.send(view):]
                    except BlockingIOError:
                        self._await_room()
            except OSError:
                self._broken = True  # the gateway has gone: the reader sees it too

    def _await_room(self):
        """Waits until the socket takes something. uvloop makes each socket that
        it watches a non-blocking one, behind the back of Python's."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        poll.poll()


def _wind_up(event_loop):
    """What asyncio.run does before it closes its loop."""
    tasks = asyncio.all_tasks(event_loop)
    for task in tasks:
        task.cancel()
    if tasks:
        event_loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    event_loop.run_until_complete(event_loop.shutdown_asyncgens())
    if hasattr(event_loop, "shutdown_default_executor"):  # since Python 3.9
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
