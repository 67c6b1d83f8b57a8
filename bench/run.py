"""The rounds: every row once, then every row again, so that a slow minute of the machine doesn't fall on one server."""
import fcntl
import os
import sys
import time

import load
import machine
import suite
from server import NotStarted, Server, wrong

SETTLE = 0.3  # seconds between the first right answer and the first load, in which other workers come up
WARM_UP = 0.4
IDLE = 0.5  # seconds after which the memory of an idle server is looked at


class Turns:
    """Turns with other benches of this machine, by a lock on a file: they would measure each other. Held over several rows, but not for long."""

    HELD = 25  # seconds

    def __init__(self, path):
        self.file, self.since, self.waited = open(path, "a"), None, 0.0

    def take(self):
        """Waits until nobody else measures."""
        if self.since is None:
            began = time.monotonic()
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()
            self.waited += self.since - began

    def give(self, at_once=False):
        """Lets others measure, when this one has for long enough."""
        if self.since is not None and (at_once or time.monotonic() - self.since > self.HELD):
            fcntl.flock(self.file, fcntl.LOCK_UN)
            self.since = None
            time.sleep(0.1)  # so that those who wait come first


def progress(line):
    print(line, file=sys.stderr, flush=True)


def measure(row, server, seconds):
    """One round of one row, with the server up: its figures."""
    if row["load"] == "none":
        time.sleep(IDLE)
        figures = {"start_ms": server.start_ms, "pss_mb": server.group.pss_mb(), "errors": ""}
        return {**figures, "binary_mb": os.path.getsize(row["binary"]) / 1e6} if "binary" in row else figures
    # The others' share of the machine is what neither the server nor the generator spent.
    began, busy = time.monotonic(), machine.busy_seconds()
    if row["load"] == "sockets":
        cpu = server.group.cpu_seconds()
        got = load.sockets(row, seconds, server.group)
    else:
        load.Generator(load.command(row, row.get("warm_up", WARM_UP))).outcome()
        began, busy, cpu = time.monotonic(), machine.busy_seconds(), server.group.cpu_seconds()
        got = load.http(row, seconds)
        if cpu is not None:
            got["cpu_us"] = (server.group.cpu_seconds() - cpu) / max(got["requests"], 1) * 1e6
        got["pss_mb"] = server.group.pss_mb()
        if "size" in row and got["requests"] and row["load"] == "transfer" and got["bytes"] != row["size"] * got["requests"]:
            got["errors"] = f"bodies that are not {row['size']} bytes long"
    if cpu is not None:
        others = machine.busy_seconds() - busy - (server.group.cpu_seconds() - cpu) - got["spent"]
        got["others"] = max(0, others / (time.monotonic() - began) / os.cpu_count())
    del got["spent"]
    return got


def once(row, folder, seconds, kept):
    """One round of one row. kept is the server of the row before, if that ran on; returns the figures and the server."""
    if kept and (kept.row["cmd"] != row["cmd"] or not row.get("series") or kept.process.poll() is not None):
        kept.__exit__()
        kept = None
    server = kept or Server(row, folder).__enter__()
    try:
        if kept:
            if fault := wrong(row):
                raise NotStarted(fault)
        elif row["load"] != "none":
            time.sleep(SETTLE)
        figures = measure(row, server, seconds)
        if row["load"] != "none" and not figures["requests"]:
            figures["errors"] = figures["errors"] or f"no request was answered within {seconds} s"
        if fault := figures["errors"] or wrong(row):
            figures["void"] = fault
        del figures["errors"]
    except BaseException:
        server.__exit__()
        raise
    if row.get("series"):
        return figures, server
    server.__exit__()
    return figures, None


def rounds(rows, folder, count, seconds, turns):
    """Runs the rows of one suite; returns what each of them gave, by name."""
    results = {row["name"]: {"rounds": []} for row in rows}
    kept = None
    try:
        for number in range(count):
            for row in rows:
                result = results[row["name"]]
                if "not_started" in result:
                    continue
                turns.take()
                try:
                    figures, kept = once(row, folder, seconds, kept)
                except (NotStarted, RuntimeError) as error:
                    kept = None
                    if not result["rounds"]:
                        result["not_started"] = str(error)
                        progress(f"  {row['suite']}: {row['name']} did not start: {error}")
                        continue
                    figures = {"void": str(error)}  # it did before
                finally:
                    turns.give()
                if "void" in figures:
                    progress(f"  {row['suite']}: {row['name']}, round {number + 1} is void: {figures['void']}")
                result["rounds"].append({key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()})
    finally:
        if kept:
            kept.__exit__()
    turns.give(at_once=True)
    return results


def suites(names, places, count, seconds, wanted, lock):
    """Runs the rows of suites that are wanted, a function; yields the name and results of each, with what a reader needs to know of its rows."""
    turns = Turns(lock)
    for name in names:
        rows = [row for row in suite.rows(name, places) if wanted(row)]
        if not rows:
            continue
        told, began, waited = suite.suite(name), time.monotonic(), turns.waited
        number, each = min(count, told.get("rounds", count)), seconds * told.get("share", 1)
        progress(f"{name}: {len(rows)} rows, {number} rounds of {each:g} s")
        results = rounds(rows, places["RUN"], number, each, turns)
        for row in rows:
            results[row["name"]].update({key: row[key] for key in ("short", "case", "cmd", "series", "growth", "x", "metrics") if row.get(key) not in (None, "")})
        yield name, {"title": told["title"], "about": told["about"], "metrics": told["metrics"], "rounds": number, "seconds": each,
                     "took": round(time.monotonic() - began - turns.waited + waited), "rows": results}
