"""The second connection to the gateway: what is said about the requests.

Commands come as lines, a word and its arguments; what the gateway is told goes
back as lines, a JSON object each. All of it happens in a thread of its own,
while the others are at work. A command that is not known is passed over, so
that a gateway may be newer than its workers.
"""

import faulthandler
import json
import os
import socket
import signal
import threading
import traceback
import urllib.parse
from _thread import allocate_lock

from gatecrew_worker import _interrupt, _stacks

# Has faulthandler write the stacks of all threads to the pipe for dumps, which
# also works while a C function holds the interpreter. A real-time signal, near
# the end of their range: programs and libraries that use any take the first
# ones.
_DUMP_SIGNAL = signal.SIGRTMAX - 2


class Control:
    """The control connection of a worker process."""

    def __init__(self, sock, dumps):
        self._sock = sock
        self._dumps = dumps  # a descriptor, or None
        self._commands = {}
        self._send_lock = allocate_lock()
        os.register_at_fork(after_in_child=self._close)

    def _close(self):
        """In a process that the application forks."""
        if self._dumps is not None:
            faulthandler.unregister(_DUMP_SIGNAL)
            os.close(self._dumps)
            self._dumps = None
        self._sock.close()

    def on(self, word, arguments, do):
        """Has do called for each command that is word and so many arguments,
        which are str."""
        self._commands[word, arguments] = do

    def serve(self, loop):
        """Obeys what can be said of the requests of a loop, from now on. For
        the main thread, which signals are for."""
        self.on("recall", 0, loop.give_back)
        self.on("stacks", 2, lambda number, unique_id: self._answer(
            number, _stacks.describe(loop.requests(), _unquoted(unique_id))))
        self.on("interrupt", 4, lambda number, unique_id, patience, reason: self._answer(
            number, _interrupt.begin(loop.requests(), _unquoted(unique_id), _unquoted(reason), float(patience))))
        _interrupt.prepare()
        if self._dumps is not None and signal.getsignal(_DUMP_SIGNAL) is signal.SIG_DFL:
            faulthandler.register(_DUMP_SIGNAL, file=self._dumps, all_threads=True, chain=False)
            self.tell(dump_signal=_DUMP_SIGNAL)
        self.start()

    def _answer(self, number, text):
        self.tell(answer=int(number), text=text)

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


def _unquoted(word):
    """A word of a command as the text that the parameters have."""
    return urllib.parse.unquote_plus(word, "latin-1")


def take(fd, dumps):
    """Returns the Control on the descriptor fd, None when there is none. dumps
    is the descriptor that stacks are written to, or None."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    sock.setblocking(True)
    return Control(sock, dumps)
