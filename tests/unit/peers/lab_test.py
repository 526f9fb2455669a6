"""The lab's runner: figures from what peers report, what counts as a failure, and the pages that come of it."""
import json
import pathlib
import re
import struct
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "bench" / "peers"))
from lab import campaign, goals, page, report, run_file, runs, systems, workloads  # noqa: E402
from lab.histogram import Histogram  # noqa: E402

SYSTEMS = {system.key: system for system in systems.SYSTEMS}
WORKLOADS = {workload.name: workload for workload in workloads.workloads(1 << 30)}
ABOUT = {"machine": "a machine <&>", "virtual": True, "cpu_count": 2, "cpus": [0, 1], "memory_gib": 1, "kernel": "Linux",
         "commit": "0" * 40, "changed": False, "file_system": "ext4", "date": "today", "quick": True, "repeat": 3,
         "seconds": 1, "again": 0, "moved": 0}


def reader(**more):
    return {"received": 101, "measured": 101, "first_ns": 0, "last_ns": 1_000_000_000, "histogram": [[100, 101]],
            "lost": 0, "duplicated": 0, "reordered": 0, "corrupt": 0, **more}


class Probe:
    able = False

    def before(self):
        return {"two_lines": 200, "one_line": 100}

    after = before


class Runner:
    """Runs during which the CPUs had the paces that are given, one after the other."""

    def __init__(self, *paces):
        self.paces = list(paces)

    def run(self, system, shape, limits):
        more = {"attach_s": 0.1, "cpu_s": 1.0, "sent_in_s": None, "wait": shape.wait, "paces": self.paces.pop(0)}
        return runs.summarize(shape, [reader()], [], 101, False, more)


class Case(unittest.TestCase):
    def campaign(self, *names, repeat=1, others=None):
        settings = campaign.Settings(1, 1, 1, repeat, others, None, False, 1)
        present = {system.family: "1" for system in systems.SYSTEMS}
        return campaign.Campaign(None, Probe(), [WORKLOADS[name] for name in names], present, settings, print)

    def add(self, measured, workload, key, value, probe=(200, 200), rate=1e6, cpu=1.0, **more):
        shape = WORKLOADS[workload].shape
        sample = runs.summarize(shape, [reader(histogram=[[value, 100_000]])], [], 101, False,
                                {"attach_s": 0.1, "cpu_s": cpu, "sent_in_s": None, "wait": shape.wait})
        sample.update({"records_per_second": rate, "probe": list(probe), "one_line": [], "slow_share": 0.0, **more})
        sample["steady"] = campaign.steady(sample["probe"])
        measured.samples.setdefault((workload, key), []).append(sample)


class HistogramTest(Case):
    def test_percentiles_are_values_that_so_many_do_not_exceed(self):
        histogram = Histogram([[value, 1] for value in range(1, 1001)])
        self.assertEqual([histogram.percentile(p) for p in (50, 99, 99.9, 100)], [500, 990, 999, 1000])

    def test_merging_adds_counts(self):
        merged = Histogram.merged([Histogram([[5, 2], [1, 1]]), Histogram([[5, 3]])])
        self.assertEqual(merged.pairs(), [[1, 1], [5, 5]])

    def test_a_percentile_with_too_little_behind_it_is_not_told(self):
        summary = Histogram([[7, 500]]).summary()
        self.assertEqual((summary["p50"], summary["p99"], summary["p99_9"]), (7, 7, None))
        self.assertIsNone(Histogram().summary()["p50"])

    def test_hgrm_ends_with_everything(self):
        lines = Histogram([[10, 90], [1000, 10]]).hgrm().splitlines()
        last = [line for line in lines[2:] if not line.startswith("#")][-1].split()
        self.assertEqual(last, ["1000.000", "1.000000000000", "100"])


