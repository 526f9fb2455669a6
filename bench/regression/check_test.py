#!/usr/bin/env python3
"""Whether bench/regression/check notices what it is for: it is run on a program that works more for
each record, and with baselines that differ from what was measured."""

import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).resolve().parent / "check"
PROGRAM = None


def load_check():
    """The script as a module, to be called with what was measured before."""
    loader = importlib.machinery.SourceFileLoader("check", str(CHECK))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check", loader))
    loader.exec_module(module)
    return module


class CheckTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="ringtail-check-test-")
        cls.baseline = pathlib.Path(cls.folder.name) / "baseline.json"
        made = cls.run_check("--update")
        assert made.returncode == 0, made.stderr
        cls.measured = json.loads(cls.baseline.read_text())

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def run_check(cls, *more):
        return subprocess.run([CHECK, "--program", PROGRAM, "--baseline", cls.baseline, *more],
                              capture_output=True, text=True)

    def write_baseline(self, factors=None, **fields):
        """A baseline with so many times the instructions that were measured, of all or by operation."""
        of = factors.get if isinstance(factors, dict) else lambda name, default: factors or default
        counts = {name: count * of(name, 1) for name, count in self.measured["instructions"].items()}
        self.baseline.write_text(json.dumps({**self.measured, "instructions": counts, **fields}))

    def judge(self):
        """The exit code, and the lines on stderr, where what was measured first comes again."""
        check = load_check()
        build = {key: value for key, value in self.measured.items() if key != "instructions"}
        check.measure = lambda program, slow_down: (build, self.measured["instructions"])
        said = io.StringIO()
        arguments, sys.argv = sys.argv, ["check", "--program", PROGRAM, "--baseline", str(self.baseline)]
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                return check.main(), said.getvalue().splitlines()
        finally:
            sys.argv = arguments

    def test_measures_the_same_again(self):
        self.write_baseline()
        done = self.run_check("--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for row in json.loads(done.stdout)["operations"]:
            self.assertLess(abs(row["change"]), 0.01, row)

    def test_fails_where_each_record_takes_more(self):
        self.write_baseline()
        done = self.run_check("--slow-down")
        self.assertEqual(done.returncode, 1, done.stderr)
        for name in self.measured["instructions"]:
            self.assertIn(f"check: {name} grew by ", done.stderr)

    def test_tells_growth_from_what_shrank(self):
        self.write_baseline({"append": 0.94, "poll": 0.96, "keep": 1.04, "commit": 1.06})
        code, said = self.judge()
        self.assertEqual(code, 1)
        self.assertEqual(len(said), 2, said)
        self.assertIn("check: append grew by 6.4%", said[0])
        self.assertIn("check: commit shrank by 5.7%", said[1])

    def test_what_shrank_is_no_failure(self):
        self.write_baseline(1.07)
        code, said = self.judge()
        self.assertEqual((code, len(said)), (0, len(self.measured["instructions"])), said)

    def test_another_build_is_not_compared(self):
        for field in ("compiler", "flags", "clock"):
            self.write_baseline(0.5, **{field: "another"})
            code, said = self.judge()
            self.assertEqual(code, 77, said)
            self.assertIn(f"not comparable: {field} is ", said[0])

    def test_what_is_measured_no_more_fails(self):
        counts = {**self.measured["instructions"], "gone": 10.0}
        self.baseline.write_text(json.dumps({**self.measured, "instructions": counts}))
        code, said = self.judge()
        self.assertEqual(code, 1)
        self.assertIn("check: gone is not measured", said[0])


if __name__ == "__main__":
    if shutil.which("valgrind") is None:
        sys.exit(77)
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    options, rest = parser.parse_known_args()
    PROGRAM = options.program
    unittest.main(argv=[sys.argv[0], *rest])
