"""A child: it takes a request, becomes its process, runs the script and ends as an
interpreter does, less the release of memory that the kernel releases anyway.

A page that is written to is copied, and a reference to an object is a write. So
what a child does is little, it is done in C where it can be, and it is rehearsed.
"""

import gc
import os
import posix
import sys

import _io
import _signal
import _socket
import _thread
import _weakref

from _warm_modules import standard

from posix import _exit, close as _close, closerange as _closerange, dup2 as _dup2, environ as _environ, getpid as _getpid
from posix import getppid as _getppid, open as _open, pwrite as _pwrite, setpgid as _setpgid, write as _write

_fsdecode = os.fsdecode
_DESCRIPTORS = 3
_ROOM, _CLOEXEC = _socket.CMSG_SPACE(_DESCRIPTORS * 4), int(_socket.MSG_CMSG_CLOEXEC)

# Through these a script may use what the C library does at exit.
_NEEDS_EXIT = {"_ctypes", "_curses", "_tkinter"}

# The frame below the script's. Where there is none, warnings call it sys.
_BOTTOM = compile("run(code, names)", "sys", "eval")


class Child:
    """What a child needs to know; the zygote has made it before."""

    def __init__(self, sock, system, script, code, main, learner, enter, loaded):
        self.args = None
        self._sock = sock
        self._fork = system.fork
        self._die_with_parent = system.die_with_parent
        self._set_environment = system.set_environment
        self._script = script
        self._code = code
        self._main = main
        self.learner = learner
        self._buffers = [bytearray(65536)]
        self._view = memoryview(self._buffers[0])
        self._gateway = os.getppid()
        self._last = next(reversed(list(sys.modules)))  # what is imported comes after it
        # Modules that are not the standard library's end as the interpreter has it.
        self._exact = not _NEEDS_EXIT.isdisjoint(sys.modules) or any(_foreign(name) for name in loaded)
        environ = _started_with()
        self._coerced = _coerced(environ)
        self._mark = _mark_address(environ)
        self._enter = None
        self._rehearse()
        self._enter = enter

    def fork(self, write):
        """Forks. Returns 0 in the child when it has got a request, whose arguments
        are in args; it ends without one. Returns its process id or -errno in the
        zygote. write is where a child writes t for a request, x for none."""
        pid = self._fork()
        if pid == 0:
            descriptors = self._take(self._sock, write)
            self._sock.detach()
            _closerange(3, max(descriptors) + 8)
        return pid

    def _take(self, sock, write):
        """Waits for a request and becomes its process. Returns the descriptors that
        came with it."""
        try:
            size, ancillary, _, _ = sock.recvmsg_into(self._buffers, _ROOM, _CLOEXEC)
        except OSError:
            _write(write, b"x")
            _exit(0)
        if not size:
            _exit(0)  # the end of the stream
        _write(write, b"t")
        fields = bytes(self._view[:size]).split(b"\0")
        try:
            descriptors = memoryview(ancillary[0][2]).cast("i").tolist()
            _dup2(descriptors[0], 0)
            _dup2(descriptors[1], 1)
            _dup2(descriptors[2], 2)
            self._die_with_parent()
            if _getppid() != self._gateway:
                _exit(1)
            if self._enter is not None:
                self._enter()
            end = 3 + int(fields[2])
            self.args = fields[3:end]
            names, values = fields[end::2], fields[end + 1 :: 2]
            if self._coerced:  # then no request has a locale either: they are the route's
                names.append(b"LC_CTYPE")
                values.append(self._coerced)
            # os.environ has the same dictionary. The zygote has emptied it.
            _environ.update(zip(names, values))
            self._set_environment(list(map(b"=".join, zip(names, values))))
            if self._mark is not None and len(fields) > end + 1:
                self._write_mark(fields[-2], fields[-1])
        except BaseException as exc:
            sock.send(b"failed\0%b\0%b" % (fields[1], os.fsencode(repr(exc))))
            _exit(1)
        try:
            _setpgid(0, 0)
            sock.send(b"started\0%b\0%d" % (fields[1], _getpid()))
        except OSError:
            _exit(1)  # the gateway is gone
        return descriptors

    def _write_mark(self, name, value):
        address, size = self._mark
        if name == b"GATECREW_INSTANCE" and len(value) == size:
            try:
                fd = _open("/proc/self/mem", 1)
                _pwrite(fd, value, address)
                _close(fd)
            except OSError:
                pass

    def _rehearse(self):
        """Does what each child will do, with a request to nobody: what that changes
        in the interpreter, as it learns which types and functions meet, is then
        changed in no child."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        null = os.open(os.devnull, os.O_RDWR)
        own = [os.dup(fd) for fd in range(_DESCRIPTORS)]
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in own))]
        packet = b"\0".join([b"run", b"1", b"1", os.fsencode(self._script)])
        for n in range(32):
            packet += b"\0NAME_%d\0%0*d" % (n, 2 * n, n)
        if self._mark is not None:
            packet += b"\0GATECREW_INSTANCE\0" + posix.environ.get(b"GATECREW_INSTANCE", b"")
        modules = dict(sys.modules)
        code, main, argv = self._code, sys.modules["__main__"], sys.argv
        empty = compile("pass", self._script, "exec")
        orig = list(getattr(sys, "orig_argv", ()))
        for _ in range(40):
            posix.environ.clear()
            ours.sendmsg([packet], rights)
            for fd in self._take(theirs, null):
                os.close(fd)
            ours.recv(256)
            self._code = empty
            stage = type(main)("__main__")
            stage.__dict__.update(self._main.__dict__)
            stage, self._main = self._main, stage
            self._run(self.args)
            self._main = stage
            _only_python(_imported(self._last))
            _flushed()
            _release(())
            sys.modules["__main__"] = main
        posix.environ.clear()
        self._code, sys.argv = code, argv
        sys.modules.clear()  # for their order
        sys.modules.update(modules)
        if orig:
            sys.orig_argv[:] = orig
        for fd in own + [null]:
            os.close(fd)
        ours.close()
        theirs.close()

    def run(self, args):
        """Runs the script and ends the process."""
        status = self._run(args)
        if self.learner is not None:
            self.learner.tell()
        self._end(status)

    def _run(self, args):
        """Runs the script and returns the exit status, or a signal below 0."""
        sys.argv = argv = list(map(_fsdecode, args))
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[-2:] = argv
        _renew()
        # Made here: the collector never takes what was there before the fork.
        main = sys.modules["__main__"] = type(sys)("__main__")
        main.__dict__.clear()
        main.__dict__.update(self._main.__dict__)
        code, self._main, self._code = self._code, None, None
        caught = None
        try:
            if code is None:
                with open(self._script, "rb") as file:
                    code = compile(file.read(), self._script, "exec", dont_inherit=True)
            eval(_BOTTOM, {"__name__": "sys", "run": exec, "code": code, "names": main.__dict__})
        except BaseException as exc:
            caught = exc
        # Not while the exception is being handled, which a hook would see.
        if caught is None:
            return 0
        if isinstance(caught, SystemExit):
            return _exit_status(caught.code)
        tb = caught.__traceback__
        for _ in range(2):  # the frames below the script's
            tb = tb and tb.tb_next
        return _show(caught, tb)

    def _end(self, status):
        """Ends the process with an exit status, or by the signal -status."""
        quick = _at_exit() and not self._exact
        names = _imported(self._last) if quick else []
        if quick and _only_python(names) and _flushed():
            _release(names)
            if _flushed() and status >= 0:
                _exit(status)
        if status < 0:
            _flushed()
            _signal.signal(-status, _signal.SIG_DFL)
            os.kill(os.getpid(), -status)
        # The interpreter does it all; a failure has an exit status of its own.
        sys.exit(status)


def _started_with():
    """The environment that this process was started with, b"" if that can't be known."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _coerced(environ):
    """Returns the LC_CTYPE that an interpreter started without a locale leaves to the
    programs that it starts (PEP 538), None for none."""
    if not environ or any(entry.startswith(b"LC_CTYPE=") for entry in environ.split(b"\0")):
        return None
    return _environ.get(b"LC_CTYPE")


