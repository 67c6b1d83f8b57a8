"""A worker process: starting, negotiating, ending, and what it does when the
gateway breaks the protocol."""

import json
import os
import signal
import sys
import tempfile
import time
import unittest
from contextlib import ExitStack

from gateway import APPS, Answer, Busy, Worker, params, rec


class Start(unittest.TestCase):
    def test_negotiation(self):
        for threads in (1, 4):
            with Worker(threads=threads) as worker:
                self.assertEqual(worker.values, {
                    "FCGI_MAX_CONNS": "1", "FCGI_MAX_REQS": str(threads), "FCGI_MPXS_CONNS": "1",
                    "GATECREW_FLOW": "1", "GATECREW_WINDOW": "131072"})

    def test_unknown_management_record(self):
        with Worker() as worker:
            worker.send(rec.record(77, 0, b"?"))
            self.assertEqual(worker.record(), (rec.UNKNOWN_TYPE, 0, bytes((77, 0, 0, 0, 0, 0, 0, 0))))

    def test_plain_fastcgi(self):
        """Without negotiation there are no windows, and no records of ours."""
        with Worker(window=0) as worker:
            worker.begin(path="/echo", stdin=b"e" * 300000)
            answer = worker.answer()
            self.assertEqual((answer.body, answer.app_status), (b"e" * 300000, 0))
            self.assertEqual(worker.granted_input, {1: 0})

    def test_descriptors_and_path(self):
        with Worker() as worker:
            # 3 is the directory that ls itself has open.
            self.assertEqual(worker.get("/descriptors").body, b"0\n1\n2\n3\n")
            path = json.loads(worker.get("/path").body)
            self.assertEqual(path[0], APPS)
            self.assertFalse([p for p in path if "gatecrew_worker" in p or p.endswith("scripts")])

    def test_streams(self):
        with Worker() as worker:
            self.assertEqual(worker.get("/prints").body, b"")
            worker.await_log("a stray print \\udcff\na raw write\n")

    def test_gateway_variables_stay_out(self):
        with Worker(env={"HTTP_PROXY": "http://evil", "PATH": os.environ["PATH"]}) as worker:
            answer = worker.get("/environ", HTTP_PROXY="http://evil", HTTPS="on")
            environ = json.loads(answer.body)
            self.assertNotIn("HTTP_PROXY", environ)
            self.assertNotIn("PATH", environ)
            self.assertEqual(environ["wsgi.url_scheme"], "https")

    def test_root_path(self):
        with Worker("applications:environ", "--root-path", "/p") as worker:
            for sent, want in (
                (("", "/x"), ("/p", "/x")), (("", "/p/x"), ("/p", "/x")), (("", "/p"), ("/p", "")),
                (("", "/px"), ("/p", "/px")), (("/given", "/p/x"), ("/given", "/p/x")),
            ):
                environ = json.loads(worker.get(sent[1], SCRIPT_NAME=sent[0]).body)
                self.assertEqual((environ["SCRIPT_NAME"], environ["PATH_INFO"]), want)


