"""ASGI: http scopes, lifespan and loading, on a real worker process."""

import importlib.util
import json
import os
import signal
import tempfile
import unittest
from contextlib import ExitStack

from gateway import APPS, Worker, Zygote, rec
from gatecrew_worker._connection import INPUT_WINDOW

workers = []


class AsyncWorker(Worker):
    """A worker with an event loop, the one that TEST_LOOP names."""

    def __init__(self, app="asgi_app:app", *args, loop=os.environ.get("TEST_LOOP", "asyncio"), **more):
        if loop == "uvloop":
            self.flags = ("-W", "error")
        super().__init__(app, "--interface", "auto", "--loop", loop, *args, **more)


def shared():
    if not workers:
        workers.append(AsyncWorker())
    return workers[0]


def tearDownModule():
    while workers:
        workers.pop().__exit__()


class Case(unittest.TestCase):
    def setUp(self):
        self.worker = shared()

    def get(self, path, worker=None, **more):
        answer = (worker or self.worker).get(path, **more)
        self.assertEqual(answer.protocol_status, 0)
        return answer

    def fails(self, path, said, **more):
        """Before the head: a 500 that tells the client nothing."""
        answer = self.get(path, **more)
        self.assertEqual((answer.status, answer.app_status), ("500 Internal Server Error", 0))
        self.assertEqual(answer.body, b"Internal Server Error\n")
        self.assertIn(said, answer.errors)
        self.assertNotIn("in handle", answer.errors)
        self.assertEqual(self.get("/hello").body, b"hello")

    def breaks(self, path, sent, said, **more):
        """After the head: an answer that is known to be incomplete."""
        answer = self.get(path, **more)
        self.assertEqual((answer.status, answer.app_status), ("200 OK", 1))
        self.assertEqual(answer.body, sent)
        self.assertIn(said, answer.errors)
        self.assertEqual(self.get("/hello").body, b"hello")


class Scope(Case):
    def scope(self, path="/scope_", worker=None, **more):
        return json.loads(self.get(path, worker, **more).body)

    def test_http(self):
        scope = self.scope(
            QUERY_STRING="a=%20b", REQUEST_URI="/%73cope_?a=%20b", HTTP_ACCEPT="*/*", HTTP_HOST="example.org:81",
            CONTENT_TYPE="text/plain", CONTENT_LENGTH="0", REMOTE_PORT="4711", SERVER_ADDR="10.0.0.1", HTTP_X_LATIN="\xe9")
        headers = scope.pop("headers")
        self.assertEqual(headers[0], ["host", "example.org:81"])
        self.assertEqual(sorted(headers[1:]), [
            ["accept", "*/*"], ["content-length", "0"], ["content-type", "text/plain"], ["x-latin", "\xe9"]])
        self.assertEqual(scope, {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.5"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": "/scope_", "raw_path": "/%73cope_", "query_string": "a=%20b", "root_path": "",
            "client": ["127.0.0.1", 4711], "server": ["10.0.0.1", 80], "state": {"started": "yes"},
            "extensions": {"http.response.early_hint": {}, "http.response.pathsend": {}}})

    def test_versions(self):
        for protocol, version in (("HTTP/1.0", "1.0"), ("HTTP/1.1", "1.1"), ("HTTP/2.0", "2")):
            scope = self.scope(SERVER_PROTOCOL=protocol)
            self.assertEqual(scope["http_version"], version)
            self.assertEqual("http.response.trailers" in scope["extensions"], version == "2")
        self.assertIn("http.response.trailers", self.scope(HTTP_TE="trailers")["extensions"])

    def test_no_client(self):
        self.assertIsNone(self.scope(REMOTE_ADDR="")["client"])

    def test_paths(self):
        with AsyncWorker("asgi_app:scope_", "--root-path", "/p", "--lifespan", "off") as worker:
            for sent, want in (
                (("", "/x"), ("/p", "/p/x", "/p/x")), (("", "/p/x"), ("/p", "/p/x", "/p/x")), (("", "/p"), ("/p", "/p", "/p")),
                (("", "/px"), ("/p", "/p/px", "/p/px")), (("/given", "/x"), ("/given", "/given/x", "/given/x")),
            ):
                scope = self.scope(sent[1], worker, SCRIPT_NAME=sent[0])
                self.assertEqual((scope["root_path"], scope["path"], scope["raw_path"]), want)
            scope = self.scope("/\xc3\xa4 \xff", worker, SCRIPT_NAME="/s")  # UTF-8, and not
            self.assertEqual((scope["path"], scope["raw_path"]), ("/s/\xe4 \ufffd", "/s/%C3%A4%20%FF"))

    def test_tls(self):
        scope = self.scope(
            HTTPS="on", REQUEST_SCHEME="https", SSL_PROTOCOL="TLSv1.3", SSL_CIPHER="TLS_AES_128_GCM_SHA256",
            SSL_CLIENT_CERT="PEM 0", SSL_CLIENT_CERT_CHAIN_0="PEM 1", SSL_CLIENT_S_DN="CN=x", SSL_CLIENT_VERIFY="FAILED:expired")
        self.assertEqual(scope["scheme"], "https")
        self.assertEqual(scope["extensions"]["tls"], {
            "server_cert": None, "client_cert_chain": ["PEM 0", "PEM 1"], "client_cert_name": "CN=x",
            "client_cert_error": "expired", "tls_version": 0x0304, "cipher_suite": 0x1301})
        self.assertNotIn("tls", self.scope()["extensions"])


