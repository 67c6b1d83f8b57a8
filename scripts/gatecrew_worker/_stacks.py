"""What every thread and every asyncio task of this process is doing, as text.

Nothing here waits for the application: no lock of the threading module or of
an event loop is taken, and no code of the application is run (no repr).
"""

import itertools
import os
import sys
import threading
import traceback

from gatecrew_worker._records import ProtocolError, decode_pairs

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_THREADING = threading.__file__

OWN = set()  # threads of this package that nobody need know of

_FRAMES = 60  # of one stack: the innermost ones
_THREADS = 200
_TASKS = 200  # of one event loop
_LONGEST = 256 << 10  # characters of it all


def describe(requests, asked=""):
    """The stacks of the whole process. requests are those in progress, of
    which the one with the UNIQUE_ID asked comes first."""
    running = {}  # thread -> (whether it is the one asked for, its description)
    tasks = {}  # the same of the tasks that are requests
    served = {}  # event loop that has these tasks -> thread
    for request in requests:
        if request.thread:
            found = params(request)
            unique_id = found.get("UNIQUE_ID", "")
            described = (unique_id == asked, "request %s, %s %s" % (
                unique_id, found.get("REQUEST_METHOD", ""), found.get("REQUEST_URI") or found.get("PATH_INFO", "")))
            if not hasattr(request, "task"):
                running[request.thread] = described
                continue
            task = request.task
            if task is not None:  # not about to end
                tasks[task] = described
                served[task.get_loop()] = request.thread
    for loop, ident in served.items():
        task = _current_task(loop)
        if task in tasks:
            running[ident] = tasks[task]
    frames = sys._current_frames()
    names = {ident: thread.name for ident, thread in getattr(threading, "_active", {}).copy().items()}
    out = _Text()
    loops = []  # (event loop, its thread)
    helpers = {}  # event loop -> the request that waits for it
    idle = []
    order = sorted(frames, key=lambda ident: (not running.get(ident, (False,))[0], ident not in running, ident))
    for ident in order[:_THREADS]:
        stack = frames[ident]
        name = title = "thread %s" % _quoted(names.get(ident, str(ident)))
        if ident in running:
            title += " at %s" % running[ident][1]
        elif ident == threading.get_ident() or ident in OWN:
            continue  # the one that describes, for one
        lines = _thread_lines(stack, ident in served.values())
        if lines:
            out.add(title + ":\n", *lines)
        elif ident in running:
            out.add(title + ": not in the application\n")
        else:
            idle.append(name)
        if ident in running:
            helper = helper_loop(stack, frames)[0]
            if helper is not None:
                helpers[helper] = running[ident][1].partition(",")[0]
        for loop, owner in served.items():
            if owner == ident:
                loops.append((loop, name))
        loop = event_loop(stack)[0]
        if loop is not None and loop not in served:
            loops.append((loop, name))
    if len(order) > _THREADS:
        out.add("%d more threads\n" % (len(order) - _THREADS))
    for loop, name in loops:
        _describe_tasks(out, loop, "%s for %s" % (name, helpers[loop]) if loop in helpers else name, tasks)
    if idle:
        out.add("idle: %s\n" % ", ".join(idle))
    return "".join(out.parts)


def params(request):
    """The parameters of a request, as far as they can be read."""
    try:
        return decode_pairs(request.params, {})
    except ProtocolError:
        return {}


def failure(message, exc=None):
    """The text that tells of a failure in the application, with its traceback
    from where this package called it."""
    text = "gatecrew: %s\n" % message
    if exc is not None:
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            tb = tb.tb_next
        text += "".join(traceback.format_exception(type(exc), exc, tb))
    return text


def last_line(exc):
    """What a traceback ends with."""
    return traceback.format_exception_only(type(exc), exc)[-1].strip()


class _Text:
    """Pieces of text that together are not too long."""

    def __init__(self):
        self.parts = []
        self._room = _LONGEST

    def add(self, *parts):
        for part in parts:
            if self._room <= 0:
                return
            self._room -= len(part)
            self.parts.append(part if self._room > 0 else "(the rest is left out)\n")


def _quoted(name):
    return '"%s"' % "".join(c if c.isprintable() else "?" for c in name[:200])


def _thread_lines(frame, serves=False):
    """The stack of a thread, outermost frame first, without the frames of
    this package and of threading that it begins with, nor, if it serves an
    ASGI application, those of the event loop. Empty when there is nothing
    else."""
    stack = list(traceback.walk_stack(frame))
    while stack and stack[-1][0].f_code.co_filename.startswith((_PACKAGE, _THREADING)):
        stack.pop()
    if stack and _is_entry(stack[-1][0]):  # of the main thread: what ran this package
        inner = len(stack)
        while inner and not stack[inner - 1][0].f_code.co_filename.startswith(_PACKAGE):
            inner -= 1
        while inner and stack[inner - 1][0].f_code.co_filename.startswith(_PACKAGE):
            inner -= 1
        del stack[inner:]
    if serves:
        own = (_PACKAGE, os.path.dirname(sys.modules["asyncio"].__file__) + os.sep)
        while stack and stack[-1][0].f_code.co_filename.startswith(own):
            stack.pop()
        if stack and waits_in_loop(stack[-1][0]):
            return []  # for the next event
    if all(f.f_code.co_filename.startswith((_PACKAGE, _THREADING)) for f, _ in stack):
        return []  # it starts a thread
    return _format(stack)


