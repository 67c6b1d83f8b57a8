"""Ends one request that is stuck, and nothing else in the process.

There are three ways, by where the request is:

  - a thread that runs Python code gets an exception, by
    PyThreadState_SetAsyncExc;
  - the main thread gets a signal, whose handler raises the exception: that
    also ends a sleep, a wait for a lock and a system call;
  - an event loop that waits has the task that it is run for cancelled, also
    when it runs in a helper thread for which the request's thread waits.

A request of an ASGI application is a task itself: it is cancelled, and when
its code holds up the event loop, the signal's handler raises the exception in
it; see TaskInterruption.

A C function that is at work, and a wait of another thread than the main one,
can't be interrupted: the gateway then replaces the worker.

The exception may come at any instruction of the application, but it must never
come where this package holds a lock or is in the middle of a send, nor after
the end of its request, when the thread is at the next one. Hence two fields of
a request. Its thread sets `guarded` whenever it enters such a place, and looks
at `interruption` afterwards; the interrupter sets `interruption`, and looks at
`guarded` afterwards. So at least one of both sees the other: either the
interrupter leaves the thread alone for now, or the thread takes back what is
on its way to it before it goes on (settle).
"""

import contextvars
import os
import signal
import sys
import threading
import time
from _thread import allocate_lock, get_ident

from gatecrew_worker import _stacks

# A real-time signal, near the end of their range: programs and libraries that
# use any take the first ones.
SIGNAL = signal.SIGRTMAX - 3

_EVERY = 0.02  # seconds between two attempts,
_SOON = 0.002  # and while the request is guarded, which is seldom for long

_arriving = {}  # thread -> the Interruption that may arrive there
_of_tasks = set()  # the TaskInterruptions that are under way

# The request that a task works for, also one that the request's own task made.
CURRENT = contextvars.ContextVar("gatecrew_request", default=None)

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
ENTRIES = set()  # the code of this package under which the application's runs


class RequestTimeout(BaseException):
    """The request took too long: nobody waits for its answer any more.

    Raised in the code that runs the request, wherever that is. It is no
    Exception, so that `except Exception` doesn't take it for a failure of
    what is being tried.
    """

    def __init__(self, *args):
        # The interpreter makes it without arguments, in the thread into which
        # it was sent, when it arrives there.
        interruption = None if args else _arriving.pop(get_ident(), None)
        if interruption is not None:
            interruption.arrived = True
            args = (interruption.reason,)
        super().__init__(*args)


class Interruption:
    """One attempt to end one request."""

    def __init__(self, request, reason):
        self.reason = reason
        self.arrived = False
        self._request = request
        self._lock = allocate_lock()
        self._sent = False  # the exception is on its way
        self._cancelled = False  # the task has been

    # -- In a thread of its own ---------------------------------------------

    def run(self, patience):
        """Tries for so many seconds."""
        request = self._request
        deadline = time.monotonic() + patience
        while not (self.arrived or request.ended) and time.monotonic() < deadline:
            self._attempt(request.thread)
            time.sleep(_SOON if request.guarded else _EVERY)

    def _attempt(self, thread):
        frames = sys._current_frames()
        frame = frames.get(thread)
        if frame is None:
            return
        loop, task = _stacks.event_loop(frame)
        waits = task is not None and _stacks.waits_in_loop(frame)
        if task is None and _stacks.waits_for_helper(frame):
            # To end this wait alone would leave the loop behind, at work.
            loop, task = _stacks.helper_loop(frame, frames)
            waits = task is not None
        if task is not None and not self._cancelled and _call_soon(loop, task.cancel):
            self._cancelled = True
        if waits:
            return
        del frame, frames  # of other threads: what they refer to shall not live longer
        with self._lock:
            if self._request.guarded or self._request.ended:
                return  # what waits there ends when the gateway aborts the request
            if thread == threading.main_thread().ident and signal.getsignal(SIGNAL) is _on_signal:
                self._sent = True
                _arriving[thread] = self
                signal.pthread_kill(thread, SIGNAL)
            elif not self._sent:
                self._sent = True
                _arriving[thread] = self
                _send_exception(thread, RequestTimeout)

    # -- In the thread of the request ---------------------------------------

    def settle(self):
        """Takes the exception back if it has not arrived; returns whether it
        was on its way. The request is guarded: nothing is sent afterwards."""
        with self._lock:
            due = self._sent and not self.arrived
            if due:
                self._sent = False
                _arriving.pop(get_ident(), None)
                _send_exception(get_ident(), None)
        return due

    def arrive(self):
        """Whether the exception is to be raised now, by the signal's handler."""
        return self._sent and not self.arrived and not self._request.guarded and not self._request.ended


