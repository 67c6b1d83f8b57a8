"""Files that the gateway sends: PROTOCOL.md, section 9."""

import errno
import socket

from gatecrew_worker import _records as rec

_DESCRIPTOR = rec.Struct("i")  # as it stands in a message

# The errors after which nothing has been sent: fd is no descriptor, or too many
# are on their way.
NOT_SENT = (errno.EBADF, errno.ETOOMANYREFS)


def send(sock, request_id, fd, offset, length):
    """Hands length bytes of an open regular file to the gateway. Raises
    OSError."""
    record = rec.file(request_id, offset, length)
    sent = sock.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(fd))])
    sock.sendall(record[sent:])
