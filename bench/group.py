"""All processes of one server, wherever they were forked from: their CPU time, their memory, their end.

A control group (version 2) holds them: it counts what processes spent that have long ended and that nobody waited for,
such as the scripts of mod_cgid, which ignores its children. The process tree would miss those. Making a group takes root;
without it a server is its process tree, and its CPU time is not known.
"""
import os
import pathlib
import re
import signal
import time

from machine import text


def parent():
    """The folder of this process's own group, where groups of servers are made; None where version 2 isn't mounted."""
    mount = re.search(r"^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 ", text("/proc/self/mountinfo"), re.M)
    own = re.search(r"^0::(.*)", text("/proc/self/cgroup"), re.M)
    return pathlib.Path(mount.group(1) + own.group(1)) if mount and own else None


def tree(pid):
    """A process and all that descend from it."""
    pids = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in text(f"/proc/{pid}/task/{task}/children").split():
                pids += tree(int(child))
    except OSError:
        pass
    return pids


class Group:
    """The processes of one server. `enter` is called in the first of them, before it becomes the server."""

    def __init__(self, name):
        self.pid = None
        self.folder = parent() and parent() / f"bench-{os.getpid()}-{name}"
        try:
            self.folder and self.folder.mkdir()
        except OSError:
            self.folder = None

    def enter(self):
        if self.folder:
            (self.folder / "cgroup.procs").write_text("0")

    def folders(self):
        """The group's folder and those that its processes made below it, the deepest first."""
        return [pathlib.Path(found) for found, _, _ in os.walk(self.folder, topdown=False)] if self.folder else []

    def pids(self):
        if self.folder:
            return [int(pid) for folder in self.folders() for pid in text(folder / "cgroup.procs").split()]
        return tree(self.pid) if self.pid else []

    def cpu_seconds(self):
        """User and system time of all processes that are or were in the group; None where there is no group."""
        found = re.search(r"^usage_usec (\d+)", text(self.folder / "cpu.stat"), re.M) if self.folder else None
        return int(found.group(1)) / 1e6 if found else None

    def pss_mb(self):
        """Proportional set size: memory, with what is shared divided by those who share it."""
        sizes = [re.search(r"^Pss:\s+(\d+)", text(f"/proc/{pid}/smaps_rollup"), re.M) for pid in self.pids()]
        return sum(int(size.group(1)) for size in sizes if size) / 1024

    def end(self, patience=2.0):
        """Ends all processes: in order, within so many seconds, and then at once."""
        try:
            os.killpg(self.pid, signal.SIGTERM)
        except (OSError, TypeError):
            pass
        end = time.monotonic() + patience
        while self.alive() and time.monotonic() < end:
            time.sleep(0.01)
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        end = time.monotonic() + 5
        while self.folder and self.alive() and time.monotonic() < end:
            time.sleep(0.01)

    def remove(self):
        """Removes the group. The kernel lets it go once the last of its dead has been waited for, which may be init's work."""
        end = time.monotonic() + 2
        for folder in self.folders():
            while folder.exists() and time.monotonic() < end:
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.01)

    def alive(self):
        """Whether one of them runs still; the dead that nobody has waited for don't count."""
        return any(text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in ([], ["Z"]) for pid in self.pids())
