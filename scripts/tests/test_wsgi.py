"""PEP 3333, rule by rule, on a real worker process. Applications that keep the
rules run under wsgiref.validate; the ones that break them can't."""

import json
import sys
import unittest

from gateway import Worker


workers = {}  # by application and number of threads; starting one is what takes time


def shared(app, threads):
    if (app, threads) not in workers:
        workers[app, threads] = Worker("applications:" + app, threads=threads)
    return workers[app, threads]


def tearDownModule():
    while workers:
        workers.popitem()[1].__exit__()


class Case(unittest.TestCase):
    """Two workers: `checked` is validated, `raw` is not."""

    threads = 1

    def setUp(self):
        self.checked = shared("checked", self.threads)
        self.raw = shared("raw", self.threads)

    def get(self, path, worker=None, **more):
        worker = worker or self.checked
        answer = worker.get(path, **more)
        self.assertEqual(answer.protocol_status, 0)
        return answer

    def fails(self, path, said, worker=None, **more):
        """Before the head: a 500 that tells the client nothing."""
        answer = self.get(path, worker, **more)
        self.assertEqual((answer.status, answer.app_status), ("500 Internal Server Error", 0))
        self.assertEqual(answer.body, b"Internal Server Error\n")
        self.assertIn(said, answer.errors)
        self.assertEqual(self.get("/hello", worker).body, b"hello")
        return answer

    def breaks(self, path, sent, said, worker=None, **more):
        """After the head: an answer that is known to be incomplete."""
        answer = self.get(path, worker, **more)
        self.assertEqual((answer.status, answer.app_status), ("200 OK", 1))
        self.assertEqual(answer.body, sent)
        self.assertIn(said, answer.errors)
        self.assertEqual(self.get("/hello", worker).body, b"hello")
        return answer


class Environ(Case):
    def test_variables(self):
        environ = json.loads(self.get("/environ", HTTP_X_LATIN="\xe9", PATH_INFO="/environ").body)
        for name, value in {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/environ", "QUERY_STRING": "",
            "HTTP_X_LATIN": "\xe9", "wsgi.version": [1, 0], "wsgi.url_scheme": "http", "wsgi.multithread": False,
            "wsgi.multiprocess": True, "wsgi.run_once": False, "wsgi.input_terminated": True,
        }.items():
            self.assertEqual(environ[name], value, name)

    def test_https(self):
        for more in ({"REQUEST_SCHEME": "https"}, {"HTTPS": "on"}, {"HTTPS": "1"}):
            self.assertEqual(json.loads(self.get("/environ", **more).body)["wsgi.url_scheme"], "https")
        self.assertEqual(json.loads(self.get("/environ", HTTPS="off").body)["wsgi.url_scheme"], "http")

    def test_one_request_leaves_nothing_to_the_next(self):
        self.get("/environ", HTTP_X_ONCE="1")
        self.assertNotIn("HTTP_X_ONCE", json.loads(self.get("/environ").body))

    def test_big_parameters(self):
        environ = json.loads(self.get("/environ", HTTP_COOKIE="c" * 200000).body)
        self.assertEqual(environ["HTTP_COOKIE"], "c" * 200000)


