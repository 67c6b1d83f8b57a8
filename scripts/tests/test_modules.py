"""What a worker tells of the files that its application consists of."""

import compileall
import json
import os
import shutil
import tempfile
import unittest

from gateway import Worker

APP = """
import json, sys, types
import helper, pack.part, names.inside

class Odd(types.ModuleType):
    @property
    def __file__(self):
        raise RuntimeError("computed")

sys.modules["odd"] = Odd("odd")
sys.modules["nothing"] = None

def app(environ, start_response):
    import late
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


class Modules(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = os.path.realpath(directory.name)
        for name, text in {
            "app.py": APP, "helper.py": "", "late.py": "", "pack/__init__.py": "", "pack/part.py": "",
            "names/inside.py": "",  # a namespace package
        }.items():
            self.write(name, text)

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def paths(self, *names):
        return {os.path.join(self.dir, name) for name in names}

    def told(self, worker, *enough):
        """What has been told until all of enough have been, or until the end."""
        files, text, wanted = [], b"", self.paths(*enough)
        while not enough or not wanted.issubset(files):
            data = os.read(worker._control, 1 << 16)
            if not data:
                break
            text += data
            *lines, text = text.split(b"\n")
            for line in lines:
                files += json.loads(line).get("modules", [])
        self.assertEqual(len(files), len(set(files)), "told twice")
        return set(files)

    def worker(self, app="app:app", **more):
        return Worker(app, "--report-modules", cwd=self.dir, control=True, **more)

    def failed(self, app="app:app"):
        with self.worker(app, ready=False) as worker:
            self.assertEqual(worker.wait(), 4, worker.log)
            return self.told(worker)

    def test_imported(self):
        with self.worker() as worker:
            first = self.told(worker, "app.py", "helper.py", "pack/__init__.py", "pack/part.py", "names/inside.py")
            self.assertEqual(first, self.paths(
                "app.py", "helper.py", "pack/__init__.py", "pack/part.py", "names/inside.py",
                "app/__init__.py"))  # what the name might have meant as well
            self.assertEqual(worker.get("/").body, b"ok")
            self.assertEqual(self.told(worker, "late.py"), self.paths("late.py"))

    def test_silent_unless_asked(self):
        with Worker("app:app", cwd=self.dir, control=True) as worker:
            worker.get("/")
            worker.process.terminate()
            worker.wait()
            self.assertEqual(self.told(worker), set())

    def test_file(self):
        self.write("entry.wsgi", "import helper\ndef application(e, s): pass")
        with self.worker("./entry.wsgi") as worker:
            self.assertEqual(self.told(worker, "helper.py"), self.paths("entry.wsgi", "helper.py"))

    def test_byte_code(self):
        """A module without source is its byte code; with source it is that."""
        compileall.compile_dir(self.dir, quiet=2, legacy=True)
        os.remove(os.path.join(self.dir, "helper.py"))
        with self.worker() as worker:
            self.assertTrue(self.paths("app.py", "helper.pyc", "pack/part.py").issubset(self.told(worker, "helper.pyc")))

    def test_failures(self):
        for what, files, at in (
            ("not Python", {"helper.py": "def ("}, ["app.py", "helper.py"]),
            ("raises", {"pack/part.py": "import helper\nraise ValueError"}, ["app.py", "helper.py", "pack/__init__.py", "pack/part.py"]),
            ("leaves", {"helper.py": "import sys\nsys.exit(1)"}, ["app.py", "helper.py"]),
            ("another error after it", {"app.py": "try:\n import helper\nexcept SyntaxError:\n raise OSError", "helper.py": "("},
             ["app.py", "helper.py"]),
            ("no such name", {"app.py": "import helper"}, ["app.py", "helper.py"]),
            ("no such module", {"app.py": "import pack.missing"}, ["app.py", "pack/__init__.py", "pack/missing.py"]),
            ("no such package", {"app.py": "import missing.part"}, ["app.py", "missing.py", "missing/__init__.py"]),
        ):
            with self.subTest(what):
                shutil.rmtree(self.dir)
                self.setUp()
                for name, text in files.items():
                    self.write(name, text)
                told = self.failed()
                self.assertTrue(self.paths(*at).issubset(told), told)
                self.assertFalse([f for f in told if "gatecrew_worker" in f or "<" in f or f.endswith("/importlib/__init__.py")])
        with self.subTest("nothing there"):
            self.assertTrue(self.paths("other.py", "other/__init__.py").issubset(self.failed("other:app")))


if __name__ == "__main__":
    unittest.main()