class Answers(Case):
    def test_one_record(self):
        """Head, body, end and what tells that the loop turns arrive together,
        with the length known."""
        worker = self.worker
        worker.begin(path="/hello")
        kind, _, content = worker.take()
        self.assertEqual((kind, content), (
            6, b"Status: 200 OK\r\ncontent-type: text/plain\r\nContent-Length: 5\r\n\r\nhello"))
        self.assertGreaterEqual(len(worker._unread), 16)
        worker.answer()

    def test_content_length(self):
        for query, sent, status, said in (
            ("10,200,10", 10, 0, ""), ("10,200,4,6", 10, 0, ""), ("10,200,10,0", 10, 0, ""), (",200,3,4,0", 7, 0, ""),
            ("10,200,11", 10, 0, "longer than its Content-Length of 10"), ("10,200,4,7,5", 10, 0, "longer"),
            ("10,200,9", 9, 1, "9 bytes of a Content-Length of 10"), ("10,200,4,5", 9, 1, "9 bytes"), ("10,200,0", 0, 1, "0 bytes"),
            (",204,3", 0, 0, ""), ("10,304,0", 0, 0, ""),
        ):
            with self.subTest(query):
                answer = self.get("/length", QUERY_STRING=query)
                self.assertEqual((len(answer.body), answer.app_status), (sent, status))
                self.assertIn(said, answer.errors)
                self.assertEqual(bool(answer.errors), bool(said))

    def test_head(self):
        for path, query, length in (("/hello", "", "5"), ("/length", "1000,200,0", "1000"), ("/length", ",200,0", None)):
            answer = self.get(path, method="HEAD", QUERY_STRING=query)
            self.assertEqual((answer.status, answer.body, answer.app_status, answer.errors), ("200 OK", b"", 0, ""))
            self.assertEqual(answer.headers.get("Content-Length", answer.headers.get("content-length")), length)

    def test_big(self):
        for size in (32768 - 70, 32768, 131072, 1000003):
            answer = self.get("/big", QUERY_STRING=str(size))
            self.assertEqual((answer.body, answer.app_status), (b"m" * size, 0))

    def test_cancelled_sends(self):
        """An answer of which a part was not sent is known to be incomplete."""
        with AsyncWorker(window=30000) as worker:
            for part in ("last", "middle"):
                worker.begin(path="/gives_up_body", QUERY_STRING=part)
                worker.await_log("gave up\n" * (1 if part == "last" else 2))
                answer = worker.answer()
                self.assertEqual((answer.status, answer.app_status), ("200 OK", 1))
                self.assertIn("a send() was cancelled", answer.errors)

    def test_failures(self):
        self.fails("/fails", 'raise ValueError("as asked")')
        self.fails("/returns", "returned without having answered")
        self.fails("/exits", "SystemExit: 7")
        self.breaks("/fails_late", b"sent", "ValueError: too late")
        self.breaks("/returns_early", b"sent", "returned before its answer was complete")

    def test_headers(self):
        for query, said in (
            ("x-y=a%0Ab", "control character"), ("x y=a", "is not a header name"), ("status=200", "is the gateway's"),
            ("content-length=-1", "not a number"),
        ):
            self.fails("/header", said, QUERY_STRING=query)
        for name in ("connection", "Transfer-Encoding", "keep-alive"):
            answer = self.get("/header", QUERY_STRING=name + "=x")
            self.assertEqual(list(answer.headers), ["Status", "Content-Length"])

    def test_order_of_messages(self):
        start, body = {"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "b"}
        for messages, said in (
            ([body], "RuntimeError: unexpected message 'http.response.body': expected is 'http.response.start'"),
            ([start, start], "expected is 'http.response.body'"),
            ([start, body, body], "the answer is complete"),
            ([start, {"type": "http.response.trailers"}], "unexpected message 'http.response.trailers'"),
            ([{"type": "websocket.accept"}], "unexpected message 'websocket.accept'"),
            ([{"type": "http.response.start", "status": "200"}], "TypeError: the status must be an int"),
            ([{"type": "http.response.start", "status": 103}], "ValueError: the status 103"),
            ([start, {"type": "http.response.pathsend", "path": "/dev/null"}], "no regular file"),
        ):
            with self.subTest(said):
                answer = self.get("/messages", method="POST", stdin=json.dumps(messages).encode())
                self.assertEqual(answer.status, "200 OK" if len(messages) == 3 else "500 Internal Server Error")
                self.worker.await_log(said)

    def test_early_hints(self):
        answer = self.get("/hints")
        hint, _, rest = answer.stdout.partition(b"\r\n\r\n")
        self.assertEqual(hint, b"Status: 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>; rel=preload")
        self.assertTrue(rest.startswith(b"Status: 200 OK\r\n") and rest.endswith(b"\r\n\r\nhinted"))

    def test_trailers(self):
        answer = self.get("/trails", SERVER_PROTOCOL="HTTP/2.0")
        self.assertEqual((answer.body, answer.trailers, answer.app_status), (b"onetwo", b"x-sum: 3\r\nx-more: 4\r\n", 0))
        answer = self.get("/trails")
        self.assertEqual((answer.body, answer.trailers, answer.app_status), (b"onetwo", None, 0))
        # HTTP/1 has them only where no length is told.
        query = "x-first=1&Content-Length=6&x-last=2"
        answer = self.get("/trails", HTTP_TE="trailers", QUERY_STRING=query)
        self.assertEqual((answer.body, answer.trailers, answer.app_status), (b"onetwo", b"x-sum: 3\r\nx-more: 4\r\n", 0))
        self.assertEqual((answer.headers.get("x-first"), answer.headers.get("x-last"), answer.headers.get("Content-Length")), ("1", "2", None))
        answer = self.get("/trails", QUERY_STRING=query)
        self.assertEqual((answer.body, answer.headers.get("Content-Length")), (b"onetwo", "6"))
        answer = self.get("/trails", HTTP_TE="trailers", QUERY_STRING="content-length=7")
        self.assertEqual(answer.app_status, 1)
        self.assertIn("6 bytes of a Content-Length of 7", answer.errors)

    def test_named_file(self):
        """The length is then that of the file, which the gateway sends."""
        for field in ("X-Sendfile", "x-accel-redirect"):
            query = "content-length=1000&%s=/a/file" % field
            answer = self.get("/named", QUERY_STRING=query)
            self.assertEqual((answer.app_status, answer.body, answer.errors), (0, b"", ""))
            self.assertEqual((answer.headers[field], answer.headers["Content-Length"]), ("/a/file", "1000"))

    def test_file(self):
        path = os.path.join(APPS, "asgi_app.py")
        with open(path, "rb") as file:
            content = file.read()
        answer = self.get("/file")
        self.assertEqual((answer.file, answer.body), (content, b""))
        self.assertEqual(answer.headers["Content-Length"], str(len(content)))
        answer = self.get("/file", method="HEAD")
        self.assertEqual((answer.file, answer.headers["Content-Length"]), (None, str(len(content))))
        self.fails("/file", "FileNotFoundError", QUERY_STRING="/no/such/file")
        with AsyncWorker(window=0) as worker:  # which knows no such record
            self.assertEqual(self.get("/file", worker).body, content)


class Bodies(Case):
    def test_echo(self):
        self.assertEqual(self.get("/echo", method="POST", stdin=b"e" * 100000).body, b"e" * 100000)

    def test_window(self):
        """The rest of a body is granted as the application takes it."""
        worker = self.worker
        worker.begin(path="/echo", more=True)
        sent = 0
        while sent < 500000:
            while sent + 65535 > INPUT_WINDOW + worker.granted_input[1]:
                worker.take()
            worker.stdin(b"w" * 65535)
            sent += 65535
        worker.stdin(b"")
        self.assertEqual(worker.answer().body, b"w" * sent)

    def test_held_back(self):
        """A body that is asked for when the application wants it."""
        worker = self.worker
        worker.begin(path="/echo", more=True, HTTP_EXPECT="100-continue")
        self.assertEqual(worker.take()[0], rec.CREDIT)
        worker.stdin(b"asked for")
        worker.stdin(b"")
        self.assertEqual(worker.answer().body, b"asked for")
        worker.begin(path="/echo", more=True)
        worker.stdin(b"")
        worker.answer()
        self.assertEqual(worker.granted_input[1], 0)
        with Worker("applications:raw") as threads:
            threads.begin(path="/swallow", more=True, HTTP_EXPECT="100-Continue")
            self.assertEqual(threads.take()[0], rec.CREDIT)
            threads.stdin(b"12345")
            threads.stdin(b"")
            self.assertEqual(threads.answer().body, b"5")

    def test_disconnect(self):
        with AsyncWorker(window=5000) as worker:
            worker.begin(1, path="/waits")
            worker.await_log("waiting")
            worker.abort(1)
            worker.await_log("got http.disconnect")
            self.assertEqual(worker.answer(1).app_status, 1)
            worker.begin(2, path="/echo", more=True)
            worker.begin(3, path="/endless")
            worker.until(5000, 3)  # waits for credit
            worker.abort(2)
            worker.abort(3)
            worker.answer(2)
            worker.answer(3)
            worker.await_log("send raised ClientDisconnected")
            self.assertEqual(worker.answers[3].errors, "")
            self.assertEqual(
                worker.answers[2].errors, "gatecrew: the application failed after its client had gone: asgi_app.Disconnected\n")

    def test_background(self):
        with AsyncWorker() as worker:
            self.assertEqual(worker.get("/background").body, b"answered")
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.wait(), 0)
            self.assertIn("then http.disconnect", worker.log)


