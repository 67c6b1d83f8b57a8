"""The gateway's side of the wire, for tests: a real worker process on a
socket pair, and a client that says and checks every record."""

import array
import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

SCRIPTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
APPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apps")

sys.path.insert(0, SCRIPTS)

from gatecrew_worker import _native  # noqa: E402
from gatecrew_worker import _records as rec  # noqa: E402

# The worker gets its socket as descriptor 3, its commands as 4 and its pipe for
# dumps as 5. These numbers have to be taken here, so that subprocess doesn't use
# one for itself.
while os.open(os.devnull, os.O_RDONLY) < 5:
    pass

DEADLINE = 20  # seconds for anything to happen

# What the workers are told: the tests are run with both, require and off.
C_EXTENSION = os.environ.get("C_EXTENSION", "auto")
SPEED = _native.load(C_EXTENSION)[0]
_RUNS = re.compile(r"gatecrew: (the C extension runs|pure Python runs.*)\n")


class Answer:
    """What came back for one request."""

    def __init__(self):
        self.stdout = b""
        self.stderr = b""
        self.app_status = None
        self.protocol_status = None
        self.worked = None  # in microseconds, as the worker has told
        self.file = None  # what the gateway would send behind stdout
        self.file_flags = 0
        self.trailers = None

    @property
    def head(self):
        return self.stdout.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self):
        return self.headers["Status"]

    @property
    def headers(self):
        return dict(line.split(": ", 1) for line in self.head.split("\r\n"))

    @property
    def body(self):
        return self.stdout.partition(b"\r\n\r\n")[2]

    @property
    def errors(self):
        return self.stderr.decode("utf-8")


def params(path="/", method="GET", **more):
    pairs = {
        "GATEWAY_INTERFACE": "CGI/1.1", "SERVER_NAME": "example.org", "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": method, "REQUEST_SCHEME": "http",
        "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "REMOTE_ADDR": "127.0.0.1",
    }
    pairs.update(more)
    return rec.encode_pairs((n.encode("latin-1"), v.encode("latin-1")) for n, v in pairs.items())


