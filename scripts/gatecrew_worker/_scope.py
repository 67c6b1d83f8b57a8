"""From the parameters of a request to an ASGI scope."""

from struct import Struct
from struct import error as _StructError
from urllib.parse import quote

from gatecrew_worker import _records as rec
from gatecrew_worker import _tls

_LONG = Struct(">I").unpack_from

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0", b"HTTP/2.0": "2", b"HTTP/2": "2", b"HTTP/3.0": "3", b"HTTP/3": "3"}

_METHODS = {m.encode("ascii"): m for m in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}

# Parameter name -> header name, b"" for a variable, None for what no scope
# has. What a request may contain is limited, what all of them contain is not.
_FIELDS = dict.fromkeys((
    b"CONTENT_TYPE", b"CONTENT_LENGTH", b"HTTP_HOST", b"HTTP_TE", b"PATH_INFO", b"QUERY_STRING", b"REMOTE_ADDR", b"REMOTE_PORT",
    b"REQUEST_METHOD", b"REQUEST_URI", b"SCRIPT_NAME"), b"")
_FIELDS[b"HTTP_PROXY"] = None
_CACHED = 1000

# What is the same in most requests to a server. The gateway puts it first, so
# that it need not be decoded again and again.
_OF_SERVER = {
    b"GATEWAY_INTERFACE", b"SERVER_SOFTWARE", b"SERVER_PROTOCOL", b"REDIRECT_STATUS", b"DOCUMENT_ROOT",
    b"SERVER_ADDR", b"SERVER_NAME", b"SERVER_PORT", b"REQUEST_SCHEME", b"HTTPS"}
_BEGINNINGS = 8  # that are remembered
_FIELDS.update(dict.fromkeys(_OF_SERVER, b""))

_ASGI = {"version": "3.0", "spec_version": "2.5"}


class Scopes:
    """Makes scopes for an application that is mounted at root_path. state is
    the lifespan's."""

    def __init__(self, root_path="", state=None):
        self._root = root_path.rstrip("/").encode("utf-8")
        self.state = {} if state is None else state
        self._beginnings = {}  # of parameters -> their variables, and what _judge says of them

    def make(self, request):
        """Returns the scope of a request. Raises ProtocolError."""
        block = request.params
        startswith = block.startswith
        for beginning, known in self._beginnings.items():
            if startswith(beginning):
                break
        else:
            beginning, known = self._learn(block)
        variables, headers = _decode(block, len(beginning))
        if not _OF_SERVER.isdisjoint(variables):  # set by the configuration
            known = _judge({**known[0], **variables})
        _, template, secure, trails = known
        get = variables.get
        length = get(b"CONTENT_LENGTH")
        if length:
            headers.insert(0, (b"content-length", length))
        kind = get(b"CONTENT_TYPE")
        if kind:
            headers.insert(0, (b"content-type", kind))
        host = get(b"HTTP_HOST")
        if host is not None:
            headers.insert(0, (b"host", host))
        te = get(b"HTTP_TE")
        if te is not None:
            headers.append((b"te", te))
        root = get(b"SCRIPT_NAME")
        path = get(b"PATH_INFO", b"")
        if root:
            path = root + path
        uri = get(b"REQUEST_URI")
        raw_path = quote(path, safe="/:@!$&'()*+,;=~").encode("ascii") if uri is None else uri.partition(b"?")[0]
        if raw_path[:1] != b"/":
            raw_path = _origin_path(raw_path)
        if not root:
            root = self._root
            if root and path != root and not path.startswith(root + b"/"):
                path = root + path
                raw_path = quote(root).encode("ascii") + raw_path
        client = get(b"REMOTE_ADDR")
        if client:
            client = client.decode("latin-1"), _port(get(b"REMOTE_PORT")) or 0
        method = get(b"REQUEST_METHOD", b"GET")
        scope = template.copy()
        scope["client"] = client or None
        scope["method"] = _METHODS.get(method) or method.decode("latin-1")
        if root:
            scope["root_path"] = root.decode("utf-8", "replace")
        scope["path"] = path.decode("utf-8", "replace")
        scope["raw_path"] = raw_path
        scope["query_string"] = get(b"QUERY_STRING", b"")
        scope["headers"] = headers
        scope["state"] = self.state.copy()
        if request.role == rec.WEBSOCKET:
            scope["type"] = "websocket"
            scope["scheme"] = "wss" if secure else "ws"
            del scope["method"]
            # The gateway keeps the fields of the connection, and over HTTP/2
            # there are none. python-engineio looks for them.
            headers += (b"connection", b"Upgrade"), (b"upgrade", b"websocket")
            scope["subprotocols"] = [
                name.strip() for value in (v for n, v in headers if n == b"sec-websocket-protocol")
                for name in value.decode("latin-1").split(",") if name.strip()
            ]
            scope["extensions"] = {"websocket.http.response": {}}
        else:
            scope["extensions"] = extensions = {"http.response.early_hint": {}, "http.response.pathsend": {}}
            if trails or te is not None and b"trailers" in te:
                extensions["http.response.trailers"] = {}
        if secure:
            scope["extensions"]["tls"] = _tls.describe(get)
        return scope

    def _learn(self, block):
        """Remembers how the parameters begin, and what that means."""
        variables = {}
        for name, value in rec.decode_pairs(block, {}).items():
            name = name.encode("latin-1")
            if name not in _OF_SERVER:
                break
            variables[name] = value.encode("latin-1")
        beginning = rec.encode_pairs(variables.items())
        if not block.startswith(beginning):  # there are several ways to encode a length
            beginning, variables = b"", {}
        if len(self._beginnings) >= _BEGINNINGS:
            self._beginnings.clear()
        self._beginnings[beginning] = known = _judge(variables)
        return beginning, known