class RunTest(Case):
    def test_the_run_file_is_laid_out_as_the_protocol_says(self):
        with tempfile.TemporaryDirectory() as folder:
            page_file = run_file.RunFile(f"{folder}/run", 2, 3)
            page_file.set(512 + 64, 7 | 1 << 63)
            data = pathlib.Path(f"{folder}/run").read_bytes()
            self.assertEqual(len(data), 4096)
            self.assertEqual(data[:8], b"RGPEERS1")
            word = {offset: struct.unpack_from("<Q", data, offset)[0] for offset in (8, 384, 448)}
            self.assertEqual(word, {8: 1, 384: 2, 448: 3})
            self.assertEqual((page_file.sent(), page_file.all_done()), (7, False))
            page_file.close()

    def collect(self, *readers):
        import json
        with tempfile.TemporaryDirectory() as folder:
            for number, one in enumerate(readers):
                (pathlib.Path(folder) / f"consume-{number}.json").write_text(json.dumps(one))
            page_file = run_file.RunFile(f"{folder}/run", 1, 1)
            shape = runs.Shape(consumers=len(readers))
            try:
                return runs.Runner._collect(None, SYSTEMS["pipe"], shape, page_file, pathlib.Path(folder), False,
                                            {"attach_s": 0, "cpu_s": 1, "sent_in_s": None})
            finally:
                page_file.close()

    def test_the_rate_is_the_readers(self):
        self.assertEqual(self.collect(reader())["records_per_second"], 100)

    def test_whatever_is_wrong_with_records_fails_the_run(self):
        for name in ("lost", "duplicated", "reordered", "corrupt"):
            with self.assertRaisesRegex(runs.Failed, f"3 {name}"):
                self.collect(reader(), reader(**{name: 3}))

    def test_a_reader_without_measured_records_fails_the_run(self):
        with self.assertRaises(runs.Failed):
            self.collect(reader(histogram=[], measured=0))

    def test_a_rate_that_was_not_kept_is_marked(self):
        more = {"attach_s": 0, "cpu_s": 1, "sent_in_s": None}
        kept = runs.summarize(runs.Shape(rate=100), [reader()], [], 101, False, more)
        slow = runs.summarize(runs.Shape(rate=200), [reader()], [], 101, False, more)
        late = runs.summarize(runs.Shape(rate=100), [reader()], [], 101, True, more)
        self.assertEqual([one["kept_up"] for one in (kept, slow, late)], [True, False, False])