class Loop(unittest.TestCase):
    loop = "asyncio"

    def start(self, *args, **more):
        return AsyncWorker(*args, loop=self.loop, **more)

    def test_begun(self):
        with self.start("asgi_app:app", "--concurrency", "2", control=True) as worker:
            self.assertEqual(worker.values, {
                "FCGI_MAX_CONNS": "1", "FCGI_MAX_REQS": "2", "FCGI_MPXS_CONNS": "1",
                "GATECREW_FLOW": "1", "GATECREW_WINDOW": "131072", "GATECREW_ASYNC": "1"})
            worker.begin(1, path="/streams", more=True)
            worker.begin(2, path="/streams", more=True)
            worker.until(1, 1), worker.until(1, 2)
            worker.begin(3, path="/hello")
            self.assertEqual(worker.answer(3).protocol_status, rec.OVERLOADED)
            for i in (1, 2):
                worker.stdin(b"", i)
                self.assertEqual(worker.answer(i).body, b"begun ended")
            worker.get("/hello")
            worker.command(b"recall\n")
            while worker.begun < 4:
                worker.get("/hello")
            self.assertGreaterEqual(worker.begun, 4)

    def test_recall(self):
        """While the loop is held up."""
        with self.start(control=True) as worker, tempfile.TemporaryDirectory() as directory:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            worker.begin(1, path="/streams", more=True)
            worker.begin(7, path="/waits")
            worker.until(1, 1)
            worker.begin(2, path="/holds", QUERY_STRING=fifo)
            worker.await_log("holds")
            worker.begin(3, path="/hello")
            worker.begin(4, path="/echo", stdin=b"x" * 1000, more=True)
            worker.stdin(b"", 1)  # for one that has begun
            worker.abort(7)
            worker.command(b"recall\n")
            for i in (3, 4):
                answer = worker.answer(i)
                self.assertEqual((answer.stdout, answer.protocol_status), (b"", rec.OVERLOADED))
            self.assertLess(worker.begun, 3)
            worker.begin(3, path="/hello")  # the id again
            with open(fifo, "w"):
                pass
            self.assertEqual(worker.answer(2).body, b"held")
            self.assertEqual(worker.answer(1).body, b"begun ended")
            self.assertEqual(worker.answer(3).body, b"hello")
            worker.answer(7)
            self.assertGreaterEqual(worker.begun, 5)  # the last one may be on its way

    def test_what_came_together(self):
        """Read with the request that holds up the loop, and behind it."""
        with self.start(control=True) as worker, tempfile.TemporaryDirectory() as directory:
            fifo = os.path.join(directory, "fifo")
            os.mkfifo(fifo)
            send, data = worker.send, []
            worker.send = data.append
            worker.begin(9, path="/hello")
            worker.begin(1, path="/holds", QUERY_STRING=fifo)
            worker.begin(2, path="/hello")
            worker.send = send
            worker.send(b"".join(data))
            worker.await_log("holds")
            worker.command(b"recall\n")
            self.assertEqual(worker.answer(2).protocol_status, rec.OVERLOADED)
            with open(fifo, "w"):
                pass
            self.assertEqual(worker.answer(9).body, b"hello")
            self.assertEqual(worker.answer(1).body, b"held")

    def test_term(self):
        with self.start() as worker:
            worker.begin(1, path="/streams", more=True)
            worker.until(1, 1)
            worker.process.send_signal(signal.SIGTERM)
            refused = 0
            while not refused:
                worker.begin(2, path="/hello")
                refused = worker.answer(2).protocol_status
            worker.stdin(b"", 1)
            self.assertEqual(worker.answer(1).body, b"begun ended")
            self.assertEqual(worker.wait(), 0)
            self.assertEqual(worker.log, "lifespan.startup\nlifespan.shutdown\n")

    def test_end_of_file(self):
        with self.start() as worker:
            worker.begin(1, path="/background")
            worker.sock.shutdown(1)
            self.assertEqual(worker.answer(1, grant=False).body, b"answered")
            self.assertEqual(worker.wait(), 0)
            self.assertIn("then http.disconnect", worker.log)
            self.assertIn("lifespan.shutdown", worker.log)

    def test_violation(self):
        with self.start() as worker:
            worker.begin(1, block=b"\5\5x")
            self.assertEqual(worker.wait(), 3)
            self.assertIn("gatecrew: the gateway broke the protocol: name-value pairs", worker.log)


