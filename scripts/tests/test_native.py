"""Which of both runs, the C extension or pure Python, and what is said of it."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock

import gateway
from gateway import Worker
from gatecrew_worker import _native

PACKAGE = os.path.join(gateway.SCRIPTS, "gatecrew_worker")


class Choice(unittest.TestCase):
    def test_off(self):
        with Worker("applications:checked", "--c-extension", "off") as worker:
            self.assertEqual(worker.get("/hello").status, "200 OK")
            self.assertEqual(worker.whole_log, "gatecrew: pure Python runs: the C extension is off\n")

    def test_auto_says_why_not(self):
        with self.without_extension() as package:
            said = self.load(package, "auto")
            self.assertEqual(said, "None pure Python runs, without the C extension: this gatecrew was built without it\n")

    def test_required_and_missing(self):
        with self.without_extension() as package:
            done = subprocess.run([sys.executable, package, "applications:checked", "--c-extension", "require"],
                                  stderr=subprocess.PIPE, universal_newlines=True, cwd=gateway.APPS)
            self.assertEqual(done.returncode, 3)
            self.assertEqual(done.stderr, (
                "gatecrew: the C extension is required, and this gatecrew was built without it\n"
                "  next step: build it where a C compiler and Python.h are (Debian: gcc libc6-dev python3-dev), with make build,"
                " or choose --c-extension auto\n"))

    def test_not_a_library(self):
        with self.without_extension() as package:
            with open(os.path.join(package, "_speed.abi3.so"), "w") as f:
                f.write("#!/bin/sh\n" * 100)
            said = self.load(package, "auto")
            self.assertIn("None pure Python runs, without the C extension: it can't be loaded: ", said)
            self.assertIn("invalid ELF header", said)

    def test_another_version(self):
        with self.without_extension() as package:
            with open(os.path.join(package, "_speed.py"), "w") as f:
                f.write("INTERFACE = 0\n")
            self.assertIn("_speed.py is of another version", self.load(package, "auto"))

    def test_interpreters_without_it(self):
        for change, text in (
            (mock.patch.object(sys, "implementation", types.SimpleNamespace(name="pypy")), "pypy can't load it"),
            (mock.patch.object(sys, "abiflags", "t"), "a free-threaded Python can't load it"),
            (mock.patch.object(sys, "getobjects", None, create=True), "a Python built with Py_TRACE_REFS can't load it"),
        ):
            with self.subTest(text), change:
                self.assertEqual(_native.load("auto"), (None, "pure Python runs, without the C extension: " + text))
                with self.assertRaisesRegex(_native.Unavailable, text):
                    _native.load("require")

    def without_extension(self):
        """The package alone, in a folder of its own."""
        return _Copy()

    def load(self, package, choice):
        return subprocess.run(
            [sys.executable, "-c", "from gatecrew_worker import _native; print(*_native.load(%r))" % choice],
            stdout=subprocess.PIPE, universal_newlines=True, check=True, cwd=os.path.dirname(package)).stdout


@unittest.skipIf(gateway.SPEED is None, "it is off, or can't be had")
class Same(unittest.TestCase):
    """Does what the reference does: the short form of `make fuzz`."""

    COUNT = 2000

    def test_kinds(self):
        import differential  # which needs it

        for kind in differential.KINDS:
            with self.subTest(kind.__name__):
                differential.run(kind, self.COUNT)

    def ends(self):
        import differential

        return differential.both_ends()[1][1]

    def request(self, **fields):
        from gatecrew_worker import _speed

        request = _speed.Request(7, 1 << 62)
        request.params, request.input_ended = gateway.params(**fields), True
        return request

    def received(self, **fields):
        """A request that has its parameters in the block that came."""
        from gateway import rec
        from gatecrew_worker import _wsgi_native

        block = gateway.params(**fields)
        data = (rec.record(rec.BEGIN_REQUEST, 7, b"\0\1\1\0\0\0\0\0") + rec.record(rec.PARAMS, 7, block) + rec.record(rec.PARAMS, 7)
                + rec.record(rec.STDIN, 7))
        begun, _ = _wsgi_native.Connection(9).receive(data)
        return begun[0], len(data)

    def test_a_collection_while_environ_is_made(self):
        """It may run code that asks for the parameters, and so replaces them."""
        ends, usual = self.ends(), gc.get_threshold()
        look_at = []

        def look(phase, info):
            if phase == "start" and look_at:
                request, size = look_at
                blocks.append([request.params] + [b"\xff" * size for _ in range(4)])

        gc.callbacks.append(look)
        try:
            for threshold in range(1, 40):
                for kept in range(2):
                    blocks = []
                    request, size = self.received(QUERY_STRING="q" * 600)
                    other = self.received()[0]
                    gc.collect()
                    look_at[:] = request, size
                    gc.set_threshold(threshold)
                    ends.kept[:] = [ends.root[""]._environ(other)] if kept else []
                    environ = ends.root[""]._environ(request)
                    gc.set_threshold(*usual)
                    del look_at[:]
                    self.assertEqual(environ["QUERY_STRING"], "q" * 600)
        finally:
            gc.set_threshold(*usual)
            gc.callbacks.remove(look)

    def test_no_circle_is_left(self):
        """What the application keeps of a request is freed when it lets it go."""
        ends, kept = self.ends(), []

        def app(environ, start_response):
            kept[:] = [environ]
            start_response("200 OK", [])
            return [b""]

        for _ in range(20):
            ends.answer(self.request(), "", app)
        kept.clear()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                ends.answer(self.request(), "", app)
            kept.clear()
            self.assertLess(gc.collect(), 10)
        finally:
            gc.enable()

    def test_an_interruption_in_start_response(self):
        ends, met = self.ends(), []

        class Stop(BaseException):
            pass

        def app(environ, start_response):
            try:
                start_response("200 OK", [("X-Never-Seen-Before", "1")])
            except Stop as exc:
                met.append(exc)
            start_response("200 OK", [("X-A", "1")])
            return [b"body"]

        from gatecrew_worker import _head

        with mock.patch.object(_head, "check_name", side_effect=[Stop(), "x-a"]):
            sent = ends.answer(self.request(), "", app)
        self.assertEqual(len(met), 1)
        self.assertIn(b"X-A: 1\r\nContent-Length: 4\r\n\r\nbody", sent)

    def test_nothing_is_left(self):
        """Requests of all kinds leave no memory and no reference behind."""
        import differential

        def measure():
            gc.collect()
            return sys.getrefcount(None), sys.getrefcount(""), sys.getrefcount(b""), len(gc.get_objects())

        for kind in differential.KINDS:
            with self.subTest(kind.__name__):
                differential.run(kind, 600)  # caches are filled
                before = measure()
                differential.run(kind, 600)
                grown = [after - n for n, after in zip(before, measure())]
                # What one request leaves to the next is not much; 600 times
                # anything would be.
                self.assertLess(max(grown), 200, grown)


class _Copy(tempfile.TemporaryDirectory):
    def __enter__(self):
        return shutil.copytree(PACKAGE, os.path.join(super().__enter__(), "gatecrew_worker"),
                               ignore=shutil.ignore_patterns("__pycache__", "*.so"))


if __name__ == "__main__":
    unittest.main()
