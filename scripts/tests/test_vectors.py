"""The codec against the byte vectors that the gateway's codec is held to."""

import os
import random
import re
import unittest

import gateway
from gatecrew_worker import _records as rec
from gatecrew_worker._connection import Connection

decode_pairs = (gateway.SPEED or rec).decode_pairs

VECTORS = os.path.join(os.path.dirname(gateway.SCRIPTS), "protocol", "fcgi", "testdata")


def text_bytes(text):
    out = b""
    for word in re.split(r"[\s+]+", text.strip()):
        if word and word != "-":
            digits, _, count = word.partition("*")
            out += bytes.fromhex(digits) * int(count or 1)
    return out


def vectors(name):
    with open(os.path.join(VECTORS, name), encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                title, encoded, meaning = line.rstrip("\n").split("|")
                yield title.strip(), text_bytes(encoded), meaning.strip()


def receive(data, step):
    """The requests that a connection makes of data given step bytes at a time."""
    connection = Connection(65535)
    requests, gone = [], {}
    for i in range(0, len(data), step):
        begun, _ = connection.receive(data[i:i + step])
        requests += begun
        for request in begun:  # the id may come again, as after an END_REQUEST
            gone[request.id] = request
        for request in requests:
            if request.input_ended and connection.requests.get(request.id) is request:
                del connection.requests[request.id]
    return requests


class Vectors(unittest.TestCase):
    def test_pairs(self):
        count = 0
        for name, encoded, meaning in vectors("pairs.hex"):
            count += 1
            with self.subTest(name):
                if meaning == "truncated":
                    with self.assertRaises(rec.ProtocolError):
                        decode_pairs(encoded, {})
                    continue
                want = [tuple(map(text_bytes, word.split("="))) for word in meaning.split()]
                got = decode_pairs(encoded, {})
                got = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in got.items()]
                self.assertEqual(got, list(dict(want).items()))
                if not name.startswith("long-form"):
                    self.assertEqual(rec.encode_pairs(want), encoded)
        self.assertGreater(count, 20)

    def test_records(self):
        for name, encoded, meaning in vectors("records.hex"):
            with self.subTest(name):
                connection = Connection(1)
                if meaning == "version":
                    with self.assertRaises(rec.ProtocolError):
                        connection.receive(encoded)
                elif meaning == "incomplete":
                    self.assertEqual(connection.receive(encoded), ([], []))
                    self.assertEqual(connection._rest, encoded)
                else:
                    kind, request_id, padding, content = (meaning.split() + ["-"])[:4]
                    content = text_bytes(content)
                    version, *header = rec.HEADER.unpack_from(encoded)
                    self.assertEqual(header, [int(kind), int(request_id), len(content), int(padding)])
                    self.assertEqual(encoded[8:8 + len(content)], content)
                    if padding == "0" and encoded[7] == 0:
                        self.assertEqual(rec.record(int(kind), int(request_id), content), encoded)
                    kind, *numbers = name.split("-")
                    if kind == "begun":
                        self.assertEqual(rec.begun(*map(int, numbers)), encoded)
                    elif kind == "file":
                        self.assertEqual(rec.file(int(request_id), *map(int, numbers)), encoded)

    def test_requests(self):
        for name, encoded, meaning in vectors("requests.hex"):
            wants = []
            for group in meaning.split(";"):
                words = re.fullmatch(r"\s*id=(\d+) role=(\d+) flags=(\d+) params (.*?)stdin (\S+)( abort)?\s*", group)
                pairs = [tuple(map(text_bytes, w.split("="))) for w in words.group(4).split()]
                wants.append((int(words.group(1)), int(words.group(2)), pairs, text_bytes(words.group(5)), bool(words.group(6))))
            once = len({want[0] for want in wants}) == len(wants)
            for step in (1, 7, 1 << 20):
                if (step == 1 and len(encoded) > 10000) or (step > 7 and not once):
                    continue  # slow; an id that is used again before anybody answered
                with self.subTest(name, step=step):
                    got = [
                        (r.id, 1, [(n.encode("latin-1"), v.encode("latin-1"))
                                   for n, v in decode_pairs(r.params, {}).items()], b"".join(r.input), r.aborted)
                        for r in receive(encoded, step)
                    ]
                    self.assertEqual(sorted(got), sorted(w for w in wants if w[1] == 1))

    def test_answers(self):
        for name, encoded, meaning in vectors("answers.hex"):
            if not name.startswith("exact-"):
                continue
            with self.subTest(name):
                out = b""
                for group in meaning.split(";"):
                    words = re.fullmatch(r"\s*id=(\d+) stdout (\S+) stderr (\S+) app=(\d+) protocol=(\d+)\s*", group)
                    request_id = int(words.group(1))
                    for kind, text in ((rec.STDOUT, words.group(2)), (rec.STDERR, words.group(3))):
                        content = text_bytes(text)
                        for i in range(0, len(content), 65535):
                            out += rec.record(kind, request_id, content[i:i + 65535])
                    out += rec.end_request(request_id, int(words.group(4)), int(words.group(5)))
                self.assertEqual(out, encoded)


class Random(unittest.TestCase):
    """Whatever arrives is either understood or a ProtocolError."""

    def test_noise(self):
        for seed in range(300):
            random_ = random.Random(seed)
            with self.subTest(seed=seed):
                data = bytes(random_.choices(range(256), k=random_.randrange(400)))
                self.feed(data, random_)
                self.feed(b"\1" + data[1:], random_)

    def test_mutated_requests(self):
        whole = b"".join(encoded for _, encoded, _ in vectors("requests.hex") if len(encoded) < 2000)
        for seed in range(500):
            random_ = random.Random(seed)
            with self.subTest(seed=seed):
                data = bytearray(whole)
                for _ in range(random_.randrange(1, 8)):
                    data[random_.randrange(len(data))] = random_.randrange(256)
                self.feed(bytes(data), random_)

    def feed(self, data, random_):
        connection = Connection(4)
        try:
            while data:
                n = random_.randrange(1, 100)
                for request in connection.receive(data[:n])[0]:
                    decode_pairs(request.params, {})
                data = data[n:]
        except rec.ProtocolError:
            pass


if __name__ == "__main__":
    unittest.main()
