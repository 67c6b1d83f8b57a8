"""Requests that are stuck: what they are doing, and how they are ended."""

import array
import fcntl
import json
import os
import signal
import socket
import termios
import time
import unittest
from urllib.parse import quote_plus

from gateway import DEADLINE, Worker


class Stuck(Worker):
    """A worker whose control connection is heard."""

    def __init__(self, app="stuck:app", *args, **more):
        super().__init__(app, *args, control=True, **more)
        self._ear = socket.socket(fileno=os.dup(self._control))
        self._ear.settimeout(DEADLINE)
        self._heard = self._ear.makefile("r")
        self._asked = 0

    def __exit__(self, *failure):
        self._heard.close()
        self._ear.close()
        if failure[0]:
            self.process.kill()
        super().__exit__(*failure)

    def hear(self, name):
        """The next message that has name."""
        for line in self._heard:
            message = json.loads(line)
            if name in message:
                return message
        raise EOFError("the control connection was closed\n" + self.log)

    def ask(self, command, *arguments):
        self._asked += 1
        self.command((" ".join((command, str(self._asked)) + arguments) + "\n").encode())
        message = self.hear("answer")
        assert message["answer"] == self._asked, message
        return message["text"]

    def stacks(self, request=""):
        return self.ask("stacks", quote_plus(request))

    def interrupt(self, request, patience=DEADLINE, reason="no answer for 30s"):
        return self.ask("interrupt", quote_plus(request), "%.3f" % patience, quote_plus(reason))

    def dumped(self):
        """How many bytes of dumps wait to be read, once they get no more."""
        count = array.array("i", [-1])
        before = None
        while before != count[0]:
            before = count[0]
            time.sleep(0.02)
            fcntl.ioctl(self.dumps, termios.FIONREAD, count)
        return count[0]

    def start(self, path, request_id=1, busy=1):
        self.begin(request_id, path=path, UNIQUE_ID="r-%d" % request_id, REQUEST_URI=path + "?q=%22")
        self.await_log("busy\n" * busy)


def _title(line):
    return not line.startswith(" ")


class Stacks(unittest.TestCase):
    def test_threads(self):
        with Stuck(threads=3) as worker:
            worker.start("/spins", 1)
            worker.start("/spins", 2, busy=2)
            for asked, other in (("r-1", "r-2"), ("r-2", "r-1")):
                lines = worker.stacks(asked).splitlines()
                titles = [line for line in lines if _title(line)]
                self.assertRegex(titles[0], r'^thread "(gatecrew-\d|MainThread)" at request %s, GET /spins\?q=%%22:$' % asked)
                self.assertIn("request %s," % other, titles[1])
                self.assertRegex(titles[2], "^idle: .*signals")
                self.assertEqual(len(titles), 3)
                # Nothing of the worker's stands above the application.
                self.assertRegex(lines[1], r'^  File ".*stuck.py", line \d+, in app$')
                self.assertEqual(lines[2].strip(), 'return ROUTES.get(environ["PATH_INFO"], raw)(environ, start_response)')
                self.assertIn("in spins", lines[3])
            worker.process.kill()

    def test_tasks(self):
        with Stuck() as worker:
            worker.start("/awaits")
            time.sleep(0.1)  # until all of them wait
            text = worker.stacks("r-1")
            tasks = text[text.index('\ntask "'):]
            self.assertEqual(tasks.count('\ntask "Task-'), 3)
            self.assertIn('of thread "MainThread" waits for a _GatheringFuture:', tasks)
            self.assertRegex(tasks, r"in innermost\n    await event.wait\(\)\n  File .*in wait\n")
            self.assertIn("in sleep\n", tasks)
            worker.process.kill()

    def test_nothing_to_tell(self):
        with Stuck(threads=2) as worker:
            self.assertRegex(worker.stacks("r-1"), "^idle: thread .*\n$")
            self.assertEqual(worker.get("/hello").body, b"hello")

    def test_dump(self):
        """What the gateway reads when no Python code can run."""
        with Stuck() as worker:
            number = worker.hear("dump_signal")["dump_signal"]
            self.assertGreater(number, signal.SIGRTMIN)
            worker.start("/sleeps")
            os.kill(worker.process.pid, number)
            dump = b""
            while b"in sleeps" not in dump or b"in _run_module_as_main" not in dump:  # the last line
                dump += os.read(worker.dumps, 65536)
            self.assertEqual(worker.interrupt("r-1"), "")
            worker.answer(1)

    def test_answer_within_a_dump(self):
        """A dump that is half written doesn't tear an answer."""
        with Stuck() as worker:
            number = worker.hear("dump_signal")["dump_signal"]
            worker.start("/sleeps")
            room = fcntl.fcntl(worker.dumps, 1032)  # F_GETPIPE_SZ, which Python has since 3.10
            full, length = 0, 0
            while full + length < room:
                os.kill(worker.process.pid, number)
                full, before = worker.dumped(), full
                length = full - before
                self.assertGreater(length, 0)
            os.kill(worker.process.pid, number)  # this one waits for room, in the middle
            worker.dumped()
            self.assertIn("in sleeps", worker.stacks("r-1"))
            worker.process.kill()