class NoStart(unittest.TestCase):
    def fails(self, status, *args, **kwargs):
        return self.all_fail(status, [args], **kwargs)[0]

    def all_fail(self, status, calls, **kwargs):
        """Starts a worker with each list of arguments; returns their logs."""
        logs = []
        with ExitStack() as stack:
            for worker in [stack.enter_context(Worker(*args, ready=False, **kwargs)) for args in calls]:
                self.assertEqual(worker.wait(), status, worker.log)
                self.assertEqual(worker.sock.recv(1), b"")
                self.assertNotIn("gatecrew_worker/_", worker.log)
                logs.append(worker.log)
        return logs

    def test_module_missing(self):
        log = self.fails(4, "nothing_here:app")
        for text in ("No module named 'nothing_here'", sys.executable, "working directory: " + APPS, "sys.path[0]: " + APPS):
            self.assertIn(text, log)

    def test_attribute_missing(self):
        log = self.fails(4, "applications:chekced")
        self.assertIn("has no attribute 'chekced'", log)
        self.assertIn("applications has: checked", log)
        self.assertIn("applications has: say, hello", self.fails(4, "applications:xyzzy"))

    def test_not_callable(self):
        self.assertIn("of type list, which can't be called", self.fails(4, "applications:PLAIN"))

    def test_factory_without_call(self):
        self.assertIn("write create_app()", self.fails(4, "factories:create_app"))

    def test_asgi(self):
        self.assertIn("an ASGI application it seems", self.fails(4, "factories:asgi"))

    def test_factory_fails(self):
        log = self.fails(4, "factories:broken()")
        self.assertIn("ValueError: no settings", log)
        self.assertIn('factories.py", line', log)

    def test_not_an_expression(self):
        for log in self.all_fail(4, [("factories:" + e,) for e in ("app[0]", "a b", "f(open('x'))", "1")]):
            self.assertIn("neither a name nor a call", log)

    def test_import_fails(self):
        with tempfile.TemporaryDirectory() as directory:
            for text, said in (
                ("import no_such_module_xyz\n", "No module named 'no_such_module_xyz'"),
                ("def broken(:\n", "SyntaxError"),
                ("import sys\nsys.exit('not today')\n", "SystemExit: not today"),
            ):
                with open(os.path.join(directory, "bad.py"), "w") as file:
                    file.write(text)
                for log in self.all_fail(4, [("bad:app",), ("bad.py",)], cwd=directory):
                    self.assertIn(said, log)
                    self.assertIn("bad.py", log)
                    self.assertNotIn("importlib", log)

    def test_no_names_to_guess(self):
        log = self.fails(4, "nothing_to_call")
        self.assertIn("no callable application or app", log)

    def test_file_missing(self):
        self.assertIn("there is no file " + os.path.join(APPS, "gone.py"), self.fails(4, "gone.py"))

    def test_arguments(self):
        wrong = (("--threads", "0"), ("--interface", "cgi"), ("--root-path", "p"), ("--concurrency", "0"), ("--loop", "trio"), ("--lifespan", "maybe"))
        for (name, _), log in zip(wrong, self.all_fail(3, [("applications", *w) for w in wrong])):
            self.assertIn(name, log)


class Forms(unittest.TestCase):
    def test_forms(self):
        forms = (
            ("factories:nested.inner.app", b"nested"),
            ("factories:create_app()", b"created"),
            ("factories:with_arguments('x', number=2)", b"x2"),
            ("factories", b"created"),
            ("factories.py", b"created"),
            (os.path.join(APPS, "factories.py") + ":nested.inner.app", b"nested"),
            ("dashed-name.wsgi", b"from a .wsgi file"),
            ("package.wsgi", b"a module called wsgi"),
            ("signal.py", b"not the standard library"),
        )
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(name, ready=False)) for name, _ in forms]
            for worker, (name, body) in zip(workers, forms):
                with self.subTest(name):
                    worker.negotiate()
                    self.assertEqual(worker.get("/hello").body, body, worker.log)

    def test_application_directory(self):
        with Worker("factories", "--app-dir", APPS, cwd=os.path.dirname(APPS)) as worker:
            self.assertEqual(worker.get("/hello").body, b"created")


