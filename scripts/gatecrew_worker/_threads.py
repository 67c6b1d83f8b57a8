"""The connection of a worker for WSGI: n threads that share it.

Leader and followers, without a hand-over of requests: one thread at a time
has the read role. It reads a large block, has all of it decoded, and as soon
as there is a request for it gives up the role and runs that request itself.
Another thread is woken for the role only when one is waiting, so that a
worker with a single thread reads, runs and sends without any other thread.

A thread that waits for a request body, or for leave to send, waits in the
same way: it reads for everybody when the role is free, else it sleeps until
the reader brings what it waits for. So there is always a reader as long as
anybody waits.

The gateway takes everything that is sent within the windows, whatever else it
does, so that sending may simply block.
"""

import errno
import socket
import sys
import threading
import time
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from time import monotonic_ns

from gatecrew_worker import _files
from gatecrew_worker import _records as rec
from gatecrew_worker import _stacks
from gatecrew_worker._connection import INPUT_WINDOW, ClientDisconnected, Connection, held_back
from gatecrew_worker._interrupt import RequestTimeout

_BLOCK = 65536  # bytes read at once

# STDOUT content of one record, and of one send. A divisor of usual windows,
# so that none of them ends in a crumb.
_RECORD = 32768
_SEND = 131072

# A single thread that has more requests to answer holds its answers back, up to so
# many bytes and nanoseconds, and sends them together: a send costs it, and the
# gateway that it wakes, as much as a small request. Another thread looks every
# _WATCH_TIME whether the application keeps them from their clients for longer, and
# sleeps when it has seen none _WATCH_ROUNDS times.
_HELD_BYTES = 131072
_HELD_TIME = 1_000_000
_WATCH_TIME = 5_000_000
_WATCH_ROUNDS = 10

# How long, in nanoseconds, a thread that writes an answer trusts that there is nothing to read.
_LOOK_TIME = 1_000_000

_pack_header = rec.HEADER.pack


