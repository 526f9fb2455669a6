#!/usr/bin/env python3
"""Whether bench/regression/check notices what it is for: it is run on a program that works more for each record,
and with baselines that differ from what is measured."""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parent / "check"
PROGRAM = None


class CheckTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ringtail-check-test-")
        cls.baseline = pathlib.Path(cls.folder.name) / "baseline.json"
        made = cls.check("--update")
        assert made.returncode == 0, made.stderr
        cls.measured = json.loads(cls.baseline.read_text())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def check(cls, *more):
        return subprocess.run([CHECK, "--program", PROGRAM, "--baseline", cls.baseline, *more],
                              capture_output=True, text=True)

    def write_baseline(self, change=lambda name, count: count, **fields):
        counts = {name: change(name, count) for name, count in self.measured["instructions"].items()}
        self.baseline.write_text(json.dumps({**self.measured, "instructions": counts, **fields}))

    def test_measures_the_same_again(self):
        self.write_baseline()
        done = self.check("--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        for row in json.loads(done.stdout)["operations"]:
            self.assertLess(abs(row["change"]), 0.01, row)

    def test_fails_where_each_record_takes_more(self):
        self.write_baseline()
        done = self.check("--slow-down")
        self.assertEqual(done.returncode, 1, done.stderr)
        for name in self.measured["instructions"]:
            self.assertIn(f"check: {name} grew by ", done.stderr)

    def test_tells_growth_from_what_shrank(self):
        factors = {"append": 0.94, "poll": 0.96, "commit": 1.06}
        self.write_baseline(lambda name, count: count * factors.get(name, 1))
        done = self.check()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("check: append grew by 6", done.stderr)
        self.assertIn("check: commit shrank by 5.", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 2, done.stderr)

    def test_what_shrank_is_no_failure(self):
        self.write_baseline(lambda name, count: count * 1.07)
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("check: append shrank by 6.", done.stderr)

    def test_another_compiler_is_not_compared(self):
        self.write_baseline(compiler="gcc 4.2.1")
        done = self.check("--slow-down")
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn("not comparable: compiler", done.stderr)

    def test_an_operation_that_is_measured_no_more_fails(self):
        self.write_baseline()
        self.measured_more = {**self.measured["instructions"], "gone": 10.0}
        self.baseline.write_text(json.dumps({**self.measured, "instructions": self.measured_more}))
        done = self.check()
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("check: gone is not measured", done.stderr)


if __name__ == "__main__":
    if shutil.which("valgrind") is None:
        sys.exit(77)
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    options, rest = parser.parse_known_args()
    PROGRAM = options.program
    unittest.main(argv=[sys.argv[0], *rest])