class Worker:
    """A worker process. window is what it may send before it is granted more;
    0 talks plain FastCGI to it, without negotiation. With control it has a
    control connection and a pipe for dumps."""

    # -S and -E: it needs nothing but the standard library, and starts in a
    # fraction of the time where there are many packages.
    flags = ("-S", "-E", "-W", "error")

    def __init__(self, app="applications:checked", *args, threads=1, window=131072, cwd=APPS, ready=True, env=None, control=False):
        near, far = socket.socketpair()
        self._meet(near, window)
        given = {3: far.detach()}
        if control:
            given[4], self._control = (end.detach() for end in socket.socketpair())
            self.dumps, given[5] = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, *self.flags, os.path.join(SCRIPTS, "gatecrew_worker"), app,
             "--interface", "wsgi", "--threads", str(threads), "--c-extension", C_EXTENSION, *args],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=cwd, env=env,
            pass_fds=given, preexec_fn=lambda: [os.dup2(fd, number) for number, fd in given.items()])
        for fd in given.values():
            os.close(fd)
        if ready and window:
            self.negotiate()

    def _meet(self, sock, window):
        sock.settimeout(DEADLINE)
        self.sock = sock
        self.window = window
        self.values = {}
        self._control = self.dumps = None
        self.answers = {}
        self.granted_input = {}
        self.begun = 0  # as the worker has told
        self._unread = b""
        self.descriptors = []  # that came and belong to no record yet
        self._log = tempfile.TemporaryFile()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        if self._control is not None:
            self.close_control()
        if self.dumps is not None:
            os.close(self.dumps)
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()

    @property
    def log(self):
        """What the process has written to its descriptors 1 and 2, but for the
        line that says what runs."""
        return _RUNS.sub("", self.whole_log, count=1)

    @property
    def whole_log(self):
        return os.pread(self._log.fileno(), 1 << 20, 0).decode("utf-8")

    def wait(self):
        return self.process.wait(DEADLINE)

    def await_log(self, text):
        deadline = time.monotonic() + DEADLINE
        while text not in self.log:
            if time.monotonic() > deadline:
                raise AssertionError("%r never appeared in the log:\n%s" % (text, self.log))
            time.sleep(0.01)

    # -- What the gateway says ----------------------------------------------

    def send(self, data):
        self.sock.sendall(data)

    @contextlib.contextmanager
    def together(self):
        """What is said within is sent at once."""
        said = []
        self.send = said.append
        try:
            yield
        finally:
            del self.send
        self.send(b"".join(said))

    def negotiate(self):
        self.send(rec.record(rec.GET_VALUES, 0, rec.encode_pairs([
            (b"FCGI_MAX_CONNS", b""), (b"FCGI_MAX_REQS", b""), (b"FCGI_MPXS_CONNS", b""),
            (b"GATECREW_FLOW", b"1"), (b"GATECREW_WINDOW", b"%d" % self.window), (b"GATECREW_AHEAD", b""),
            (b"GATECREW_ASYNC", b"")])))
        kind, request_id, content = self.record()
        if (kind, request_id) != (rec.GET_VALUES_RESULT, 0):
            raise AssertionError("answer to GET_VALUES: type %d, id %d\n%s" % (kind, request_id, self.log))
        rec.decode_pairs(content, self.values)

    def begin(self, request_id=1, block=None, stdin=b"", more=False, role=rec.RESPONDER, **named):
        """Begins a request; stdin must fit into the window. more leaves the
        body open."""
        if block is None:
            block = params(**named)
        data = rec.record(rec.BEGIN_REQUEST, request_id, b"\0%c\1\0\0\0\0\0" % role)
        for i in range(0, len(block), 65535):
            data += rec.record(rec.PARAMS, request_id, block[i:i + 65535])
        data += rec.record(rec.PARAMS, request_id)
        self.answers[request_id] = Answer()
        self.granted_input[request_id] = 0
        self.send(data + self._stdin(request_id, stdin) + (b"" if more else rec.record(rec.STDIN, request_id)))

    @staticmethod
    def _stdin(request_id, data):
        return b"".join(rec.record(rec.STDIN, request_id, data[i:i + 65535]) for i in range(0, len(data), 65535))

    def stdin(self, data, request_id=1):
        self.send(self._stdin(request_id, data) if data else rec.record(rec.STDIN, request_id))

    def abort(self, request_id=1):
        self.send(rec.record(rec.ABORT_REQUEST, request_id))

    def command(self, text):
        os.write(self._control, text)

    def close_control(self):
        os.close(self._control)
        self._control = None

    def grant(self, increment, request_id=1):
        self.send(rec.credit(request_id, increment))

    # -- What comes back ----------------------------------------------------

    def _exactly(self, n):
        while len(self._unread) < n:
            try:
                data, messages, _, _ = self.sock.recvmsg(1 << 16, socket.CMSG_SPACE(8))
            except ConnectionResetError:
                data, messages = b"", ()
            for _, _, fds in messages:
                self.descriptors.extend(array.array("i", fds))
            if not data:
                raise EOFError("the worker closed the connection\n" + self.log)
            self._unread += data
        data, self._unread = self._unread[:n], self._unread[n:]
        return data

    def record(self):
        """The next record as (type, id, content), but for those that tell how
        many requests have begun."""
        while True:
            kind, request_id, content = self._record()
            if kind != rec.BEGUN:
                return kind, request_id, content
            self.begun, = struct.unpack(">I", content)

    def _record(self):
        version, kind, request_id, length, padding = rec.HEADER.unpack(self._exactly(8))
        if version != 1 or padding:
            raise AssertionError("bad header from the worker")
        return kind, request_id, self._exactly(length)

    def take(self):
        """Reads one record and files it; returns its type, id and content."""
        kind, request_id, content = self.record()
        if kind == rec.CREDIT:
            self.granted_input[request_id] += struct.unpack(">I", content)[0]
            return kind, request_id, content
        answer = self.answers[request_id]
        if answer.app_status is not None:
            raise AssertionError("a record of type %d after the end of request %d" % (kind, request_id))
        if kind == rec.STDOUT:
            if not content:
                raise AssertionError("an empty STDOUT record")
            answer.stdout += content
        elif kind == rec.STDERR:
            answer.stderr += content
        elif kind == rec.FILE:
            if answer.file is not None or len(content) != 16 or len(self.descriptors) != 1:
                raise AssertionError("a file of %d bytes with %d descriptors" % (len(content), len(self.descriptors)))
            fd = self.descriptors.pop()
            offset, length = struct.unpack(">QQ", content)
            answer.file_flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            answer.file = os.pread(fd, length + 1, offset)[:length]
            os.close(fd)
        elif kind == rec.END_REQUEST:
            answer.app_status, last = struct.unpack(">II", content)
            answer.protocol_status, answer.worked = last >> 24, last & rec.MAX_WORKED
        elif kind == rec.TRAILERS:
            answer.trailers = content
        else:
            raise AssertionError("a record of type %d for request %d" % (kind, request_id))
        return kind, request_id, content

    def answer(self, request_id=1, grant=True):
        """Reads until the request has ended, granting what it takes."""
        answer = self.answers[request_id]
        while answer.app_status is None:
            kind, owner, content = self.take()
            if grant and kind == rec.STDOUT and self.window and self.answers[owner].app_status is None:
                try:
                    self.grant(len(content), owner)
                except BrokenPipeError:
                    pass  # it was told to stop and has sent all that it will
        return answer

    def until(self, length, request_id=1):
        """Reads until so many bytes of STDOUT have come, granting nothing."""
        answer = self.answers[request_id]
        while len(answer.stdout) < length:
            if answer.app_status is not None:
                raise AssertionError("the request ended after %d bytes\n%s" % (len(answer.stdout), answer.errors))
            self.take()
        return answer

    def quiet(self, seconds=0.05):
        """Whether nothing arrives for a while, but for what tells that
        requests have begun."""
        self.sock.settimeout(seconds)
        try:
            while not self._unread or self._unread[1] == rec.BEGUN:
                self._unread = self._unread[12:] + self.sock.recv(1 << 16)
            return False
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(DEADLINE)

    def get(self, path, request_id=1, **more):
        """A whole exchange."""
        self.begin(request_id, path=path, **more)
        return self.answer(request_id)


