"""The process that has loaded the application and forks the workers.

The gateway starts it in place of a worker, with --preload, and asks for each
worker by a packet on descriptor 3, which carries the worker's environment
variables and its descriptors. A worker's parent must be the gateway, which
watches its end; so it is forked by a process that exits at once, whereupon
the kernel makes the gateway its parent.
"""

import array
import os
import socket
import stat
import sys
import threading

from gatecrew_worker._loader import set_aside

_DESCRIPTORS = 5  # that come with a request: a worker's 1 to 5


class Zygote:
    """The forking process, on its socket to the gateway."""

    def __init__(self, sock):
        self._sock = sock
        os.register_at_fork(after_in_child=sock.close)

    def serve(self):
        """Forks workers until the gateway ends that, then returns None.

        Returns in each worker as well, with the descriptors for its socket,
        its control connection and its dumps; 1 and 2 and the environment are
        the worker's by then.
        """
        for line in _shared():
            print("gatecrew: preload: " + line, file=sys.stderr)
        # Also since collections in the workers would write to, and so copy, every
        # object that was made so far.
        set_aside()
        self._say(b"ready")
        while True:
            request = self._next()
            if request is None:
                return None
            variables, descriptors = request
            worker = self._fork()
            if worker:
                for fd in descriptors:
                    os.close(fd)
                self._say(worker)
                continue
            for line in variables.split("\n"):
                name, _, value = line.partition("=")
                os.environ[name] = value
            out, err, *others = descriptors
            for fd, number in (out, 1), (err, 2):
                os.dup2(fd, number)
                os.close(fd)
            return others

    def _say(self, packet):
        try:
            self._sock.send(packet)
        except OSError:
            pass  # the gateway has gone: the next request is the end of the stream

    def _next(self):
        """Returns the next request as its text and descriptors, None when
        there are no more."""
        descriptors = array.array("i")
        try:
            text, ancillary, _, _ = self._sock.recvmsg(
                65536, socket.CMSG_SPACE(_DESCRIPTORS * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return None
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data)
        if len(descriptors) != _DESCRIPTORS:
            return None  # the end of the stream
        return os.fsdecode(text), descriptors.tolist()

    def _fork(self):
        """Forks a worker. Returns b"" in it, and in the zygote what the
        gateway is to be told: the worker's process id, or why there is none."""
        for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
            try:
                stream.flush()  # else each worker would write it again
            except (AttributeError, OSError, ValueError):
                pass
        read, write = os.pipe()
        try:
            between = os.fork()
        except OSError as exc:
            os.close(read)
            os.close(write)
            return _reason(exc)
        if not between:
            os.close(read)
            _fork_and_exit(write)
            os.close(write)
            return b""
        os.close(write)
        answer = os.read(read, 512)
        os.close(read)
        try:
            os.waitpid(between, 0)  # now the worker is the gateway's child
        except ChildProcessError:
            pass  # the application ignores SIGCHLD: it has been reaped
        return answer or b"the process that forks died"


def _fork_and_exit(write):
    """Returns in the new process alone; tells its number to write."""
    worker = None
    try:
        worker = os.fork()
        if worker:
            os.write(write, b"%d" % worker)
    except OSError as exc:
        os.write(write, _reason(exc))
    finally:
        if worker != 0:
            os._exit(0)


def _reason(exc):
    return str(exc).encode("utf-8", "backslashreplace")


def _shared():
    """Yields a line for each thing that the application made while it was
    imported and that does not survive a fork."""
    threads = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    if threads:
        yield (
            "importing the application has started threads, which do not run in the workers: %s; "
            "start them in os.register_at_fork(after_in_child=...) or at the first request" % ", ".join(threads)
        )
    peers = sorted(_peers())
    if peers:
        yield (
            "importing the application has opened connections, which all workers would share: to %s; "
            "close them in os.register_at_fork(after_in_child=...) or open them at the first request" % ", ".join(peers)
        )


def _peers():
    """Yields who is at the other end of each stream that is open."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return  # no /proc, as in a chroot: then it can't be told
    for name in names:
        fd = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            # One with a default timeout would make the descriptor non-blocking.
            blocking = os.get_blocking(fd)
            try:
                with socket.socket(fileno=os.dup(fd)) as sock:
                    peer = sock.getpeername() if sock.type == socket.SOCK_STREAM else None
            finally:
                os.set_blocking(fd, blocking)
        except OSError:
            continue  # closed meanwhile, or not connected
        if isinstance(peer, tuple):
            yield "%s port %s" % peer[:2]
        elif peer:  # pairs have no name
            yield os.fsdecode(peer)
