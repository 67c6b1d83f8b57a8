"""ASGI: websocket scopes, on a real worker process."""

import os
import random
import struct
import tempfile
import unittest

from gateway import rec
from gatecrew_worker import _websocket
from gatecrew_worker._async import AsyncRequest
from gatecrew_worker._connection import INPUT_WINDOW
from test_asgi import AsyncWorker, shared, tearDownModule  # noqa: F401

TEXT, BINARY, CLOSE = 1, 2, 8
ACCEPTED = b"Status: 101 Switching Protocols\r\n"


def message(kind, content=b""):
    return struct.pack(">BI", kind, len(content)) + content


def close(code, reason=b""):
    return message(CLOSE, struct.pack(">H", code) + reason)


def messages(data):
    """The messages in data, all of which are whole."""
    found = []
    while data:
        kind, length = struct.unpack_from(">BI", data)
        content, = struct.unpack_from("%ds" % length, data, 5)
        found.append((kind, content))
        data = data[5 + length:]
    return found


class WebSocket(unittest.TestCase):
    def setUp(self):
        self.worker = shared()

    def open(self, path, worker=None, **more):
        worker = worker or self.worker
        worker.begin(path=path, role=rec.WEBSOCKET, more=True, **more)
        return worker

    def head(self, worker):
        answer = worker.answers[1]
        while b"\r\n\r\n" not in answer.stdout:
            worker.take()
        return answer.head.encode() + b"\r\n"

    def accepted(self, path, worker=None, **more):
        worker = self.open(path, worker, **more)
        self.assertTrue(self.head(worker).startswith(ACCEPTED))
        return worker

    def take(self, worker, count):
        """The messages that came, once there are so many."""
        answer = worker.answers[1]
        while True:
            try:
                found = messages(answer.body)
            except struct.error:
                found = []
            if len(found) >= count:
                return found
            worker.take()

    def test_scope(self):
        worker = self.open("/scope_", HTTP_SEC_WEBSOCKET_PROTOCOL="chat, x", REQUEST_SCHEME="https", HTTPS="on")
        answer = worker.answer()
        self.assertEqual(answer.status, "500 Internal Server Error")  # it speaks http
        self.assertIn("unexpected message 'http.response.start': expected is 'websocket.accept'", answer.errors)

    def test_accept(self):
        worker = self.open("/chat", HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        self.assertEqual(self.head(worker), ACCEPTED + b"x-y: z\r\nSec-WebSocket-Protocol: a\r\n")
        worker.stdin(close(1000))
        self.assertEqual(worker.answer().app_status, 0)

    def test_messages(self):
        worker = self.accepted("/chat")
        sent = [(TEXT, "\u20ac".encode()), (BINARY, b"\0\xff"), (TEXT, b""), (BINARY, b"b" * 70000)]
        data = b"".join(message(*m) for m in sent)
        for pos in range(0, 40):  # cut anywhere
            worker.stdin(data[pos:pos + 1])
        worker.stdin(data[40:])
        self.assertEqual(self.take(worker, len(sent)), sent)
        worker.stdin(message(TEXT, b"bye"))
        answer = worker.answer()
        kind, content = messages(answer.body)[-1]
        self.assertEqual((kind, content[:2], answer.app_status), (CLOSE, struct.pack(">H", 4000), 0))
        self.assertTrue(content[2:].decode().startswith("said \u20ac"))
        self.assertEqual(len(content), 125)
        worker.await_log("'websocket.disconnect', 'code': 4000")

    def test_ends(self):
        """How the application ends, and what the gateway makes of it."""
        for said, status, errors in ((b"leave", 0, ""), (b"fail", 1, "ValueError: as told")):
            worker = self.accepted("/chat")
            worker.stdin(message(TEXT, said))
            answer = worker.answer()
            self.assertEqual((answer.body, answer.app_status), (b"", status))
            self.assertIn(errors, answer.errors)

    def test_disconnect(self):
        with AsyncWorker() as worker:
            for data, said in (
                (close(1001, b"going"), "1001 going"), (message(CLOSE), "1005 "), (None, "1006 "),
            ):
                self.accepted("/chat", worker)
                if data is None:
                    worker.abort()
                else:
                    worker.stdin(data)
                worker.answer()
                worker.await_log("disconnected " + said + "\n")

    def test_refusals(self):
        answer = self.open("/refuses").answer()
        self.assertEqual((answer.status, answer.body, answer.app_status), ("403 Forbidden", b"", 0))
        answer = self.open("/denies").answer()
        self.assertEqual((answer.status, answer.body, answer.headers["www-authenticate"]), ("401 Unauthorized", b"no entry", "Basic"))
        for path, said in (("/returns", "without having accepted"), ("/fails", "ValueError"), ("/early", "unexpected message 'websocket.send'")):
            answer = self.open(path).answer()
            self.assertEqual((answer.status, answer.app_status), ("500 Internal Server Error", 0))
            self.assertIn(said, answer.errors)

    def test_slow_application(self):
        """What the application has not received is not granted again, however
        soon it has arrived."""
        with AsyncWorker() as worker, tempfile.TemporaryDirectory() as directory:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            self.accepted("/slow", worker, QUERY_STRING=fifo)
            with open(fifo, "wb", 0) as more:
                size = INPUT_WINDOW // 4
                for _ in range(4):
                    worker.stdin(message(BINARY, b"s" * (size - 5)))
                self.assertTrue(worker.quiet(0.2))
                more.write(b"1")
                self.assertEqual(self.take(worker, 1), [(TEXT, b"%d" % (size - 5))])
                self.assertEqual(worker.granted_input[1], 0)
                more.write(b"1")
                self.take(worker, 2)
                self.assertEqual(worker.granted_input[1], 2 * size)
                worker.stdin(close(1000))
                more.write(b"111")
                worker.answer()

    def test_message_larger_than_the_window(self):
        worker = self.accepted("/chat")
        data = message(BINARY, b"l" * 1000000)
        sent = 0
        while sent < len(data):
            room = INPUT_WINDOW + worker.granted_input[1] - sent
            if room <= 0:
                worker.take()
                continue
            worker.stdin(data[sent:sent + min(room, 65535)])
            sent += min(room, 65535)
        answer = worker.answers[1]
        while len(answer.body) < len(data):
            if worker.take()[0] == rec.STDOUT:
                worker.grant(32768)
        self.assertEqual(answer.body, data)
        worker.stdin(close(1000))
        worker.answer()

    def test_send_waits_for_credit(self):
        with AsyncWorker(window=10000) as worker:
            self.accepted("/floods", worker)
            worker.until(10000)
            self.assertTrue(worker.quiet())
            worker.stdin(close(1001, b"enough"))
            worker.answer()
            worker.await_log("send raised ClientDisconnected")
            worker.await_log("'code': 1001, 'reason': 'enough'")

    def test_messages_of_many_tasks(self):
        """None stands in the middle of another, and they are in order."""
        with AsyncWorker(window=10000) as worker:
            self.accepted("/broadcasts", worker)
            answer = worker.answer()
            sizes = [50000, 10, 200000, 0, 1, 70000, 300] * 3
            wanted = [(BINARY, b"%c" % (97 + i) * n) for i, n in enumerate(sizes)] + [(CLOSE, struct.pack(">H", 4001))]
            self.assertTrue(messages(answer.body) == wanted)
            self.assertEqual(answer.app_status, 0)

    def test_answer_meanwhile(self):
        """The same where the task that answers runs before the other one."""
        with AsyncWorker(window=10000) as worker:
            self.accepted("/talks", worker)
            worker.until(10000)
            worker.send(rec.record(rec.STDIN, 1, message(TEXT, b"now")) + rec.credit(1, 5000))
            self.assertTrue(messages(worker.answer().body) == [(BINARY, b"t" * 50000), (TEXT, b"now")])

    def test_cancelled_sends(self):
        """A message is sent whole or not at all."""
        with AsyncWorker(window=10000) as worker:
            self.accepted("/gives_up", worker)
            worker.await_log("gave up\ngave up\n")
            answer = worker.answer()
            self.assertTrue(messages(answer.body) == [(BINARY, b"a" * 30000), (TEXT, b"after")])

    def test_close_beyond_the_window(self):
        with AsyncWorker() as worker, tempfile.TemporaryDirectory() as directory:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            self.accepted("/slow", worker, QUERY_STRING=fifo)
            with open(fifo, "wb", 0) as more:
                worker.stdin(message(BINARY, b"s" * (INPUT_WINDOW - 5)))
                worker.stdin(close(1000, b"r" * 123))
                more.write(b"11")
                worker.answer()
            self.accepted("/chat", worker)
            worker.stdin(close(1000))
            self.assertEqual(worker.answer().app_status, 0)


class Decoder(unittest.TestCase):
    def test_cut_anywhere(self):
        """Messages come out as they went in, wherever their bytes are cut."""
        chance = random.Random(1)
        for _ in range(300):
            wanted = [(chance.choice((TEXT, BINARY)), bytes(chance.choice((0, 1, 4, 5, 6, 300, 70000)))) for _ in range(chance.randrange(6))]
            data = b"".join(message(*m) for m in wanted)
            closes = chance.random() < 0.5
            if closes:
                data += close(4001, b"over") + message(CLOSE)  # only the first counts
            request = AsyncRequest(1, 0, rec.WEBSOCKET)
            socket = _websocket.WebSocket(None, request, None)
            pos = 0
            while pos < len(data):
                size = min(chance.choice((1, 2, 5, 6, 100, 40000)), len(data) - pos) if len(data) < 2000 else chance.randrange(1, 50000)
                request.input.append(data[pos:pos + size])
                pos += size
                if chance.random() < 0.7:
                    socket._feed()
            socket._feed()
            self.assertTrue(list(socket._messages) == wanted)
            self.assertEqual((socket._close, request.closed), ((4001, "over") if closes else None, closes))
            self.assertEqual((socket._parts, socket._have), ([], 0))


if __name__ == "__main__":
    unittest.main()
