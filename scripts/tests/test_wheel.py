"""`pip wheel scripts/`: with the C extension, for the stable ABI, where there is
a compiler, and of Python alone where there is none."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

import gateway


@unittest.skipIf(gateway.C_EXTENSION == "require", "it is built with and without the extension whatever that says")
class Wheel(unittest.TestCase):
    def wheel(self, **env):
        """Builds one; returns its name and the files in it."""
        with tempfile.TemporaryDirectory() as directory:
            # A copy: what setuptools leaves behind is not the checkout's.
            source = os.path.join(directory, "scripts")
            shutil.copytree(gateway.SCRIPTS, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "build", "*.egg-info"))
            done = subprocess.run(
                [sys.executable, "-m", "pip", "wheel", "--no-deps", "--disable-pip-version-check", "-v", "-w", directory, source],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, env=dict(os.environ, **env))
            self.assertEqual(done.returncode, 0, done.stdout)
            name, = (f for f in os.listdir(directory) if f.endswith(".whl"))
            with zipfile.ZipFile(os.path.join(directory, name)) as whl:
                files = whl.namelist()
                whl.extractall(os.path.join(directory, "installed"))
            said = subprocess.run(
                [sys.executable, "-c", "from gatecrew_worker import _native; print(_native.load('auto')[1])"],
                stdout=subprocess.PIPE, universal_newlines=True, check=True, cwd=os.path.join(directory, "installed")).stdout
            return name, files, done.stdout, said

    def test_with_a_compiler(self):
        name, files, _, said = self.wheel()
        self.assertRegex(name, r"^gatecrew_worker-.*-cp38-abi3-linux_.*\.whl$")
        self.assertIn("gatecrew_worker/_speed.abi3.so", files)
        self.assertIn("gatecrew_worker/_wsgi.py", files)
        self.assertEqual(said, "the C extension runs\n")

    def test_without(self):
        name, files, log, said = self.wheel(CC="/nonexistent/cc")
        self.assertRegex(name, r"^gatecrew_worker-.*-py3-none-any\.whl$")
        self.assertEqual([f for f in files if "_speed" in f], [])
        self.assertIn("the wheel is built without the C extension: there is no C compiler", log)
        self.assertIn("without it", said)


if __name__ == "__main__":
    unittest.main()
