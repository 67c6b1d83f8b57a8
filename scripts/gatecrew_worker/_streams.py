"""wsgi.input, wsgi.errors and wsgi.file_wrapper."""

import io
import os
import stat
import sys
from wsgiref.util import FileWrapper as _FileWrapper


class _Body(io.RawIOBase):
    """The chunks of a request body as a raw file."""

    def __init__(self, loop, request):
        self._loop = loop
        self._request = request
        self._chunk = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        chunk = self._chunk or self._loop.read_input(self._request)
        n = min(len(chunk), len(buffer))
        buffer[:n] = chunk[:n]
        self._chunk = chunk[n:]
        return n

    def readall(self):
        chunks = []
        chunk = self._chunk or self._loop.read_input(self._request)
        self._chunk = b""
        while chunk:
            chunks.append(chunk)
            chunk = self._loop.read_input(self._request)
        return b"".join(chunks)


class Input:
    """wsgi.input. A blocking file of the standard library does the work, and
    is made when the application first reads: most requests have no body."""

    __slots__ = ("_loop", "_request", "_file")

    def __init__(self, loop, request):
        self._loop = loop
        self._request = request
        self._file = None

    def _open(self):
        if self._file is None:
            self._file = io.BufferedReader(_Body(self._loop, self._request), 32768)
        return self._file

    def read(self, size=-1):
        return self._open().read(size)

    def readline(self, size=-1):
        return self._open().readline(size)

    def readlines(self, hint=-1):
        return self._open().readlines(hint)

    def __iter__(self):
        return self

    def __next__(self):
        line = self._open().readline()
        if not line:
            raise StopIteration
        return line


class Errors:
    """wsgi.errors: text that becomes FCGI_STDERR, a line at a time.

    A line that isn't finished waits for its end, for flush(), for the end of
    the request, or until it is too long.
    """

    __slots__ = ("_loop", "_request", "_line")

    _LONGEST = 16384  # characters

    def __init__(self, loop, request):
        self._loop = loop
        self._request = request
        self._line = ""

    def write(self, text):
        self._line = line = self._line + text
        if "\n" in text or len(line) > self._LONGEST or self._request.ended:
            self.flush()
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        line, self._line = self._line, ""
        if line:
            self._loop.write_errors(self._request, line.encode("utf-8", "backslashreplace"))


_BLOCK = 65536  # bytes


class FileWrapper(_FileWrapper):
    """wsgi.file_wrapper. A file of the system is sent by the gateway; all else
    is read, at least 64 KiB at a time.

    The block size is a suggestion (PEP 3333), and the ones that frameworks
    suggest, 4 or 8 KiB, would make records far smaller than the wire takes.
    """

    def __init__(self, filelike, blksize=0):
        super().__init__(filelike, max(blksize, _BLOCK))

    def reopen(self):
        """Opens the file anew, for the gateway to send it. Returns a
        descriptor, the position, and how many bytes there are from it on, or
        None where only the application's object can tell what its bytes are,
        and where they are so few that reading them is quicker."""
        file = _plain_file(self.filelike)
        if file is None:
            return None
        try:
            file.flush()  # what was written to it, before it is read
            info = os.fstat(file.fileno())
            offset = file.tell()
            length = info.st_size - offset
            if not stat.S_ISREG(info.st_mode) or length <= _BLOCK:
                return None
            # Another offset than the one that the application moves, and
            # never a right to write. A file without a name has this path too.
            return os.open("/proc/self/fd/%d" % file.fileno(), os.O_RDONLY), offset, length
        except (OSError, ValueError):  # no position, no right, no /proc; closed
            return None


def _plain_file(filelike):
    """The file of the standard library whose own read method filelike.read is,
    or None. What has been given another method decides itself what it reads."""
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None and type(filelike) is tempfile._TemporaryFileWrapper:
        filelike = filelike.file
    read = getattr(filelike, "read", None)
    file = getattr(read, "__self__", None)
    kind = type(file)
    if getattr(read, "__name__", "") != "read" or kind not in (io.BufferedReader, io.BufferedRandom, io.FileIO):
        return None
    return file if kind is io.FileIO or type(file.raw) is io.FileIO else None
