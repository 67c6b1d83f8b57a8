"""The worker's end of the wire without the wire: bytes in, requests out.

A `Connection` is fed what was received and answers which requests can start
and which were given something they may be waiting for. It never blocks and
never sends; what must be answered at once (negotiation, refusals) is left in
`reply`. Whoever calls it sees to it that only one thread does so at a time.
"""

from collections import deque

from gatecrew_worker import _records as rec
from gatecrew_worker._records import ProtocolError

# What the gateway may send of one request's body before it is granted more.
INPUT_WINDOW = 131072

# Parameters of one request. The gateway limits header blocks far below this;
# it only keeps a broken peer from filling the memory.
MAX_PARAMS = 16 << 20

# A close, of 125 bytes at most and its header, may come beyond the window.
_CLOSE = 130

# Without negotiation there is no flow control: more than can ever be sent.
_UNLIMITED = 1 << 62

_header_at = rec.HEADER.unpack_from

# BEGIN_REQUEST whole and the header after it, in one call, and what follows
# the parameters of a request without a body: in PROTOCOL.md's terms
# BEGIN_REQUEST(id, RESPONDER, FCGI_KEEP_CONN), PARAMS(id, ...) and the empty
# records that end PARAMS and STDIN.
_opening_at = rec.Struct(">HHIQHHHH").unpack_from
_OPENING = 24
_BEGIN, _BEGIN_REST, _BEGIN_CONTENT, _PARAMS = 0x0101, 0x00080000, 0x0001010000000000, 0x0104
_pack_ending = rec.Struct(">HHIHHI").pack
_ENDING = 16
_STDIN = 0x0105


class ClientDisconnected(OSError):
    """The client has gone: its request can't be read, nor its answer sent."""


class Request:
    """One request, from its BEGIN_REQUEST to its END_REQUEST.

    The reader of the connection writes `input_ended`, `input_received`,
    `granted` and `aborted`, and appends to `input`; the thread that runs the
    request writes the others, but for `interruption`, which whoever interrupts
    it does. No field has two writers, so that reading one needs no lock.
    """

    __slots__ = (
        "id",
        "role",
        "params",  # the whole FCGI_PARAMS stream, encoded
        "input",  # body chunks that nobody has read yet
        "input_ended",
        "input_received",  # bytes that arrived,
        "input_read",  # that were taken out of input,
        "input_granted",  # and that the gateway has been allowed so far
        "granted",  # bytes of output the gateway has allowed so far
        "sent",  # bytes of output sent so far
        "aborted",
        "ended",
        "began",  # when, in nanoseconds of monotonic_ns(), a thread began to run it,
        "thread",  # which, 0 until one does
        "guarded",  # it is not in the application: no exception may be sent to its thread
        "interruption",  # the attempt to end it
        "hinted",  # bytes of output that were interim responses; not there when none were
    )

    def __init__(self, request_id, window, role=rec.RESPONDER):
        self.id = request_id
        self.role = role
        self.params = None
        self.input = deque()
        self.input_ended = False
        self.input_received = 0
        self.input_read = 0
        self.input_granted = INPUT_WINDOW
        self.granted = window
        self.sent = 0
        self.aborted = False
        self.ended = False
        self.began = 0
        self.thread = 0
        self.guarded = True
        self.interruption = None


def held_back(request):
    """Whether the gateway holds a request's body back until it is asked for
    it, by a grant: its client waits for that (PROTOCOL.md, section 8)."""
    return (
        request.input_granted == INPUT_WINDOW and not request.input_received
        and rec.decode_pairs(request.params, {}).get("HTTP_EXPECT", "").lower() == "100-continue"
    )


