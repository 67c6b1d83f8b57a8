"""One server: its start, the moment from which it answers as it should, and its end."""
import http.client
import os
import re
import signal
import socket
import subprocess
import time

import machine
from group import Group

START_TIMEOUT = 15  # seconds
HUGE = 1 << 28  # bytes of a body from which its length is believed, and not counted
# Nothing of the caller's own settings reaches a server: no PYTHON*, no GATECREW_*.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/"), "TMPDIR": "/tmp"}


class NotStarted(Exception):
    """Why a row has no figures."""


def wrong(row):
    """What is wrong with the answer that a row's server gives, or nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", row["port"], timeout=10)
    try:
        if "upload" in row:
            connection.request("POST", row["path"], bytes(row["upload"]), {"Content-Type": "application/octet-stream"})
        else:
            connection.request("HEAD" if row.get("size", 0) > HUGE else "GET", row["path"])
        answer = connection.getresponse()
        size, start = int(answer.headers["Content-Length"] or 0) if row.get("size", 0) > HUGE else 0, b""
        while piece := answer.read(1 << 20):
            start, size = start + piece[: max(0, 4096 - len(start))], size + len(piece)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer: {type(error).__name__} {error}".strip()
    finally:
        connection.close()
    if answer.status != 200:
        return f"status {answer.status} in place of 200: {' '.join(start[:120].decode(errors='replace').split())}"
    if "size" in row and size != row["size"]:
        return f"a body of {size} bytes in place of {row['size']}"
    if "expect" in row and not re.fullmatch(str(row["expect"]).encode(), start, re.S):
        return f"the body {start[:80]!r} in place of {row['expect']!r}"
    return ""


def used(port):
    """Whether something listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A row's server. `with Server(row, folder) as server` starts it and ends it."""

    def __init__(self, row, folder):
        self.row = row
        self.log = folder / (re.sub(r"\W+", "-", f"{row['suite']} {row['name']}") + ".log")
        self.group = self.process = None
        self.ended = False
        self.start_ms = None  # from the start to the first right answer

    def __enter__(self):
        if used(self.row["port"]):
            raise NotStarted(f"something else listens on port {self.row['port']}")
        self.group = Group(re.sub(r"\W+", "-", self.row["name"]))
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["sh", "-c", self.row["cmd"]], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env=ENVIRONMENT, start_new_session=True, preexec_fn=self.group.enter)
        self.group.pid = self.process.pid
        try:
            self.wait(began)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, began):
        """Waits for the first right answer."""
        while fault := wrong(self.row):
            self.must_run(began, fault)
            time.sleep(0.002)
        self.start_ms = (time.monotonic() - began) * 1000

    def must_run(self, began, fault):
        """Raises NotStarted when the server has ended, or has had its time."""
        if (status := self.process.poll()) is not None:
            raise NotStarted(f"exit status {status}: {self.said()}")
        if time.monotonic() - began > START_TIMEOUT:
            raise NotStarted(f"{fault}, {START_TIMEOUT} s after the start: {self.said()}")

    def said(self):
        """What of its log tells why it ended: the last lines, shortened."""
        lines = [line.strip() for line in machine.text(self.log).split("\n") if line.strip()]
        return " / ".join(lines[:1] + lines[1:][-2:])[:400] or "it said nothing"

    def __exit__(self, *_):
        if self.ended:
            return  # its process id may be another's by now
        self.ended = True
        self.group.end()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.group.remove()
        end = time.monotonic() + 3
        while used(self.row["port"]) and time.monotonic() < end:
            time.sleep(0.01)
