"""The bench itself, run as its users run it: one short round of gatecrew's own rows."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import suite

BENCH = suite.HERE / "bench.py"


def bench(*words):
    return subprocess.run([sys.executable, BENCH, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Bench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.path = pathlib.Path(cls.folder.name)
        cls.gatecrew = cls.path / "gatecrew"
        subprocess.run(["go", "build", "-pgo=off", "-o", cls.gatecrew, "./cmd/gatecrew"], cwd=suite.ROOT, check=True)
        # The workers' Python: the tests' own environment, since the peers needn't be here.
        cls.own = ["--ports", 29000, "--gatecrew", cls.gatecrew, "--gatecrew-only", "--venv", suite.ROOT / ".build" / "venv"]
        cls.results = cls.path / "results.json"
        cls.ran = bench("wsgi", "cgi", "static", "uploads", "start", "--rounds", 1, "--seconds", 0.5, *cls.own, "--output", cls.results)

    def rows(self, name):
        return json.loads(self.results.read_text())["suites"][name]["rows"]

    def test_measures_what_answers(self):
        self.assertEqual(self.ran.returncode, 0, self.ran.stderr)
        for name, row, metric in (("wsgi", "gatecrew w2", "rps"), ("cgi", "C: gatecrew", "p99_us"), ("cgi", "git: gatecrew git", "pss_mb"), ("static", "small: gatecrew", "pss_mb"),
                                  ("static", "1 GB: gatecrew", "mbps"), ("uploads", "gatecrew", "mbps"), ("start", "a file: gatecrew", "start_ms"), ("start", "a file: gatecrew", "binary_mb")):
            got = self.rows(name)[row]
            self.assertNotIn("not_started", got, f"{name}: {row}")
            self.assertGreater(got["rounds"][0][metric], 0, f"{name}: {row}: {got}")

    @unittest.skipUnless(os.geteuid() == 0, "the CPU time of a server needs a control group, and that needs root")
    def test_counts_the_cpu_time_of_scripts(self):
        # A Python script takes more than 1 ms to start; a server whose scripts were not counted would show far less.
        self.assertGreater(self.rows("cgi")["Python: gatecrew"]["rounds"][0]["cpu_us"], 1000)

    def test_has_no_rows_of_peers(self):
        for told in json.loads(self.results.read_text())["suites"].values():
            for name in told["rows"]:
                self.assertIn("gatecrew", name)

    def test_writes_tables(self):
        self.assertIn("## WSGI hello world", self.ran.stdout)
        self.assertIn("| gatecrew w2 | ", self.ran.stdout)
        again = bench("--report", self.results)
        self.assertIn("## Goals", again.stdout, again.stderr)

    def test_judges_goals(self):
        judged = bench("--goals", self.results)
        self.assertRegex(judged.stdout, r"(?m)^met .*Program below 40 MB$", judged.stderr)
        self.assertIn("not measured", judged.stdout)

    def test_compares_with_itself_and_with_no_other_machine(self):
        self.assertIn("1.00 ×", bench("--compare", self.results, self.results).stdout)
        other = json.loads(self.results.read_text())
        other["machine"]["kernel"] = "1.0"
        (self.path / "other.json").write_text(json.dumps(other))
        refused = bench("--compare", self.path / "other.json", self.results)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("different machines: kernel: 1.0 and ", refused.stderr)

    def test_a_row_that_does_not_start_says_why(self):
        broken = self.path / "broken"
        broken.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit\necho there is no flag --anything >&2\nexit 1\n")
        broken.chmod(0o755)
        results = self.path / "broken.json"
        ran = bench("static", "--rounds", 2, "--gatecrew", broken, "--gatecrew-only", "--ports", 29000, "--output", results)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("small: gatecrew did not start: `exit status 1: there is no flag --anything`", ran.stdout)

    def test_a_wrong_answer_is_not_measured(self):
        sys.path.insert(0, str(suite.HERE))
        import http.server
        import threading

        import server
        answering = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        answering.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=answering.serve_forever, daemon=True).start()
        self.addCleanup(answering.server_close)
        self.addCleanup(answering.shutdown)
        row = {"port": answering.server_port, "path": "/nothing-here"}
        self.assertIn("status 404 in place of 200", server.wrong(row))
        self.assertIn("in place of 'Hello'", server.wrong({**row, "path": "/", "expect": "Hello"}))
        self.assertIn("in place of 3", server.wrong({**row, "path": "/", "size": 3}))
        self.assertEqual(server.wrong({**row, "path": "/", "expect": "<!DOCTYPE.*"}), "")

    def test_shows_how_to_reproduce_a_row(self):
        shown = bench("--show", "small: gatecrew", "--gatecrew", self.gatecrew)
        self.assertIn("serve -c ", shown.stdout, shown.stderr)
        self.assertIn("wrk -t1 -c64", shown.stdout)
        self.assertIn("bench.py --list", bench("--show", "no such row").stderr)

    def test_mistakes_are_named(self):
        self.assertIn("there is no suite wsgy", bench("wsgy").stderr)
        self.assertIn("run make build", bench("wsgi", "--gatecrew", self.path / "nothing").stderr)
        (self.path / "text").write_text("not json")
        self.assertIn("is no file of results", bench("--goals", self.path / "text").stderr)
