"""Whether the C extension is used: _speed.c, which does for usual requests
what the Python code does for all.

    auto     when it can be loaded
    require  or the worker does not start
    off      never
"""

import importlib
import sys

# That of _speed.c, raised with it whenever what one expects of the other
# changes: a file that was left behind by another version is not used.
INTERFACE = 1

CHOICES = ("auto", "require", "off")


class Unavailable(Exception):
    """The C extension can't be used. The text says why, and the next step."""


def load(choice):
    """Returns the module, or None, and in words what runs and why. Raises
    Unavailable when it is required and can't be had."""
    if choice == "off":
        return None, "pure Python runs: the C extension is off"
    why, step = _missing()
    if why is None:
        try:
            speed = importlib.import_module("gatecrew_worker._speed")
        except ImportError as exc:
            why, step = "it can't be loaded: %s" % exc, "build gatecrew on this machine, with make build"
            if isinstance(exc, ModuleNotFoundError):
                why = "this gatecrew was built without it"
                step = "build it where a C compiler and Python.h are (Debian: gcc libc6-dev python3-dev), with make build"
        else:
            if getattr(speed, "INTERFACE", None) == INTERFACE:
                return speed, "the C extension runs"
            why, step = "%s is of another version" % speed.__file__, "build gatecrew again, with make build"
    if choice == "require":
        raise Unavailable(
            "gatecrew: the C extension is required, and %s\n  next step: %s, or choose --c-extension auto" % (why, step))
    return None, "pure Python runs, without the C extension: %s" % why


def _missing():
    """Returns why this interpreter can have none, and the next step, or None
    twice."""
    if sys.implementation.name != "cpython":
        return "%s can't load it" % sys.implementation.name, "use CPython (--python)"
    if "t" in getattr(sys, "abiflags", ""):
        return "a free-threaded Python can't load it", "use a Python with its global interpreter lock (--python)"
    if hasattr(sys, "getobjects"):
        return "a Python built with Py_TRACE_REFS can't load it", "use another one (--python)"
    return None, None
