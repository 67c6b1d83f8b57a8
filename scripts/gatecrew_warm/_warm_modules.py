"""Which modules a zygote loads before there is a request, and how it learns them."""

import gc
import mmap
import os
import posix
import sys

import _thread

STDLIB = os.path.dirname(os.__file__) + os.sep

_LEARN_RUNS = 3  # whose imports are compared
_SLOTS, _SLOT = 16, 16384  # how many runs may tell theirs, and the bytes for it

# These make something when they are imported that each process must make for
# itself, or show something, or want a terminal.
_NEVER = {
    "__main__", "antigravity", "idlelib", "multiprocessing", "readline", "rlcompleter", "sitecustomize",
    "test", "this", "tkinter", "turtle", "turtledemo", "usercustomize",
}  # fmt: skip


def standard(file):
    """Reports whether file is the standard library's."""
    return file.startswith(STDLIB) and "/site-packages/" not in file and "/dist-packages/" not in file


def folders_before_stdlib():
    """Returns where a module is looked for before the standard library."""
    folders = []
    for folder in sys.path:
        if folder + os.sep == STDLIB:
            break
        if not folder.endswith(".zip"):
            folders.append(folder)
    return folders


def threads():
    """Returns how many threads this process has."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:  # no /proc, as in a chroot: then those that Python knows
        return _thread._count() + 1


class Learner:
    """Finds out what the first runs of a script have in common. They tell it by
    memory that all share: a child has no descriptor for it."""

    def __init__(self, base, policy):
        self._base = base
        self._policy = policy
        self._board = mmap.mmap(-1, _SLOTS * _SLOT)
        self._used = 0

    def next(self):
        """Gives the child that is forked next a place to write to."""
        self._used += 1

    def tell(self):
        """Leaves the names of what this child has imported."""
        try:
            self._tell()
        except Exception:
            pass  # a module of the script's making has a strange __file__: it tells nothing

    def _tell(self):
        """The last come first, as they are what others need."""
        at = (self._used - 1) * _SLOT
        if self._used > _SLOTS:
            return
        names = []
        for name, module in reversed(list(sys.modules.items())):
            if name in self._base or not isinstance(module, type(sys)):
                continue
            file = getattr(module, "__file__", None)
            origin = getattr(getattr(module, "__spec__", None), "origin", None)
            if standard(file) if file else origin in ("built-in", "frozen"):
                names.append(name)
            elif file and self._policy == "all":
                names.append(name)
        text = os.fsencode("\0".join(names)) or b"\0"
        if len(text) <= _SLOT - 4:
            self._board[at + 4 : at + 4 + len(text)] = text
            self._board[at : at + 4] = len(text).to_bytes(4, "little")

    def learned(self):
        """Returns names, or None as long as more runs are awaited."""
        runs = []
        for at in range(0, min(self._used, _SLOTS) * _SLOT, _SLOT):
            size = int.from_bytes(self._board[at : at + 4], "little")
            if size:  # else it has no request yet, or is at it, or was killed
                runs.append(os.fsdecode(self._board[at + 4 : at + 4 + size]).split("\0"))
        if len(runs) < _LEARN_RUNS and self._used < 2 * _SLOTS:
            return None
        return [name for name in runs[0] if name and all(name in other for other in runs)] if runs else []


def load(names, policy):
    """Imports those of names that may be, and whose import is seen to do nothing
    else. Returns all that is loaded now for them."""
    folders = folders_before_stdlib()
    names = [name for name in names if _allowed(name, policy, folders)]
    bad = set()
    while names:
        found = elsewhere(lambda: _unfit(names, bad))
        if found is None:
            return []  # the process died: nothing is safe
        if not found:
            break
        bad.update(found)
        names = [name for name in names if name not in bad]
    before = set(sys.modules)
    for name in names:
        try:
            __import__(name)
        except Exception:
            pass
    return [name for name in sys.modules if name in names or name not in before]


def _allowed(name, policy, folders):
    top = name.partition(".")[0]
    if policy == "none" or top in _NEVER or name == "concurrent.futures.process":
        return False
    return policy == "all" or not any(_has(folder, top) for folder in folders)


def _has(folder, top):
    """Reports whether folder has a module of that name."""
    try:
        return any(entry == top or entry.startswith(top + ".") for entry in os.listdir(folder or "."))
    except OSError:
        return False


def origins(names):
    """Returns the files of modules that are not the standard library's, and the
    names at the top of the others."""
    files, tops = [], set()
    for name in names:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not standard(file):
            files.append(file)
        else:
            tops.add(name.partition(".")[0])
    return files, sorted(tops)


def elsewhere(function):
    """Returns the strings that function returns in a process of its own, None if it
    raises."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            with os.fdopen(write, "wb") as file:
                file.write(os.fsencode("\0".join([*function(), "done"])))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        words = os.fsdecode(file.read()).split("\0")
    os.waitpid(child, 0)
    return words[:-1] if words[-1] == "done" else None


def _unfit(names, bad):
    """Imports names and returns those whose import warned, left something behind
    or needed one that is bad."""
    import warnings

    warned = []
    warnings.showwarning = lambda *_, **__: warned.append(True)
    warnings.simplefilter("always")
    found = []
    for name in names:
        before, state = set(sys.modules), _state()
        del warned[:]
        try:
            __import__(name)
            fine = not warned and _state() == state
        except BaseException:
            fine = False
        new = set(sys.modules) - before
        if not fine or any(other in bad or other in found or other.partition(".")[0] in _NEVER for other in new):
            found.append(name)
    return found


def _state():
    """Returns what an import might change beside the modules."""
    descriptors = []
    try:
        for fd in os.listdir("/proc/self/fd"):
            try:
                descriptors.append((fd, os.readlink("/proc/self/fd/" + fd)))
            except OSError:
                pass  # that of the listing itself
    except OSError:
        pass
    return (
        descriptors, threads(), dict(posix.environ), os.getcwd(), sys.path[:], sys.argv[:], sys.stdin, sys.stdout, sys.stderr,
        sys.excepthook, sys.displayhook, gc.isenabled(), gc.get_threshold(), sys.getrecursionlimit(),
    )  # fmt: skip
