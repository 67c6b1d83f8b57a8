"""The process that has loaded the application and forks the workers."""

import json
import os
import signal
import subprocess
import unittest

from gateway import Zygote

from gatecrew_worker import _zygote


def told(worker, path="/"):
    return json.loads(worker.get(path).body)


class Preload(unittest.TestCase):
    def test_workers(self):
        with Zygote("preloaded:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with zygote.fork("web/1") as one, zygote.fork("web/2") as two:
                first, second = told(one), told(two)
                for worker, told_by, name in (one, first, "web/1"), (two, second, "web/2"):
                    self.assertEqual((told_by["pid"], told_by["loaded_by"], told_by["name"]), (worker.pid, zygote.process.pid, name))
                    self.assertGreater(told_by["frozen"], 1000)
                self.assertNotEqual(first["random"], second["random"])
                self.assertEqual(told(one, "/print")["pid"], one.pid)
                # What the application had begun to print is not theirs to end.
                self.assertEqual((one.log, two.log), ("out\nerr\n", ""))

    def test_descriptors(self):
        """A worker has its own, and nothing of the zygote or of another worker."""
        with Zygote("preloaded:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with zygote.fork() as one, zygote.fork() as two:
                held = [told(one)["descriptors"], told(two)["descriptors"]]
                path = "/proc/%d/fd/" % zygote.process.pid
                held.append({fd: os.readlink(path + fd) for fd in os.listdir(path)})
                for descriptors in held[:2]:
                    self.assertEqual(sorted(descriptors, key=int), ["0", "1", "2", "3", "4", "100", "101", "102"])
                self.assertEqual(sorted(held[2], key=int), ["0", "1", "2", "100"])
                own = [target for descriptors in held for fd, target in descriptors.items() if int(fd) > 2]
                own = [t for t in own if t.startswith("socket:")]
                self.assertEqual(len(set(own)), 5, held)

    def test_ends(self):
        """Each process ends by itself; none takes another along."""
        with Zygote("preloaded:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with zygote.fork() as one, zygote.fork() as two:
                os.kill(one.pid, signal.SIGTERM)
                one.wait()
                self.assertEqual(one.log, "exit of %d\n" % one.pid)
                zygote.sock.close()
                self.assertEqual(zygote.process.wait(20), 0)
                self.assertEqual(zygote.log, "begunexit of %d\n" % zygote.process.pid)
                self.assertEqual(told(two)["pid"], two.pid)

    def test_nothing_left(self):
        """The process between the zygote and a worker is gone, also when the
        application has SIGCHLD ignored."""
        with Zygote("preloaded:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            pid = zygote.process.pid
            with zygote.fork() as worker:
                with open("/proc/%d/task/%d/children" % (pid, pid)) as children:
                    self.assertEqual(children.read(), "")
                with open("/proc/%d/stat" % worker.pid) as stat:
                    self.assertNotEqual(int(stat.read().rpartition(")")[2].split()[1]), pid)

    def test_a_default_timeout(self):
        """An application that sets one has no part in the zygote's own socket."""
        with Zygote("preloaded_timeout:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with self.assertRaises(subprocess.TimeoutExpired):
                zygote.process.wait(0.5)
            with zygote.fork("web/1") as one:
                self.assertEqual(told(one)["name"], "web/1")

    def test_not_loaded(self):
        with Zygote("nothing_here:app") as zygote:
            self.assertEqual(zygote.hear(), b"")
            self.assertEqual(zygote.process.wait(20), 4)
            self.assertIn("No module named 'nothing_here'", zygote.log)

    def test_quiet(self):
        with Zygote("applications:checked") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with zygote.fork() as worker:
                self.assertEqual(worker.get("/hello").status, "200 OK")
                self.assertEqual((zygote.log, worker.log), ("", ""))

    def test_without_proc(self):
        """As in a chroot."""
        listdir = os.listdir
        try:
            os.listdir = lambda path: listdir("/nowhere" + path)
            self.assertEqual(list(_zygote._peers()), [])
        finally:
            os.listdir = listdir

    def test_warnings(self):
        with Zygote("preloaded:unsafe()") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            threads, connections = (line for line in zygote.log.splitlines() if "preload: " in line)
            self.assertIn("do not run in the workers: one, two;", threads)
            self.assertRegex(connections, r"would share: to 127\.0\.0\.1 port \d+;")


if __name__ == "__main__":
    unittest.main()