class End(unittest.TestCase):
    def test_end_of_file_when_idle(self):
        for threads in (1, 4):
            with Worker(threads=threads) as worker:
                worker.sock.close()
                self.assertEqual(worker.wait(), 0)

    def test_half_close_finishes_what_has_begun(self):
        for threads in (1, 4):
            with Busy("/sleeps", threads) as busy:
                busy.worker.sock.shutdown(1)
                for i in busy.ids:
                    self.assertEqual(busy.release(i), b"slept")
                self.assertEqual(busy.worker.wait(), 0)

    def test_half_close_ends_what_can_never_end(self):
        """No more credit can come, and no more of a body."""
        with Worker(threads=2, window=100) as worker:
            worker.begin(1, path="/endless")
            worker.begin(2, path="/read_reports", more=True)
            worker.until(100, 1)
            worker.await_log("reading")
            worker.sock.shutdown(1)
            self.assertEqual(worker.answer(1, grant=False).app_status, 1)
            self.assertEqual(worker.answer(2, grant=False).app_status, 1)
            self.assertEqual(worker.wait(), 0)
            self.assertIn("closed", worker.log)
            self.assertIn("read raised ClientDisconnected", worker.log)

    def test_term_when_idle(self):
        for threads in (1, 4):
            with Worker(threads=threads) as worker:
                worker.get("/hello")
                worker.process.send_signal(signal.SIGTERM)
                self.assertEqual(worker.wait(), 0)

    def test_term_finishes_and_refuses(self):
        """What has begun still gets credit and input; what begins after is
        refused, so that the gateway knows that no application saw it."""
        with Worker(threads=3, window=1000) as worker:
            worker.begin(1, path="/one", QUERY_STRING="5000")
            worker.begin(2, path="/read_reports", stdin=b"12", more=True)
            worker.until(1000, 1)
            worker.await_log("reading")
            worker.process.send_signal(signal.SIGTERM)
            refused = 0
            while not refused:  # the signal needs an unknown time
                worker.begin(3, path="/hello")
                refused = worker.answer(3).protocol_status
            self.assertEqual(refused, rec.OVERLOADED)
            self.assertEqual(worker.answers[3].stdout, b"")
            worker.stdin(b"345", 2)
            worker.stdin(b"", 2)
            self.assertEqual(worker.answer(2).body, b"5")
            worker.grant(5000)
            answer = worker.answer(1)
            self.assertEqual((len(answer.body), answer.app_status), (5000, 0))
            self.assertEqual(worker.wait(), 0)

    def test_term_with_one_busy_thread(self):
        with Busy("/sleeps", 1) as busy:
            busy.worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(busy.release(1), b"slept")
            self.assertEqual(busy.worker.wait(), 0)

    def test_interrupt_is_the_gateways(self):
        with Worker() as worker:
            worker.process.send_signal(signal.SIGINT)
            self.assertEqual(worker.get("/hello").body, b"hello")

    def test_gateway_gone(self):
        """Everything that was open at once, while the worker writes."""
        for threads in (1, 4):
            with Worker(threads=threads) as worker:
                worker.begin(path="/slow_endless")
                worker.until(200)
                worker.sock.close()
                self.assertEqual(worker.wait(), 0)
                self.assertIn("closed", worker.log)

    def test_forked_child_leaves_the_wire_alone(self):
        with Worker("applications:raw") as worker:
            self.assertEqual(worker.get("/fork").body, b"0")
            self.assertEqual(worker.get("/hello").body, b"hello")

    def test_forked_child_has_its_own_signals(self):
        with Worker("applications:raw") as worker:
            for _ in range(3):
                self.assertEqual(worker.get("/fork_and_terminate").body, b"15")
            self.assertEqual(worker.get("/hello").body, b"hello")


class Worked(unittest.TestCase):
    def since(self, began):
        """What a worker may say at most, which rounds up."""
        return (time.monotonic_ns() - began) // 1000 + 1

    def test_how_long(self):
        """END_REQUEST tells how long the request was in progress, and no time before that."""
        for threads in (1, 4):
            for path in ("/naps", "/naps/parts", "/naps/write"):
                with self.subTest(path, threads=threads), Worker("busy:app", threads=threads) as worker:
                    for naps in 0, 0.06, 0:
                        time.sleep(0.05)  # idle, of which nothing is told
                        began = time.monotonic_ns()
                        worked = worker.get(path, QUERY_STRING=str(naps)).worked
                        self.assertTrue(max(1, naps * 1e6) <= worked <= self.since(began), (naps, worked))

    def test_behind_another(self):
        with Worker("busy:app", control=True) as worker:
            began = time.monotonic_ns()
            with worker.together():
                worker.begin(1, path="/naps", QUERY_STRING="0.06")
                worker.begin(2, path="/naps", QUERY_STRING="0.06")
            first, second = worker.answer(1).worked, worker.answer(2).worked
            self.assertGreaterEqual(min(first, second), 60000)
            self.assertLessEqual(first + second, self.since(began) + 1)

    def test_not_begun(self):
        with tempfile.TemporaryDirectory() as directory, Worker("busy:app", control=True) as worker:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            worker.begin(1, path="/sleeps", QUERY_STRING=fifo)
            worker.await_log("busy")
            worker.begin(2, path="/naps", QUERY_STRING="0")
            worker.command(b"recall\n")
            answer = worker.answer(2)
            self.assertEqual((answer.protocol_status, answer.worked), (rec.OVERLOADED, 0))
            with open(fifo, "w"):
                pass
            self.assertGreater(worker.answer(1).worked, 0)

    def test_plain_fastcgi(self):
        with Worker("busy:app", window=0) as worker:
            self.assertEqual(worker.get("/naps", QUERY_STRING="0.01").worked, 0)