class Loop:
    """Serves the requests of one connected socket with a number of threads."""

    connection_type = Connection

    def __init__(self, sock, threads, ahead=0):
        self.threads = threads
        self._sock = sock
        self._connection = self.connection_type(threads, ahead)
        self._ready = deque()  # requests that nobody runs yet
        self._lock = allocate_lock()  # guards the state below, and decoding
        self._reading = False  # somebody has the read role
        self._looked = 0  # when somebody read last
        self._idle = []  # locks of the threads that wait for a request
        self._blocked = []  # (request, lock) of the ones that wait inside one
        self._end_of_input = False  # nothing more will arrive
        self._broken = False  # nothing more can be sent
        self._failure = None
        self._send_lock = allocate_lock()  # one send at a time
        self._ended = 0  # requests whose END_REQUEST is out
        self._holder = None  # the thread that may hold its request's answer back
        self._held = deque()  # they
        self._held_bytes = 0
        self._held_since = 0  # when the request of the first one began; 0 when there is none
        self._now = 0  # when the one in progress began
        self._wake = allocate_lock()  # of _watch, taken while there is nothing to look at
        self._wake.acquire()
        self._watched = self._unwatched = False  # it is awake; it is to end

    # -- The worker's side --------------------------------------------------

    def run(self, handle):
        """Calls handle(request) for every request until the gateway, or
        stop(), ends that. Raises the failure that ended it, if any."""
        others = [
            threading.Thread(target=self._work, args=(handle,), name="gatecrew-%d" % (n + 1))
            for n in range(1, self.threads)
        ]
        try:
            for thread in others:
                thread.start()
            if self.threads == 1:
                start_new_thread(self._watch_beside, ())
            self._work(handle)
        except BaseException as exc:  # no thread can be had, a signal handler of the application raised
            self._fail(exc)
        self._unwatch()
        for thread in others:
            if thread.ident:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def stop(self):
        """Makes run return once the requests that have begun are answered.

        Requests that begin later are refused, so that the gateway gives them
        to another worker. May be called from a signal handler, more than once
        and by any thread: takes no lock.
        """
        self._connection.draining = True
        self._stop_if_done()

    def _stop_if_done(self):
        if self._connection.draining and self._connection.begun == self._ended:
            # What the gateway has sent by now can still be read, and is
            # refused; then the reader sees the end of the stream.
            self._shutdown(socket.SHUT_RD)

    def _shutdown(self, how):
        try:
            self._sock.shutdown(how)
        except OSError:
            pass  # the gateway has gone: the reader sees that by itself

    def give_back(self):
        """Returns the requests that have not been started to the gateway,
        which gives them to other workers. Called from a thread of its own
        while all others are busy."""
        self._flush()  # the thread that has held answers back is busy
        connection = self._connection
        with self._lock:
            # Also those that the gateway sent before it asked.
            while not self._reading and not self._end_of_input:
                before = len(self._ready)
                self._read(socket.MSG_DONTWAIT)
                if len(self._ready) == before:
                    break
            while True:
                try:
                    request = self._ready.pop()
                except IndexError:  # also when the C extension, which takes no lock for it, was quicker
                    break
                connection.give_back(request)
            reply, connection.reply = connection.reply, b""
            if reply:
                self._send(reply)
                self._stop_if_done()
            self._pass_on()

    def requests(self):
        """The requests in progress, those included that nobody has started."""
        return self._connection.requests.copy().values()

    def _work(self, handle):
        me = get_ident()
        while True:
            with self._lock:
                if not self._ready:
                    self._wait(self._has_work)
                if not self._ready:
                    return
                request = self._ready.popleft()
                self._pass_on()
            if request.aborted:
                self.end(request, b"", 1)
                continue
            if self.threads == 1:
                self._holder = me
            self._now = request.began = monotonic_ns()
            request.thread = me
            try:
                request.guarded = False
                handle(request)
            except RequestTimeout:  # it came while handle was about to end the request
                if not request.ended:
                    self.end(request, b"", 1)
            except BaseException as exc:  # not the application's: handle keeps those
                self._fail(exc)
            if self._held_since and monotonic_ns() - self._held_since > _HELD_TIME:
                self._flush()

    def _has_work(self, _):
        return self._ready or self._end_of_input

    def _fail(self, exc):
        """Ends the worker because of exc."""
        self._flush()
        with self._lock:
            self._set_failure(exc)
        self._shutdown(socket.SHUT_RDWR)

    # -- The read role. The lock is held by the callers of these ------------

    def _wait(self, satisfied, request=None):
        """Returns when satisfied(request), having read for everybody or slept.
        Whoever calls it passes the role on afterwards."""
        try:
            while not satisfied(request):
                if self._reading:
                    self._sleep(request)
                    continue
                self._read()
                if self._ready and self._idle and request is not None:
                    self._idle.pop().release()
        except BaseException:  # a signal handler of the application raised
            self._pass_on()
            raise

    def _sleep(self, request):
        wake = allocate_lock()
        wake.acquire()
        waiting, entry = (self._idle, wake) if request is None else (self._blocked, (request, wake))
        waiting.append(entry)
        self._lock.release()
        try:
            wake.acquire()
        finally:
            self._lock.acquire()
            if entry in waiting:  # not woken, but interrupted
                waiting.remove(entry)

    def _pass_on(self):
        """Wakes a thread for what the caller leaves behind: a request, or the
        read role. The woken one does the same before it leaves."""
        if self._idle and (self._ready or not self._reading):
            self._idle.pop().release()
        elif self._blocked and not self._reading:
            self._blocked.pop()[1].release()

    def _read(self, flags=0):
        if self._held:
            self._flush()
        self._reading = True
        self._looked = monotonic_ns()
        self._lock.release()
        try:
            data = self._sock.recv(_BLOCK, flags)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""  # a reset: the gateway has gone
        finally:
            self._lock.acquire()
            self._reading = False
        if data:
            self._deliver(data)
        elif data is not None:
            self._set_end_of_input()

    def _deliver(self, data):
        try:
            begun, touched = self._connection.receive(data)
        except rec.ProtocolError as exc:
            self._set_failure(exc)
        else:
            self._take_in(begun, touched)

    def _take_in(self, begun, touched):
        connection = self._connection
        if begun:
            self._ready.extend(begun)
        if touched and self._blocked:
            for entry in self._blocked[:]:
                if entry[0] in touched:
                    self._blocked.remove(entry)
                    entry[1].release()
        if connection.reply:
            reply, connection.reply = connection.reply, b""
            self._send(reply)
            self._stop_if_done()  # a refusal may have been all that was left

    def _set_failure(self, exc):
        if self._failure is None:
            self._failure = exc
        self._broken = True
        self._ready.clear()
        self._set_end_of_input()

    def _set_end_of_input(self):
        """Nothing more will arrive: everybody who waits is told."""
        self._end_of_input = True
        for wake in self._idle:
            wake.release()
        for _, wake in self._blocked:
            wake.release()
        self._idle.clear()
        self._blocked.clear()

    # -- What a running request does ----------------------------------------
    #
    # Each of these is guarded against the exception that interrupts a request,
    # see _interrupt.py: it must find no lock taken and no record half sent.

    def _guard(self, request):
        """Begins to guard. False when there is no need to: an application may
        have threads of its own, which are never interrupted."""
        if request.thread != get_ident():
            return False
        request.guarded = True
        if request.interruption is not None:
            request.interruption.settle()
        return True

    def read_input(self, request):
        """Returns the next piece of the request's body, b"" at its end.
        Raises ClientDisconnected when the rest will never arrive."""
        guarded = self._guard(request)
        try:
            return self._read_input(request)
        finally:
            if guarded:
                request.guarded = False

    def _read_input(self, request):
        chunks = request.input
        if not chunks:
            if request.input_ended or request.ended:
                return b""
            if self._connection.flow and held_back(request):
                request.input_granted += 1
                self._send(rec.credit(request.id, 1))
            with self._lock:
                self._wait(self._has_input, request)
                self._pass_on()
            if not chunks:
                if request.input_ended:
                    return b""
                raise ClientDisconnected("the client went away before the end of its request body")
        chunk = chunks.popleft()
        request.input_read += len(chunk)
        if self._connection.flow and not request.input_ended and not request.ended:
            # Granted together once half of the window has been consumed.
            increment = request.input_read + INPUT_WINDOW - request.input_granted
            if increment >= INPUT_WINDOW // 2:
                request.input_granted += increment
                self._send(rec.credit(request.id, increment))
        return chunk

    def _has_input(self, request):
        return request.input or request.input_ended or request.aborted or self._end_of_input

    def write(self, request, data, whole=False):
        """Sends a part of the answer. whole says that its body is complete, so that it
        may be held back until its end.
        Raises ClientDisconnected when nobody wants it."""
        guarded = self._guard(request)
        try:
            if request.sent and monotonic_ns() - self._looked > _LOOK_TIME:
                # An application that only ever writes learns here that its
                # client has gone.
                with self._lock:
                    if not self._reading and not self._end_of_input:
                        self._read(socket.MSG_DONTWAIT)
                        self._pass_on()
            self._send_output(request, data, b"", whole)
        finally:
            if guarded:
                request.guarded = False

    def send_file(self, request, fd, offset, length):
        """Hands length bytes of an open regular file to the gateway, which
        sends them behind what was written, and in place of anything more.
        The file's offset must be nobody else's; fd may be closed afterwards.
        Raises ClientDisconnected when nobody wants it, and another OSError
        when fd can't be handed over: then nothing was sent."""
        guarded = self._guard(request)
        try:
            if request.aborted or request.ended or self._broken:
                raise ClientDisconnected("the client went away")
            if not self._connection.flow:
                raise OSError(errno.EOPNOTSUPP, "the other side knows no files")
            with self._send_lock:
                try:
                    _files.send(self._sock, request.id, fd, offset, length)
                except OSError as exc:
                    if exc.errno in _files.NOT_SENT:
                        raise
                    self._broken = True  # the gateway has gone: the reader sees it too
        finally:
            if guarded:
                request.guarded = False

    def end(self, request, data=b"", app_status=0):
        """Sends the last part of the answer and its end."""
        request.guarded = True  # for good: its thread will be at another request
        if request.interruption is not None:
            request.interruption.settle()
        tail = rec.end_request(request.id, app_status, worked=self._worked(request))
        if data:
            try:
                self._send_output(request, data, tail)
                return
            except ClientDisconnected:
                tail = rec.end_request(request.id, 1, worked=self._worked(request))
        self._finish(request, tail)

    def _worked(self, request):
        """How long the request has been in progress, in microseconds, at least 1: the
        gateway, which may be late itself, can't tell. 0 when nobody asks."""
        if not request.began or not self._connection.flow:
            return 0
        return (monotonic_ns() - request.began) // 1000 + 1

    def write_errors(self, request, data):
        """Sends diagnostics of a request, to the log of this process when the
        request has ended."""
        if request.ended:
            sys.stderr.write(data.decode("utf-8"))
            return
        guarded = self._guard(request)
        try:
            for start in range(0, len(data), _RECORD):
                self._send(rec.record(rec.STDERR, request.id, data[start:start + _RECORD]))
        finally:
            if guarded:
                request.guarded = False

    def _send_output(self, request, data, tail, whole=False):
        size = len(data)
        if request.aborted or request.ended or self._broken:
            raise ClientDisconnected("the client went away")
        if size <= _RECORD and size <= request.granted - request.sent:
            request.sent += size
            payload = _pack_header(1, 6, request.id, size, 0) + data + tail
            if tail:
                self._finish(request, payload)
            elif whole:
                self._send_or_hold(payload)
            else:
                self._send(payload)
            return
        view = memoryview(data)
        pos = 0
        while pos < size:
            room = min(request.granted - request.sent, _SEND)
            if room <= 0:
                self._await_credit(request)
                continue
            stop = min(size, pos + room)
            request.sent += stop - pos
            parts = []
            while pos < stop:
                n = min(stop - pos, _RECORD)
                parts += (_pack_header(1, 6, request.id, n, 0), view[pos:pos + n])
                pos += n
            if pos == size and tail:
                parts.append(tail)
                self._finish(request, b"".join(parts))
            else:
                self._send_parts(parts)

    def _await_credit(self, request):
        with self._lock:
            self._wait(self._has_credit, request)
            self._pass_on()
        if request.aborted or request.granted <= request.sent:
            raise ClientDisconnected("the client went away")

    def _has_credit(self, request):
        return request.granted > request.sent or request.aborted or self._end_of_input

    # -- Sending ------------------------------------------------------------

    def _finish(self, request, payload):
        """Sends the payload that ends a request. The id is given back first:
        the gateway may use it again as soon as it has the payload."""
        request.ended = True
        self._connection.requests.pop(request.id, None)
        self._send(payload, 1)
        if self._connection.draining:
            self._stop_if_done()

    def _send(self, payload, ended=0):
        """Sends the payload, behind what is held back, unless it may be held back
        itself because it ends a request."""
        if ended:
            self._send_or_hold(payload, ended)
        else:
            self._flush(payload)

    def hold_nothing(self):
        """Sends the answers that are held back, and that of the request in progress
        as soon as it is there. For a request that may be run once only, before its
        application is called."""
        self._holder = None
        self._flush()

    def _send_parts(self, parts):
        """Sends a large payload without copying it."""
        self._flush()
        with self._send_lock:
            try:
                sent = self._sock.sendmsg(parts)
                if sent < sum(map(len, parts)):  # a signal came
                    self._sock.sendall(memoryview(b"".join(parts))[sent:])
            except OSError:
                self._broken = True  # the gateway has gone: the reader sees it too

    def _send_or_hold(self, payload, ended=0):
        if self._holder != get_ident() or len(payload) > _RECORD:
            self._flush(payload, ended)
            return
        self._held.append((payload, ended))
        self._held_bytes += len(payload)
        if self._held_bytes > _HELD_BYTES:
            self._flush()
        elif not self._held_since:
            self._held_since = self._now
            if not self._watched:
                self._wake_watch()

    def _flush(self, payload=b"", ended=0):
        held = self._held
        with self._send_lock:
            # Before they are taken: their thread may add one at any moment, which is
            # then noted, or taken as well.
            self._held_bytes = self._held_since = 0
            parts, late = [], 0
            while held:
                part, n = held.popleft()
                parts.append(part)
                late += n
            if payload:
                parts.append(payload)
            if not parts:
                return
            try:
                self._sock.sendall(parts[0] if len(parts) == 1 else b"".join(parts))
            except OSError:
                self._broken = True  # the gateway has gone: the reader sees it too
            self._ended += late + ended
        if late and self._connection.draining:
            self._stop_if_done()

    # -- Looking after what is held back -------------------------------------

    def _watch_beside(self):
        _stacks.OWN.add(get_ident())
        self._watch()

    def _watch(self):
        """Sends what is held back while an application takes longer over its next
        request, until _unwatch()."""
        while not self._unwatched:
            self._wake.acquire()
            rounds = 0
            while rounds < _WATCH_ROUNDS:
                time.sleep(_WATCH_TIME / 1e9)
                since = self._held_since
                if not since:
                    rounds += 1
                elif monotonic_ns() - since < _WATCH_TIME:
                    rounds = 0
                else:
                    break
            self._flush()
            self._watched = False
            if rounds < _WATCH_ROUNDS or self._held_since:
                self._wake_watch()

    def _wake_watch(self):
        self._watched = True
        self._wake.release()

    def _unwatch(self):
        self._unwatched = True
        if not self._watched:
            self._wake_watch()