class SummaryTest(Case):
    def test_a_probe_that_moved_by_more_than_15_percent_is_unsteady(self):
        self.assertTrue(campaign.steady([100, 117]))
        self.assertFalse(campaign.steady([100, 118]))
        self.assertTrue(campaign.steady([]))

    def test_unsteady_samples_are_left_out_while_others_remain(self):
        measured = self.campaign("ping-spin")
        self.add(measured, "ping-spin", "pipe", 1000)
        self.add(measured, "ping-spin", "pipe", 9000, probe=(200, 260))
        row, = measured.rows(WORKLOADS["ping-spin"])
        self.assertEqual((row["metrics"]["p50"], row["n"], row["of"]), ((1000, 1000, 1000), 1, 2))

    def test_near_and_far_have_rows_of_their_own(self):
        measured = self.campaign("ping-spin")
        self.add(measured, "ping-spin", "pipe", 1000)
        self.add(measured, "ping-spin", "pipe", 3000, probe=(400, 410))
        rows = measured.rows(WORKLOADS["ping-spin"])
        self.assertEqual([(row["distance"], row["metrics"]["p50"][0]) for row in rows], [("near", 1000), ("far", 3000)])

    def test_one_strange_probe_does_not_make_all_others_far(self):
        measured = self.campaign("ping-spin")
        for _ in range(9):
            self.add(measured, "ping-spin", "pipe", 1000)
        self.add(measured, "ping-spin", "pipe", 100, probe=(60, 61))
        rows = measured.rows(WORKLOADS["ping-spin"])
        self.assertEqual([(row["distance"], row["n"]) for row in rows], [("near", 9), ("one core", 1)])

    def test_the_plan_has_every_system_once_a_round_in_another_order(self):
        measured = self.campaign("ping-spin")
        measured.settings.repeat = 2
        first, second = ([system.key for n, _, system in measured.plan() if n == number] for number in (0, 1))
        self.assertEqual(sorted(first), sorted(second))
        self.assertNotEqual(first, second)

    def test_what_no_goal_is_about_may_be_measured_less_often(self):
        measured = self.campaign("sat-64", "sat-256", "slow", repeat=2, others=1)
        first, second = ({(workload.name, system.key) for n, workload, system in measured.plan() if n == number}
                         for number in (0, 1))
        self.assertLess(second, first)
        self.assertEqual({name for name, _ in first}, {"sat-64", "sat-256", "slow"})
        self.assertEqual({key for name, key in second if name == "slow"}, {"ringtail-disk"})
        self.assertNotIn("sat-256", {name for name, _ in second})
        self.assertNotIn(("sat-64", "nats"), second)
        self.assertIn(("sat-64", "aeron-ipc"), second)

    def test_runs_are_done_again_only_while_those_to_come_still_fit(self):
        measured = self.campaign("ping-spin")
        workload, system = WORKLOADS["ping-spin"], SYSTEMS["ring"]
        self.assertFalse(measured.out_of_time(workload, system))
        measured.settings.budget = 600
        measured.rest = 500
        self.assertFalse(measured.out_of_time(workload, system))
        measured.rest = 601
        self.assertTrue(measured.out_of_time(workload, system))

    def test_no_round_is_cut_short_but_of_a_quick_look(self):
        for quick in (False, True):
            measured = self.campaign("ping-spin")
            measured.settings.quick, measured.settings.budget = quick, 0.001
            measured.tell, done = lambda _: None, []
            measured.measure = lambda _, system, done=done: done.append(system.key)
            measured.run()
            self.assertEqual(done == [], quick)
            self.assertEqual(bool(measured.left_out), quick)

    def test_the_usual_probe_is_that_of_all_samples_there_are(self):
        measured = self.campaign("ping-spin")
        self.assertIsNone(measured.usual_probe())
        self.add(measured, "ping-spin", "ring", 100, probe=(400, 400))
        self.assertEqual(measured.usual_probe(), 400)
        self.add(measured, "ping-spin", "ring", 100, probe=(100, 100))
        self.assertEqual(measured.usual_probe(), 100)

    def test_runs_during_which_r_moved_are_counted(self):
        measured = self.campaign("ping-spin")
        self.add(measured, "ping-spin", "ring", 100, probe=(200, 210))
        self.assertEqual(measured.moved(), 0)
        self.add(measured, "ping-spin", "ring", 100, probe=(200, 300))
        self.assertEqual(measured.moved(), 1)


    def measure(self, workload, *paces):
        measured = self.campaign(workload)
        measured.runner, measured.tell = Runner(*paces), lambda text: None
        measured.measure(WORKLOADS[workload], SYSTEMS["pipe"])
        return measured, measured.samples[workload, "pipe"][0]

    def test_a_run_with_a_slowed_cpu_is_done_again_where_latencies_count(self):
        good, slowed = {0: [400, 410], 1: [390, 1100]}, {0: [400, 410], 1: [400, 1300, 4000, 400]}
        measured, sample = self.measure("ping-spin", slowed, good)
        self.assertEqual((measured.again, sample["steady"], sample["slow_share"]), (1, True, 0))
        self.assertEqual(measured.runner.paces, [])
        measured, sample = self.measure("sat-64", slowed)
        self.assertEqual((measured.again, sample["steady"], sample["slow_share"]), (0, True, 0.5))

    def test_a_cpu_that_stays_slow_is_told(self):
        measured, sample = self.measure("ping-spin", *([{0: [400, 4000], 1: [400, 400]}] * 5))
        self.assertEqual((measured.again, measured.moved(), sample["steady"]), (4, 1, False))
        self.assertIn("In 1 of the 1 runs", report.pace_text(measured))
        self.assertIn("50 % of the time", report.pace_text(measured))

    def test_pace_is_compared_with_the_shortest_of_all_runs(self):
        measured = self.campaign("ping-spin")
        self.assertEqual(measured.slow_share({0: [1300, 1350]}), 0)
        self.assertEqual(measured.slow_share({0: [400, 400]}), 0)
        self.assertEqual(measured.slow_share({0: [1300, 1350]}), 1)
        self.assertEqual(measured.slow_share({}), 0)
        self.assertEqual(report.pace_text(measured), "")