class Body(Case):
    def test_one_element_is_one_record(self):
        """Head, body and end arrive together, with the length known."""
        for worker in (self.raw,):
            worker.begin(path="/hello")
            kind, _, content = worker.take()
            self.assertEqual((kind, content), (
                6, b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"))
            self.assertGreaterEqual(len(worker._unread), 16)
            worker.answer()

    def test_bodies(self):
        for path, body in (
            ("/parts", b"one two three"), ("/empty", b""), ("/lazy", b"ab"), ("/late_start", b"late"), ("/closing", b"xy"),
        ):
            for worker in (self.checked, self.raw):
                if path == "/late_start" and worker is self.checked:
                    continue  # wsgiref.validate forbids what PEP 3333 allows
                with self.subTest(path, worker="checked" if worker is self.checked else "raw"):
                    answer = self.get(path, worker)
                    self.assertEqual((answer.status, answer.app_status), ("200 OK", 0))
                    self.assertEqual(answer.body, body)
                    self.assertEqual(answer.errors, "")
                    self.assertNotIn("Content-Length", answer.headers)

    def test_each_chunk_is_sent_before_the_next_is_asked_for(self):
        for worker in (self.checked, self.raw):
            worker.begin(path="/steps", more=True)
            want = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nready\n"
            for line in (b"one\n", b"two\n"):
                self.assertEqual(worker.until(len(want)).stdout, want)
                worker.stdin(line)
                want += b"got " + line
            worker.stdin(b"")
            self.assertEqual(worker.answer().stdout, want)

    def test_write_is_sent_before_it_returns(self):
        for worker in (self.checked, self.raw):
            worker.begin(path="/write", more=True)
            worker.until(len(b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nwritten "))
            worker.stdin(b"\n")
            worker.stdin(b"")
            answer = worker.answer()
            self.assertEqual((answer.body, answer.app_status), (b"written twice returned", 0))

    def test_close(self):
        with Worker("applications:raw") as worker:
            closed = 0
            for path in ("/closing", "/closing_fails", "/stream_fails", "/length"):
                self.get(path, worker, QUERY_STRING="3,200 OK,1,1")
                closed += 1
                worker.await_log("closed\n" * closed)
            self.assertEqual(worker.log.count("closed"), closed)

    def test_close_that_fails_leaves_the_answer_whole(self):
        answer = self.get("/closing_fails", self.raw)
        self.assertEqual((answer.body, answer.app_status), (b"xy", 0))
        self.assertIn("RuntimeError: close failed", answer.errors)

    def test_head(self):
        for path, length in (("/hello", "5"), ("/empty", None), ("/closing", None), ("/file", None)):
            answer = self.get(path, self.raw, method="HEAD")
            self.assertEqual((answer.status, answer.body, answer.app_status), ("200 OK", b"", 0))
            self.assertEqual(answer.headers.get("Content-Length"), length, path)
        answer = self.get("/length", self.raw, method="HEAD", QUERY_STRING="1000,200 OK,0")
        self.assertEqual((answer.headers["Content-Length"], answer.app_status, answer.errors), ("1000", 0, ""))
        self.assertEqual(self.get("/one", self.raw, method="HEAD", QUERY_STRING="0").headers.get("Content-Length"), None)
        answer = self.get("/fails", self.raw, method="HEAD")
        self.assertEqual((answer.status, answer.body), ("500 Internal Server Error", b""))

    def test_statuses_without_a_body(self):
        for status in ("204 No Content", "304 Not Modified"):
            for declared in ("", "10"):
                answer = self.get("/length", self.raw, QUERY_STRING="%s,%s,3" % (declared, status))
                self.assertEqual((answer.status, answer.body, answer.app_status, answer.errors), (status, b"", 0, ""))
                self.assertEqual(answer.headers.get("Content-Length", ""), declared)

    def test_content_length_kept(self):
        for sizes, sent in (("10", 10), ("4,6", 10), ("0,10", 10)):
            answer = self.get("/length", QUERY_STRING="10,200 OK," + sizes)
            self.assertEqual((len(answer.body), answer.app_status, answer.errors), (sent, 0, ""))

    def test_body_longer_than_its_length(self):
        for sizes in ("11", "4,7", "10,1,1,1", "4,7,5"):
            answer = self.get("/length", QUERY_STRING="10,200 OK," + sizes)
            self.assertEqual((answer.body, answer.app_status), (b"b" * 10, 0))
            self.assertEqual(answer.errors.count("longer than its Content-Length of 10"), 1)

    def test_body_shorter_than_its_length(self):
        for sizes, sent in (("9", 9), ("4,5", 9), ("0", 0)):
            self.breaks("/length", b"b" * sent, "%d bytes of a Content-Length of 10" % sent, QUERY_STRING="10,200 OK," + sizes)

    def test_big_element(self):
        for size in (32768 - 70, 32768, 131072, 1000003):
            answer = self.get("/one", QUERY_STRING=str(size))
            self.assertEqual((answer.body, answer.app_status), (b"m" * size, 0))

    def test_file_wrapper(self):
        with Worker("applications:raw") as worker:
            answer = self.get("/file", worker)
            self.assertEqual((answer.body, answer.app_status), (b"f" * 150000, 0))
            worker.await_log("file closed\n")
            self.assertEqual(worker.log.splitlines(), ["read 65536"] * 4 + ["file closed"])


class StartResponse(Case):
    def test_exc_info_replaces_what_was_not_sent(self):
        answer = self.get("/replaced")
        self.assertEqual((answer.status, answer.body), ("503 Service Unavailable", b"replaced"))
        self.assertNotIn("X-Old", answer.headers)

    def test_exc_info_is_raised_after_the_head(self):
        answer = self.breaks("/reraised", b"sent", "ValueError: too late")
        self.assertIn('raise ValueError("too late")', answer.errors)
        self.assertNotIn("start_response returned", answer.errors)

    def test_second_call(self):
        self.fails("/twice", "a second time without exc_info", self.raw)

    def test_never_called(self):
        self.fails("/no_start", "without having called start_response", self.raw)

    def test_body_that_is_not_bytes(self):
        self.fails("/text_body", "the body must be bytes, not str", self.raw)
        self.breaks("/text_later", b"bytes", "the body must be bytes, not str", self.raw)

    def test_accepted(self):
        for status, headers in (
            ("200 OK", []), ("204 ", []), ("599 Odd \xe9", [("X-A", "tab\there"), ("x-a", "\xe9\xad"), ("X!#$%&'*+.^_`|~", "")]),
            ("302 Found", [("Location", "/x")]), ("200 OK", [("Content-Length", "8")]),
        ):
            answer = self.get("/head_from_query", self.raw, QUERY_STRING=repr((status, headers)))
            lines = answer.head.split("\r\n")
            self.assertEqual(lines[0], "Status: " + status)
            self.assertEqual(lines[1:1 + len(headers)], ["%s: %s" % h for h in headers])
            self.assertIn(answer.body, (b"accepted", b""))

    def test_refused(self):
        for status, headers, said in (
            ("200", [], "ValueError: the status '200' is not of the form '200 OK'"),
            ("20 OK", [], "ValueError: the status"),
            ("abc OK", [], "ValueError: the status"),
            ("100 Continue", [], "ValueError: the status"),
            ("200 OK\r\nX-Evil: 1", [], "ValueError: the status"),
            ("200 OK\n", [], "ValueError: the status"),
            ("\u0662\u0660\u0660 OK", [], "ValueError: the status"),
            (b"200 OK", [], "TypeError: the status must be a str, not bytes"),
            (200, [], "TypeError: the status must be a str, not int"),
            ("200 \u20ac", [], "ValueError: the status '200 \u20ac' is not"),
            ("200 OK", (("A", "b"),), "TypeError: the headers must be a list, not tuple"),
            ("200 OK", {"A": "b"}, "TypeError: the headers must be a list, not dict"),
            ("200 OK", [["A", "b"]], "TypeError: a header must be a tuple"),
            ("200 OK", [("A", "b", "c")], "TypeError: a header must be a tuple"),
            ("200 OK", ["Ab"], "TypeError: a header must be a tuple"),
            ("200 OK", [("A", 5)], "TypeError: names and values of headers must be str: ('A', 5)"),
            ("200 OK", [("A", b"b")], "TypeError: names and values of headers must be str"),
            ("200 OK", [(b"A", "b")], "TypeError: names and values of headers must be str"),
            ("200 OK", [("A", "b\r\nEvil: 1")], "ValueError: the value of the header A has a control character"),
            ("200 OK", [("A", "b\n")], "ValueError: the value of the header A has a control character"),
            ("200 OK", [("A", "b\0")], "ValueError: the value of the header A has a control character"),
            ("200 OK", [("A\r\nB", "b")], "ValueError: 'A\\r\\nB' is not a header name"),
            ("200 OK", [("A:", "b")], "ValueError: 'A:' is not a header name"),
            ("200 OK", [("", "b")], "ValueError: '' is not a header name"),
            ("200 OK", [("A", "\u20ac")], "ValueError: a header has characters outside latin-1"),
            ("200 OK", [("Content-Length", "-1")], "ValueError: Content-Length is '-1', not a number"),
            ("200 OK", [("Content-Length", "\xb2")], "ValueError: Content-Length"),
            ("200 OK", [("Content-Length", "1"), ("content-length", "2")], "ValueError: Content-Length is both 1 and 2"),
            ("200 OK", [("Status", "404 Not Found")], "ValueError: the header 'Status' is the gateway's"),
        ) + tuple(
            ("200 OK", [(name, "x")], "belongs to the connection")
            for name in ("Connection", "keep-alive", "Transfer-Encoding", "Upgrade", "TE", "Trailers", "Proxy-Authenticate")
        ):
            with self.subTest(status=status, headers=headers):
                answer = self.get("/head_from_query", self.raw, QUERY_STRING=ascii((status, headers)))
                self.assertEqual(answer.status, "200 OK")
                self.assertIn(said, answer.body.decode("utf-8"))


class Exceptions(Case):
    def test_before_the_head(self):
        answer = self.fails("/fails", "RuntimeError: at once \xe9", self.raw)
        self.assertIn("applications.py", answer.errors)
        self.assertNotIn("_wsgi.py", answer.errors)
        self.fails("/fails", "RuntimeError")
        self.fails("/fails_started", "RuntimeError: after start_response", self.raw)

    def test_after_the_head(self):
        self.breaks("/stream_fails", b"begun", "RuntimeError: in the middle")
        self.breaks("/write_fails", b"written", "RuntimeError: after write")

    def test_exits_end_the_request_only(self):
        self.fails("/exits", "SystemExit: leaving")
        self.fails("/interrupts", "KeyboardInterrupt")


class Errors(Case):
    def test_text(self):
        self.assertEqual(self.get("/errors", self.raw).errors, "line \u20ac \\ud800\nab\nprinted\nflushed no end of line")

    def test_flood(self):
        with Worker("floods:app") as worker:
            answer = worker.get("/")
            self.assertEqual((len(answer.stderr), answer.body), (5000000, b"after the flood"))

    def test_after_the_end(self):
        """Not on the wire, where the id may be another request's by then."""
        with Worker("applications:raw") as worker:
            self.assertEqual(worker.get("/stale_errors").errors, "")
            worker.await_log("from the past")
            self.assertEqual(worker.get("/hello").errors, "")


class Input(Case):
    def test_methods(self):
        body = b"abcdef\nsecond\nthird\n\nfifth\nsixth\nlast"
        want = ["abc", "", "de", "f\n", "second\n", ["third\n"], "\n", ["fifth\n", "sixth\n", "last"], "", "", []]
        self.assertEqual(json.loads(self.get("/reads", self.raw, stdin=body).body), want)

    def test_methods_byte_by_byte(self):
        body = b"abcdef\nsecond\nthird\n\nfifth\nsixth\nlast"
        self.raw.begin(path="/reads", more=True)
        for i in range(len(body)):
            self.raw.stdin(body[i:i + 1])
        self.raw.stdin(b"")
        want = ["abc", "", "de", "f\n", "second\n", ["third\n"], "\n", ["fifth\n", "sixth\n", "last"], "", "", []]
        self.assertEqual(json.loads(self.raw.answer().body), want)

    def test_empty(self):
        self.assertEqual(self.get("/swallow", method="POST").body, b"0")

    def test_unread(self):
        """The answer doesn't wait for a body that nobody reads."""
        for worker in (self.checked, self.raw):
            worker.begin(path="/hello", stdin=b"x" * 100000, more=True)
            answer = worker.answer()
            self.assertEqual((answer.body, answer.app_status), (b"hello", 0))
            worker.stdin(b"x" * 1000)
            worker.stdin(b"")
            self.assertEqual(self.get("/swallow", worker, stdin=b"123").body, b"3")


class ThreadedEnviron(Environ):
    threads = 4

    def test_variables(self):
        self.assertIs(json.loads(self.get("/environ").body)["wsgi.multithread"], True)


class ThreadedBody(Body):
    threads = 4


class ThreadedExceptions(Exceptions):
    threads = 4


class ThreadedInput(Input):
    threads = 4


if __name__ == "__main__":
    sys.exit(unittest.main())
