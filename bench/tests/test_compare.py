import copy
import unittest

import compare
import goals
import report

RESULTS = {
    "format": compare.FORMAT, "began": "2026-01-01 00:00 UTC", "revision": "abc", "system": "Debian",
    "machine": {"id": "a", "cpu": "Xeon", "cores": 2, "kernel": "6.1", "memory_mb": 8000},
    "state": {"load_average": 0.1, "busy": 0.01}, "versions": {"nginx": "1.22"}, "settings": {"rounds": 3, "seconds": 2},
    "suites": {"php": {"title": "PHP", "about": "About.", "rounds": 3, "seconds": 2, "took": 60, "metrics": ["rps", "p99_us"], "rows": {
        "gatecrew": {"short": "gatecrew", "cmd": "a", "rounds": [{"rps": 300, "p99_us": 5}, {"rps": 200, "p99_us": 6}, {"rps": 250, "p99_us": 7}]},
        "nginx, kept": {"short": "nginx, kept", "cmd": "b", "rounds": [{"rps": 100, "p99_us": 8}, {"rps": 10000, "void": "2 x read"}]},
        "nginx, not kept": {"short": "nginx, not kept", "cmd": "b", "rounds": [{"rps": 125, "p99_us": 4}]},
        "Caddy": {"short": "Caddy", "cmd": "c", "rounds": [], "not_started": "exit status 1: no | such flag"},
    }}},
}


def changed(**machine):
    results = copy.deepcopy(RESULTS)
    results["machine"].update(machine)
    return results


class Compare(unittest.TestCase):
    def test_divides_the_medians(self):
        new = copy.deepcopy(RESULTS)
        new["suites"]["php"]["rows"]["gatecrew"]["rounds"] = [{"rps": 500}]
        self.assertIn(("php", "gatecrew", "rps", 250, 500, 2), list(compare.rows(RESULTS, new)))

    def test_refuses_another_machine_with_the_reason(self):
        for key, value, said in (("id", "b", "machine id: a and b"), ("cpu", "EPYC", "CPU: Xeon and EPYC"), ("kernel", "6.2", "kernel: 6.1 and 6.2"), ("cores", 4, "number of cores: 2 and 4")):
            with self.assertRaises(compare.Incomparable) as refused:
                list(compare.rows(RESULTS, changed(**{key: value})))
            self.assertIn(said, str(refused.exception))

    def test_refuses_another_format(self):
        with self.assertRaises(compare.Incomparable):
            list(compare.rows({**RESULTS, "format": 0}, RESULTS))

    def test_notes_what_else_differs(self):
        new = copy.deepcopy(RESULTS)
        new["versions"] = {"nginx": "1.24", "caddy": "2"}
        new["settings"]["seconds"] = 4
        new["state"]["busy"] = 0.5
        notes = "\n".join(compare.notes(RESULTS, new))
        for said in ("nginx: 1.22 → 1.24", "caddy: not there → 2", "seconds: 2 → 4", "busy at the newer run: 50%"):
            self.assertIn(said, notes)


class Goals(unittest.TestCase):
    def judge(self, **goal):
        return goals.judge(RESULTS, {"name": "a goal", "suite": "php", "row": "gatecrew", **goal})

    def test_is_held_against_the_best(self):
        judged = self.judge(metric="rps", than=["nginx, kept", "nginx, not kept"], at_least=2)
        self.assertEqual((judged["met"], judged["figure"]), (True, "2.00 ×"))
        self.assertFalse(self.judge(metric="rps", than=["nginx, kept", "nginx, not kept"], at_least=2.1)["met"])

    def test_the_best_of_latencies_is_the_least(self):
        self.assertEqual(self.judge(metric="p99_us", than=["nginx, kept", "nginx, not kept"], at_most=1)["figure"], "1.50 ×")

    def test_can_be_absolute(self):
        self.assertTrue(self.judge(metric="p99_us", at_most=6)["met"])
        self.assertFalse(self.judge(metric="p99_us", at_most=5.9)["met"])

    def test_is_not_judged_without_all_its_rows(self):
        judged = self.judge(metric="rps", than=["nginx, kept", "Caddy"], at_least=1)
        self.assertIsNone(judged["met"])
        self.assertIn("Caddy did not start: exit status 1", judged["why"])
        self.assertIn("Apache was not run", self.judge(metric="rps", than=["Apache"], at_least=1)["why"])

    def test_name_rows_that_there_are(self):
        import pathlib

        import suite
        places = suite.places("gatecrew", "venv", pathlib.Path("/run"))
        rows = {(name, row["name"]) for name in suite.names() for row in suite.rows(name, places)}
        for goal in goals.goals():
            for row in [goal["row"], *goal.get("than", [])]:
                self.assertIn((goal["suite"], row), rows, goal["name"])


class Report(unittest.TestCase):
    def test_tells_medians_ratios_and_what_failed(self):
        text = report.whole(RESULTS)
        self.assertIn("| gatecrew | 250 | 6 µs | 1.00 × | ±20% |", text)
        self.assertIn("| nginx, kept | 100 | 8 µs | 0.40 × | – |", text)
        self.assertIn("- Caddy did not start: `exit status 1: no \\| such flag`", text)
        self.assertIn("- nginx, kept: 1 of 2 rounds don't count: 2 x read", text)
        self.assertNotIn("busy with other work", text)

    def test_says_when_the_machine_was_busy(self):
        self.assertIn("busy with other work", report.whole({**RESULTS, "state": {"load_average": 4, "busy": 0.5}}))
