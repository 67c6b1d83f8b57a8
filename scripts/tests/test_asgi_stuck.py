"""Requests of an event loop that are stuck: what they are doing, and how they
are ended without their neighbours."""

import os
import time
import unittest

from test_stuck import Stuck


class StuckTask(Stuck):
    """A worker with an event loop whose control connection is heard."""

    def __init__(self):
        loop = os.environ.get("TEST_LOOP", "asyncio")
        if loop == "uvloop":
            self.flags = ("-W", "error")
        super().__init__("asgi_app:app", "--interface", "asgi", "--loop", loop)


class Stacks(unittest.TestCase):
    def test_tasks(self):
        with StuckTask() as worker:
            worker.start("/awaits", 1)
            worker.start("/awaits", 2, busy=2)
            for asked, other in (("r-1", "r-2"), ("r-2", "r-1")):
                text = worker.stacks(asked)
                titles = [line for line in text.splitlines() if not line.startswith(" ")]
                for title, name in zip(titles, (asked, other)):
                    self.assertRegex(title, r'^task "Task-\d+" of thread "MainThread" at request %s, GET /awaits\?q=%%22 waits for a \w*Future:$' % name)
                self.assertIn("in innermost\n", text)
                self.assertNotIn('thread "MainThread":', text)  # it waits
                self.assertRegex(titles[-1], "^idle: .*MainThread")
            worker.process.kill()

    def test_held_up(self):
        with StuckTask() as worker:
            worker.start("/awaits", 1)
            worker.start("/spins", 2, busy=2)
            lines = worker.stacks("r-2").splitlines()
            self.assertEqual(lines[0], 'thread "MainThread" at request r-2, GET /spins?q=%22:')
            self.assertRegex(lines[1], r'^  File ".*asgi_app.py", line \d+, in app$')
            self.assertIn("in spins", "".join(lines[2:6]))
            self.assertIn('at request r-2, GET /spins?q=%22 is running, see its thread', "\n".join(lines))
            worker.process.kill()


class Interrupt(unittest.TestCase):
    def test_one_of_many(self):
        """Whatever a request is stuck in, it ends and its neighbours go on."""
        with StuckTask() as worker:
            worker.begin(1, path="/streams", more=True)
            worker.until(1, 1)
            worker.start("/awaits", 2)
            busy = 1
            for path in ("/awaits", "/spins", "/sleeps", "/spins-in-task", "/sends"):
                with self.subTest(path):
                    busy += 1
                    worker.begin(3, path=path, UNIQUE_ID="r-3")
                    self.until_busy(worker, busy)
                    self.assertEqual(worker.interrupt("r-3"), "")
                    answer = worker.answer(3)
                    self.assertEqual((answer.stdout, answer.app_status), (b"", 1))
                    self.assertEqual(worker.get("/hello", 4).body, b"hello")
            self.assertEqual(worker.log.count("gatecrew: request r-3 was interrupted: no answer for 30s\n"), 5)
            self.assertIsNone(worker.answers[2].app_status)
            worker.stdin(b"", 1)
            self.assertEqual(worker.answer(1).body, b"begun ended")
            worker.process.kill()

    def until_busy(self, worker, count):
        deadline = time.monotonic() + 10
        while worker.log.count("busy\n") < count:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def test_application_sees_it(self):
        for query in ("awaits", "sleeps"):
            with self.subTest(query), StuckTask() as worker:
                worker.begin(1, path="/cleans-up", UNIQUE_ID="r-1", QUERY_STRING=query)
                worker.await_log("busy\n")
                self.assertEqual(worker.interrupt("r-1"), "")
                self.assertEqual(worker.answer(1).app_status, 1)
                self.assertIn("cleaned up\n", worker.log)
                self.assertNotIn("taken", worker.log)
                self.assertEqual(worker.answers[1].errors, "")
                self.assertEqual(worker.interrupt("r-1"), "the request has ended")

    def test_time_to_clean_up(self):
        """A task that was cancelled is not interrupted a second time at once."""
        with StuckTask() as worker:
            worker.begin(1, path="/cleans-up-slowly", UNIQUE_ID="r-1")
            worker.await_log("busy\n")
            self.assertEqual(worker.interrupt("r-1"), "")
            worker.answer(1)
            self.assertIn("cleaned up\n", worker.log)

    def test_never_another_request(self):
        with StuckTask() as worker:
            ended = hit = 0
            for i in range(1, 800 if "SOAK" in os.environ else 40):
                worker.begin(1, path="/takes", UNIQUE_ID="r-%d" % i)
                time.sleep(i % 20 * 0.0006)
                worker.interrupt("r-%d" % i)
                if worker.answer(1).app_status:
                    hit += 1
                else:
                    ended += 1
                for n in (2, 3):
                    worker.begin(n, path="/takes", UNIQUE_ID="other-%d" % n)
                for n in (2, 3):
                    self.assertEqual(worker.answer(n).body, b"took", worker.log)
            self.assertTrue(ended and hit, (ended, hit))


if __name__ == "__main__":
    unittest.main()
