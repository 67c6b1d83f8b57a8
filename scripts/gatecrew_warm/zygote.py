"""The process that has a CGI script compiled and forks a child for each request.

The gateway starts it as INTERPRETER [OPTIONS] zygote.py SCRIPT; what is spoken on
descriptor 3 is described in procpool/WARM.md. A child runs the script as a fresh
interpreter would, so nothing here may be seen by it: what the zygote imports for
itself is hidden again.
"""

_names_of_main = dict(globals())  # a script's namespace begins with these

import sys

_base = set(sys.modules)

sys.path.insert(0, __file__.rpartition("/")[0])

import gc
import os
import select

import _socket

import _warm_child
import _warm_modules

try:
    from _warm_system import System, share_programs
except ImportError as exc:  # an interpreter without ctypes
    System, _missing = None, str(exc)

del sys.path[0]

_PACKET = 65536
_SPARE_SECONDS = 10  # that a child waits for a request
_PATIENCE = 1000  # milliseconds, after which it is seen to that those who wait are still there


class Refused(Exception):
    """Why the script has to be served cold."""


class Zygote:
    """The forking process, on its socket to the gateway."""

    def __init__(self, sock, script):
        self._sock = sock
        self._script = script
        self._settings = {}
        self._learner = None  # while the first runs tell what they import
        self._waiting = 0  # children without a request
        self._target = 0  # how many of them there should be

    # Before the first request.

    def prepare(self):
        """Gets ready; raises Refused."""
        kind, _, rest = os.fsdecode(self._sock.recv(_PACKET)).partition("\0")
        if kind != "start":
            raise Refused("the gateway began with %r" % kind)
        wanted = []
        for setting in rest.split("\0"):
            name, _, value = setting.partition("=")
            if name == "module":
                wanted.append(value)
            else:
                self._settings[name] = value
        _check_interpreter()
        if System is None:
            raise Refused("its interpreter can't clone processes: " + _missing)
        try:
            system = System(int(self._settings.get("clone", "0")), _PACKET)
        except (OSError, AttributeError, ValueError) as exc:
            raise Refused("its interpreter can't clone processes: %s" % exc)
        if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.realpath(self._script)) or "/"
        sys.path_importer_cache.clear()
        code = self._compile()
        policy = self._settings.get("preload", "stdlib")
        loaded = _warm_modules.load(wanted, policy) if wanted else []
        # Folders that are not there now may be there in a child.
        for folder in [folder for folder, finder in sys.path_importer_cache.items() if finder is None]:
            del sys.path_importer_cache[folder]
        if not wanted and policy != "none":
            self._learner = _warm_modules.Learner(_base, policy)
        if _warm_modules.threads() > 1:
            raise Refused("importing its modules starts threads, which a fork would lose")
        self._loaded = loaded
        main = self._main()
        for name in [name for name in sys.modules if name not in _base and name not in loaded]:
            del sys.modules[name]
        try:
            enter = system.layer() if "layer" in self._settings else None
        except OSError as exc:
            raise Refused("it can't be kept apart from others (Landlock): %s" % exc)
        self._child = _warm_child.Child(self._sock, system, self._script, code, main, self._learner, enter, loaded)
        share_programs()
        # Collections in the children would write to, and so copy, every object
        # that was made so far.
        gc.collect()
        gc.freeze()

    def _compile(self):
        """Returns the script's code; None if it has to be compiled in each child."""
        try:
            with open(self._script, "rb") as file:
                source = file.read()
        except OSError as exc:
            raise Refused("it can't be read: %s" % exc.strerror)

        def attempt():
            import warnings

            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                compile(source, self._script, "exec", dont_inherit=True)
            return ["warned"] if warned else []

        # In a process of its own, as it takes modules that the script may not want.
        answer = _warm_modules.elsewhere(attempt)
        if answer is None:
            raise Refused("it does not compile as Python")
        if answer:
            return None  # each run has to say it
        return compile(source, self._script, "exec", dont_inherit=True)

    def _main(self):
        """Returns the module __main__ as pythonrun.c makes it for a file."""
        loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("__main__", self._script)
        names = dict(_names_of_main, __doc__=None, __loader__=loader, __file__=self._script)
        if "__annotations__" in names:
            names["__annotations__"] = {}
        main = type(sys)("__main__")
        main.__dict__.clear()
        main.__dict__.update(names)
        return main

    def ready(self):
        """Tells the gateway what to look at before it asks for a child."""
        facts = ["ready", "watch=" + self._script, "watch=" + os.__file__]
        if sys.executable:
            facts += ["watch=" + sys.executable, "watch=" + os.path.realpath(sys.executable)]
        files, tops = _warm_modules.origins(self._loaded)
        files += _warm_modules.origins(_base - {"__main__"})[0]
        facts += ["watch=" + file for file in files]
        if tops:
            facts += ["shadow=" + folder for folder in _warm_modules.folders_before_stdlib()]
            facts += ["name=" + top for top in tops]
        self._sock.send(os.fsencode("\0".join(facts)))

    # Afterwards.

    def serve(self):
        """Forks children. Returns the arguments of a request in each of them, None
        in the zygote at its end."""
        most = int(self._settings.get("spares", "0"))
        read, write = os.pipe()
        word = 8 if sys.maxsize > 1 << 32 else 4
        self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _SPARE_SECONDS.to_bytes(word, sys.byteorder) + bytes(word))
        poll = select.poll()
        poll.register(read, select.POLLIN)
        poll.register(3, select.POLLRDHUP)
        asked = False
        while True:
            # As long as children wait, a request is for one of them.
            if asked != (self._waiting == 0):
                asked = not asked
                poll.modify(3, select.POLLRDHUP | (select.POLLIN if asked else 0))
            number = 0
            events = poll.poll(_PATIENCE if self._waiting else None)
            if not events and self._queued():
                self._waiting = 0  # they were killed: nobody takes it
            for fd, event in events:
                if fd == read:
                    news = os.read(read, 4096)
                    self._waiting = max(0, self._waiting - len(news))
                    # x is of one that has waited in vain.
                    self._target = max(0, self._target - news.count(b"x"))
                elif event & (select.POLLHUP | select.POLLERR) or event & select.POLLRDHUP and not self._queued():
                    return None
                elif self._waiting == 0:
                    self._target = min(most, max(1, self._target * 2))
                    number = max(1, self._target)
            if self._waiting:
                number = self._target - self._waiting
            for _ in range(number):
                if self._learner is not None:
                    self._learner.next()
                pid = self._child.fork(write)
                if pid == 0:
                    return self._child.args
                if pid < 0:
                    self._fail(-pid)
                    break
                self._waiting += 1
            if self._learner is not None:
                names = self._learner.learned()
                if names is not None:
                    self._learner = self._child.learner = None
                    if names:
                        self._sock.send(os.fsencode("\0".join(["learned", *names])))

    def _queued(self):
        """Whether there is a request that nobody has taken."""
        try:
            return bool(self._sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _fail(self, errno):
        """Answers a request for which there is no child."""
        if self._waiting:
            return
        try:
            packet = self._sock.recv(_PACKET, _socket.MSG_DONTWAIT)
        except OSError:
            return
        number = packet.split(b"\0", 2)[1:2]
        if number:
            self._sock.send(b"failed\0%b\0fork: %b" % (number[0], os.fsencode(os.strerror(errno))))

    def run(self, args):
        """Is the life of a child from its request on."""
        self._child.run(args)


def _check_interpreter():
    flags = sys.flags
    if sys.implementation.name != "cpython" or sys.version_info < (3, 7):
        raise Refused("it takes CPython 3.7 or later to keep a script warm, and this is %s %d.%d" % (sys.implementation.name, *sys.version_info[:2]))
    if flags.interactive or flags.inspect or flags.verbose or getattr(flags, "dev_mode", False):
        raise Refused("an option of its interpreter can't be kept: -i, -v, -X dev, or the variable for it")
    unknown = set(sys._xoptions) - {"utf8", "frozen_modules", "int_max_str_digits", "no_debug_ranges", "pycache_prefix"}
    if unknown:
        raise Refused("an option of its interpreter can't be kept: -X " + ", -X ".join(sorted(unknown)))


def main():
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)
    os.set_inheritable(3, False)
    zygote = Zygote(sock, sys.argv[1])
    try:
        zygote.prepare()
    except Refused as exc:
        sock.send(os.fsencode("refuse\0%s" % exc))
        sock.close()  # -X dev warns of one that is left open
        return
    zygote.ready()
    args = zygote.serve()
    if args is not None:
        zygote.run(args)


main()
