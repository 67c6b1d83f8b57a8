"""Scopes: what the beginning of the parameters says is not decoded twice."""

import random
import unittest

from gatecrew_worker import _records as rec
from gatecrew_worker._async import AsyncRequest
from gatecrew_worker._scope import Scopes

PARAMS = [  # in the gateway's order
    ("GATEWAY_INTERFACE", "CGI/1.1"), ("SERVER_SOFTWARE", "gatecrew"), ("SERVER_PROTOCOL", "HTTP/1.1"), ("REDIRECT_STATUS", "200"),
    ("SERVER_ADDR", "127.0.0.1"), ("SERVER_NAME", "example.org"), ("SERVER_PORT", "8000"), ("REQUEST_SCHEME", "http"),
    ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a?b"), ("QUERY_STRING", "b"), ("SCRIPT_NAME", ""), ("PATH_INFO", "/a"),
    ("DOCUMENT_URI", "/a"), ("REMOTE_ADDR", "127.0.0.2"), ("REMOTE_HOST", "127.0.0.2"), ("REMOTE_PORT", "50000"),
    ("HTTP_HOST", "example.org:8000"), ("HTTP_ACCEPT", "*/*"), ("HTTP_COOKIE", "c" * 200), ("UNIQUE_ID", "1"),
]


def scope(scopes, params):
    request = AsyncRequest(1, 1)
    request.params = rec.encode_pairs((n.encode(), v.encode()) for n, v in params)
    got = scopes.make(request)
    got["headers"].sort()  # which come in any order
    return got


def changed(**values):
    return [(n, values.pop(n, v)) for n, v in PARAMS] + list(values.items())


class BeginningsTest(unittest.TestCase):
    def test_order_makes_no_difference(self):
        scopes = Scopes()
        first = scope(scopes, PARAMS)
        shuffled = PARAMS[:]
        rng = random.Random(1)
        for _ in range(200):
            rng.shuffle(shuffled)
            self.assertEqual(scope(scopes, shuffled), first)

    def test_neighbours(self):
        scopes = Scopes()
        for _ in range(2):
            self.assertEqual(scope(scopes, PARAMS)["server"], ("127.0.0.1", 8000))
            for port in range(8000, 8020):  # more than are remembered
                got = scope(scopes, changed(SERVER_PORT=str(port)))
                self.assertEqual(got["server"], ("127.0.0.1", port))
            self.assertEqual(scope(scopes, changed(SERVER_PROTOCOL="HTTP/2.0"))["http_version"], "2")
            self.assertEqual(scope(scopes, changed(SERVER_PROTOCOL="HTTP/1.1"))["http_version"], "1.1")
            self.assertEqual(scope(scopes, changed(REQUEST_SCHEME="https"))["scheme"], "https")
            self.assertEqual(scope(scopes, changed(HTTPS="on"))["scheme"], "https")  # at the end
            self.assertEqual(scope(scopes, changed(HTTPS="on", SERVER_ADDR="::1"))["server"], ("::1", 8000))
            self.assertEqual(scope(scopes, PARAMS)["scheme"], "http")

    def test_nothing_is_shared(self):
        scopes = Scopes(state={"a": 1})
        one = scope(scopes, PARAMS)
        one["headers"].clear()
        one["extensions"].clear()
        one["state"].clear()
        two = scope(scopes, PARAMS)
        self.assertEqual(len(two["headers"]), 3)
        self.assertIn("http.response.pathsend", two["extensions"])
        self.assertEqual(two["state"], {"a": 1})

    def test_cut(self):
        block = rec.encode_pairs((n.encode(), v.encode()) for n, v in PARAMS)
        beginning = len(rec.encode_pairs((n.encode(), v.encode()) for n, v in PARAMS[:8]))
        for known in (False, True):
            for cut in (1, beginning + 1, len(block) - 1):
                scopes = Scopes()
                if known:
                    scope(scopes, PARAMS)
                request = AsyncRequest(1, 1)
                request.params = block[:cut]
                with self.assertRaises(rec.ProtocolError):
                    scopes.make(request)


if __name__ == "__main__":
    unittest.main()
