#!/usr/bin/env python3
"""Side-by-side benchmark of HTTP servers on one machine.

Runs the rows of suites in turn, several rounds interleaved, each server alone and under the same load, and writes the medians with
their ratios as tables, the rounds as JSON. A row is measured only when its server answers as it should; a round with an error
or an answer of status 400 and above doesn't count. Figures hold for one machine only: compare rows of one table.

README.md says how it measures, suite.py what a row is.
"""
import argparse
import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import compare
import figures
import goals
import load
import machine
import report
import run
import server
import suite

ROOT = suite.ROOT
PACKAGES = ["bjoern", "Django", "fastapi", "Flask", "granian", "gunicorn", "Hypercorn", "httptools", "pyvoy", "uvicorn", "uvloop", "uWSGI", "websockets", "wsproto"]


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {' '.join(suite.names())}; all when none is named")
    ap.add_argument("--rounds", type=int, default=5, help="how often each row is measured (5)")
    ap.add_argument("--seconds", type=float, default=2, help="how long each time; wrk rounds to whole seconds (2)")
    ap.add_argument("--only", action="append", default=[], metavar="ROW", help="a row by its whole name; may be said again")
    ap.add_argument("--output", type=pathlib.Path, metavar="FILE", help="write the results there as JSON")
    ap.add_argument("--publish", action="store_true", help="write RESULTS.md, results.json and the plots in docs/bench, if all suites ran")
    ap.add_argument("--venv", type=pathlib.Path, default=ROOT / ".build" / "bench-venv", help="the peers' Python environment")
    ap.add_argument("--gatecrew", type=pathlib.Path, default=ROOT / "bin" / "gatecrew")
    ap.add_argument("--ports", type=int, default=9000, metavar="N", help="the servers listen on N+1 to N+302 (%(default)s)")
    ap.add_argument("--lock", default=f"{tempfile.gettempdir()}/gatecrew-bench.lock", metavar="FILE", help="benches with the same file measure in turns (%(default)s)")
    ap.add_argument("--gatecrew-only", action="store_true", help="leave out the peers")
    other = ap.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="name all rows and leave")
    other.add_argument("--show", metavar="ROW", help="say how to reproduce a row: command lines and configuration")
    other.add_argument("--compare", nargs=2, type=pathlib.Path, metavar=("OLD", "NEW"), help="two files of results beside each other")
    other.add_argument("--goals", type=pathlib.Path, metavar="RESULTS", help="which goals a file of results meets; exit status 1 when one is not")
    other.add_argument("--report", type=pathlib.Path, metavar="RESULTS", help="write the tables of a file of results to standard output")
    return ap.parse_args()


def read(path):
    """A file of results; ends the program where it is none."""
    try:
        results = json.loads(path.read_text())
        results["suites"], results["machine"]
        return results
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is no file of results: {error}")


