"""Which files the application consists of, for a gateway that watches them."""

import importlib.util
import os
import sys
import threading
import time

# How far apart two looks are at whether something was imported since, in
# seconds. A look is one call of len().
_INTERVAL = 0.25

# What belongs to the interpreter and to this program is not watched.
_STDLIB = {os.path.join(path, "") for path in (os.path.dirname(os.__file__), os.path.dirname(os.path.realpath(os.__file__)))}
_PACKAGES = {"site-packages", "dist-packages"}
_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


class Report:
    """Tells, over a control connection, each file once."""

    def __init__(self, control):
        self._control = control
        self._told = set()

    def expect(self, app):
        """Tells the files that app, the application's name, may mean: a worker
        that never gets beyond importing them tells nothing more."""
        target = app.partition(":")[0]
        if os.sep in target or target.endswith((".py", ".wsgi")):
            self._tell({os.path.abspath(target)})
        else:
            self._tell(_candidates(target))

    def tell(self, error=None):
        """Tells what has been imported, and of an application that could not
        be loaded the files where that error may be repaired."""
        self._tell(imported() if error is None else imported() | concerned(error))

    def _tell(self, files):
        new = sorted(f for f in files - self._told if _watched(f))
        if new:
            self._told.update(new)
            self._control.tell(modules=new)

    def follow(self):
        """Goes on telling of modules that are imported later."""
        threading.Thread(target=self._follow, name="gatecrew-modules", daemon=True).start()

    def _follow(self):
        seen = 0
        while True:
            count = len(sys.modules)
            if count != seen:
                seen = count
                self.tell()
            time.sleep(_INTERVAL)


def imported():
    """Returns the files of all modules."""
    files = set()
    for module in list(sys.modules.values()):
        # Anything may be in there; an attribute may be computed, and fail.
        try:
            file = module.__file__
        except Exception:
            continue
        if isinstance(file, str):
            files.add(_source(file))
    return files


def concerned(error):
    """Returns the files in which the cause of error may lie: those of its
    traceback, the one that is no Python, those where a module was looked for."""
    files = set()
    seen = set()
    pending = [error]
    while pending:
        error = pending.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        tb = error.__traceback__
        while tb is not None:
            files.add(tb.tb_frame.f_code.co_filename)
            tb = tb.tb_next
        if isinstance(error, SyntaxError) and error.filename:
            files.add(error.filename)
        if isinstance(error, ModuleNotFoundError) and error.name:
            files |= _candidates(error.name)
        pending += [error.__cause__, error.__context__]
    return {os.path.abspath(f) for f in files if not f.startswith("<")}


def _candidates(name):
    """Returns the files that would be the module called name."""
    parent, _, last = name.rpartition(".")
    places = sys.path
    if parent:
        # It may not have been imported yet, or be gone again since it failed.
        places = getattr(sys.modules.get(parent), "__path__", None) or [os.path.join(p, *parent.split(".")) for p in sys.path]
    files = set()
    for place in places:
        if isinstance(place, str) and os.path.isdir(place or "."):
            base = os.path.join(place, last)
            files |= {os.path.abspath(base + ".py"), os.path.abspath(os.path.join(base, "__init__.py"))}
    return files


def _source(file):
    """Returns the source of a compiled file where there is one."""
    if file.endswith(".pyc"):
        try:
            source = importlib.util.source_from_cache(file)
        except ValueError:
            source = file[:-1]  # beside its source, not in __pycache__
        if os.path.exists(source):
            file = source
    return os.path.abspath(file)


def _watched(file):
    if file.startswith(_OWN):
        return False
    for folder in _STDLIB:
        if file.startswith(folder):
            return file[len(folder):].split(os.sep, 1)[0] in _PACKAGES
    return True
