"""FastCGI records and name-value pairs: bytes in, values out, no I/O.

The mirror of the gateway's codec; both are held to the byte vectors in
protocol/fcgi/testdata. The format is described in protocol/fcgi/PROTOCOL.md,
sections 1 to 5.
"""

from struct import Struct
from struct import error as _StructError

VERSION = 1

BEGIN_REQUEST = 1
ABORT_REQUEST = 2
END_REQUEST = 3
PARAMS = 4
STDIN = 5
STDOUT = 6
STDERR = 7
DATA = 8
GET_VALUES = 9
GET_VALUES_RESULT = 10
UNKNOWN_TYPE = 11
# Negotiated peers only.
CREDIT = 128
BEGUN = 129
FILE = 130
TRAILERS = 131

# The roles that gatecrew asks for, the second one of event loops only.
RESPONDER = 1
WEBSOCKET = 128

# protocolStatus of END_REQUEST
REQUEST_COMPLETE = 0
CANT_MPX_CONN = 1
OVERLOADED = 2
UNKNOWN_ROLE = 3

MAX_CONTENT = 65535
MAX_WINDOW = 2147483647
MAX_WORKED = 0xFFFFFF

# version, type, requestId, contentLength, paddingLength
HEADER = Struct(">BBHHBx")
END = Struct(">BBHHBxII")
_CREDIT = Struct(">BBHHBxI")
_FILE = Struct(">BBHHBxQQ")
_LONG = Struct(">I")


class ProtocolError(Exception):
    """The gateway sent what PROTOCOL.md doesn't allow; the connection is lost."""


def record(kind, request_id, content=b""):
    """One record without padding. content is at most MAX_CONTENT bytes."""
    return HEADER.pack(VERSION, kind, request_id, len(content), 0) + content


def end_request(request_id, app_status=0, protocol_status=REQUEST_COMPLETE, worked=0):
    """worked is how long the request was in progress, in microseconds (section 6);
    0 says nothing, and no more than MAX_WORKED is said."""
    return END.pack(VERSION, END_REQUEST, request_id, 8, 0, app_status, protocol_status << 24 | min(worked, MAX_WORKED))


def credit(request_id, increment):
    return _CREDIT.pack(VERSION, CREDIT, request_id, 4, 0, increment)


def begun(count):
    return _CREDIT.pack(VERSION, BEGUN, 0, 4, 0, count & 0xFFFFFFFF)


def file(request_id, offset, length):
    """What the descriptor of a file travels with."""
    return _FILE.pack(VERSION, FILE, request_id, 16, 0, offset, length)


def encode_pairs(pairs):
    """The encoding of (name, value) pairs of bytes (section 2)."""
    out = []
    for name, value in pairs:
        for part in (name, value):
            n = len(part)
            out.append(bytes((n,)) if n < 128 else _LONG.pack(n | 0x80000000))
        out += (name, value)
    return b"".join(out)


def decode_pairs(block, into):
    """Adds the pairs encoded in block to the dictionary into, as latin-1 text,
    and returns it. Raises ProtocolError.

    One decode of the whole block and slices of its text are quicker than a
    decode per string. A slice past the end is short rather than an error, so
    the one check after the loop sees every pair that ran over.
    """
    text = block.decode("latin-1")
    size = len(block)
    pos = 0
    try:
        while pos < size:
            n = block[pos]
            v = block[pos + 1]
            if n < 128 and v < 128:
                pos += 2
            else:
                if n < 128:
                    pos += 1
                else:
                    n = _LONG.unpack_from(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
                v = block[pos]
                if v < 128:
                    pos += 1
                else:
                    v = _LONG.unpack_from(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
            middle = pos + n
            end = middle + v
            into[text[pos:middle]] = text[middle:end]
            pos = end
    except (IndexError, _StructError):
        pos = size + 1
    if pos != size:
        raise ProtocolError("name-value pairs: cut in the middle of a pair")
    return into
