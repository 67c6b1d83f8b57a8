#!/usr/bin/env python3
"""Side-by-side benchmark of HTTP servers on one machine.

Runs every server of a suite in turn, several rounds interleaved, under the same load (wrk, one thread), and prints for each the
median throughput, CPU microseconds per request summed over the server's whole process tree, latency percentiles and memory (PSS, MB).
Absolute figures hold for one run on one machine only: compare rows of one table.

A suite is a list of {"name", "port", "cmd", "path"?, "conns"?, "script"?, "beside"?, "sockets"?}; "beside" is {"path", "conns"} of a second
load that runs all the while, of which the table tells the throughput and the percentiles apart. "sockets" makes the load one of WebSockets (wsload):
"echo", "conns" of them exchange messages of 64 bytes, which are then what the table counts; or "idle", of which it tells the memory of each. In "cmd": @GATECREW@ (the binary), @APPS@, @STATIC@,
@RUN@ (scratch), @CONF@ (rendered conf/*.in), @VENV@ (the peers' Python environment), @PHPFPM@, @USER@.
"""
import argparse
import getpass
import glob
import json
import os
import pathlib
import platform
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
WSLOAD = ROOT / ".build" / "wsload"
TICK = os.sysconf("SC_CLK_TCK")


def tree(pid):
    pids = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in open(f"/proc/{pid}/task/{task}/children").read().split():
                pids += tree(int(child))
    except OSError:
        pass
    return pids


def cpu_seconds(pid):
    total = 0
    for p in tree(pid):
        try:
            fields = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))  # utime stime cutime cstime
        except OSError:
            pass
    return total / TICK


