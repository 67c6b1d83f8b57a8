"""What the black-box tests of ASGI share: a client of test/apps/asgi_probe.py.

The server under test is at PROBE_ADDR (HOST:PORT), the application below
PROBE_ROOT; PROBE_SERVER is its name. Where the servers differ for a reason, a
test says what it expects of each (per), and docs/asgi.md says why.
"""
import ast
import http.client
import itertools
import os
import socket
import time
import unittest
from urllib.parse import quote

import websockets.sync.client

HOST, PORT = os.environ["PROBE_ADDR"].rsplit(":", 1)[0], int(os.environ["PROBE_ADDR"].rsplit(":", 1)[1])
SERVER = os.environ["PROBE_SERVER"]
ROOT = os.environ.get("PROBE_ROOT", "")  # where the application is mounted, as the client sees it
PATIENCE = 10  # seconds until something is called missing
PROMPT = 1  # seconds in which a departure must be seen

keys = itertools.count()


def per(**expected):
    return expected[SERVER]


def start(status=200, *headers):
    return ("send", {"type": "http.response.start", "status": status, "headers": list(headers)})


def body(content=b"", more=False):
    return ("send", {"type": "http.response.body", "body": content, "more_body": more})


def event(kind, **values):
    return ("send", {"type": "websocket." + kind, **values})


class ProbeCase(unittest.TestCase):
    def steps(self, *steps, path="/run"):
        """The target of a run; its log is that of self.key."""
        self.key = f"{self.id().rpartition('.')[2]}-{next(keys)}"
        return f"{ROOT}{path}?{self.key}:" + quote(repr(list(steps)))

    def request(self, *steps, method="GET", content=None, **headers):
        """A whole exchange: the response, with its body in .content."""
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request(method, self.steps(*steps), content,
                           {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.content = response.read()
        return response

    def plain(self, target):
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        try:
            connection.request("GET", ROOT + target)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def signal(self, name):
        self.plain("/signal/" + name)

    def log(self, key=None):
        return ast.literal_eval(self.plain("/log/" + (key or self.key)))

    def outcomes(self, name, count=1, within=PATIENCE):
        """Waits until so many steps of this name are done: what came of them."""
        deadline = time.monotonic() + within
        while True:
            done = [outcome for step, outcome, _ in self.log() if step == name and not str(outcome).startswith("…")]
            if len(done) >= count:
                return done
            if time.monotonic() > deadline:
                self.fail(f"no outcome of {name!r} within {within} s: {self.log()}")
            time.sleep(0.01)

    def outcome(self, name, within=PATIENCE):
        return self.outcomes(name, 1, within)[-1]

    def until_begun(self, name):
        """Waits until the application has come to a step of this name."""
        deadline = time.monotonic() + PATIENCE
        while not any(step == name for step, _, _ in self.log()):
            self.assertLess(time.monotonic(), deadline, f"{name} did not begin: {self.log()}")
            time.sleep(0.01)

    def dial(self, receive_buffer=0):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect((HOST, PORT))
        self.addCleanup(sock.close)
        return sock

    def send_head(self, *steps, method="GET", fields=(), sock=None, version="1.1"):
        """Sends a request head by hand and returns its socket."""
        sock = sock or self.dial()
        lines = [f"{method} {self.steps(*steps)} HTTP/{version}", f"Host: {HOST}:{PORT}", *fields, "", ""]
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        return sock

    def read_until(self, sock, text):
        got = b""
        while text not in got:
            block = sock.recv(65536)
            self.assertTrue(block, f"the connection ended; so far {got[:2000]!r}")
            got += block
        return got

    def read_all(self, sock):
        """What comes until the connection ends, however it ends."""
        got = b""
        try:
            while block := sock.recv(65536):
                got += block
        except ConnectionResetError:
            pass
        return got

    def progress(self):
        """How far a step "pour" has come, once it stands still."""
        before, since = -1, time.monotonic()
        while time.monotonic() - since < 0.4:
            now = next((int(str(outcome).lstrip("… ") or 0) for step, outcome, _ in self.log() if step == "pour"), 0)
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.05)
        return before

    def websocket(self, *steps, path="/run", **options):
        target = self.steps(*steps, path=path) if steps else ROOT + path
        options = {"open_timeout": PATIENCE, "close_timeout": 2, "proxy": None, "max_size": None, **options}
        ws = websockets.sync.client.connect(f"ws://{HOST}:{PORT}{target}", **options)
        self.addCleanup(lambda: ws.socket.close())
        return ws
