import os
import subprocess
import sys
import time
import unittest

from group import Group

# A server that ignores its children, as mod_cgid does: one takes CPU time and ends, one leaves its session and stays.
SERVER = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    while time.process_time() < .3:
        pass
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("up", flush=True)
time.sleep(60)
"""


@unittest.skipUnless(os.geteuid() == 0, "making a control group takes root")
class Groups(unittest.TestCase):
    def setUp(self):
        self.group = Group("test")
        self.assertIsNotNone(self.group.folder, "no control group could be made")
        self.process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, preexec_fn=self.group.enter, start_new_session=True)
        self.group.pid = self.process.pid
        self.addCleanup(self.group.remove)  # the last of them
        self.addCleanup(self.process.stdout.close)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.group.end)
        self.process.stdout.readline()

    def until(self, done):
        end = time.monotonic() + 20
        while not done() and time.monotonic() < end:
            time.sleep(0.01)
        return done()

    def test_counts_those_that_nobody_waited_for(self):
        # Only the server and the one that left its session remain.
        self.assertTrue(self.until(lambda: len(self.group.pids()) == 2))
        self.assertGreaterEqual(self.group.cpu_seconds(), .29)
        self.assertGreater(self.group.pss_mb(), 1)

    def test_ends_those_that_left_and_goes(self):
        self.assertTrue(self.until(lambda: len(self.group.pids()) == 2))
        left = next(pid for pid in self.group.pids() if pid != self.process.pid)
        self.group.end()
        self.process.wait()
        self.group.remove()
        self.assertFalse(self.group.folder.exists())
        self.assertTrue(self.until(lambda: not os.path.exists(f"/proc/{left}")))
