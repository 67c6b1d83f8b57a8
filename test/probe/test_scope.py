"""The scope: every key, its type and its value, the same from each server."""
import ast

from probe import HOST, PORT, ROOT, SERVER, ProbeCase, per


class Scopes(ProbeCase):
    def scope(self, target, *fields, method="GET", version="1.1"):
        sock = self.dial()
        lines = [f"{method} {ROOT}{target} HTTP/{version}", f"Host: {HOST}:{PORT}", "Connection: close", *fields, "", ""]
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        self.port = sock.getsockname()[1]
        head, _, content = self.read_all(sock).partition(b"\r\n\r\n")
        self.assertIn(b" 200 ", head)
        scope, self.state = map(ast.literal_eval, ast.literal_eval(content.decode()))
        return scope

    def check_common(self, scope):
        self.assertEqual(scope["asgi"]["version"], "3.0")
        self.assertRegex(scope["asgi"]["spec_version"], r"^2\.\d$")
        self.assertEqual(scope["client"], (HOST, self.port))
        self.assertEqual(tuple(scope["server"]), (HOST, PORT))
        self.assertEqual(scope["root_path"], "/mounted")
        self.assertEqual(self.state["given"], ["by lifespan"])
        self.assertIs(type(scope.get("extensions", {})), dict)
        for name, value in scope["headers"]:
            self.assertIs(type(name), bytes)
            self.assertIs(type(value), bytes)
            self.assertEqual(name, name.lower())

    def test_http(self):
        scope = self.scope("/a%20b/%E2%82%AC%2Fc;d=e?x=%31&y&%FF", "X-Name: J\xfcrgen", "X-UPPER:  spaces  ", "User-Agent: ")
        self.check_common(scope)
        self.assertEqual(scope["type"], "http")
        self.assertEqual(scope["method"], "GET")
        self.assertEqual(scope["http_version"], "1.1")
        self.assertEqual(scope["scheme"], "http")
        self.assertEqual(scope["path"], "/mounted/a b/€/c;d=e")
        self.assertEqual(scope["raw_path"], b"/mounted/a%20b/%E2%82%AC%2Fc;d=e")
        self.assertEqual(scope["query_string"], b"x=%31&y&%FF")
        headers = dict(scope["headers"])
        self.assertEqual(headers[b"x-name"], "J\xfcrgen".encode("latin-1"))
        self.assertEqual(headers[b"x-upper"], per(uvicorn=b"spaces  ", gatecrew=b"spaces"))
        self.assertEqual(headers[b"host"], f"{HOST}:{PORT}".encode())
        self.assertEqual(set(scope), {"type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path",
                                      "headers", "client", "server"} | per(uvicorn=set(), gatecrew={"extensions"}))

    def test_header_fields_that_come_twice(self):
        """One field with all the values, as RFC 9110 (5.3) allows and CGI wants it."""
        scope = self.scope("/twice", "X-Twice: 1", "X-Twice: 2", "Cookie: a=1", "Cookie: b=2")
        given = [field for field in scope["headers"] if field[0] in (b"x-twice", b"cookie")]
        self.assertEqual(sorted(map(tuple, given)), per(
            uvicorn=[(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-twice", b"1"), (b"x-twice", b"2")],
            gatecrew=[(b"cookie", b"a=1; b=2"), (b"x-twice", b"1, 2")]))

    def test_body_fields(self):
        scope = self.scope("/fields", "Content-Type: text/x-y", "Content-Length: 0", method="POST")
        self.assertEqual(dict(scope["headers"])[b"content-type"], b"text/x-y")
        self.assertEqual(dict(scope["headers"])[b"content-length"], b"0")
        self.assertEqual(scope["method"], "POST")

    def test_query_string_is_never_missing(self):
        for target in ("/q", "/q?"):
            self.assertEqual(self.scope(target)["query_string"], b"")

    def test_path_that_is_not_utf8(self):
        scope = self.scope("/%FF%80")
        self.assertEqual(scope["raw_path"], b"/mounted/%FF%80")
        self.assertIs(type(scope["path"]), str)

    def test_http_1_0(self):
        self.assertEqual(self.scope("/old", version="1.0")["http_version"], "1.0")

    def test_unknown_method(self):
        if SERVER == "uvicorn":
            self.skipTest("its parser knows a list of methods")
        self.assertEqual(self.scope("/x", method="FROBNICATE")["method"], "FROBNICATE")

    def test_state_is_a_copy_for_each_request(self):
        """Shallow: a request's own keys stay its own, what lifespan made is shared."""
        self.scope("/one")
        self.assertEqual(set(self.state), {"given"})

    def test_websocket(self):
        ws = self.websocket(path="/chat/%E2%82%AC?room=1", subprotocols=["v2.chat", "v1.chat"], additional_headers={"X-Name": "Ann"})
        self.port = ws.socket.getsockname()[1]
        scope, self.state = map(ast.literal_eval, ast.literal_eval(ws.recv(5)))
        self.check_common(scope)
        self.assertEqual(scope["type"], "websocket")
        self.assertEqual(scope["scheme"], "ws")
        self.assertEqual(scope["http_version"], "1.1")
        self.assertEqual(scope["path"], "/mounted/chat/€")
        self.assertEqual(scope["raw_path"], b"/mounted/chat/%E2%82%AC")
        self.assertEqual(scope["query_string"], b"room=1")
        self.assertEqual(scope["subprotocols"], ["v2.chat", "v1.chat"])
        headers = dict(scope["headers"])
        self.assertEqual((headers[b"x-name"], headers[b"upgrade"], headers[b"connection"]), (b"Ann", b"websocket", b"Upgrade"))
        self.assertIn("websocket.http.response", scope["extensions"])
        self.assertEqual(set(scope), {"type", "asgi", "http_version", "scheme", "path", "raw_path", "query_string", "root_path",
                                      "headers", "client", "server", "subprotocols", "extensions"})