class TaskInterruption:
    """One attempt to end one request that is a task of the event loop."""

    def __init__(self, request, task, reason):
        self.reason = reason
        self.arrived = False
        self._request = request
        self._task = task
        self._cancelled = 0  # when the task was

    def run(self, patience):
        """Tries for so many seconds, in a thread of its own."""
        request = self._request
        deadline = time.monotonic() + patience
        _call_soon(self._task.get_loop(), self._cancel)
        _of_tasks.add(self)
        try:
            while not (self.arrived or request.ended) and time.monotonic() < deadline:
                # Whose code holds up the event loop, if any does, only the
                # main thread can tell. A task that was cancelled has half of
                # the time to clean up.
                cancelled = self._cancelled
                if signal.getsignal(SIGNAL) is _on_signal and not (cancelled and time.monotonic() < cancelled + patience / 2):
                    signal.pthread_kill(threading.main_thread().ident, SIGNAL)
                time.sleep(_EVERY)
        finally:
            _of_tasks.discard(self)

    def _cancel(self):
        if not (self.arrived or self._request.ended):
            self._cancelled = time.monotonic()
            self._task.cancel()

    def arrive(self, frame):
        """Whether the exception is to be raised now, in the main thread whose
        innermost frame is given: it must be in the application's code, at work
        for this request, and not where that calls this package or the event
        loop, which other requests need whole."""
        if self.arrived or self._request.ended or CURRENT.get() is not self._request:
            return False
        asyncio = os.path.dirname(sys.modules["asyncio"].__file__) + os.sep
        if frame is None or frame.f_code.co_filename.startswith((asyncio, _PACKAGE)) or not _in_task():
            return False
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(_PACKAGE):
                return frame.f_code in ENTRIES
            if name.startswith(asyncio):
                return True  # a task that the application has made
            frame = frame.f_back
        return True

    def settle(self):
        """Nothing is on its way that could be late."""


def _in_task():
    try:
        return sys.modules["asyncio"].current_task() is not None
    except RuntimeError:  # no event loop runs
        return False


def _on_signal(_, frame):
    interruption = _arriving.get(get_ident())
    if interruption is not None and interruption.arrive():
        raise RequestTimeout
    for interruption in _of_tasks.copy():
        if interruption.arrive(frame):
            interruption.arrived = True
            raise RequestTimeout(interruption.reason)


def prepare():
    """Installs the signal's handler, where nobody else has one. For the main
    thread."""
    if signal.getsignal(SIGNAL) is signal.SIG_DFL:
        signal.signal(SIGNAL, _on_signal)


def begin(requests, unique_id, reason, patience):
    """Begins to interrupt the one of the requests that has this UNIQUE_ID.
    Returns "" or, when that can't be done, why."""
    found = [r for r in requests if r.thread and not r.ended and _stacks.params(r).get("UNIQUE_ID") == unique_id]
    if not found:
        return "the request has ended"
    if len(found) > 1:
        return "%d requests have this UNIQUE_ID" % len(found)
    request = found[0]
    if request.interruption is None:
        if hasattr(request, "task"):
            task = request.task
            if task is None:
                return "the request has ended"
            interruption = TaskInterruption(request, task, reason)
        else:
            interruption = Interruption(request, reason)
        request.interruption = interruption
        try:
            threading.Thread(target=interruption.run, args=(patience,), name="gatecrew-interrupt", daemon=True).start()
        except RuntimeError as exc:
            return str(exc)
    return ""


def _send_exception(thread, exception):
    """Has the interpreter raise the exception in a thread, or with None not
    raise it after all."""
    try:
        import ctypes  # large, and hardly ever needed
    except ImportError:
        print("gatecrew: this Python has no ctypes, without which a request that computes can't be interrupted", file=sys.stderr)
        return
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if exception is None else ctypes.py_object(exception))


def _call_soon(loop, function):
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # closed meanwhile
        return False
    return True