class Connection:
    """The state of the one connection a worker has.

    max_requests is how many requests may be worked on at once, and ahead how
    many more may be open, waiting; further ones are
    refused as overloaded, which tells the gateway that no application has
    seen them. So are all that begin after `draining` was set.

    asynchronous says that one event loop runs all requests; make_request is
    what they are made with.
    """

    def __init__(self, max_requests, ahead=0, asynchronous=False, make_request=Request):
        self.max_requests = max_requests
        self.ahead = ahead
        self.requests = {}  # open ones by id
        self.begun = 0  # how many were ever accepted
        self.seen = 0  # and how many BEGIN_REQUEST came
        self.draining = False
        self.flow = False  # the flow-control extension was negotiated
        self.reply = b""
        self._asynchronous = asynchronous
        self._make_request = make_request
        self._window = _UNLIMITED
        self._params = {}  # id -> bytearray, until that stream ends
        self._rest = b""

    def receive(self, data):
        """Takes in a block of bytes.

        Returns two lists: the requests whose parameters are now complete, and
        the ones that were given input, credit or their abort.
        Raises ProtocolError; the connection is of no use after it.
        """
        if self._rest:
            data = self._rest + data
        begun = []
        touched = []
        pos = 0
        size = len(data)
        while size - pos >= 8:
            if data[pos + 1] == 1:
                end = self._receive_small(data, pos, size, begun)
                if end:
                    pos = end
                    continue
            end = self._receive_record(data, pos, size, begun, touched)
            if not end:
                break
            pos = end
        self._rest = data[pos:]
        return begun, touched

    def _receive_record(self, data, pos, size, begun, touched):
        """Takes in the record at pos. Returns the position after it, or 0 when
        not all of it is there."""
        version, kind, request_id, length, padding = _header_at(data, pos)
        if version != 1:
            raise ProtocolError("record of version %d instead of 1" % version)
        start = pos + 8
        stop = start + length
        if stop + padding > size:
            return 0
        if kind == rec.STDIN:
            self._receive_input(request_id, data[start:stop], touched)
        elif kind == rec.PARAMS:
            self._receive_params(request_id, data[start:stop], begun)
        elif kind == rec.BEGIN_REQUEST:
            self._receive_begin(request_id, data[start:stop])
        elif kind == rec.CREDIT:
            self._receive_credit(request_id, data[start:stop], touched)
        elif kind == rec.ABORT_REQUEST:
            request = self.requests.get(request_id)
            if request is not None:
                request.aborted = True
                touched.append(request)
        elif request_id == 0:
            self._receive_management(kind, data[start:stop])
        # An unknown type on a request, and FCGI_DATA, which belongs to a role
        # that is never begun here, are ignored.
        return stop + padding

    def _receive_small(self, data, pos, size, begun):
        """Takes in a whole request without a body that lies at pos.

        BEGIN_REQUEST, one PARAMS record, and the two empty records that end
        PARAMS and STDIN: what nearly every request looks like. Returns the
        position after it, or 0 without having done anything when it looks
        different in the least.
        """
        if size - pos < _OPENING:
            return 0
        begin, request_id, begin_rest, begin_content, params, params_id, length, padding = _opening_at(data, pos)
        start = pos + _OPENING
        stop = start + length
        end = stop + _ENDING
        if (
            begin != _BEGIN or begin_rest != _BEGIN_REST or begin_content != _BEGIN_CONTENT
            or params != _PARAMS or params_id != request_id or padding or not length
            or data[stop:end] != _pack_ending(_PARAMS, request_id, 0, _STDIN, request_id, 0)
        ):
            return 0
        request = self._open(request_id)
        if request is not None:
            request.params = data[start:stop]
            request.input_ended = True
            begun.append(request)
        return end

    def _open(self, request_id, role=rec.RESPONDER):
        """Returns a new open request, or None after refusing it."""
        requests = self.requests
        self.seen += 1
        if request_id in requests:
            raise ProtocolError("BEGIN_REQUEST for request %d, which is open" % request_id)
        if request_id == 0:
            raise ProtocolError("BEGIN_REQUEST with the id of management records")
        # Counted before draining is looked at: whoever sets draining looks at
        # the count afterwards, so that one of both sees the other.
        self.begun += 1
        if self.draining or len(requests) >= self.max_requests + self.ahead:
            self.begun -= 1
            self.reply += rec.end_request(request_id, 0, rec.OVERLOADED)
            return None
        request = requests[request_id] = self._make_request(request_id, self._window, role)
        return request

    def give_back(self, request):
        """Refuses a request that was accepted and that nobody has started."""
        request.ended = True
        del self.requests[request.id]
        self.begun -= 1
        self.reply += rec.end_request(request.id, 0, rec.OVERLOADED)

    def _receive_begin(self, request_id, content):
        if len(content) != 8:
            raise ProtocolError("BEGIN_REQUEST of %d bytes instead of 8" % len(content))
        role = content[0] << 8 | content[1]
        if role != rec.RESPONDER and not (role == rec.WEBSOCKET and self._asynchronous):
            self.seen += 1
            self.reply += rec.end_request(request_id, 0, rec.UNKNOWN_ROLE)
        elif self._open(request_id, role) is not None:
            self._params[request_id] = bytearray()

    def _receive_params(self, request_id, content, begun):
        block = self._params.get(request_id)
        if block is None:
            return  # of a refused request
        if content:
            block += content
            if len(block) > MAX_PARAMS:
                raise ProtocolError("PARAMS of more than %d bytes" % MAX_PARAMS)
            return
        del self._params[request_id]
        request = self.requests[request_id]
        request.params = bytes(block)
        begun.append(request)

    def _receive_input(self, request_id, content, touched):
        request = self.requests.get(request_id)
        if request is None:
            return  # the rest of a body that nobody reads any more
        if request.input_ended:
            raise ProtocolError("STDIN of request %d after its end" % request_id)
        if content:
            request.input_received += len(content)
            beyond = request.input_received - request.input_granted
            if self.flow and beyond > 0 and not (request.role == rec.WEBSOCKET and beyond <= _CLOSE):
                raise ProtocolError("more STDIN than granted for request %d" % request_id)
            request.input.append(content)
        else:
            request.input_ended = True
        touched.append(request)

    def _receive_credit(self, request_id, content, touched):
        if not self.flow:
            return
        if len(content) != 4:
            raise ProtocolError("CREDIT of %d bytes instead of 4" % len(content))
        request = self.requests.get(request_id)
        if request is None:
            return  # late, the request has ended
        increment = int.from_bytes(content, "big")
        if not 0 < increment <= rec.MAX_WINDOW or (
            request.granted + increment - request.sent > rec.MAX_WINDOW
        ):
            raise ProtocolError("CREDIT of %d for request %d" % (increment, request_id))
        request.granted += increment
        touched.append(request)

    def _receive_management(self, kind, content):
        if kind != rec.GET_VALUES:
            self.reply += rec.record(rec.UNKNOWN_TYPE, 0, bytes((kind,)) + bytes(7))
            return
        asked = rec.decode_pairs(content, {})
        answer = {
            "FCGI_MAX_CONNS": b"1",
            "FCGI_MAX_REQS": b"%d" % self.max_requests,
            "FCGI_MPXS_CONNS": b"1",
        }
        if _number(asked.get("GATECREW_FLOW")) >= 1:
            window = _number(asked.get("GATECREW_WINDOW"))
            if not 0 < window <= rec.MAX_WINDOW:
                raise ProtocolError("GATECREW_WINDOW is %r" % asked.get("GATECREW_WINDOW"))
            self.flow = True
            self._window = window
            answer["GATECREW_FLOW"] = b"1"
            answer["GATECREW_WINDOW"] = b"%d" % INPUT_WINDOW
            if self.ahead:
                answer["GATECREW_AHEAD"] = b"%d" % self.ahead
            if self._asynchronous:
                answer["GATECREW_ASYNC"] = b"1"
        self.reply += rec.record(
            rec.GET_VALUES_RESULT, 0,
            rec.encode_pairs((name.encode("latin-1"), answer[name]) for name in asked if name in answer),
        )


def _number(text):
    """The value of a decimal number, 0 for anything else."""
    return int(text) if text and text.isdigit() and text.isascii() else 0
