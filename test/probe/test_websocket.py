"""WebSockets: every event of ASGI's WebSocket specification, from both sides."""
import socket
import struct

from websockets.exceptions import ConnectionClosed, InvalidStatus

from probe import PROMPT, ProbeCase, event, per

accept = event("accept")
HANDSHAKE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]


class Handshakes(ProbeCase):
    def refused(self, *steps, **options):
        with self.assertRaises(InvalidStatus) as caught:
            self.websocket(*steps, **options)
        return caught.exception.response

    def test_connect_comes_first(self):
        ws = self.websocket(("receive",), accept)
        self.assertEqual(self.outcome("receive"), {"type": "websocket.connect"})
        self.assertIsNone(ws.subprotocol)

    def test_subprotocol_and_headers(self):
        ws = self.websocket(("receive",), event("accept", subprotocol="v1.chat", headers=[(b"x-given", b"yes"), (b"set-cookie", b"a=1")]),
                            ("echo",), subprotocols=["v2.chat", "v1.chat"])
        self.assertEqual(ws.subprotocol, "v1.chat")
        self.assertEqual(ws.response.headers["x-given"], "yes")
        self.assertEqual(ws.response.headers["set-cookie"], "a=1")

    def test_close_refuses(self):
        self.assertEqual(self.refused(("receive",), event("close")).status_code, 403)
        self.assertEqual(self.outcome("send"), None)

    def test_disconnect_follows_a_refusal(self):
        self.refused(("receive",), event("close"), ("receive",))
        self.assertEqual(self.outcomes("receive", 2, 3)[1]["type"], "websocket.disconnect")

    def test_denial_response(self):
        response = self.refused(
            ("receive",),
            ("send", {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic"), (b"content-length", b"8")]}),
            ("send", {"type": "websocket.http.response.body", "body": b"who ", "more_body": True}),
            ("send", {"type": "websocket.http.response.body", "body": b"are?"}))
        self.assertEqual((response.status_code, response.headers["www-authenticate"], bytes(response.body)), (401, "Basic", b"who are?"))
        self.assertEqual(self.outcomes("send", 3), [None] * 3)

    def test_exception_before_accept(self):
        response = self.refused(("receive",), ("raise", "on purpose"))
        self.assertEqual(response.status_code, 500)
        self.assertNotIn(b"on purpose", bytes(response.body or b""))

    def test_return_before_accept(self):
        self.assertEqual(self.refused(("receive",)).status_code, 500)

    def test_client_leaves_before_accept(self):
        sock = self.send_head(("receive",), ("until", "websocket.disconnect"), fields=HANDSHAKE)
        self.until_begun("until")
        sock.close()
        self.assertEqual(self.outcomes("until", 1, PROMPT)[0][1]["code"], 1006)

    def test_message_before_accept(self):
        """What a client sends before it may is no message of the application's."""
        sock = self.send_head(("receive",), ("wait", "accept"), accept, ("receive",), ("echo",), fields=HANDSHAKE)
        self.until_begun("wait")
        self.signal("accept")
        self.assertIn(b"\r\nsec-websocket-accept: ", self.read_until(sock, b"\r\n\r\n").lower())
        sock.sendall(b"\x81\x82\0\0\0\0hi")
        self.assertEqual(self.outcomes("receive", 2)[1]["text"], "hi")

    def test_not_a_handshake(self):
        """A plain request of a socket's path is an HTTP request."""
        self.assertEqual(self.request(("answer",)).content, b"done")
        self.assertEqual(self.request(("answer",), Upgrade="websocket").content, b"done")

    def test_version_of_the_protocol(self):
        sock = self.send_head(("receive",), accept, fields=[field.replace("13", "12") for field in HANDSHAKE])
        answer = self.read_until(sock, b"\r\n\r\n").lower()
        self.assertRegex(answer, b"^http/1.1 4(00|26) ")


class Messages(ProbeCase):
    def test_kinds(self):
        ws = self.websocket(("receive",), accept, ("receive",), ("receive",), ("receive",), ("echo",))
        ws.send("text €")
        ws.send(b"\x00\xff")
        ws.send("")
        received = self.outcomes("receive", 4)[1:]
        self.assertEqual([{name: value for name, value in message.items() if value is not None} for message in received],
                         [{"type": "websocket.receive", "text": "text €"}, {"type": "websocket.receive", "bytes": b"\x00\xff"},
                          {"type": "websocket.receive", "text": ""}])
        for message in ("back", b"back", "", b""):
            ws.send(message)
            self.assertEqual(ws.recv(5), message)

    def test_none_is_absent(self):
        ws = self.websocket(("receive",), accept, event("send", text=None, bytes=b"x"), event("send", text="y", bytes=None))
        self.assertEqual((ws.recv(5), ws.recv(5)), (b"x", "y"))

    def test_sizes(self):
        ws = self.websocket(("receive",), accept, ("echo",))
        for size in (125, 126, 65535, 65536, 131072, 131073, 1 << 20, 5 << 20):
            for message in ("x" * size, b"y" * size):
                ws.send(message)
                self.assertEqual(ws.recv(10), message, size)

    def test_without_compression(self):
        ws = self.websocket(("receive",), accept, ("echo",), compression=None)
        ws.send("x" * 100_000)
        self.assertEqual(len(ws.recv(5)), 100_000)

    def test_fragments(self):
        ws = self.websocket(("receive",), accept, ("echo",))
        ws.send(["one ", "two ", "three"])
        self.assertEqual(ws.recv(5), "one two three")

    def test_order(self):
        ws = self.websocket(("receive",), accept, ("echo",))
        for number in range(500):
            ws.send(str(number))
        self.assertEqual([ws.recv(5) for _ in range(500)], [str(number) for number in range(500)])

    def test_messages_at_once(self):
        """The application speaks first, and again while it waits."""
        ws = self.websocket(("receive",), accept, event("send", text="1"), ("wait", "ws-more"), event("send", text="2"), ("echo",))
        self.assertEqual(ws.recv(5), "1")
        self.signal("ws-more")
        self.assertEqual(ws.recv(5), "2")

    def test_ping(self):
        ws = self.websocket(("receive",), accept, ("sleep", 1))
        self.assertTrue(ws.ping("are you there?").wait(PROMPT), "no pong while the application sleeps")

    def test_slow_reader_holds_the_application_up(self):
        ws = self.websocket(("receive",), accept, ("pour", {"type": "websocket.send", "bytes": (b"x", 65536)}, 1024), ("echo",),
                            compression=None, max_queue=1)
        self.assertLess(self.progress() * 65536, 24 << 20, "nothing held the application up")
        for _ in range(1024):
            self.assertEqual(len(ws.recv(10)), 65536)

    def test_slow_application_holds_the_client_up(self):
        ws = self.websocket(("receive",), accept, ("wait", "ws-read"), ("until", "websocket.disconnect"), compression=None)
        ws.socket.settimeout(0.5)
        frame, sent = b"\x82\xff" + struct.pack("!Q", 65536) + b"\0" * 4 + b"x" * 65536, 0
        try:
            while sent < 1024 * len(frame):
                place = sent % len(frame)
                sent += ws.socket.send(frame[place:])
        except TimeoutError:
            pass
        self.assertLess(sent, 24 << 20, "nothing held the client up")
        self.signal("ws-read")
        ws.socket.settimeout(10)
        if sent % len(frame):
            ws.socket.sendall(frame[sent % len(frame):])
        ws.socket.sendall(b"\x88\x80\0\0\0\0")
        self.assertEqual(self.outcomes("until")[0][0], -(-sent // len(frame)))


class Closes(ProbeCase):
    def closed(self, ws):
        """The close frame that came, or None when the connection just ended."""
        with self.assertRaises(ConnectionClosed) as caught:
            ws.recv(5)
        return caught.exception.rcvd and (caught.exception.rcvd.code, caught.exception.rcvd.reason)

    def disconnect(self):
        count, event = self.outcomes("until", 1, PROMPT)[0]
        self.outcomes("end")
        return event.get("code"), event.get("reason") or ""

    def test_by_the_client(self):
        for code, reason in ((1000, "bye"), (1001, ""), (4000, "mine €"), (3999, "")):
            ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"))
            ws.close(code, reason)
            self.assertEqual(self.disconnect(), (code, reason))

    def test_by_the_client_without_a_code(self):
        ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"))
        ws.socket.sendall(b"\x88\x80\0\0\0\0")
        self.assertEqual(self.disconnect()[0], 1005)

    def test_client_vanishes(self):
        ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"))
        ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ws.socket.shutdown(socket.SHUT_RDWR)
        self.assertEqual(self.disconnect()[0], per(uvicorn=1005, gatecrew=1006))

    def test_client_vanishes_while_send_waits(self):
        sock = self.send_head(("receive",), accept, ("beside", ("until", "websocket.disconnect")),
                              ("pour", {"type": "websocket.send", "bytes": (b"x", 65536)}, 2048), fields=HANDSHAKE, sock=self.dial(65536))
        self.assertLess(self.progress(), 2048)
        sock.close()
        self.assertTrue(str(self.outcomes("pour", 1, 3)[0]).startswith("OSError"), self.log())

    def test_messages_before_the_close_are_received(self):
        ws = self.websocket(("receive",), accept, ("wait", "ws-late"), ("until", "websocket.disconnect"))
        for number in range(5):
            ws.send(str(number))
        ws.socket.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        self.signal("ws-late")
        self.assertEqual(self.outcomes("until")[0][0], 5)

    def test_by_the_application(self):
        for values, want in (({}, (1000, "")), ({"code": 1000}, (1000, "")), ({"code": 4001, "reason": "mine €"}, (4001, "mine €")),
                             ({"code": 1011, "reason": None}, (1011, ""))):
            ws = self.websocket(("receive",), accept, event("close", **values))
            self.assertEqual(self.closed(ws), want)

    def test_messages_before_the_applications_close_arrive(self):
        ws = self.websocket(("receive",), accept, event("send", text="1"), event("send", bytes=(b"x", 300_000)), event("close", code=4002))
        self.assertEqual(ws.recv(5), "1")
        self.assertEqual(len(ws.recv(5)), 300_000)
        self.assertEqual(self.closed(ws), (4002, ""))

    def test_disconnect_follows_the_applications_close(self):
        ws = self.websocket(("receive",), accept, event("close", code=4003), ("until", "websocket.disconnect"))
        self.closed(ws)
        if per(uvicorn=False, gatecrew=True):
            self.assertEqual(self.disconnect()[0], 4003)

    def test_exception(self):
        ws = self.websocket(("receive",), accept, ("raise", "on purpose"))
        self.assertEqual(self.closed(ws), per(uvicorn=None, gatecrew=(1011, "")))

    def test_return(self):
        ws = self.websocket(("receive",), accept)
        self.assertEqual(self.closed(ws), per(uvicorn=None, gatecrew=(1000, "")))

    def test_bad_utf8(self):
        ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"))
        ws.socket.sendall(b"\x81\x81\0\0\0\0\xff")
        self.assertEqual(self.closed(ws)[0], 1007)
        self.outcomes("until", 1, PROMPT)

    def test_send_after_the_client_closed(self):
        ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"), event("send", text="late"), event("close"))
        ws.close()
        late = self.outcomes("send", 3)[1:]
        self.assertTrue(late[0].startswith("OSError"), late)

    def test_receive_after_the_client_closed(self):
        ws = self.websocket(("receive",), accept, ("until", "websocket.disconnect"), ("receive",))
        ws.close()
        self.outcomes("until")
        if per(uvicorn=False, gatecrew=True):  # there, it waits for ever
            self.outcomes("receive", 2, PROMPT)

    def refused(self, ws, count):
        """The application's last step raises, and not as for a departure."""
        outcome = self.outcomes("send", count)[-1]
        self.assertIsNotNone(outcome)
        self.assertNotIn("OSError", outcome)

    def test_accept_twice(self):
        self.refused(self.websocket(("receive",), accept, accept), 2)

    def test_send_after_the_own_close(self):
        self.refused(self.websocket(("receive",), accept, event("close"), event("send", text="late")), 3)
        self.refused(self.websocket(("receive",), accept, event("close"), event("close")), 3)

    def test_message_before_accept(self):
        for early in (event("send", text="x"), ("send", {"type": "http.response.start", "status": 200})):
            with self.assertRaises(InvalidStatus) as caught:
                self.websocket(("receive",), early)
            self.assertEqual(caught.exception.response.status_code, 500)
            self.refused(None, 1)

    def test_message_without_content(self):
        if per(uvicorn=True, gatecrew=False):
            self.skipTest("it sends an empty text")
        self.refused(self.websocket(("receive",), accept, event("send")), 2)

    def test_background_work_after_the_close(self):
        ws = self.websocket(("receive",), accept, event("close"), ("wait", "ws-background"))
        self.assertEqual(self.closed(ws), (1000, ""))
        self.signal("ws-background")
        self.outcomes("end")
