"""fork(2) that makes the child a child of this process's parent (CLONE_PARENT).

The parent can then collect the child's exit status and signal its group, as if
it had started it itself. All else is as in os.fork.
"""

import ctypes
import errno
import signal

_CLONE_PARENT = 0x00008000
_CLONE_CHILD_CLEARTID = 0x00200000
_CLONE_CHILD_SETTID = 0x01000000
_PR_SET_PDEATHSIG = 1
_PR_GET_TID_ADDRESS = 40


class Clone:
    """Makes processes. The argument is the number of the system call clone(2)."""

    def __init__(self, number):
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
        flags = _CLONE_PARENT | _CLONE_CHILD_CLEARTID | _CLONE_CHILD_SETTID | signal.SIGCHLD
        # The order of all machines but s390 and cris, less the two in the middle
        # that have changed places on some: both get the address that one needs.
        self._arguments = (number, flags, 0, 0, address.value, address.value)

    def fork(self):
        """Returns 0 in the child, its process id in the parent, and -errno when
        there is none."""
        self._before()
        pid = self._syscall(*self._arguments)
        if pid == 0:
            self._in_child()
            return 0
        failure = self._errno()[0] if pid < 0 else 0
        self._in_parent()
        return pid if pid > 0 else -(failure or errno.EAGAIN)

    def die_with_parent(self):
        """Has the kernel kill this process when its parent ends."""
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