def _is_entry(frame):
    return frame.f_globals.get("__name__") == "__main__" or frame.f_code.co_filename == "<frozen runpy>" or (
        frame.f_globals.get("__name__") == "runpy")


def _format(stack):
    """The lines of (frame, line number) pairs that begin with the innermost."""
    left_out = len(stack) - _FRAMES
    summary = traceback.StackSummary.extract(iter(stack[:_FRAMES]))
    summary.reverse()
    lines = summary.format()
    if left_out > 0:
        lines.insert(0, "  (%d outer frames are left out)\n" % left_out)
    return lines


# -- asyncio ------------------------------------------------------------------


def event_loop(frame):
    """The event loop that runs in the thread whose innermost frame is given,
    and the task that it is run for: (None, None) when there is no loop, and
    None for a task that can't be told.

    The loop of the standard library is found by its own frames; one that is
    written in C by those of asyncio.run()."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None, None
    directory = os.path.dirname(asyncio.__file__) + os.sep
    loop = task = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(directory):
            names = frame.f_locals
            if code.co_name == "run_until_complete":
                loop, task = loop or names.get("self"), task or names.get("future")
            elif code.co_name == "run_forever":
                loop = loop or names.get("self")
            elif code.co_name == "run" and code.co_filename.endswith("runners.py"):
                runner = names.get("self")
                loop = loop or names.get("loop") or getattr(runner, "_loop", None)
                task = task or names.get("task")
                break
        frame = frame.f_back
    return loop, task if isinstance(task, asyncio.Task) else None


def helper_loop(frame, frames):
    """The event loop that runs in a thread of its own for the one whose
    innermost frame is given, and the task that it is run for: (None, None)
    when there is none. frames are those of all threads.

    async_to_sync of asgiref makes such threads; Django runs asynchronous views
    and middleware with it."""
    sync = sys.modules.get("asgiref.sync")
    if sync is None:
        return None, None
    while frame is not None:
        if frame.f_code.co_name == "__call__" and frame.f_code.co_filename == sync.__file__:
            names = frame.f_locals
            executor = names.get("current_executor")
            executors = getattr(names.get("self"), "loop_thread_executors", None)
            if executor is not None and isinstance(executors, dict):
                for loop, owner in executors.copy().items():
                    if owner is executor:
                        return loop, _task_of(loop, frames)
        frame = frame.f_back
    return None, None


def _task_of(wanted, frames):
    for frame in frames.values():
        loop, task = event_loop(frame)
        if loop is wanted:
            return task
    return None


def waits_for_helper(frame):
    """Whether the innermost frames of a thread are those of async_to_sync,
    which waits for its loop, rather than of what that loop has it run."""
    while frame is not None and frame.f_globals.get("__name__") in ("threading", "queue"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "asgiref.current_thread_executor"


def waits_in_loop(frame):
    """Whether the innermost frame of a thread belongs to an event loop that
    waits, rather than to a task at work."""
    name = frame.f_globals.get("__name__", "")
    return name == "selectors" or name.startswith("asyncio.")


def _current_task(loop):
    try:
        return sys.modules["asyncio"].tasks.current_task(loop)
    except RuntimeError:  # changed by the loop meanwhile
        return None


def _describe_tasks(out, loop, owner, requests):
    """Describes the tasks of an event loop, first those that are requests, the
    one asked for before the others."""
    asyncio = sys.modules["asyncio"]
    tasks = None
    for _ in range(10):
        try:
            tasks = asyncio.all_tasks(loop)
            current = asyncio.tasks.current_task(loop)
            break
        except RuntimeError:  # changed by the loop meanwhile
            continue
    if tasks is None:
        out.add("the tasks of %s change too quickly to be described\n" % owner)
        return
    tasks = sorted(tasks, key=lambda task: (not requests.get(task, (False,))[0], task not in requests))
    for task in itertools.islice(tasks, _TASKS):
        what = "is running, see its thread" if task is current else _waiting_for(asyncio, task)
        if task in requests:
            what = "at %s %s" % (requests[task][1], what)
        out.add("task %s of %s %s:\n" % (_quoted(task.get_name()), owner, what), *_format(_coroutine_stack(task.get_coro())))
    if len(tasks) > _TASKS:
        out.add("%d more tasks of %s\n" % (len(tasks) - _TASKS, owner))


def _waiting_for(asyncio, task):
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None:
        return "is about to run"
    if isinstance(waiter, asyncio.Task):
        return "waits for task %s" % _quoted(waiter.get_name())
    return "waits for a %s" % type(waiter).__name__


def _coroutine_stack(coroutine):
    """The frames from where a coroutine waits out to its own, and their
    lines."""
    stack = []
    while coroutine is not None and len(stack) < 10 * _FRAMES:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, kind + "_frame", None)
            if frame is not None:
                break
        else:
            break
        stack.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else kind + "_await", None)
    stack.reverse()
    return stack