def pss_mb(pid):
    total = 0
    for p in tree(pid):
        try:
            for line in open(f"/proc/{p}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total / 1024


def wait_port(port, up, seconds):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            if up:
                return True
        except OSError:
            if not up:
                return True
        time.sleep(0.05)
    return False


def wrk(port, load, seconds):
    cmd = ["wrk", "-t1", f"-c{load.get('conns', 64)}", f"-d{seconds}s", "--latency"]
    if load.get("script"):
        cmd += ["-s", load["script"]]
    return subprocess.Popen(cmd + [f"http://127.0.0.1:{port}{load.get('path', '/')}"], stdout=subprocess.PIPE, text=True)


def outcome(generator):
    """What a wrk that has been started reports."""
    out = generator.communicate()[0]
    percentile = lambda p: re.search(rf"^\s+{p}%\s+(\S+)", out, re.M).group(1)
    errors = re.search(r"(Socket errors.*|Non-2xx.*)", out)
    return {"requests": int(re.search(r"(\d+) requests in", out).group(1)),
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p50": percentile(50), "p99": percentile(99), "err": errors.group(1) if errors else ""}


def wsload(port, load, conns, seconds):
    """Starts the generator of WebSocket load; returns it when all connections are open."""
    cmd = [str(WSLOAD), "-url", f"ws://127.0.0.1:{port}{load.get('path', '/')}", "-mode", load["sockets"], "-connections", str(conns), "-duration", f"{seconds}s"]
    if load["sockets"] == "idle":
        cmd += ["-offer", "permessage-deflate; client_max_window_bits"]  # as browsers do
    generator = subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True)
    generator.stdout.readline()
    return generator


def wsload_outcome(generator):
    """What a wsload that has been started reports, named as wrk's."""
    got = json.loads(generator.communicate()[0])
    milliseconds = lambda us: f"{us / 1000:.2f}ms"
    return {"requests": got["messages"], "rps": got["messages_per_second"], "p50": milliseconds(got["p50_us"]), "p99": milliseconds(got["p99_us"]),
            "err": ", ".join(f"{n} x {what}" for what, n in got["errors"].items()), "open": got["connections"]}


def measure_sockets(entry, pid, seconds):
    port, conns = entry["port"], entry["conns"]
    wsload_outcome(wsload(port, entry, 50, 1))  # what is loaded and made once
    memory = pss_mb(pid)
    before, generator = cpu_seconds(pid), wsload(port, entry, conns, seconds)
    if entry["sockets"] == "echo":
        before = cpu_seconds(pid)  # without the handshakes
    time.sleep(min(1, seconds / 2))
    loaded = pss_mb(pid)
    got = wsload_outcome(generator)
    if entry["sockets"] == "idle":
        got["requests"] = got["open"]  # the CPU time is that of a handshake, one message and its ping
        got["each"] = (loaded - memory) * 1024 / max(got["open"], 1)
    return {**got, "us": (cpu_seconds(pid) - before) / max(got["requests"], 1) * 1e6, "pss": loaded, "beside": None}


def measure(entry, cmd, seconds, run):
    log = open(run / (re.sub(r"\W+", "-", entry["name"]) + ".log"), "w")
    server = subprocess.Popen(cmd, shell=True, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    port, beside = entry["port"], entry.get("beside")
    try:
        if not wait_port(port, True, 20):
            return None
        time.sleep(1)
        if "sockets" in entry:
            return measure_sockets(entry, server.pid, seconds)
        wrk(port, entry, 1).communicate()
        before = cpu_seconds(server.pid)
        generators = [wrk(port, load, seconds) for load in [entry] + ([beside] if beside else [])]
        got, *others = [outcome(g) for g in generators]
        used, memory = cpu_seconds(server.pid) - before, pss_mb(server.pid)
        requests = got["requests"] + sum(o["requests"] for o in others)
        return {**got, "us": used / max(requests, 1) * 1e6, "pss": memory, "beside": others[0] if others else None}
    finally:
        for sig in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(server.pid, sig)
            except ProcessLookupError:
                break
            try:
                server.wait(5)
            except subprocess.TimeoutExpired:
                continue
            if wait_port(port, False, 3):
                break


def machine():
    """What the figures were measured on."""
    cpu = re.search(r"^model name\s*: (.*)", open("/proc/cpuinfo").read(), re.M)
    return f"{os.cpu_count()} x {cpu.group(1) if cpu else platform.machine()}, Linux {platform.release()}"


def raise_descriptors():
    """Lets every process have as many descriptors as thousands of connections need: as root, or as far as the hard limit goes."""
    for most in (1 << 18, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            return resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):
            pass


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("suite")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--seconds", type=int, default=4)
    ap.add_argument("--only", default="", metavar="NAME,NAME")
    ap.add_argument("--venv", default=os.environ.get("VIRTUAL_ENV", ROOT / ".build" / "bench-venv"))
    ap.add_argument("--gatecrew", default=ROOT / "bin" / "gatecrew")
    args = ap.parse_args()
    run = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
    (run / "static").mkdir()
    (run / "static" / "index.html").write_text("Hello, static!")
    os.chmod(run, 0o755)
    places = {
        "@GATECREW@": pathlib.Path(args.gatecrew).resolve(), "@APPS@": HERE / "apps", "@STATIC@": run / "static",
        "@RUN@": run, "@CONF@": run, "@VENV@": pathlib.Path(args.venv).absolute(), "@USER@": getpass.getuser(),
        # Debian puts the version into the name of the program.
        "@PHPFPM@": (sorted(glob.glob("/usr/sbin/php-fpm*")) or ["php-fpm"])[-1],
    }

    def render(text):
        for key, value in places.items():
            text = text.replace(key, str(value))
        return text

    for template in (HERE / "conf").glob("*.in"):
        (run / template.stem).write_text(render(template.read_text()))
    subprocess.run(["gcc", "-O2", "-static", "-o", str(HERE / "apps" / "hello.cgi"), str(HERE / "apps" / "hello.c")], check=True)
    subprocess.run(["go", "build", "-o", WSLOAD, "./bench/wsload"], cwd=ROOT, check=True)
    raise_descriptors()
    suite = [e for e in json.load(open(args.suite)) if not args.only or e["name"] in args.only.split(",")]
    results = {e["name"]: [] for e in suite}
    for _ in range(args.rounds):
        for entry in suite:
            got = measure(entry, render(entry["cmd"]), args.seconds, run)
            if got:
                results[entry["name"]].append(got)
    print(machine())
    mixed, idle = any("beside" in e for e in suite), any(e.get("sockets") == "idle" for e in suite)
    what = "msg" if any("sockets" in e for e in suite) else "req"
    beside = f"{'beside/s':>10}{'p50':>10}{'p99':>10}" if mixed else ""
    each = f"{'KB/socket':>11}" if idle else ""
    print(f"{'name':34}{what + '/s':>10}{'cpu us/' + what:>12}{'p50':>10}{'p99':>10}{beside}{'PSS MB':>8}{each}  errors")
    for name, got in results.items():
        if not got:
            print(f"{name:34}  did not start: see {run}")
            continue
        m = sorted(got, key=lambda g: g.get("each", g["rps"]))[len(got) // 2]
        b = m["beside"] or {"err": ""}
        beside = f"{b['rps']:10.1f}{b['p50']:>10}{b['p99']:>10}" if m["beside"] else ""
        each = f"{m['each']:11.1f}" if "each" in m else f"{'':11}" if idle else ""
        print(f"{name:34}{m['rps']:10.0f}{m['us']:12.1f}{m['p50']:>10}{m['p99']:>10}{beside}{m['pss']:8.0f}{each}  {m['err']} {b['err']}".rstrip())


if __name__ == "__main__":
    main()