def _mark_address(environ):
    """Returns where that has the value of GATECREW_INSTANCE, and its length; None if
    that can't be known."""
    try:
        with open("/proc/self/stat", "rb") as file:
            start = int(file.read().rpartition(b")")[2].split()[47])  # env_start of proc_pid_stat(5)
    except (OSError, ValueError, IndexError):
        return None
    name = b"GATECREW_INSTANCE="
    for entry in environ.split(b"\0"):
        if start and entry.startswith(name):
            return start + environ.index(entry) + len(name), len(entry) - len(name)
    return None


def _renew():
    """Renews what loaded modules have made of time and chance when they were imported.
    What registers itself for that has been called by the fork."""
    logging = sys.modules.get("logging")
    if logging is not None and hasattr(logging, "_startTime"):
        import time

        logging._startTime = time.time_ns() if isinstance(logging._startTime, int) else time.time()
    random = sys.modules.get("numpy.random")
    if random is not None and hasattr(random, "seed"):
        random.seed()


# What an interpreter does at its end: pythonrun.c and pylifecycle.c.


def _exit_status(code):
    """Returns the exit status for the argument of SystemExit, as handle_system_exit."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    try:
        if sys.stderr is not None:
            sys.stderr.write(str(code))
            sys.stderr.write("\n")
    except BaseException:
        pass
    return 1


def _show(exc, tb):
    """Shows an exception that nothing caught, as PyErr_PrintEx, and returns the exit
    status; that of a KeyboardInterrupt is a signal's."""
    exc.__traceback__ = tb
    if sys.version_info >= (3, 12):
        sys.last_exc = exc
    sys.last_type, sys.last_value, sys.last_traceback = type(exc), exc, tb
    hook = getattr(sys, "excepthook", None)
    second = None
    if hook is None:
        sys.stderr.write("sys.excepthook is missing\n")
        hook = sys.__excepthook__
    try:
        hook(type(exc), exc, tb)
    except BaseException as error:
        second = error
    if isinstance(second, SystemExit):
        return _exit_status(second.code)
    if second is not None:
        sys.stderr.write("Error in sys.excepthook:\n")
        second.__traceback__ = second.__traceback__ and second.__traceback__.tb_next
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(exc), exc, tb)
    return -_signal.SIGINT if isinstance(exc, KeyboardInterrupt) else 1