@unittest.skipUnless(importlib.util.find_spec("uvloop"), "no uvloop")
class UVLoop(Loop):
    loop = "uvloop"


class Preloaded(unittest.TestCase):
    def test_forked(self):
        """Each worker has an event loop and a lifespan of its own."""
        with Zygote("asgi_app:app") as zygote:
            self.assertEqual(zygote.hear(), b"ready")
            with zygote.fork("web/1") as one, zygote.fork("web/2") as two:
                for worker in (one, two):
                    self.assertEqual(worker.values["GATECREW_ASYNC"], "1")
                    self.assertEqual(worker.get("/hello").body, b"hello")
                    worker.sock.shutdown(1)
                    worker.wait()
                    self.assertEqual(worker.log, "lifespan.startup\nlifespan.shutdown\n")


class Lifespan(unittest.TestCase):
    def ends(self, status, app, *args):
        with AsyncWorker("asgi_forms:" + app, *args, ready=False) as worker:
            self.assertEqual(worker.wait(), status, worker.log)
            self.assertNotIn("gatecrew_worker/_", worker.log)
            return worker.log

    def test_failures(self):
        self.assertEqual(self.ends(4, "fails_to_start"), "gatecrew: the application failed to start: no database\n")
        self.assertIn("ValueError: no lifespan here", self.ends(4, "app", "--lifespan", "on"))

    def test_unsupported(self):
        for app, said in (("app", ""), ("raises_at_start", "RuntimeError: no database")):
            with AsyncWorker("asgi_forms:" + app) as worker:
                self.assertEqual(worker.get("/").body, b"app")
                self.assertIn(said, worker.log)
                self.assertEqual(bool(worker.log), bool(said))

    def test_stop_while_starting(self):
        with AsyncWorker("asgi_forms:never_starts", ready=False) as worker:
            worker.await_log("starting")
            worker.process.send_signal(signal.SIGTERM)
            self.assertEqual(worker.wait(), 0)
            self.assertIn("given up", worker.log)

    def test_fails_between(self):
        with AsyncWorker("asgi_forms:fails_between") as worker:
            self.assertEqual(worker.get("/").body, b"app")
            worker.await_log("RuntimeError: lost its database")
            worker.sock.shutdown(1)
            self.assertEqual(worker.wait(), 0)

    def test_shutdown_fails(self):
        with AsyncWorker("asgi_forms:fails_to_stop") as worker:
            worker.get("/")
            worker.sock.shutdown(1)
            self.assertEqual(worker.wait(), 0)
            self.assertIn("RuntimeError: left open", worker.log)


