"""From the parameters of a request to an ASGI scope."""

from struct import Struct
from struct import error as _StructError
from urllib.parse import quote

from gatecrew_worker import _records as rec
from gatecrew_worker import _tls

_LONG = Struct(">I").unpack_from

_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0", b"HTTP/2.0": "2", b"HTTP/2": "2", b"HTTP/3.0": "3", b"HTTP/3": "3"}

# Parameter name -> header name, or b"" for a parameter that is none. What a
# request may contain is limited, what all of them contain is not.
_FIELDS = {b"CONTENT_TYPE": b"", b"CONTENT_LENGTH": b"", b"HTTP_HOST": b"", b"HTTP_TE": b"", b"HTTP_PROXY": b""}
_CACHED = 1000

_ASGI = {"version": "3.0", "spec_version": "2.5"}


class Scopes:
    """Makes scopes for an application that is mounted at root_path. state is
    the lifespan's."""

    def __init__(self, root_path="", state=None):
        self._root = root_path.rstrip("/").encode("utf-8")
        self.state = {} if state is None else state

    def make(self, request):
        """Returns the scope of a request. Raises ProtocolError."""
        variables, headers = _decode(request.params)
        get = variables.get
        length = get(b"CONTENT_LENGTH")
        if length:
            headers.insert(0, (b"content-length", length))
        kind = get(b"CONTENT_TYPE")
        if kind:
            headers.insert(0, (b"content-type", kind))
        te = get(b"HTTP_TE")
        if te is not None:
            headers.append((b"te", te))
        host = get(b"HTTP_HOST")
        if host is not None:
            headers.insert(0, (b"host", host))
        root = get(b"SCRIPT_NAME", b"")
        path = root + get(b"PATH_INFO", b"")
        uri = get(b"REQUEST_URI")
        raw_path = quote(path, safe="/:@!$&'()*+,;=~").encode("ascii") if uri is None else _raw_path(uri)
        if not root and self._root:
            root = self._root
            if path != root and not path.startswith(root + b"/"):
                path = root + path
                raw_path = quote(root).encode("ascii") + raw_path
        http_version = _VERSIONS.get(get(b"SERVER_PROTOCOL"), "1.1")
        secure = get(b"REQUEST_SCHEME") == b"https" or get(b"HTTPS") in (b"on", b"1")
        client = get(b"REMOTE_ADDR")
        if client:
            client = (client.decode("latin-1"), _port(get(b"REMOTE_PORT")) or 0)
        server = get(b"SERVER_ADDR") or get(b"SERVER_NAME")
        if server:
            server = (server.decode("latin-1"), _port(get(b"SERVER_PORT")))
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": http_version,
            "server": server or None,
            "client": client or None,
            "scheme": "https" if secure else "http",
            "method": get(b"REQUEST_METHOD", b"GET").decode("latin-1"),
            "root_path": root.decode("utf-8", "replace"),
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": get(b"QUERY_STRING", b""),
            "headers": headers,
            "state": self.state.copy(),
            "extensions": {},
        }
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
            scope["extensions"]["websocket.http.response"] = {}
        else:
            extensions = scope["extensions"]
            extensions["http.response.early_hint"] = {}
            extensions["http.response.pathsend"] = {}
            if http_version >= "2" or b"trailers" in get(b"HTTP_TE", b""):
                extensions["http.response.trailers"] = {}
        if secure:
            scope["extensions"]["tls"] = _tls.describe(get)
        return scope


def _port(text):
    return int(text) if text and text.isdigit() else None


def _raw_path(uri):
    path = uri.partition(b"?")[0]
    if path.startswith(b"/") or b"://" not in path:
        return path
    return b"/" + path.partition(b"://")[2].partition(b"/")[2]  # the absolute form


def _decode(block):
    """Returns the parameters that are no headers as a dictionary, and the
    headers as a list of pairs. Raises ProtocolError.

    As in _records.decode_pairs a slice past the end is short, and one check
    after the loop sees it.
    """
    variables = {}
    headers = []
    fields = _FIELDS
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
                    n = _LONG(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
                v = block[pos]
                if v < 128:
                    pos += 1
                else:
                    v = _LONG(block, pos)[0] & 0x7FFFFFFF
                    pos += 4
            middle = pos + n
            end = middle + v
            name = block[pos:middle]
            field = fields.get(name)
            if field is None:
                field = _classify(name)
            if field:
                headers.append((field, block[middle:end]))
            else:
                variables[name] = block[middle:end]
            pos = end
    except (IndexError, _StructError):
        pos = size + 1
    if pos != size:
        raise rec.ProtocolError("name-value pairs: cut in the middle of a pair")
    return variables, headers


def _classify(name):
    field = name[5:].lower().replace(b"_", b"-") if name.startswith(b"HTTP_") else b""
    if len(_FIELDS) < _CACHED:
        _FIELDS[name] = field
    return field
