"""What may stand in the head of an answer, whichever interface gave it."""

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, section 5.5

_NAMES_FILE = re.compile(rb"^(X-Sendfile|X-Accel-Redirect):", re.I | re.M)

_INTERNAL_ERROR = (
    b"Status: 500 Internal Server Error\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 22\r\n\r\n"
)


def internal_error(is_head=False):
    """The whole answer to a request that failed."""
    return _INTERNAL_ERROR if is_head else _INTERNAL_ERROR + b"Internal Server Error\n"


def names_file(head):
    """Whether an encoded head names a file that is sent in place of a body: a
    Content-Length is then that of the file."""
    return _NAMES_FILE.search(head) is not None


def check_name(name):
    """Returns the name of a header in lower case. Raises ValueError."""
    if not _TOKEN.fullmatch(name):
        raise ValueError("%r is not a header name" % name)
    return name.lower()


def check_value(name, value):
    """Raises ValueError when the value of a header can't be sent."""
    # Not printable in Python's sense: control characters, but also a tab, or
    # a soft hyphen in latin-1.
    if _CONTROL.search(value):
        raise ValueError("the value of the header %s has a control character: %r" % (name, value))


def content_length(value, before):
    """Returns the number that a Content-Length means, which must be the one of
    the header before it, if that is not None. Raises ValueError."""
    if not (value.isdigit() and value.isascii()):
        raise ValueError("Content-Length is %r, not a number" % value)
    length = int(value)
    if before is not None and before != length:
        raise ValueError("Content-Length is both %d and %d" % (before, length))
    return length
