"""The life of a worker process: arguments, descriptors, signals, exit status.

    0  the gateway ended the connection, or SIGTERM
    3  the worker could not start, or the gateway broke the protocol
    4  the application could not be loaded
"""

import argparse
import faulthandler
import fcntl
import os
import resource
import signal
import socket
import stat
import sys
import threading
import traceback

from gatecrew_worker import _control, _modules, _native
from gatecrew_worker._loader import LoadError, StartupFailed, load
from gatecrew_worker._records import ProtocolError
from gatecrew_worker._zygote import Zygote

EXIT_FAILED = 3
EXIT_NOT_LOADED = 4

# The gateway's socket, its control connection and its pipe for dumps, and where
# they are moved: out of the range in which applications and the daemons they
# start expect their own descriptors.
_SOCKET = 3
_CONTROL = 4
_DUMPS = 5
_MOVED = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(EXIT_FAILED, "gatecrew: %s\n%s" % (message, self.format_usage()))


def _parse(argv):
    parser = _Parser(prog="gatecrew_worker", description="A worker process of the gatecrew gateway, which starts it.")
    parser.add_argument("app", metavar="APP", help="MODULE[:NAME], MODULE:FACTORY() or a file")
    parser.add_argument(
        "--interface", choices=["auto", "wsgi", "asgi"], default="auto", help="what the application is (default auto: by looking at it)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="WSGI: requests worked on at once (default 1)")
    parser.add_argument(
        "--concurrency", type=_positive, default=1000, metavar="N", help="ASGI: requests and WebSockets at once (default 1000)")
    parser.add_argument(
        "--loop", choices=["auto", "asyncio", "uvloop"], default="auto", help="ASGI: the event loop (default auto: uvloop where it is installed)")
    parser.add_argument(
        "--lifespan", choices=["auto", "on", "off"], default="auto", help="ASGI: startup and shutdown events (default auto: if the application knows them)")
    parser.add_argument("--app-dir", default=None, metavar="DIR", help="looked for modules first (default: the working directory)")
    parser.add_argument(
        "--root-path", default="", metavar="PATH",
        help="where the application is mounted: SCRIPT_NAME of the requests that come without one",
    )
    parser.add_argument(
        "--c-extension", choices=_native.CHOICES, default="auto",
        help="the C extension, which makes requests cheaper (default auto: used where it can be loaded)")
    parser.add_argument("--preload", action="store_true", help="fork workers from this process, as the gateway asks on descriptor 3")
    parser.add_argument("--report-modules", action="store_true", help="tell the gateway which files were imported")
    options = parser.parse_args(argv)
    if options.root_path.strip("/") and not options.root_path.startswith("/"):
        parser.error("argument --root-path: %r does not begin with a slash" % options.root_path)
    return options


def _positive(text):
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError("%d is less than 1" % n)
    return n


def main(argv):
    """Runs the worker; returns its exit status."""
    _prepare_streams()
    # The terminal's Ctrl-C is meant for the gateway. A handler rather than
    # SIG_IGN, which the application's own child processes would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    options = _parse(argv)
    try:
        options.speed, runs = _native.load(options.c_extension)
    except _native.Unavailable as exc:
        print(exc, file=sys.stderr)
        return EXIT_FAILED
    # Before the application is loaded: it may take the numbers, and what it
    # forks must not hold the connections.
    try:
        if options.preload:
            zygote, control = Zygote(_take_socket(_SOCKET)), _take_control(_CONTROL)
        else:
            sock, control = _connect(_SOCKET, _CONTROL, _DUMPS)
    except OSError as exc:
        print("gatecrew: descriptor %d is not the gateway's socket (%s); workers are started by gatecrew" % (_SOCKET, exc),
              file=sys.stderr)
        return EXIT_FAILED
    sys.path.insert(0, os.path.abspath(options.app_dir or os.getcwd()))
    report = _modules.Report(control) if options.report_modules and control is not None else None
    if report is not None:
        report.expect(options.app)
    try:
        app, interface = load(options.app, options.interface)
    except LoadError as exc:
        print(exc, file=sys.stderr)
        if report is not None:
            report.tell(exc)
        return EXIT_NOT_LOADED
    print("gatecrew: " + runs, file=sys.stderr)
    # Not before: an interface that is not used is not imported, and what is
    # imported before a fork is shared.
    if interface == "asgi":
        if options.speed is None:
            from gatecrew_worker._asgi import serve
        else:
            from gatecrew_worker._asgi_native import serve
    elif options.speed is None:
        from gatecrew_worker._wsgi import serve
    else:
        from gatecrew_worker._wsgi_native import serve
    if options.preload:
        if report is not None:
            report.tell()
        descriptors = zygote.serve()
        if descriptors is None:
            return 0
        # From here on this is a worker that was born with the application.
        sock, control = _connect(*descriptors)
        if report is not None:
            report = _modules.Report(control)
    if report is not None:
        report.tell()
        report.follow()
    try:
        # The negotiation, answered in here, is the readiness.
        serve(app, sock, control, options, _started)
    except StartupFailed as exc:
        sys.stderr.write(str(exc))
        return EXIT_NOT_LOADED
    except ProtocolError as exc:
        print("gatecrew: the gateway broke the protocol: %s" % exc, file=sys.stderr)
        return EXIT_FAILED
    except BaseException:
        traceback.print_exc()
        return EXIT_FAILED
    return 0


def _started(loop, control):
    """Has a loop obey the gateway, and SIGTERM."""
    _stop_on_term(loop)
    if control is not None:
        control.serve(loop)


def _prepare_streams():
    """What is printed is a log line: whole lines, and any text."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()


def _stop_on_term(loop):
    """Has SIGTERM call loop.stop().

    A handler alone would be late: a signal that comes just before the main
    thread blocks in a system call is seen by the interpreter only when that
    call returns. The wake-up descriptor is written at once, so a thread of its
    own reads it; the handler is there for the case that the application takes
    the descriptor for itself.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch():
        while signal.SIGTERM not in os.read(read, 64):
            pass
        loop.stop()

    def leave():  # what the application forks is its own
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    threading.Thread(target=watch, name="gatecrew-signals", daemon=True).start()
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    os.register_at_fork(after_in_child=leave)


def _connect(sock_fd, control_fd, dumps_fd):
    """Returns the gateway's socket, and the control connection if there is
    one."""
    sock = _take_socket(sock_fd)
    os.register_at_fork(after_in_child=sock.close)
    return sock, _take_control(control_fd, dumps_fd)


def _take_socket(fd):
    fd = _move(fd)
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise
    sock.setblocking(True)
    return sock


def _take_control(fd, dumps_fd=None):
    """Returns the control connection, None when there is none."""
    if not _is(stat.S_ISSOCK, fd):
        return None
    dumps = dumps_fd is not None and _is(stat.S_ISFIFO, dumps_fd)
    return _control.take(_move(fd), _move(dumps_fd) if dumps else None)


def _is(kind, fd):
    try:
        return kind(os.fstat(fd).st_mode)
    except OSError:
        return False


def _move(fd):
    # A low limit of open files (rlimits) is no reason not to start.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    least = _MOVED if limit == resource.RLIM_INFINITY else min(_MOVED, limit // 2)
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(fd)
    return moved
