"""The second connection to the gateway: what is said about the requests.

Commands come as lines, a word and its arguments; what the gateway is told goes
back as lines, a JSON object each. All of it happens in a thread of its own,
while the others are at work. A command that is not known is passed over, so
that a gateway may be newer than its workers.
"""

import json
import os
import socket
import threading
import traceback
from _thread import allocate_lock


class Control:
    """The control connection of a worker process."""

    def __init__(self, sock):
        self._sock = sock
        self._commands = {}
        self._send_lock = allocate_lock()
        os.register_at_fork(after_in_child=sock.close)

    def on(self, word, arguments, do):
        """Has do called for each command that is word and so many arguments,
        which are str."""
        self._commands[word, arguments] = do

    def tell(self, **message):
        """Sends one message. A gateway that has gone needs none."""
        line = json.dumps(message).encode("ascii") + b"\n"
        try:
            with self._send_lock:
                self._sock.sendall(line)
        except OSError:
            pass

    def start(self):
        """Begins to obey."""
        threading.Thread(target=self._obey, name="gatecrew-control", daemon=True).start()

    def _obey(self):
        try:
            with self._sock.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines:
                for line in lines:
                    words = line.rstrip("\n").split(" ")
                    do = self._commands.get((words[0], len(words) - 1))
                    if do is not None:
                        self._do(do, words[1:])
        except OSError:
            pass  # the gateway has gone: the requests' connection says so too

    @staticmethod
    def _do(do, arguments):
        try:
            do(*arguments)
        except Exception:  # the next command may still work
            traceback.print_exc()


def take(fd):
    """Returns the Control on the descriptor fd, None when there is none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    sock.setblocking(True)
    return Control(sock)