def show(name, names, args):
    """Says how to reproduce a row: leaves the scratch folder behind, with everything that its commands need."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
    places = suite.places(args.gatecrew, args.venv, folder, args.ports)
    found = [row for each in names for row in suite.rows(each, places) if row["name"] == name]
    if not found:
        folder.rmdir()
        sys.exit(f"there is no row {name!r}; bench.py --list names all")
    suite.prepare(places)
    print(f"# The applications and configurations were written to {folder}.")
    for row in found:
        print(f"\n# {row['suite']}: {row['name']}. The server, with no other variables than these:")
        print(f"env -i {' '.join(f'{key}={value}' for key, value in server.ENVIRONMENT.items())} sh -c {shlex.quote(row['cmd'])}")
        if row["load"] != "none":
            print(f"# The load, once it answers:\n{' '.join(shlex.quote(str(word)) for word in load.command(row, args.seconds))}")
        if "beside" in row:
            print(f"# Beside it:\n{' '.join(map(str, load.wrk(load.target(row, row['beside']['path']), row['beside']['conns'], args.seconds)))}")


def names_of(args):
    """The suites that were asked for. Raises ValueError when there is no such suite."""
    for name in args.suites:
        suite.suite(name)
    return args.suites or suite.names()


def measured(args, names):
    """Runs the suites; returns the results as they are written."""
    if not args.gatecrew.exists():
        sys.exit(f"there is no {args.gatecrew}: run make build, or name one with --gatecrew")
    if not shutil.which("wrk"):
        sys.exit("there is no wrk here: run bench/setup.sh")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # in order: no server stays
    machine.raise_descriptors()
    state = machine.state()
    if state["busy"] > machine.BUSY:
        run.progress(f"warning: others take {state['busy']:.0%} of the cores just now, load average {state['load_average']}; figures will be doubtful")
    subprocess.run(["go", "build", "-o", load.WSLOAD, "./bench/wsload"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        places = suite.places(args.gatecrew, args.venv, pathlib.Path(scratch), args.ports)
        suite.prepare(places)
        results = {"format": compare.FORMAT, "began": report.now(), "revision": machine.revision(ROOT), "machine": machine.identity(), "system": machine.distribution(),
                   "state": state, "versions": machine.versions(places, PACKAGES), "settings": {"rounds": args.rounds, "seconds": args.seconds}}
        wanted = (lambda row: not args.only or row["name"] in args.only) if not args.gatecrew_only else (lambda row: "gatecrew" in row["short"])
        results["suites"] = {}
        for name, told in run.suites(names, places, args.rounds, args.seconds, wanted, args.lock):
            results["suites"][name] = told
            if args.output:  # after each suite, so that a run that is broken off leaves what it has
                args.output.parent.mkdir(parents=True, exist_ok=True)
                args.output.write_text(written(results))
    return results


def publish(results):
    """Writes what is in the tree for everybody to read. Only all suites together replace it: a page is of one run."""
    left = [name for name in suite.names() if name not in results["suites"]]
    if left:
        run.progress(f"RESULTS.md stays as it is: this run leaves out {', '.join(left)}")
        return
    here = suite.HERE
    (here / "results.json").write_text(written(results))
    plots = draw(here / "results.json")
    (here / "RESULTS.md").write_text(report.whole(results, plots))


def draw(path):
    """Has the plots drawn by the Python that has matplotlib; returns their places by suite, none where it isn't installed."""
    python, folder = ROOT / ".build" / "bench-venv" / "bin" / "python", ROOT / "docs" / "bench"
    drawn = subprocess.run([python, suite.HERE / "plot.py", path, folder], stdout=subprocess.PIPE, text=True) if python.exists() else None
    if drawn is None or drawn.returncode:
        run.progress("no plots were drawn: run bench/setup.sh")
        return {}
    return {name: f"../docs/bench/{name}.svg" for name in drawn.stdout.split()}


def written(results):
    """Results as JSON with a line for each round, so that a difference can be read, and without the names of folders of this machine."""
    text = re.sub(r"/[^\s\"]*/bench-\w+(?=/)", "SCRATCH", json.dumps(results, ensure_ascii=False, indent=1).replace(str(ROOT) + "/", ""))
    return re.sub(r"\{[^{}\[\]]*\}", lambda flat: " ".join(flat.group(0).split()) if '"rps"' in flat.group(0) or '"start_ms"' in flat.group(0) else flat.group(0), text) + "\n"


def compared(old, new):
    try:
        lines = list(compare.rows(old, new))
    except compare.Incomparable as reason:
        sys.exit(f"these results can't be compared: {reason}")
    for note in compare.notes(old, new):
        print(f"note: {note}")
    for name, row, metric, a, b, times in lines:
        print(f"{name:12}{row:44}{figures.METRICS[metric][0]:>12}{figures.shown(metric, a):>12}{figures.shown(metric, b):>12}{'–' if times is None else f'{times:.2f} ×':>10}")


def judged(results):
    """Prints met or not for each goal; returns the exit status."""
    every = goals.judged(results)
    if report.busy(results):
        print("note: the machine was busy with other work; these figures are a rough guide")
    for goal in every:
        state = {True: "met", False: "NOT MET", None: "not measured"}[goal["met"]]
        print(f"{state:13}{goal['figure']:>12}{goal['asked']:>14}  {goal['name']}" + (f" ({goal['why']})" if "why" in goal else ""))
    return 1 if any(goal["met"] is False for goal in every) else 0


def main():
    args = arguments()
    try:
        names = names_of(args)
    except ValueError as error:
        sys.exit(str(error))
    if args.compare:
        return compared(*map(read, args.compare))
    if args.goals:
        return judged(read(args.goals))
    if args.report:
        return print(report.whole(read(args.report)), end="")
    if args.show:
        return show(args.show, names, args)
    if args.list:
        places = suite.places(args.gatecrew, args.venv, pathlib.Path("/tmp"))
        return print("\n".join(f"{name}: {row['name']}" for name in names for row in suite.rows(name, places)))
    results = measured(args, names)
    print("\n\n".join(["\n".join(report.environment(results))] + [report.suite_text(told) for told in results["suites"].values()]))
    if args.publish:
        publish(results)


if __name__ == "__main__":
    sys.exit(main())