class Violations(unittest.TestCase):
    def breaks(self, *cases, window=131072):
        with ExitStack() as stack:
            workers = [
                (stack.enter_context(Worker(threads=threads, window=window, ready=False)), threads, *case)
                for threads in (1, 4) for case in cases
            ]
            for worker, threads, data, said in workers:
                with self.subTest(said, threads=threads):
                    worker.negotiate()
                    worker.send(data)
                    self.assertEqual(worker.wait(), 3)
                    self.assertIn("gatecrew: the gateway broke the protocol: ", worker.log)
                    self.assertIn(said, worker.log)
                    self.assertNotIn("Traceback", worker.log)

    def test_violations(self):
        begin = rec.record(rec.BEGIN_REQUEST, 1, b"\0\1\1\0\0\0\0\0")
        started = begin + rec.record(rec.PARAMS, 1, params("/swallow")) + rec.record(rec.PARAMS, 1)
        self.breaks(
            (b"\2" + begin[1:], "version 2"),
            (begin + begin, "request 1, which is open"),
            (rec.record(rec.BEGIN_REQUEST, 0, b"\0\1\1\0\0\0\0\0"), "id of management records"),
            (rec.record(rec.BEGIN_REQUEST, 1, b"\0\1"), "BEGIN_REQUEST of 2 bytes"),
            (begin + rec.record(rec.PARAMS, 1, b"\5\5x") + rec.record(rec.PARAMS, 1) + rec.record(rec.STDIN, 1), "cut in the middle"),
            (started + rec.record(rec.STDIN, 1) * 2, "after its end"),
            (started + rec.credit(1, 0), "CREDIT of 0"),
            (started + rec.credit(1, 2147483647), "CREDIT of 2147483647"),
            (started + rec.record(rec.CREDIT, 1, b"\1"), "CREDIT of 1 bytes"),
        )

    def test_more_input_than_granted(self):
        stuck = (
            rec.record(rec.BEGIN_REQUEST, 1, b"\0\1\1\0\0\0\0\0")
            + rec.record(rec.PARAMS, 1, params("/endless")) + rec.record(rec.PARAMS, 1))
        self.breaks((stuck + rec.record(rec.STDIN, 1, b"x" * 65535) * 3, "more STDIN than granted"), window=1000)

    def test_tolerated(self):
        """Unknown types, records of ended requests, padding, late credit."""
        with Worker() as worker:
            worker.get("/hello")
            worker.send(
                rec.record(rec.STDIN, 1, b"late") + rec.credit(1, 5) + rec.record(rec.ABORT_REQUEST, 1)
                + rec.record(200, 1, b"?") + rec.record(rec.DATA, 1, b"?")
                + rec.HEADER.pack(1, 201, 9, 0, 255) + b"\xff" * 255)
            self.assertEqual(worker.get("/hello").body, b"hello")

    def test_refusals(self):
        """A role that isn't known here, and more requests than announced."""
        with Worker() as worker:
            worker.answers[2] = Answer()
            worker.send(rec.record(rec.BEGIN_REQUEST, 2, b"\0\2\1\0\0\0\0\0") + rec.record(rec.PARAMS, 2))
            self.assertEqual(worker.answer(2).protocol_status, rec.UNKNOWN_ROLE)
            worker.begin(1, path="/swallow", more=True)
            worker.begin(3, path="/hello", stdin=b"ignored")
            self.assertEqual(worker.answer(3).protocol_status, rec.OVERLOADED)
            worker.stdin(b"")
            self.assertEqual(worker.answer(1).body, b"0")


if __name__ == "__main__":
    unittest.main()
