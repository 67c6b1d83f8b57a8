"""What is measured: the rows of suites/*.json, made complete with the command lines of servers.json.

A suite is {"title", "about", "metrics", "defaults", "cases"?, "rows", "rounds"?, "share"?}; "rounds" is the most that it is run for, "share" the part of
the usual seconds that a row is measured for. A row is what one server does under one load. Its fields, of
which the suite's "defaults", the case and the server hold those that it doesn't say itself:

name     what the row is called in its case
server   a name in servers.json, which has "cmd" (a command line of sh) and "port"
set      what @NAME@ stands for in "cmd": {"W": 2} worker processes, "NGINX" (1) those of nginx, "FLAGS" (none), "APP", "INTERFACE"
load     wrk, transfer (large bodies, see transfer.py), sockets (WebSockets) or none (only the start is measured)
path, conns
expect   a regular expression for the whole of the answer's body, or its first 4,096 bytes
size     the length of that body, in bytes
upload   the length of the body that is sent, in bytes
beside   {"path", "conns"} of a second load that runs all the while, of which the table tells apart
warm_up  for how many seconds the load runs before it is counted, where the usual one is too short: a server that learns from requests
passers  how many clients come during the load with a request each, and must be answered (0)
sockets  idle or echo
binary   a program whose size is told
metrics  the figures of its table, the one first that rows are compared by, in place of the suite's

"cases" multiply: each row is made once for every case that it names in "cases", or for all. A "series",
{"x": [..], "growth": "flat" or "linear", "of": its name}, has a row made for each x, which @X@ stands for everywhere.
"""
import getpass
import glob
import json
import pathlib
import re
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
SMALL, LARGE, HUGE = b"Hello, static!", 1 << 20, 1 << 30


def names():
    """The suites that there are, in the order of the report."""
    order = json.loads((HERE / "suites" / "order.json").read_text())
    return order + sorted(set(p.stem for p in (HERE / "suites").glob("*.json")) - set(order) - {"order"})


def suite(name):
    """A suite as its file has it. Raises ValueError with the file's name where that can't be read."""
    path = HERE / "suites" / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except OSError:
        raise ValueError(f"there is no suite {name}; there are {', '.join(names())}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def fill(value, words):
    """Puts words in the place of @NAME@, in a text or whatever holds texts; @PORTS+1@ is the sum."""
    if isinstance(value, str):
        filled = re.sub(r"@([A-Z_]+)@", lambda m: str(words.get(m.group(1), m.group(0))), value)
        filled = re.sub(r"@PORTS\+(\d+)@", lambda m: str(words["PORTS"] + int(m.group(1))), filled)
        return int(filled) if re.fullmatch(r"@(X|PORTS\+\d+)@", value) else filled
    if isinstance(value, list):
        return [fill(each, words) for each in value]
    return {key: fill(each, words) for key, each in value.items()} if isinstance(value, dict) else value


def rows(name, places):
    """The rows of a suite, complete: every @NAME@ is replaced."""
    known, made, told = json.loads((HERE / "servers.json").read_text()), [], suite(name)
    for row in told["rows"]:
        for case in told.get("cases", [{}]):
            if "cases" in row and case["name"] not in row["cases"]:
                continue
            if row["server"] not in known:
                raise ValueError(f"suite {name}, row {row['name']}: servers.json has no {row['server']}")
            base = {**told.get("defaults", {}), **known[row["server"]], **case, **row}
            base["set"] = {**told.get("defaults", {}).get("set", {}), **case.get("set", {}), **row.get("set", {})}
            base.update(suite=name, case=case.get("name", ""), name=f"{case['name']}: {row['name']}" if case else row["name"], short=row["name"])
            series = base.pop("series", None)
            for x in series["x"] if series else [None]:
                one = {**base, "series": series["of"], "growth": series["growth"], "x": x, "name": f"{base['name']}, {x:,} {series['of']}"} if series else dict(base)
                words = {"FLAGS": "", "NGINX": 1, **places, "X": x, "PORT": fill(base["port"], places)}
                words.update(fill(base["set"], words))
                one = fill(one, words)
                for key in ("cases", "server", "set"):
                    one.pop(key, None)
                left = re.search(r"@[A-Z_]+@", json.dumps(one))
                if left:
                    raise ValueError(f"suite {name}, row {one['name']}: nothing stands for {left.group(0)}")
                made.append(one)
    cases = [case["name"] for case in told.get("cases", [])] or [""]
    return sorted(made, key=lambda row: cases.index(row["case"]))  # those that are compared stand, and run, side by side


def places(gatecrew, venv, run, ports=9000):
    """What @NAME@ stands for in every row. run is the scratch folder; ports the number that servers' ports are counted from."""
    gopath = subprocess.run(["go", "env", "GOPATH"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return {
        "PORTS": ports,
        "GATECREW": pathlib.Path(gatecrew).resolve(), "VENV": pathlib.Path(venv).absolute(), "USER": getpass.getuser(),
        "RUN": run, "CONF": run / "conf", "APPS": run / "apps", "STATIC": run / "static", "GIT": run / "git",
        "CADDY": shutil.which("caddy") or f"{gopath}/bin/caddy",
        # Debian puts the version into the name of the program.
        "PHPFPM": (sorted(glob.glob("/usr/sbin/php-fpm*")) or ["php-fpm"])[-1],
    }


def prepare(places):
    """Fills the scratch folder: applications, configurations, files to serve, a git repository. Every user may read it."""
    run = places["RUN"]
    run.chmod(0o755)
    shutil.copytree(HERE / "apps", places["APPS"], ignore=shutil.ignore_patterns("__pycache__"))
    places["CONF"].mkdir()
    for template in (HERE / "conf").glob("*.in"):
        (places["CONF"] / template.stem).write_text(fill(template.read_text(), places))
    places["STATIC"].mkdir()
    (places["STATIC"] / "index.html").write_bytes(SMALL)
    for name, size in (("1mb.bin", LARGE), ("1gb.bin", HUGE)):
        with open(places["STATIC"] / name, "wb") as file:
            file.truncate(size)
    subprocess.run(["gcc", "-O2", "-static", "-o", places["APPS"] / "hello.cgi", places["APPS"] / "hello.c"], check=True)
    repository(places["GIT"])


def repository(folder):
    """Makes a bare git repository with one commit, folder/git/hello.git."""
    git = ["git", "-c", "init.defaultBranch=main", "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    work = folder / "work"
    work.mkdir(parents=True)
    (work / "README").write_text("Hello, git!\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Hello"], ["clone", "-q", "--bare", ".", folder / "git" / "hello.git"]):
        subprocess.run(git + command, cwd=work, check=True)
    shutil.rmtree(work)
