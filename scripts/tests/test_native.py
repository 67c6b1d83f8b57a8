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