class GoalsTest(Case):
    def goal(self, measured, title):
        return next(goal for goal in goals.goals(measured) if goal.title.startswith(title))

    def test_at_most(self):
        for ours, met in ((900, True), (1100, False)):
            measured = self.campaign("ping-spin")
            self.add(measured, "ping-spin", "ringtail-memory", ours)
            self.add(measured, "ping-spin", "aeron-ipc", 1000)
            goal = self.goal(measured, "ping-pong 32 B, p50, over Aeron")
            self.assertEqual((goal.met, float(goal.measured)), (met, ours / 1000))

    def test_theirs_over_ours(self):
        measured = self.campaign("open-10k")
        self.add(measured, "open-10k", "ringtail-disk", 1000)
        self.add(measured, "open-10k", "kafka", 150_000)
        goal = self.goal(measured, "10 k/s open loop")
        self.assertEqual((goal.met, goal.measured), (True, "150"))

    def test_near_is_not_compared_with_far(self):
        measured = self.campaign("ping-spin")
        self.add(measured, "ping-spin", "ringtail-memory", 900)
        self.add(measured, "ping-spin", "aeron-ipc", 1000, probe=(400, 400))
        goal = self.goal(measured, "ping-pong 32 B, p50, over Aeron")
        self.assertIsNone(goal.met)

    def test_there_is_no_verdict_on_runs_during_which_r_moved(self):
        measured = self.campaign("ping-spin")
        self.add(measured, "ping-spin", "ringtail-memory", 900)
        self.add(measured, "ping-spin", "aeron-ipc", 1000, probe=(200, 260))
        goal = self.goal(measured, "ping-pong 32 B, p50, over Aeron")
        self.assertEqual((goal.met, goal.measured), (None, "0.9"))
        self.assertIn("R moved", goal.detail)

    def test_steady_far_runs_are_judged_before_unsteady_near_ones(self):
        measured = self.campaign("ping-spin")
        for key, near, far in (("ringtail-memory", 2000, 900), ("aeron-ipc", 1000, 1000)):
            self.add(measured, "ping-spin", key, near, probe=(200, 260))
            self.add(measured, "ping-spin", key, far, probe=(400, 400))
        goal = self.goal(measured, "ping-pong 32 B, p50, over Aeron")
        self.assertEqual((goal.met, goal.measured), (True, "0.9"))

    def test_what_was_not_measured_is_not_met_nor_missed(self):
        for goal in goals.goals(self.campaign("ping-spin")):
            self.assertIsNone(goal.met)
            self.assertIn("not measured", goal.measured)


class PageTest(Case):
    def full(self):
        measured = self.campaign(*WORKLOADS)
        for workload in WORKLOADS.values():
            for key in ("ring", "ringtail-memory", "ringtail-disk", "kafka"):
                if workload.refuses(SYSTEMS[key]) is None:
                    self.add(measured, workload.name, key, 1000 + len(key))
        measured.left_out["ping-spin", "redis"] = "failed: <b>no</b> socket"
        return measured

    def test_the_page_asks_nobody_for_anything(self):
        text = page.page(self.full(), ABOUT, {"nats": "not built"}, ["a note"], {"ring": "1"})
        self.assertEqual(re.findall(r"""(?:src|href)=["'](?:https?:)?//|@import|url\(""", text), [])
        self.assertEqual(text.count("<svg"), text.count("</svg>"))
        self.assertEqual(text.count("<table"), text.count("</table>"))

    def test_texts_are_escaped(self):
        text = page.page(self.full(), ABOUT, {}, [], {})
        self.assertIn("a machine &lt;&amp;&gt;", text)
        self.assertNotIn("<b>no</b> socket", text)

    def test_every_system_has_a_look_of_its_own_in_a_chart(self):
        from lab import charts
        for workload in WORKLOADS.values():
            if workload.metric == "latency":
                shown = [key for key, system in SYSTEMS.items() if workload.refuses(system) is None]
                looks = [charts.stroke(key) for key in shown]
                self.assertEqual(len(looks), len(set(looks)), workload.name)

    def test_of_the_gaps_beside_a_run_the_file_has_percentiles(self):
        measured = self.campaign("open-1m")
        gaps = [{"cpu": 0, "count": 2000, "away_share": 0.01, "histogram": [[1000, 1990], [5000, 10]]}]
        self.add(measured, "open-1m", "ringtail-memory", 100, gaps=gaps)
        told = json.loads(campaign.to_json(measured, ABOUT))
        gap = told["workloads"]["open-1m"]["systems"]["ringtail-memory"][0]["gaps"][0]
        self.assertEqual((gap["cpu"], gap["count"], gap["gaps_ns"]["max"], gap["gaps_ns"]["p50"]), (0, 2000, 5000, 1000))
        self.assertNotIn("histogram", gap)

    def test_everything_is_written(self):
        with tempfile.TemporaryDirectory() as folder:
            report.write(folder, self.full(), ABOUT, {"nats": "not built"}, [], {"ring": "1"})
            names = {path.name for path in pathlib.Path(folder).iterdir()}
            self.assertEqual(names, {"results.md", "results.json", "hgrm", "index.html"})
            self.assertIn("not built", (pathlib.Path(folder) / "results.md").read_text())


if __name__ == "__main__":
    unittest.main()
