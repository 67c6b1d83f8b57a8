import contextlib
import socket
import threading
import time
import unittest

import load


def serving(answer):
    """The port of a server that reads each request up to its empty line and answers with these bytes, then closes; None answers nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(1)  # so that its thread ends with the test

    def serve():
        held = contextlib.ExitStack()
        with held:
            while True:
                try:
                    connection = listener.accept()[0]
                except socket.timeout:
                    continue
                except OSError:  # it was closed
                    return
                if answer is None:
                    held.enter_context(connection)
                    continue
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listener


class Transfer(unittest.TestCase):
    def outcome(self, answer):
        with serving(answer) as listener:
            row = {"load": "transfer", "port": listener.getsockname()[1], "path": "/", "conns": 1}
            return load.http(row, 0.05)

    def test_counts_whole_bodies(self):
        got = self.outcome(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        self.assertEqual(got["errors"], "")
        self.assertGreater(got["requests"], 0)
        self.assertEqual(got["bytes"], 5 * got["requests"])

    def test_a_body_that_ends_early_is_an_error(self):
        got = self.outcome(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello")
        self.assertIn("x read", got["errors"])
        self.assertEqual(got["bytes"], 0)

    def test_so_are_a_status_and_an_answer_that_is_none(self):
        self.assertIn("x status 400 and above", self.outcome(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")["errors"])
        self.assertIn("x read", self.outcome(b"hello")["errors"])


class PassersBy(unittest.TestCase):
    def test_see_connections_that_starve(self):
        with serving(None) as listener:
            passers = load.PassersBy({"port": listener.getsockname()[1], "path": "/", "passers": 2})
            time.sleep(0.5)
            self.assertTrue(passers.starve())

    def test_and_those_that_do_not(self):
        with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") as listener:
            passers = load.PassersBy({"port": listener.getsockname()[1], "path": "/", "passers": 2})
            end = time.monotonic() + 10
            while passers.starve() and time.monotonic() < end:
                time.sleep(0.01)
            self.assertFalse(passers.starve())

    def test_are_none_unless_asked_for(self):
        self.assertFalse(load.PassersBy({"port": 1, "path": "/"}).starve())


class Wrk(unittest.TestCase):
    def test_is_cut_off_where_seconds_are_not_whole(self):
        with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello") as listener:
            began = time.monotonic()
            got = load.named(load.Generator(load.wrk(f"http://127.0.0.1:{listener.getsockname()[1]}/", 1, 20.5)).outcome(0.4))
            self.assertLess(time.monotonic() - began, 15)  # far from the 21 seconds that it was started for
            self.assertGreater(got["requests"], 0)
