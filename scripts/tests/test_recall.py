"""Requests that a worker has but has not started, and that are asked back."""

import os
import random
import tempfile
import unittest

from gateway import Answer, Busy, Worker, params, rec


def each(test):
    """Runs a test with every way to be busy, in one thread and in four."""

    def run(self):
        for path in ("/sleeps", "/spins"):
            for threads in (1, 4):
                with self.subTest(path, threads=threads), Busy(path, threads) as busy:
                    test(self, busy, busy.worker)

    return run


def ahead(worker):
    """How many requests it takes beside those that it can start."""
    return int(worker.values["GATECREW_AHEAD"])


class Recall(unittest.TestCase):
    def returned(self, worker, request_id):
        answer = worker.answer(request_id)
        self.assertEqual((answer.stdout, answer.stderr, answer.protocol_status), (b"", b"", rec.OVERLOADED))

    def test_negotiation(self):
        for threads in (1, 4):
            with Worker(threads=threads, control=True) as worker:
                self.assertEqual(worker.values["FCGI_MAX_REQS"], str(threads))
                self.assertGreater(ahead(worker), 0)
        with Worker() as worker:
            self.assertNotIn("GATECREW_AHEAD", worker.values)
        with Worker(window=0, control=True) as worker:
            worker.send(rec.record(rec.GET_VALUES, 0, rec.encode_pairs([(b"FCGI_MAX_REQS", b""), (b"GATECREW_AHEAD", b"")])))
            self.assertEqual(worker.record()[2], rec.encode_pairs([(b"FCGI_MAX_REQS", b"1")]))

    def test_as_many_as_announced(self):
        """What is more than that is refused without being asked for."""
        with Worker(threads=2, control=True) as worker:
            for i in (1, 2):
                worker.begin(i, path="/swallow", more=True)  # waits for its body, and so reads
            waiting = range(3, 3 + ahead(worker))
            for i in waiting:
                worker.begin(i, path="/hello")
            worker.begin(1000, path="/hello")
            self.returned(worker, 1000)
            self.assertEqual([i for i in worker.answers if worker.answers[i].app_status is not None], [1000])
            worker.stdin(b"", 1)
            for i in waiting:
                self.assertEqual(worker.answer(i).body, b"hello")
            worker.stdin(b"", 2)
            self.assertEqual(worker.answer(2).body, b"0")

    @each
    def test_gives_back_what_was_not_started(self, busy, worker):
        worker.begin(11, path="/hello")
        worker.begin(12, path="/echo", stdin=b"x" * 10000)
        worker.begin(13, path="/echo", stdin=b"the beginning of a body", more=True)
        worker.begin(14, path="/hello")
        worker.abort(14)
        worker.command(b"recall\n")
        for i in (11, 12, 13, 14):
            self.returned(worker, i)
        worker.stdin(b"was on its way", 13)
        worker.stdin(b"", 13)
        for i in busy.ids:
            self.assertIsNone(worker.answers[i].app_status)
        worker.begin(11, path="/echo", stdin=b"the id again")
        for i in busy.ids:
            self.assertIn(busy.release(i), (b"slept", b"spun"))
        self.assertEqual(worker.answer(11).body, b"the id again")

    @each
    def test_again_and_again(self, busy, worker):
        for _ in range(10):
            worker.begin(11, path="/hello")
            worker.command(b"recall\n")
            self.returned(worker, 11)
        for i in busy.ids:
            busy.release(i)
        self.assertEqual(worker.get("/hello").body, b"hello")

    def test_what_came_together(self):
        """Read with the request that is started, and behind it."""
        with Worker("busy:app", control=True) as worker, tempfile.TemporaryDirectory() as directory:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            data = b""
            together = range(1, 2 + ahead(worker))
            for i in together:
                worker.answers[i] = Answer()
                data += (
                    rec.record(rec.BEGIN_REQUEST, i, b"\0\1\1\0\0\0\0\0")
                    + rec.record(rec.PARAMS, i, params("/sleeps", QUERY_STRING=fifo) if i == 1 else params("/hello"))
                    + rec.record(rec.PARAMS, i) + rec.record(rec.STDIN, i))
            worker.send(data)
            worker.await_log("busy")
            worker.command(b"recall\n")
            for i in together[1:]:
                self.returned(worker, i)
            with open(fifo, "w"):
                pass
            self.assertEqual(worker.answer(1).body, b"slept")

    def test_half_received(self):
        """It can't be given back before it is whole; it is neither lost then."""
        with Busy("/sleeps", 1) as busy:
            worker = busy.worker
            worker.answers[11] = Answer()
            worker.send(rec.record(rec.BEGIN_REQUEST, 11, b"\0\1\1\0\0\0\0\0") + rec.record(rec.PARAMS, 11, params("/hello")))
            worker.begin(12, path="/hello")
            worker.command(b"recall\n")
            self.returned(worker, 12)
            self.assertIsNone(worker.answers[11].app_status)
            worker.send(rec.record(rec.PARAMS, 11) + rec.record(rec.STDIN, 11))
            busy.release(1)
            self.assertEqual(worker.answer(11).body, b"hello")

    def test_while_the_application_reads(self):
        with Worker(control=True) as worker:
            worker.begin(1, path="/swallow", more=True)
            worker.begin(2, path="/hello")
            worker.stdin(b"x" * 70000)  # granted for: what came before it was read, too
            while not worker.granted_input[1]:
                worker.take()
            worker.command(b"recall\n")
            self.returned(worker, 2)
            worker.stdin(b"")
            self.assertEqual(worker.answer().body, b"70000")

    def test_unknown_commands(self):
        with Busy("/sleeps", 1) as busy:
            worker = busy.worker
            worker.begin(11, path="/hello")
            worker.command(b"\n\0\xff\nrecal\nrecall now\nRECALL\n recall\nfuture 1 2 3\n" + b"x" * 10000 + b"\n")
            worker.command(b"rec")
            self.assertTrue(worker.quiet())
            worker.command(b"all\n")
            self.returned(worker, 11)
            busy.release(1)

    def test_end_of_the_pipe(self):
        for threads in (1, 4):
            with Worker(threads=threads, control=True) as worker:
                worker.close_control()
                self.assertEqual(worker.get("/hello").body, b"hello")

    def test_when_idle(self):
        for threads in (1, 4):
            with Worker(threads=threads, control=True) as worker:
                for _ in range(20):
                    worker.command(b"recall\n")
                    while worker.get("/hello").protocol_status:
                        pass  # it came at the same time as the command
                    self.assertEqual(worker.answers[1].body, b"hello")

    def test_stop_while_busy(self):
        """What was given back doesn't count as begun, nor hold up the end."""
        with Busy("/sleeps", 1) as busy:
            worker = busy.worker
            worker.begin(11, path="/hello")
            worker.command(b"recall\n")
            self.returned(worker, 11)
            worker.process.terminate()
            busy.release(1)
            self.assertEqual(worker.wait(), 0)

    def test_many(self):
        """Recalled at any moment, each request is answered or given back, once."""
        random_ = random.Random(1)
        for threads in (1, 4):
            with self.subTest(threads=threads), Worker("racing:raw", threads=threads, control=True) as worker:
                left, done, given_back = 600, 0, 0

                def begin(i):
                    worker.begin(i, path="/echo", stdin=b"%d" % i * random_.randrange(500))

                open_ = threads + ahead(worker)
                again = list(range(1, open_ + 1))
                left -= open_
                while open_:
                    # Some together, and the command at their heels: so that
                    # there is something to give back, however quick it is.
                    if len(again) == open_ or again and not random_.randrange(10):
                        with worker.together():
                            while again:
                                begin(again.pop())
                        worker.command(b"recall\n")
                    kind, i, content = worker.take()
                    answer = worker.answers[i]
                    if kind == rec.STDOUT:
                        worker.grant(len(content), i)
                    if answer.app_status is None:
                        continue
                    if answer.protocol_status == rec.OVERLOADED:
                        self.assertEqual(answer.stdout, b"")
                        given_back += 1
                    else:
                        self.assertEqual((answer.protocol_status, answer.app_status, answer.errors), (0, 0, ""))
                        self.assertEqual(answer.body.replace(b"%d" % i, b""), b"")
                        done += 1
                    if left or answer.protocol_status:
                        left -= not answer.protocol_status
                        again.append(i)
                    else:
                        open_ -= 1
                self.assertEqual(done, 600)
                self.assertTrue(given_back)


if __name__ == "__main__":
    unittest.main()
