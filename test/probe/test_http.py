"""HTTP: every event of ASGI's HTTP specification, from both sides."""
import http.client
import time

from probe import HOST, PATIENCE, PORT, PROMPT, ProbeCase, body, per, start

MEGABYTE = 1 << 20


class Requests(ProbeCase):
    """What the application receives."""

    def test_no_body(self):
        self.request(("receive",), ("answer",))
        self.assertEqual(self.outcome("receive"), {"type": "http.request", "body": b"", "more_body": False})

    def test_body_with_a_length(self):
        for size in (1, 65536, 5 * MEGABYTE):
            response = self.request(("body",), ("answer", None), method="POST", content=b"x" * size)
            self.assertTrue(response.content.startswith(b"(%d, " % size), response.content)

    def test_chunked_body(self):
        pieces = [b"a" * 10, b"b" * 100_000, b"c"]
        response = self.request(("body",), ("answer", None), method="POST", content=iter(pieces))
        self.assertTrue(response.content.startswith(b"(100011, "), response.content)

    def test_body_comes_in_pieces(self):
        """What has arrived is given on, without waiting for the rest."""
        sock = self.send_head(("receive",), ("receive",), ("answer",), method="POST", fields=["Content-Length: 10"])
        sock.sendall(b"first")
        self.assertEqual(self.outcome("receive"), {"type": "http.request", "body": b"first", "more_body": True})
        sock.sendall(b"later")
        # Whether the last piece is known to be the last is the server's affair.
        self.assertEqual(self.outcomes("receive", 2)[1]["body"], b"later")
        self.assertIn(b"200 OK", self.read_until(sock, b"done"))

    def test_chunks_come_in_pieces(self):
        sock = self.send_head(("receive",), ("body",), ("answer", None), method="PUT", fields=["Transfer-Encoding: chunked"])
        sock.sendall(b"5\r\nfirst\r\n")
        self.assertEqual(self.outcome("receive"), {"type": "http.request", "body": b"first", "more_body": True})
        sock.sendall(b"5\r\nlater\r\n0\r\n\r\n")
        self.assertIn(b"(5, ", self.read_until(sock, b")"))

    def test_answer_before_the_body(self):
        """Full duplex: the answer begins, and is read, before the body is whole."""
        sock = self.send_head(start(), body(b"early", True), ("body",), body(b"late"), method="POST",
                              fields=["Transfer-Encoding: chunked"])
        self.read_until(sock, b"early")
        sock.sendall(b"3\r\nabc\r\n0\r\n\r\n")
        self.read_until(sock, b"late")
        self.assertEqual(self.outcome("body")[0], 3)

    def test_body_that_nobody_reads(self):
        response = self.request(("answer",), method="POST", content=b"x" * 100_000)
        self.assertEqual(response.content, b"done")

    def test_expect_continue(self):
        """The client is told to go on when the application asks for the body, and not before."""
        sock = self.send_head(("wait", "expect"), ("body",), ("answer", None), method="POST",
                              fields=["Content-Length: 3", "Expect: 100-continue"])
        self.until_begun("wait")
        sock.settimeout(0.2)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        sock.settimeout(PATIENCE)
        self.signal("expect")
        self.assertTrue(self.read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100 Continue\r\n"))
        sock.sendall(b"abc")
        self.assertIn(b"(3, ", self.read_until(sock, b")"))

    def test_expect_continue_of_a_body_that_nobody_wants(self):
        sock = self.send_head(("answer", "no, thanks"), method="POST", fields=["Content-Length: 3", "Expect: 100-continue"])
        self.assertTrue(self.read_until(sock, b"no, thanks").startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_reading_slowly_holds_the_client_up(self):
        sock = self.send_head(("wait", "read"), ("body",), ("answer", None), method="POST",
                              fields=[f"Content-Length: {64 * MEGABYTE}"])
        self.until_begun("wait")
        sock.settimeout(0.5)
        sent, block = 0, b"x" * 65536
        try:
            while sent < 64 * MEGABYTE:
                sent += sock.send(block)
        except TimeoutError:
            pass
        self.assertLess(sent, 32 * MEGABYTE, "nothing held the client up")
        sock.settimeout(PATIENCE)
        self.signal("read")
        while sent < 64 * MEGABYTE:
            sent += sock.send(block[:64 * MEGABYTE - sent])
        self.assertIn(b"(%d, " % (64 * MEGABYTE), self.read_until(sock, b")"))


class Responses(ProbeCase):
    """What the application sends."""

    def test_head_and_body(self):
        response = self.request(start(201, (b"X-Case", b"kept?"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")), body(b"hello"))
        self.assertEqual((response.status, response.content), (201, b"hello"))
        self.assertEqual(response.headers["x-case"], "kept?")
        self.assertEqual(response.headers.get_all("set-cookie"), ["a=1", "b=2"])

    def test_pieces(self):
        response = self.request(start(), body(b"one ", True), body(b"", True), body(b"two ", True), body(b"three"))
        self.assertEqual(response.content, b"one two three")

    def test_without_optional_keys(self):
        response = self.request(("send", {"type": "http.response.start", "status": 200}), ("send", {"type": "http.response.body"}))
        self.assertEqual((response.status, response.content), (200, b""))

    def test_header_value_in_latin1(self):
        response = self.request(start(200, (b"x-name", "Jürgen".encode("latin-1"))), body())
        self.assertEqual(response.headers["x-name"], "Jürgen")

    def test_each_piece_at_once(self):
        """Server-sent events: nothing waits for more."""
        sock = self.send_head(start(200, (b"content-type", b"text/event-stream")), body(b"data: 1\n\n", True), ("wait", "sse"),
                              body(b"data: 2\n\n", True), ("wait", "sse2"), body(b"", False))
        self.read_until(sock, b"data: 1\n\n")
        self.signal("sse")
        self.read_until(sock, b"data: 2\n\n")
        self.signal("sse2")
        self.read_until(sock, b"0\r\n\r\n")

    def test_head_at_once(self):
        """An empty piece sends the head."""
        sock = self.send_head(start(202), body(b"", True), ("wait", "head"), body(b"end"))
        self.assertIn(b" 202 ", self.read_until(sock, b"\r\n\r\n"))
        self.signal("head")
        self.read_until(sock, b"end")

    def test_large(self):
        response = self.request(start(), ("pour", {"type": "http.response.body", "body": (b"x", 65536), "more_body": True}, 320), body())
        self.assertEqual(len(response.content), 20 * MEGABYTE)

    def test_one_large_piece(self):
        """A piece larger than every window on its way."""
        response = self.request(start(200, (b"content-length", b"%d" % (3 * MEGABYTE))), body((b"x", 3 * MEGABYTE)))
        self.assertEqual(len(response.content), 3 * MEGABYTE)

    def test_head_method(self):
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        self.addCleanup(connection.close)
        for steps in ((start(200, (b"content-length", b"5")), body(b"hello")), (start(), body(b"hel", True), body(b"lo"))):
            connection.request("HEAD", self.steps(*steps))
            response = connection.getresponse()
            self.assertEqual((response.status, response.read()), (200, b""))
            self.assertEqual(self.outcomes("send", len(steps)), [None] * len(steps))
        self.request(("answer",))  # the connection carries on in step
        connection.request("GET", self.steps(("answer",)))
        self.assertEqual(connection.getresponse().read(), b"done")

    def test_no_content(self):
        for status in (204, 304):
            sock = self.send_head(start(status), body())
            got = self.read_until(sock, b"\r\n\r\n")
            self.assertNotIn(b"transfer-encoding", got.lower())
            # Nothing stands between this answer and the next one.
            self.send_head(("answer", "next"), sock=sock)
            self.assertTrue(self.read_until(sock, b"next").startswith(b"HTTP/1.1 200"))

    def test_unusual_status(self):
        response = self.request(start(299), body(b"x"))
        self.assertEqual((response.status, response.content), (299, b"x"))

    def test_slow_reader_holds_the_application_up(self):
        block = 65536
        sock = self.send_head(start(), ("pour", {"type": "http.response.body", "body": (b"x", block), "more_body": True}, 1024), body(),
                              sock=self.dial(receive_buffer=65536))
        self.read_until(sock, b"\r\n\r\n")
        self.assertLess(self.progress() * block, 16 * MEGABYTE, "nothing held the application up")
        # The others are served meanwhile: the calls of progress were. And nothing is lost.
        got, tail = 0, b""
        while not tail.endswith(b"0\r\n\r\n"):
            piece = sock.recv(1 << 20)
            self.assertTrue(piece, "the connection ended")
            got, tail = got + len(piece), (tail + piece)[-5:]
        self.assertGreaterEqual(got, 1024 * block - 65536)


class Mistakes(ProbeCase):
    """What an application may not do, and what the client sees of it."""

    def broken(self, *steps):
        """The answer begins and is not taken for whole."""
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", self.steps(*steps))
        try:
            response = connection.getresponse()
            content = response.read()
        except (http.client.IncompleteRead, ConnectionResetError, http.client.RemoteDisconnected):
            return
        self.fail(f"taken for whole: {response.status} {content!r}")

    def test_exception_before_the_head(self):
        response = self.request(("raise", "on purpose"))
        self.assertEqual(response.status, 500)
        self.assertNotIn(b"on purpose", response.content)

    def test_exception_between_head_and_body(self):
        """A head that was not sent yet can still become a 500."""
        if per(uvicorn=True, gatecrew=False):
            self.broken(start(), ("raise", "on purpose"))
        else:
            self.assertEqual(self.request(start(), ("raise", "on purpose")).status, 500)

    def test_exception_in_the_body(self):
        self.broken(start(), body(b"some", True), ("raise", "on purpose"))
        self.broken(start(200, (b"content-length", b"10")), body(b"some", True), ("raise", "on purpose"))

    def test_exception_after_the_end(self):
        """The client has its answer; what comes later is not its affair."""
        response = self.request(("answer",), ("raise", "on purpose"))
        self.assertEqual((response.status, response.content), (200, b"done"))

    def test_return_without_a_response(self):
        self.assertEqual(self.request(("sleep", 0)).status, 500)

    def test_return_within_the_body(self):
        self.broken(start(), body(b"some", True))

    def test_content_length_too_long(self):
        self.broken(start(200, (b"content-length", b"10")), body(b"short"))

    def test_content_length_too_short(self):
        """Not a byte more than was announced, or none at all."""
        sock = self.send_head(start(200, (b"content-length", b"3")), body(b"longer"), fields=["Connection: close"])
        head, _, content = self.read_all(sock).partition(b"\r\n\r\n")
        self.assertLessEqual(len(content), 3 if b" 200 " in head else 100)
        self.assertNotIn(b"longer", content)

    def refused(self, *steps, status=None):
        """The last of the steps raises, and not with an OSError: that is a departure."""
        try:
            response = self.request(*steps)
            if status:
                self.assertEqual(response.status, status)
        except (http.client.IncompleteRead, ConnectionError, http.client.RemoteDisconnected):
            self.assertIsNone(status)
        outcome = self.outcomes("send", len(steps))[-1]
        self.assertIsNotNone(outcome, "the server accepted it")
        self.assertNotIn("OSError", outcome)

    def test_two_heads(self):
        self.refused(start(), start())

    def test_body_before_the_head(self):
        self.refused(body(b"x"), status=500)

    def test_unknown_event(self):
        self.refused(("send", {"type": "http.response.strange"}), status=500)
        self.refused(("send", {"type": "websocket.accept"}), status=500)

    def test_event_after_the_end(self):
        self.refused(start(), body(b"x"), body(b"y"))

    def test_response_splitting(self):
        for field in ((b"x-bad", b"a\r\nSet-Cookie: x=1"), (b"x-bad\r\nSet-Cookie", b"x=1"), (b"x-bad", b"a\nb"), (b"x-bad", b"a\0b")):
            sock = self.send_head(start(200, field), body(b"x"), fields=["Connection: close"])
            answer = self.read_all(sock)
            self.assertNotIn(b"\nset-cookie", answer.lower())
            self.assertNotIn(b"HTTP/1.1 200", answer)


class Departures(ProbeCase):
    """A client that goes away."""

    def gone(self, within=PROMPT):
        """The application is told in time; the end of its run shows that it was not cancelled."""
        outcome = self.outcomes("until", 1, within)[0]
        self.assertEqual(outcome[1]["type"], "http.disconnect", outcome)
        self.outcomes("end")

    def test_while_it_waits_for_the_body(self):
        sock = self.send_head(("until", "http.disconnect"), method="POST", fields=["Content-Length: 10"])
        sock.sendall(b"some")
        self.until_begun("until")
        sock.close()
        self.gone()

    def test_while_it_waits_for_the_departure(self):
        sock = self.send_head(("until", "http.disconnect"))
        self.until_begun("until")
        sock.close()
        self.gone()

    def test_while_it_streams(self):
        """What Starlette and Django do: one task sends, another waits for the end."""
        sock = self.send_head(("beside", ("until", "http.disconnect")), start(), body(b"first", True), ("wait", "gone"), body(b"more", True), body())
        self.read_until(sock, b"first")
        sock.close()
        self.outcomes("until", 1, PROMPT)
        self.signal("gone")
        self.outcomes("end")
        # Sending to nobody: uvicorn says nothing, ASGI 2.4 wants an OSError.
        late = self.outcomes("send", 4)[2:]
        if per(uvicorn=False, gatecrew=True):
            self.assertTrue(all(str(outcome).startswith("OSError") for outcome in late), late)
        else:
            self.assertEqual(late, [None, None])

    def test_while_it_sleeps(self):
        sock = self.send_head(("receive",), ("sleep", 0.5), ("until", "http.disconnect"))
        self.outcomes("receive")
        sock.close()
        self.outcomes("sleep")
        self.gone()

    def test_while_send_waits(self):
        sock = self.send_head(start(), ("pour", {"type": "http.response.body", "body": (b"x", 65536), "more_body": True}, 1024),
                              ("until", "http.disconnect"), sock=self.dial(receive_buffer=65536))
        self.read_until(sock, b"\r\n\r\n")
        self.assertLess(self.progress(), 1024)
        sock.close()
        self.gone()

    def test_after_the_end(self):
        """The answer is complete: there is nobody to receive from."""
        self.request(("answer",), ("receive",), ("receive",))
        self.assertEqual(self.outcomes("receive", 2, PROMPT), [{"type": "http.disconnect"}] * 2)

    def test_again_and_again(self):
        sock = self.send_head(("until", "http.disconnect"), ("receive",), ("receive",))
        self.until_begun("until")
        sock.close()
        self.assertEqual(self.outcomes("receive", 2, PROMPT), [{"type": "http.disconnect"}] * 2)


class Connections(ProbeCase):
    def test_keep_alive(self):
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        self.addCleanup(connection.close)
        sockets = set()
        for number in range(3):
            connection.request("POST", self.steps(("body",), ("answer", f"number {number}")), b"x" * 1000)
            self.assertEqual(connection.getresponse().read(), b"number %d" % number)
            sockets.add(id(connection.sock))
        self.assertEqual(len(sockets), 1, "the connection was not kept")

    def test_pipelining(self):
        sock = self.dial()
        for number in range(3):
            self.send_head(("sleep", 0.1 - number / 30), ("answer", f"number {number}."), sock=sock)
        got = self.read_until(sock, b"number 2.")
        self.assertLess(got.index(b"number 0."), got.index(b"number 1."))

    def test_close(self):
        sock = self.send_head(("answer",), fields=["Connection: close"])
        answer = self.read_all(sock)
        self.assertIn(b"\r\nconnection: close\r\n", answer.lower())
        self.assertTrue(answer.endswith(b"done"))

    def test_http_1_0(self):
        sock = self.send_head(start(), body(b"one ", True), body(b"two"), version="1.0")
        answer = self.read_all(sock)
        # An HTTP/1.0 client doesn't know chunks; uvicorn sends them all the same.
        self.assertTrue(answer.endswith(per(uvicorn=b"0\r\n\r\n", gatecrew=b"\r\n\r\none two")), answer)

    def test_background_work(self):
        """The answer doesn't wait for it, nor does the next request of the connection."""
        connection = http.client.HTTPConnection(HOST, PORT, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request("GET", self.steps(("answer",), ("wait", "background")))
        self.assertEqual(connection.getresponse().read(), b"done")
        key = self.key
        connection.request("GET", self.steps(("answer", "next")))
        self.assertEqual(connection.getresponse().read(), b"next")
        self.assertEqual(self.log(key)[-1][:2], ("wait", "…"))
        self.signal("background")
        self.key = key
        self.outcomes("end")

    def test_many_at_once(self):
        """One event loop has them all in progress."""
        sockets = [self.send_head(("wait", "crowd"), ("answer",)) for _ in range(60)]
        self.until_begun("wait")
        self.signal("crowd")
        began = time.monotonic()
        for sock in sockets:
            self.read_until(sock, b"done")
        self.assertLess(time.monotonic() - began, PATIENCE)
