"""What Python has no function for: a fork whose child is the parent's, and an
environment in one piece.
"""

import ctypes
import errno
import os

_SIGCHLD, _SIGKILL = 17, 9  # of all Linux that is not MIPS, where clone fails then
_CLONE_PARENT = 0x00008000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
_PR_SET_PDEATHSIG = 1
_PR_GET_TID_ADDRESS = 40


# The most variables that are set in one piece.
_VARIABLES = 1024


class System:
    """The functions. number is that of the system call clone(2), size that of the
    largest environment."""

    def __init__(self, number, size):
        if not number:
            raise OSError("the number of clone(2) is not known")
        # Of the kind that keeps the interpreter's lock.
        library = ctypes.PyDLL(None)
        self._before = library.PyOS_BeforeFork
        self._in_parent = library.PyOS_AfterFork_Parent
        self._in_child = library.PyOS_AfterFork_Child
        for function in (self._before, self._in_parent, self._in_child):
            function.restype, function.argtypes = None, ()
        self._syscall = library.syscall
        self._syscall.restype, self._syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 6
        self._prctl = library.prctl
        self._prctl.restype, self._prctl.argtypes = ctypes.c_int, [ctypes.c_int] + [ctypes.c_ulong] * 4
        self._errno = getattr(library, "__errno_location")
        self._errno.restype = ctypes.POINTER(ctypes.c_int)
        # The C library notes its thread's number there, and fork has the kernel
        # write the child's.
        address = ctypes.c_size_t()
        if self._prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) != 0 or not address.value:
            raise OSError("the kernel doesn't tell PR_GET_TID_ADDRESS")
        if ctypes.c_int.from_address(address.value).value != library.getpid():
            raise OSError("the C library keeps its thread's number elsewhere")
        flags = _CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | _SIGCHLD
        # The order of all machines but s390 and cris, less the two in the middle
        # that have changed places on some: both get the address that one needs.
        self._arguments = (number, flags, 0, 0, address.value, address.value)
        self._environ = ctypes.c_size_t.in_dll(library, "environ")
        self._text = bytearray(size + 1)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._text))
        self._pointers = (ctypes.c_size_t * (_VARIABLES + 1))()
        self._first = ctypes.addressof(self._pointers)

    def fork(self):
        """Returns 0 in a child of this process's parent (CLONE_PARENT), which can
        then collect the exit status and signal the group as if it had started it
        itself. All else is as in os.fork. Returns the child's process id in this
        process, and -errno when there is none."""
        self._before()
        pid = self._syscall(*self._arguments)
        if pid == 0:
            self._in_child()
            return 0
        failure = self._errno()[0] if pid < 0 else 0
        self._in_parent()
        return pid if pid > 0 else -(failure or errno.EAGAIN)

    def layer(self):
        """Returns what has this process enter a Landlock domain of its own, inside of
        the one that it is in, and outside of which it can look at no process
        (landlock(7), "Ptrace restrictions"). The domain has to forbid something: it
        is to make block devices. Raises OSError where that can't be."""
        rules = (ctypes.c_uint64 * 1)(1 << 11)  # LANDLOCK_ACCESS_FS_MAKE_BLOCK
        # The numbers are those of all machines but Alpha.
        fd = self._syscall(444, ctypes.addressof(rules), ctypes.sizeof(rules), 0, 0, 0)
        if fd < 0:
            raise OSError(self._errno()[0], os.strerror(self._errno()[0]))

        def enter():
            if self._syscall(446, fd, 0, 0, 0, 0) != 0:
                raise OSError(self._errno()[0], os.strerror(self._errno()[0]))

        return enter

    def die_with_parent(self):
        """Has the kernel kill this process when its parent ends."""
        self._prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)

    def set_environment(self, variables):
        """Makes NAME=value pairs the environment that C functions see. setenv(3) for
        each would take memory in as many places; what it is given later is right
        all the same."""
        text = b"\0".join(variables) + b"\0"
        if len(variables) > _VARIABLES or len(text) > len(self._text):
            raise OverflowError("too many variables")
        self._text[: len(text)] = text
        at, pointers = self._address, []
        for variable in variables:
            pointers.append(at)
            at += len(variable) + 1
        pointers.append(0)
        self._pointers[: len(pointers)] = pointers
        self._environ.value = self._first


def share_programs():
    """Has a fork copy the tables of pages that are programs and libraries, which
    each child would else fill again, a fault for 16 pages. The kernel does that
    for a mapping in which a page was written to: so the last byte of each is
    written over itself."""
    try:
        fd = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        with open("/proc/self/maps", "rb") as file:
            lines = file.read().splitlines()
        for line in lines:
            words = line.split(None, 5)
            if len(words) == 6 and words[1] in (b"r-xp", b"r--p") and words[5].startswith(b"/"):
                last = int(words[0].partition(b"-")[2], 16) - 1
                try:
                    os.pwrite(fd, os.pread(fd, 1, last), last)
                except OSError:
                    pass  # beyond the end of the file
    except OSError:
        pass
    finally:
        os.close(fd)
