"""The generators of load. Each is a program of its own, started and awaited here, and told of in the same words:

requests, bytes (of bodies; of wrk with heads), seconds, rps, mbps (10^6 of these bytes a second), p50_us, p99_us, errors (a text, or nothing) and
spent (the CPU seconds of the generator itself).
"""
import http.client as http_client
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
WSLOAD = HERE.parent / ".build" / "wsload"
FAULTS = ("connect", "read", "write", "timeout", "status")


class Generator:
    """A program that makes load, has been started, and says at its end what it saw."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self):
        """What it says next."""
        return self.process.stdout.readline()

    def outcome(self, after=None):
        """Its result, once it has ended. With after, it is told to end after so many seconds."""
        try:
            out, err = self.process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            out, err = self.process.communicate()
        try:
            return json.loads(out.strip().split("\n")[-1])
        except ValueError:
            raise RuntimeError(f"{' '.join(map(str, self.command))} said no result: {(err or out).strip()[-300:]}") from None


def children_seconds():
    """CPU seconds of the processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system


def target(row, path=None):
    return f"http://127.0.0.1:{row['port']}{path or row['path']}"


def command(row, seconds):
    """The command line that makes a row's load for so long."""
    if row["load"] == "transfer":
        return [sys.executable, HERE / "transfer.py", row["port"], row["path"], seconds, row["conns"]] + ([row["upload"]] if "upload" in row else [])
    if row["load"] == "sockets":
        offer = ["-offer", "permessage-deflate; client_max_window_bits"] if row["sockets"] == "idle" else []  # as browsers do
        return [WSLOAD, "-url", target(row).replace("http", "ws", 1), "-mode", row["sockets"], "-connections", row["conns"], "-duration", f"{seconds}s"] + offer
    return wrk(target(row), row["conns"], seconds)


def wrk(url, conns, seconds):
    """wrk's command line. It takes whole seconds only; what is less is cut off by http."""
    return ["wrk", "-t1", f"-c{conns}", f"-d{math.ceil(seconds)}s", "--timeout", "10s", "-s", HERE / "wrk.lua", url]


def named(got):
    """The words of wrk.lua and transfer.py, as those of this module."""
    took = max(got["seconds"], 1e-9)
    return {"requests": got["requests"], "bytes": got["bytes"], "seconds": round(took, 3), "rps": got["requests"] / took, "mbps": got["bytes"] / took / 1e6,
            "p50_us": got["p50_us"], "p99_us": got["p99_us"],
            "errors": ", ".join(f"{got[what]} x {'status 400 and above' if what == 'status' else what}" for what in FAULTS if got[what])}


class PassersBy:
    """Clients that come while a load lasts, with one request each. A server that answers some connections and lets the others wait would
    look fast: the generator tells of requests that were answered. One of them might be lucky; a row says how many come."""

    def __init__(self, row):
        self.answered = []
        self.count = row.get("passers", 0)
        for _ in range(self.count):
            threading.Thread(target=self.ask, args=(row,), daemon=True).start()

    def ask(self, row):
        time.sleep(0.1)  # when the others have come
        connection = http_client.HTTPConnection("127.0.0.1", row["port"], timeout=30)
        try:
            connection.request("GET", row["path"])
            connection.getresponse().read()
            self.answered.append(True)
        except (OSError, http_client.HTTPException):
            pass
        finally:
            connection.close()

    def starve(self):
        return len(self.answered) < self.count


def http(row, seconds):
    """Loads a row's server over HTTP, and beside that with what its "beside" says."""
    before = children_seconds()
    generators = [Generator(command(row, seconds))]
    if "beside" in row:
        generators.append(Generator(wrk(target(row, row["beside"]["path"]), row["beside"]["conns"], seconds)))
    passers = PassersBy(row)
    began, after = time.monotonic(), seconds if seconds % 1 and row["load"] == "wrk" else None
    got, *others = [named(generator.outcome(after and max(0, began + after - time.monotonic()))) for generator in generators]
    if passers.starve():
        got["errors"] = got["errors"] or f"{passers.count - len(passers.answered)} of {passers.count} clients that came during the load were not answered in its {seconds:g} s: connections starve"
    got["requests"] += len(passers.answered)
    for other in others:
        got.update(beside_rps=other["rps"], beside_p99_us=other["p99_us"], errors=", ".join(filter(None, (got["errors"], other["errors"]))))
        got["requests"] += other["requests"]  # that the CPU time is divided by
    return {**got, "spent": children_seconds() - before}


def sockets(row, seconds, group):
    """Opens a row's WebSockets and tells of their messages. Of idle ones the memory counts, and the CPU time of a handshake and one message."""
    Generator(command({**row, "conns": 50}, 0.5)).outcome()  # what is loaded and made once
    memory, cpu, before = group.pss_mb(), group.cpu_seconds(), children_seconds()
    generator = Generator(command(row, seconds))
    generator.line()  # all are open
    idle = row["sockets"] == "idle"
    if not idle:
        cpu = group.cpu_seconds()  # without the handshakes
    time.sleep(min(1, seconds / 2))
    loaded = group.pss_mb()
    got = generator.outcome()
    spent, opened = group.cpu_seconds(), max(got["connections"], 1)
    requests = opened if idle else max(got["messages"], 1)
    figures = {"requests": requests, "seconds": seconds, "pss_mb": loaded, "spent": children_seconds() - before,
               "errors": ", ".join(f"{n} x {what}" for what, n in got["errors"].items())}
    if got["connections"] < row["conns"]:
        figures["errors"] = figures["errors"] or f"{got['connections']} of {row['conns']} connections opened"
    if spent is not None:
        figures["cpu_us"] = (spent - cpu) / requests * 1e6
    if idle:
        return {**figures, "socket_kb": (loaded - memory) * 1024 / opened}
    return {**figures, "rps": got["messages_per_second"], "p50_us": got["p50_us"], "p99_us": got["p99_us"]}