def _at_exit():
    """Waits for threads, runs exit handlers, and returns whether no thread is left."""
    threading = sys.modules.get("threading")
    if threading is not None:
        try:
            threading._shutdown()
        except BaseException:
            sys.__excepthook__(*sys.exc_info())
    # Not the zygote's: before Python 3.10 each copy of the module has its own.
    atexit = sys.modules.get("atexit")
    if atexit is not None:
        try:
            atexit._run_exitfuncs()
        except BaseException:
            pass  # it has been shown
    return _thread._count() == 0


def _flushed():
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException:
        return False
    return True


def _imported(last):
    """Returns the names of what was imported after the module last, newest first. The
    others are not even looked at."""
    names = []
    for name in reversed(sys.modules if sys.version_info >= (3, 8) else list(sys.modules)):
        if name == last:
            break
        if name != "__main__":
            names.append(name)
    return names


def _foreign(name):
    """Reports whether a loaded module is not the standard library's."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return bool(file) and not standard(file)


def _only_python(names):
    """Reports whether modules are Python, or of the standard library: other code may
    have exit handlers of the C library."""
    for name in names:
        try:
            file = getattr(sys.modules[name], "__file__", None)
            if name in _NEEDS_EXIT or file and not standard(file) and not file.endswith((".py", ".pyc")):
                return False
        except Exception:  # no module, but something that the script has put there
            return False
    return True


def _release(names):
    """Releases the script's objects, so that their finalizers run and what files
    have in their buffers is written, as finalize_modules does."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if name in sys.__dict__:
            setattr(sys, name, None)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    own = []
    for name in [*names, "__main__"]:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if isinstance(module, type(sys)) and file and (name == "__main__" or not standard(file)):
            own.append(_weakref.ref(module))
            del sys.modules[name]
    module = None
    # Before the collector may end a file that a text is still to be written to.
    _flush_files()
    gc.collect()
    for reference in own:
        module = reference()
        if module is not None:
            _clear(module.__dict__)
            module = None
    gc.collect()
    _flush_files()  # what is still open is held by a module that stays


def _flush_files():
    for kind in (_io.TextIOWrapper, _io._BufferedIOBase):
        for thing in gc.get_objects():
            if issubclass(type(thing), kind):
                try:
                    if not thing.closed:
                        thing.flush()
                except BaseException:
                    pass


def _clear(names):
    """Clears a module's names in the order of _PyModule_ClearDict."""
    for private in (True, False):
        for name in list(names):
            if isinstance(name, str) and (name[:1] == "_" and name[1:2] != "_") == private and name != "__builtins__":
                names[name] = None
