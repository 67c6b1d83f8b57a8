"""The machine that figures are made on: what it is, what runs on it, and how busy it is."""
import hashlib
import os
import pathlib
import platform
import re
import resource
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
# What must be the same for two files of results to be comparable, and its name for people.
IDENTITY = {"id": "machine id", "cpu": "CPU", "cores": "number of cores", "kernel": "kernel", "memory_mb": "memory"}
BUSY = 0.10  # of all cores taken by others, from which figures are doubtful


def text(path):
    """The contents of a file, or nothing where it can't be read."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


def said_all(*command):
    """What a command says, whatever stream it says it to; None where there is no such command."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None


def said(*command):
    """The first line of it."""
    return (said_all(*command) or "").strip().split("\n")[0].strip() or None


def number(text):
    """The version in what a program says of itself."""
    found = re.search(r"\d+\.\d[\w.+~-]*", text or "")
    return found.group(0) if found else text


def identity():
    """What tells this machine from others. The id is a digest of /etc/machine-id, which systemd says is not to be published."""
    cpu = re.search(r"^model name\s*: (.*)", text("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", text("/proc/meminfo"), re.M)
    return {
        "id": hashlib.sha256(b"gatecrew bench" + text("/etc/machine-id").encode() + platform.node().encode()).hexdigest()[:12],
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "memory_mb": round(int(memory.group(1)) / 1024) if memory else 0,
    }


def differences(old, new):
    """Why the figures of two machines can't be compared, a line each."""
    return [f"{what}: {old.get(key)} and {new.get(key)}" for key, what in IDENTITY.items() if old.get(key) != new.get(key)]


def distribution():
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', text("/etc/os-release"), re.M)
    return name.group(1) if name else platform.system()


def module(program):
    """The version of a program that go install made."""
    found = re.search(r"^\s+mod\s+\S+\s+(\S+)", said_all("go", "version", "-m", str(program)) or "", re.M)
    return found.group(1) if found else None


def packages(venv):
    """The versions of the Python packages in a virtual environment, by name."""
    out = subprocess.run([f"{venv}/bin/python", "-m", "pip", "--disable-pip-version-check", "freeze"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return dict(line.split("==", 1) for line in out.splitlines() if "==" in line)


def versions(places, shown):
    """The version of everything that takes part; shown are the Python packages to name. What isn't here is left out."""
    found = {
        "gatecrew": said(places["GATECREW"], "--version"),
        "go": said("go", "version"),
        "wrk": said("wrk", "-v"),
        "nginx": said("nginx", "-v"),
        "apache2": said("apache2", "-v"),
        "lighttpd": said("lighttpd", "-v"),
        "fcgiwrap": said("dpkg-query", "-W", "-f=${Version}", "fcgiwrap"),
        "php-fpm": said(places["PHPFPM"], "-v"),
        "caddy": module(places["CADDY"]),
        "python of scripts": said("/usr/bin/python3", "--version"),
        "perl": said("perl", "-e", "print $^V"),
        "git": said("git", "--version"),
    }
    if os.path.exists(f"{places['VENV']}/bin/python"):
        found["python"] = said(f"{places['VENV']}/bin/python", "--version")
        installed = packages(places["VENV"])
        found.update({name: installed[name] for name in shown if name in installed})
    return {name: version if name == "gatecrew" else number(version) for name, version in found.items() if version}


def revision(folder):
    """The commit that is measured, with a + when files differ from it."""
    commit = said("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + ("+" if said("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no") else "")


def busy_seconds():
    """CPU seconds that all cores together have spent on anything, since the machine started."""
    fields = [int(f) for f in text("/proc/stat").split("\n")[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / TICK  # without idle and iowait


def busyness(seconds=1.0):
    """The share of all cores that is taken just now, 0 to 1."""
    began, before = time.monotonic(), busy_seconds()
    time.sleep(seconds)
    return (busy_seconds() - before) / (time.monotonic() - began) / os.cpu_count()


def state():
    """How busy the machine is before anything is measured."""
    return {"load_average": round(os.getloadavg()[0], 2), "busy": round(busyness(), 3)}


def raise_descriptors():
    """Lets every process have as many descriptors as thousands of connections need: as root, or as far as the hard limit goes."""
    for most in (1 << 18, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            return resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):
            pass