def _judge(variables):
    """Returns the variables, and what they say of the server: a scope that has
    its address and the version of HTTP, whether that is secure, and whether
    it has trailers."""
    get = variables.get
    server = get(b"SERVER_ADDR") or get(b"SERVER_NAME")
    if server:
        server = server.decode("latin-1"), _port(get(b"SERVER_PORT"))
    secure = get(b"REQUEST_SCHEME") == b"https" or get(b"HTTPS") in (b"on", b"1")
    http_version = _VERSIONS.get(get(b"SERVER_PROTOCOL"), "1.1")
    # All that a scope of http has: a copy need not be enlarged.
    template = dict.fromkeys((
        "type", "asgi", "http_version", "server", "client", "scheme", "method", "root_path", "path", "raw_path", "query_string",
        "headers", "state", "extensions"))
    template.update({
        "type": "http",
        "asgi": _ASGI,
        "http_version": http_version,
        "server": server or None,
        "scheme": "https" if secure else "http",
        "method": "GET",
        "root_path": "",
    })
    return variables, template, secure, http_version >= "2"


def _port(text):
    return int(text) if text and text.isdigit() else None


def _origin_path(path):
    if b"://" not in path:
        return path
    return b"/" + path.partition(b"://")[2].partition(b"/")[2]  # the absolute form


def _decode(block, pos):
    """Returns the variables from pos on as a dictionary, and the headers as a
    list of pairs. Raises ProtocolError.

    As in _records.decode_pairs a slice past the end is short, and one check
    after the loop sees it.
    """
    variables = {}
    headers = []
    fields = _FIELDS
    size = len(block)
    try:
        while pos < size:
            n = block[pos]
            v = block[pos + 1]
            if n | v < 128:
                pos += 2
            else:
                if n < 128:
                    pos += 1
                else:
                    n = _LONG(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
                v = block[pos]
                if v < 128:
                    pos += 1
                else:
                    v = _LONG(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
            middle = pos + n
            name = block[pos:middle]
            pos = middle + v
            try:
                field = fields[name]
            except KeyError:
                field = _classify(name)
            if field:
                headers.append((field, block[middle:pos]))
            elif field is not None:
                variables[name] = block[middle:pos]
    except (IndexError, _StructError):
        pos = size + 1
    if pos != size:
        raise rec.ProtocolError("name-value pairs: cut in the middle of a pair")
    return variables, headers


def _classify(name):
    field = None
    if name.startswith(b"HTTP_"):
        field = name[5:].lower().replace(b"_", b"-")
    elif name.startswith(b"SSL_"):
        field = b""
    if len(_FIELDS) < _CACHED:
        _FIELDS[name] = field
    return field