class Loading(unittest.TestCase):
    def test_forms(self):
        names = ("asgi_forms:instance", "asgi_forms:slot", "asgi_forms:partial", "asgi_forms:Double", "asgi_forms:create_app()", "asgi_forms")
        with ExitStack() as stack:
            workers = [stack.enter_context(AsyncWorker(name, ready=False)) for name in names]
            workers.append(stack.enter_context(Worker("asgi_forms:double", "--interface", "asgi", ready=False)))
            for worker in workers:
                worker.negotiate()
                self.assertEqual(worker.values.get("GATECREW_ASYNC"), "1")
                self.assertEqual(worker.get("/").body, b"app", worker.log)
            threads = stack.enter_context(AsyncWorker("asgi_forms:wsgi"))
            self.assertNotIn("GATECREW_ASYNC", threads.values)
            self.assertEqual(threads.get("/").body, b"wsgi")

    def test_errors(self):
        cases = (
            ("asgi_forms:create_app", "asgi", "write create_app()"), ("asgi_forms:create_late", "auto", "make it a plain function"),
            ("asgi_forms:wsgi", "asgi", "as a WSGI application does"), ("asgi_forms:app", "wsgi", "an ASGI application it seems"),
        )
        with ExitStack() as stack:
            for worker, (_, _, said) in [
                (stack.enter_context(Worker(name, "--interface", interface, ready=False)), case)
                for case in cases for name, interface, _ in [case]
            ]:
                self.assertEqual(worker.wait(), 4)
                self.assertIn(said, worker.log)

    def test_loops(self):
        for loop, module in (("asyncio", b"asyncio."), ("uvloop", b"uvloop")):
            if importlib.util.find_spec(loop):
                with AsyncWorker("asgi_forms:which_loop", loop=loop) as worker:
                    self.assertTrue(worker.get("/").body.startswith(module))
        with Worker("asgi_forms:which_loop", "--interface", "asgi", "--loop", "uvloop", ready=False) as worker:  # it sees no packages
            self.assertEqual(worker.wait(), 4)
            self.assertIn("install uvloop for", worker.log)


if __name__ == "__main__":
    unittest.main()