class Interrupt(unittest.TestCase):
    def interrupted(self, path, threads, request_id=1):
        """Whether a request that is stuck ends and the worker goes on."""
        with Stuck(threads=threads) as worker:
            worker.start(path, request_id)
            self.assertEqual(worker.interrupt("r-%d" % request_id), "")
            answer = worker.answer(request_id)
            self.assertEqual((answer.stdout, answer.app_status), (b"", 1))
            worker.await_log("gatecrew: request r-%d was interrupted: no answer for 30s\n" % request_id)
            for i in range(2, 2 + 2 * threads):
                self.assertEqual(worker.get("/hello", i).body, b"hello")
            return worker.log, answer.errors

    def test_main_thread(self):
        for path in ("/spins", "/sleeps", "/locks", "/awaits", "/spins-in-task", "/writes"):
            with self.subTest(path):
                self.interrupted(path, 1)

    def test_other_threads(self):
        for path in ("/spins", "/awaits", "/spins-in-task", "/writes"):
            with self.subTest(path), Stuck(threads=3) as worker:
                for i in (1, 2, 3):  # one of them is in the main thread
                    worker.start(path, i, busy=i)
                for i in (2, 1, 3):
                    self.assertEqual(worker.interrupt("r-%d" % i), "")
                    worker.answer(i)
                self.assertEqual(worker.get("/hello").body, b"hello")

    def test_application_sees_it(self):
        for threads in (1, 3):
            with self.subTest(threads=threads):
                log, errors = self.interrupted("/cleans-up", threads)
                self.assertIn("cleaned up: no answer for 30s\n", log)
                self.assertNotIn("taken for an Exception", log)
                self.assertEqual(errors, "finally\n")

    def test_siblings(self):
        with Stuck(threads=3) as worker:
            worker.start("/spins", 1)
            worker.start("/spins", 2, busy=2)
            self.assertEqual(worker.interrupt("r-2"), "")
            worker.answer(2)
            for i in range(3, 10):
                self.assertEqual(worker.get("/takes", i).body, b"took")
            self.assertIsNone(worker.answers[1].app_status)
            self.assertEqual(worker.interrupt("r-1"), "")
            worker.answer(1)

    def test_what_cannot_be(self):
        with Stuck(threads=2) as worker:
            self.assertEqual(worker.interrupt("r-1"), "the request has ended")
            worker.begin(1, path="/spins", UNIQUE_ID="a b\xe9")
            worker.begin(2, path="/spins", UNIQUE_ID="a b\xe9")
            worker.await_log("busy\nbusy\n")
            self.assertEqual(worker.ask("interrupt", "a+b%E9", "1", "why"), "2 requests have this UNIQUE_ID")
            worker.process.kill()

    def test_never_the_next_request(self):
        """Interruptions that come when their request is about to end, or has
        ended, hit no other one."""
        for threads in (1, 3):
            with self.subTest(threads=threads), Stuck(threads=threads) as worker:
                ended = hit = 0
                for i in range(1, 800 if "SOAK" in os.environ else 40):
                    worker.begin(1, path="/takes", UNIQUE_ID="r-%d" % i)
                    time.sleep(i % 20 * 0.0006)
                    worker.interrupt("r-%d" % i)
                    if worker.answer(1).app_status:
                        hit += 1
                    else:
                        ended += 1
                    for n in range(2, 2 + threads):  # all threads
                        worker.begin(n, path="/takes", UNIQUE_ID="other-%d" % n)
                    for n in range(2, 2 + threads):
                        self.assertEqual(worker.answer(n).body, b"took", worker.log)
                self.assertTrue(ended and hit, (ended, hit))


if __name__ == "__main__":
    unittest.main()
