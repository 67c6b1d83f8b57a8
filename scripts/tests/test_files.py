"""Files that the gateway sends for the worker, and early hints."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from gateway import APPS, Worker  # noqa: E402

sys.path.insert(0, APPS)

from files import CONTENT, SIZE  # noqa: E402


class Files(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.worker = Worker("files:app", threads=2)

    @classmethod
    def tearDownClass(cls):
        cls.worker.__exit__()

    def get(self, query, **more):
        before = self.opened()
        answer = self.worker.get(more.pop("path", "/"), QUERY_STRING=query, **more)
        self.assertEqual(self.worker.descriptors, [])
        if answer.app_status == 0:
            self.assertEqual(self.opened(), before, "descriptors are left")
        return answer

    def opened(self):
        return len(os.listdir("/proc/%d/fd" % self.worker.process.pid))

    def sends(self, query, want, length=None, **more):
        answer = self.get(query, **more)
        self.assertEqual((answer.app_status, answer.errors), (0, ""))
        self.assertEqual(answer.file, want, query)
        self.assertEqual(answer.file_flags & os.O_ACCMODE, os.O_RDONLY)
        self.assertEqual(answer.headers["Content-Length"], str(len(want) if length is None else length))
        return answer

    def reads(self, query, want, **more):
        answer = self.get(query, **more)
        self.assertEqual((answer.app_status, answer.errors), (0, ""))
        self.assertEqual((answer.body, answer.file), (want, None), query)

    def test_files(self):
        self.sends("plain", CONTENT)
        self.sends("raw", CONTENT[8:])
        self.sends("unlinked", CONTENT)
        self.sends("named", CONTENT[10:])
        self.sends("appended", CONTENT[100:] + b"not flushed")

    def test_proxy_is_closed(self):
        self.sends("proxy", CONTENT[16:])
        self.worker.await_log("proxy closed\n")

    def test_everything_else_is_read(self):
        self.reads("behind", b"")
        self.reads("small", b"small")
        self.reads("memory", CONTENT)
        self.reads("pipe", b"from a pipe")
        self.reads("mirrored", CONTENT.replace(b"0", b"o"))
        self.reads("counting", b"COUNTED " * 10000)
        self.reads("shouting", CONTENT.replace(b"0", b"!"))
        self.reads("device", b"")
        self.assertIn(b"VmRSS", self.get("proc").body)

    def test_length(self):
        self.sends("unlinked,200 OK,100000", CONTENT[:100000])
        self.sends("unlinked,200 OK,%d" % SIZE, CONTENT)
        self.sends("unlinked,206 Partial Content,1", CONTENT[:1])
        self.reads("memory,200 OK,0", b"")
        answer = self.get("unlinked,200 OK,0")
        self.assertEqual((answer.body, answer.file), (b"", None))
        answer = self.get("unlinked,200 OK,%d" % (SIZE + 1))
        self.assertEqual((answer.file, answer.app_status), (CONTENT, 1))
        self.assertIn("the answer is incomplete: %d bytes of a Content-Length of %d" % (SIZE, SIZE + 1), answer.errors)

    def test_behind_what_was_written(self):
        answer = self.get("unlinked", path="/behind")
        self.assertEqual((answer.body, answer.file, answer.app_status), (b"before ", CONTENT, 0))
        self.assertNotIn("Content-Length", answer.headers)
        answer = self.get("unlinked,200 OK,10", path="/behind")
        self.assertEqual((answer.body, answer.file, answer.app_status), (b"before ", CONTENT[:3], 0))
        answer = self.get("unlinked,200 OK,7", path="/behind")
        self.assertEqual((answer.body, answer.file), (b"before ", None))

    def test_answers_without_a_body(self):
        for query, method in (("unlinked", "HEAD"), ("memory", "HEAD"), ("unlinked,304 Not Modified", "GET"), ("unlinked,204 No Content", "GET")):
            answer = self.get(query, method=method)
            self.assertEqual((answer.body, answer.file, answer.app_status), (b"", None, 0))

    def test_closed_file(self):
        answer = self.get("closed")
        self.assertEqual(answer.status, "500 Internal Server Error")
        self.assertIn("closed file", answer.errors)

    def test_plain_fastcgi(self):
        with Worker("files:app", window=0) as worker:
            answer = worker.get("/", QUERY_STRING="unlinked")
            self.assertEqual((answer.body, answer.file, answer.app_status), (CONTENT, None, 0))

    def test_aborted(self):
        self.worker.begin(path="/behind", QUERY_STRING="unlinked")
        self.worker.abort()
        self.worker.answer()
        self.sends("unlinked", CONTENT)


class EarlyHints(unittest.TestCase):
    def test_hints(self):
        with Worker("files:hints") as worker:
            answer = worker.get("/")
            first, second, third, head, body = answer.stdout.split(b"\r\n\r\n")
            self.assertEqual(first, b"Status: 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>")
            self.assertEqual(second, b"Status: 103 Early Hints\r\nLink: </c>")
            self.assertEqual(third, b"Status: 103 Early Hints\r\nLink: </d>")
            self.assertEqual(head, b"Status: 200 OK\r\nContent-Type: text/plain")
            self.assertEqual(body, b"body")
            self.assertEqual((answer.app_status, answer.errors), (0, ""))

    def test_bad_hints(self):
        with Worker("files:bad_hints") as worker:
            answer = worker.get("/")
            self.assertEqual(answer.status, "500 Internal Server Error")
            self.assertIn("control character", answer.errors)


if __name__ == "__main__":
    unittest.main()
