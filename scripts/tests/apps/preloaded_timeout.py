"""preloaded, with a timeout for sockets that are made from now on."""

import socket

from preloaded import app  # noqa: F401

socket.setdefaulttimeout(5)
