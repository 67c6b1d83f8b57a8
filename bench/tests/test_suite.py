import json
import pathlib
import re
import unittest

import suite

PLACES = suite.places("gatecrew", "venv", pathlib.Path("/run"))


class Suites(unittest.TestCase):
    def test_are_complete(self):
        for name in suite.names():
            told, rows = suite.suite(name), suite.rows(name, PLACES)
            self.assertTrue(rows and told["title"] and told["about"] and told["metrics"], name)
            self.assertEqual(len({row["name"] for row in rows}), len(rows), f"{name}: two rows have one name")
            for row in rows:
                where = f"{name}: {row['name']}"
                self.assertIn(row["load"], ("wrk", "transfer", "sockets", "none"), where)
                self.assertTrue("expect" in row or "size" in row, f"{where}: nothing checks its answer")
                re.compile(str(row.get("expect", "")))
                if row["load"] != "none":
                    self.assertIsInstance(row["conns"], int, where)

    def test_every_server_has_a_row(self):
        text = "".join(path.read_text() for path in (suite.HERE / "suites").glob("*.json"))
        for server in json.loads((suite.HERE / "servers.json").read_text()):
            self.assertIn(f'"server": "{server}"', text)

    def test_cases_and_series_multiply(self):
        names = [row["name"] for row in suite.rows("scaling", PLACES)]
        self.assertIn("connections: gatecrew, 1,024 connections", names)
        row = next(row for row in suite.rows("scaling", PLACES) if row["name"] == "workers: gatecrew, 8 workers")
        self.assertIn("--workers 8 ", row["cmd"])
        self.assertEqual((row["x"], row["growth"], row["conns"]), (8, "flat", 64))

    def test_an_unknown_suite_is_named(self):
        with self.assertRaisesRegex(ValueError, "there is no suite wsgy; there are wsgi, "):
            suite.rows("wsgy", PLACES)

    def test_fill_leaves_what_it_does_not_know(self):
        self.assertEqual(suite.fill({"a": ["@X@", "@Y@ @Z@"]}, {"X": 3, "Y": 4}), {"a": [3, "4 @Z@"]})