class Forked(Worker):
    """A worker that a Zygote has forked."""

    def __init__(self, zygote, name):
        near, far = socket.socketpair()
        self._meet(near, 131072)
        control, self._control = (end.detach() for end in socket.socketpair())
        self.dumps, dumps = os.pipe()
        descriptors = [self._log.fileno(), self._log.fileno(), far.fileno(), control, dumps]
        self.pid = int(zygote.ask(b"GATECREW_WORKER=" + name.encode(), descriptors))
        far.close()
        os.close(control)
        os.close(dumps)
        self.negotiate()

    def __exit__(self, *_):
        self.sock.close()
        self.close_control()
        os.close(self.dumps)
        self.wait()
        self._log.close()

    def wait(self):
        """Waits until the process has ended, which is not a child of this one."""
        deadline = time.monotonic() + DEADLINE
        while self.alive():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError("the worker does not end\n" + self.log)
            time.sleep(0.005)

    def alive(self):
        try:
            with open("/proc/%d/stat" % self.pid) as f:
                return f.read().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False


class Zygote:
    """A process that has loaded an application and forks the workers."""

    def __init__(self, app):
        self.sock, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(DEADLINE)
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-W", "error", os.path.join(SCRIPTS, "gatecrew_worker"), app, "--preload",
             "--c-extension", C_EXTENSION],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=APPS,
            pass_fds=[3], preexec_fn=lambda: os.dup2(far.fileno(), 3))
        far.close()

    log = Worker.log
    whole_log = Worker.whole_log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            self._log.close()

    def hear(self):
        return self.sock.recv(1 << 16)

    def ask(self, text, descriptors):
        """Asks for a worker; returns the answer."""
        rights = array.array("i", descriptors).tobytes()
        self.sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        return self.hear()

    def fork(self, name="web/1"):
        return Forked(self, name)


class Busy:
    """A worker with all its threads busy on requests 1 to n, until each is released."""

    def __init__(self, path, threads):
        self.worker = Worker("busy:app", threads=threads, control=True)
        self.ids = range(1, threads + 1)
        self._path = path
        self._directory = tempfile.TemporaryDirectory()

    def __enter__(self):
        for i in self.ids:
            os.mkfifo(self._fifo(i))
            self.worker.begin(i, path=self._path, QUERY_STRING=self._fifo(i))
        self.worker.await_log("busy\n" * len(self.ids))
        return self

    def __exit__(self, *failure):
        if failure[0]:
            self.worker.process.kill()  # it would stay busy
        self.worker.__exit__(*failure)
        self._directory.cleanup()

    def _fifo(self, i):
        return os.path.join(self._directory.name, str(i))

    def release(self, i):
        with open(self._fifo(i), "w"):
            pass
        return self.worker.answer(i).body
