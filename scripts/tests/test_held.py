"""Answers that are held back, to be sent together."""

import os
import tempfile
import unittest

from gateway import Worker


class Held(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.fifo = os.path.join(directory.name, "fifo")
        os.mkfifo(self.fifo)

    def release(self):
        with open(self.fifo, "w"):
            pass

    def test_together(self):
        """Lists, which may be held back, and parts, which may not, or not all."""
        with Worker("applications:raw", control=True) as worker:
            with worker.together():
                for i in range(1, 11):
                    worker.begin(i, path="/hello" if i % 2 else "/parts")
            worker.answer(1)
            for i in range(2, 11):
                self.assertEqual(worker.answer(i).body, b"hello" if i % 2 else b"one two three")

    def test_nobody_waits_behind_the_slow(self):
        for path, answered in (("/sleeps", b"slept"), ("/spins", b"spun")):
            for _ in range(3):  # also when it has happened just now
                with self.subTest(path), Worker("busy:app", control=True) as worker:
                    with worker.together():
                        for i in range(1, 10):
                            worker.begin(i, path="/hello")
                        worker.begin(10, path=path, QUERY_STRING=self.fifo)
                    for i in range(1, 10):
                        self.assertEqual(worker.answer(i).body, b"hello")
                    self.assertIsNone(worker.answers[10].app_status)
                    self.release()
                    self.assertEqual(worker.answer(10).body, answered)

    def test_nothing_is_held_where_a_request_may_be_run_once_only(self):
        """What a worker that dies has begun must be known of each request that
        must not be given to another one."""
        for method in "POST", "PATCH", "DELETE", "GETS", "":
            with self.subTest("before", method=method), Worker("busy:app", control=True) as worker:
                with worker.together():
                    worker.begin(1, path="/hello")
                    worker.begin(2, path="/dies", method=method)
                self.assertEqual(worker.answer(1).body, b"hello")
            with self.subTest("its own", method=method), Worker("busy:app", control=True) as worker:
                with worker.together():
                    worker.begin(1, path="/hello")
                    worker.begin(2, path="/hello", method=method)
                    worker.begin(3, path="/dies")
                self.assertEqual(worker.answer(1).body, b"hello")
                self.assertEqual(worker.answer(2).body, b"hello")
            with self.subTest("and again", method=method), Worker("busy:app", control=True) as worker:
                with worker.together():
                    for i in range(1, 30):
                        worker.begin(i, path="/hello" if i % 3 else "/parts", method=method if i % 2 else "GET")
                for i in range(1, 30):
                    self.assertEqual(worker.answer(i).body, b"hello" if i % 3 else b"one two three")

    def test_work_behind_a_whole_body(self):
        """PEP 3333: the application goes on while its client has the body."""
        with Worker("busy:app", control=True) as worker:
            for _ in range(3):
                worker.begin(path="/lingers", QUERY_STRING=self.fifo)
                while not worker.answers[1].stdout.endswith(b"whole"):
                    worker.take()
                self.assertIsNone(worker.answers[1].app_status)
                self.release()
                self.assertEqual(worker.answer().body, b"whole")

    def test_the_last_ones_of_a_worker(self):
        """A worker that is told to end sends what it holds back."""
        with Worker("busy:app", control=True) as worker:
            with worker.together():
                for i in range(1, 10):
                    worker.begin(i, path="/hello")
                worker.begin(10, path="/sleeps", QUERY_STRING=self.fifo)
            worker.await_log("busy")
            worker.process.terminate()
            self.release()
            for i in range(1, 11):
                self.assertEqual(worker.answer(i).body, b"slept" if i == 10 else b"hello")
            self.assertEqual(worker.wait(), 0)


if __name__ == "__main__":
    unittest.main()
