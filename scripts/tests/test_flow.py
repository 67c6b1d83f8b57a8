"""Windows, interleaved requests, and clients that go away."""

import functools
import random
import socket
import unittest

from gatecrew_worker import _threads

from gateway import Answer, Worker, params, rec

WINDOW = 131072


def with_worker(**more):
    """Runs a test with a worker of one thread, and with one of four."""

    def decorate(test):
        @functools.wraps(test)
        def run(self):
            for threads in (1, 4):
                with self.subTest(threads=threads), Worker(threads=threads, **more) as worker:
                    test(self, worker)

        return run

    return decorate


class Flow(unittest.TestCase):
    @with_worker(window=1000)
    def test_output_stops_at_the_window(self, worker):
        worker.begin(path="/one", QUERY_STRING="5000")
        answer = worker.until(1000)
        self.assertEqual(len(answer.stdout), 1000)
        self.assertTrue(worker.quiet())
        for size in (1, 10, 989):
            before = len(answer.stdout)
            worker.grant(size)
            worker.until(before + size)
            self.assertEqual(len(answer.stdout), before + size)
        self.assertTrue(worker.quiet())
        worker.grant(100000)
        self.assertEqual((worker.answer().body, answer.app_status), (b"m" * 5000, 0))

    @with_worker(window=7)
    def test_slow_grants(self, worker):
        for path, body in (("/parts", b"one two three"), ("/hello", b"hello")):
            answer = worker.get(path)
            self.assertEqual((answer.body, answer.app_status), (body, 0))

    @with_worker()
    def test_big_bodies_in_both_directions(self, worker):
        """An echo of ten windows, so that reading and writing take turns."""
        body = bytes(range(256)) * (WINDOW * 10 // 256)
        worker.begin(path="/echo", stdin=body[:WINDOW], more=True)
        answer = worker.answers[1]
        sent = WINDOW
        while answer.app_status is None:
            kind, _, content = worker.take()
            if kind == 6:
                worker.grant(len(content))
            room = WINDOW + worker.granted_input[1] - sent
            if room and sent < len(body):
                worker.stdin(body[sent:sent + room])
                sent = min(len(body), sent + room)
                if sent == len(body):
                    worker.stdin(b"")
        self.assertEqual(answer.app_status, 0)
        self.assertEqual(answer.body, body)
        self.assertLessEqual(worker.granted_input[1], len(body))

    @with_worker()
    def test_input_is_granted_as_it_is_read(self, worker):
        worker.begin(path="/swallow", stdin=b"i" * (WINDOW // 2 - 1), more=True)
        self.assertTrue(worker.quiet())
        worker.stdin(b"i")
        worker.take()
        self.assertEqual(worker.granted_input[1], WINDOW // 2)
        worker.stdin(b"")
        self.assertEqual(worker.answer().body, b"%d" % (WINDOW // 2))

    @with_worker(window=1000)
    def test_input_is_not_granted_unread(self, worker):
        worker.begin(path="/endless", stdin=b"i" * WINDOW, more=True)
        worker.until(1000)
        self.assertTrue(worker.quiet())
        self.assertEqual(worker.granted_input[1], 0)
        worker.abort()
        worker.answer()

    @with_worker()
    def test_abort_while_reading(self, worker):
        worker.begin(path="/read_reports", stdin=b"x", more=True)
        worker.await_log("reading")
        worker.abort()
        self.assertEqual(worker.answer().app_status, 1)
        worker.await_log("read raised ClientDisconnected")
        self.assertEqual(worker.answers[1].errors, "")
        self.assertEqual(worker.get("/hello").body, b"hello")

    @with_worker(window=500)
    def test_abort_while_waiting_for_credit(self, worker):
        for path, said in (("/endless", "closed"), ("/write_reports", "write raised ClientDisconnected")):
            worker.begin(path=path)
            worker.until(500)
            worker.abort()
            self.assertEqual(worker.answer().app_status, 1)
            worker.await_log(said)
        self.assertEqual(worker.get("/hello").body, b"hello")

    @with_worker()
    def test_abort_between_chunks(self, worker):
        """An application that only writes, slowly, and has credit enough."""
        worker.begin(path="/slow_endless")
        worker.until(100)
        worker.abort()
        self.assertEqual(worker.answer().app_status, 1)
        worker.await_log("closed")

    def test_abort_before_the_start(self):
        """Aborted in the block that begins it: the application isn't run."""
        with Worker() as worker:
            worker.answers[2] = Answer()
            worker.send(
                rec.record(rec.BEGIN_REQUEST, 2, b"\0\1\1\0\0\0\0\0") + rec.record(rec.PARAMS, 2, params("/exits"))
                + rec.record(rec.PARAMS, 2) + rec.record(rec.ABORT_REQUEST, 2))
            answer = worker.answer(2)
            self.assertEqual((answer.app_status, answer.stdout, answer.stderr), (1, b"", b""))

    def test_two_at_once(self):
        with Worker(threads=4) as worker:
            worker.begin(1, path="/meet")
            worker.begin(2, path="/meet")
            names = {worker.answer(1).body, worker.answer(2).body}
            self.assertEqual(len(names), 2)

    def test_interleaved(self):
        """Four requests whose bodies arrive in turns, one of them never read."""
        with Worker(threads=4) as worker:
            for i in (1, 2, 3):
                worker.begin(i, path="/echo", more=True)
            worker.begin(4, path="/steps", more=True)
            for n in range(20):
                for i in (1, 2, 3, 4):
                    worker.stdin(b"%d-%d\n" % (i, n), i)
            for i in (3, 1, 4, 2):
                worker.stdin(b"", i)
            for i in (1, 2, 3):
                self.assertEqual(worker.answer(i).body, b"".join(b"%d-%d\n" % (i, n) for n in range(20)))
            self.assertEqual(worker.answer(4).body.count(b"got 4-"), 20)

    def test_a_stuck_neighbour_stops_nobody(self):
        """One waits for credit, one for its body, one for the application."""
        with Worker(threads=4, window=1000) as worker:
            worker.begin(1, path="/endless")
            worker.begin(2, path="/swallow", more=True)
            worker.begin(3, path="/wait")
            worker.until(1000, 1)
            for _ in range(50):
                self.assertEqual(worker.get("/hello", 4).body, b"hello")
            worker.get("/open_gate", 4)
            self.assertEqual(worker.answer(3).body, b"waited")
            worker.stdin(b"22", 2)
            worker.stdin(b"", 2)
            self.assertEqual(worker.answer(2).body, b"2")
            worker.abort(1)
            self.assertEqual(worker.answer(1).app_status, 1)

    def test_a_send_that_a_signal_cuts_short(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop = _threads.Loop(ours, 1)

            class Cut:
                sendall = ours.sendall

                @staticmethod
                def sendmsg(parts):
                    return ours.send(b"".join(parts)[:7])

            loop._sock = Cut
            loop._send_parts([b"12345", memoryview(b"6789"), b"abcdefg"])
            self.assertEqual(theirs.recv(100, socket.MSG_DONTWAIT), b"123456789abcdefg")

    def test_all_threads_stuck(self):
        """The read role is with threads that wait inside their requests."""
        with Worker(threads=2, window=1000) as worker:
            worker.begin(1, path="/one", QUERY_STRING="20000")
            worker.begin(2, path="/swallow", more=True)
            worker.until(1000, 1)
            worker.stdin(b"5" * 500, 2)
            worker.grant(9000, 1)
            worker.until(10000, 1)
            worker.stdin(b"", 2)
            self.assertEqual(worker.answer(2).body, b"500")
            self.assertEqual(worker.get("/hello", 2).body, b"hello")
            worker.grant(20000, 1)
            self.assertEqual(len(worker.answer(1).body), 20000)

    def test_many(self):
        """Ids used again at once, bodies, windows and aborts mixed, threads
        that are switched all the time: no answer is lost, late or another's."""
        random_ = random.Random(1)
        with Worker("racing:raw", threads=4, window=2000) as worker:
            wanted = {}

            def begin(i):
                body = b"%d" % i * random_.randrange(3000)
                kind = random_.choice(["one", "echo", "swallow", "abort"])
                if kind == "one":
                    wanted[i] = b"m" * random_.randrange(6000)
                    worker.begin(i, path="/one", QUERY_STRING=str(len(wanted[i])))
                elif kind == "abort":
                    wanted[i] = None
                    worker.begin(i, path="/endless", more=True)
                    worker.abort(i)
                else:
                    wanted[i] = body if kind == "echo" else b"%d" % len(body)
                    worker.begin(i, path="/" + kind, more=True)
                    if body:
                        worker.stdin(body, i)
                    worker.stdin(b"", i)

            for i in (1, 2, 3, 4):
                begin(i)
            left = 1500
            busy = 4
            while busy:
                kind, i, content = worker.take()
                answer = worker.answers[i]
                if kind == rec.STDOUT:
                    worker.grant(len(content), i)
                if answer.app_status is None:
                    continue
                if wanted[i] is None:
                    self.assertEqual(answer.app_status, 1)
                else:
                    self.assertEqual((answer.body, answer.app_status, answer.errors), (wanted[i], 0, ""))
                if left:
                    left -= 1
                    begin(i)
                else:
                    busy -= 1


if __name__ == "__main__":
    unittest.main()
