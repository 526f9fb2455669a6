"""A whole measurement: which runs, in which order, repeated where the machine changed meanwhile, within a time that is
given."""
import dataclasses
import json
import pathlib
import re
import statistics
import time

from . import runs, systems
from .histogram import Histogram
from .processes import session_cpu, session_memory_kib
from .workloads import idle_systems

UNSTEADY = 0.15        # of the larger probe: above it a run is done again
AGAIN = 4              # times at most
SLOW = 3               # times the shortest time that the CPU ever took for the same: it has been slowed down
COMPANION_AGE = 45.0   # seconds for which a run of the minimal ring stands beside others
NEAR = 1.5             # times the lower decile of all R: CPUs farther apart are far; as much below: one core


@dataclasses.dataclass
class Settings:
    seconds: float
    warmup: float
    grace: float
    repeat: int
    others: int | None     # rounds of what is not telling; None: all of them
    budget: float | None   # seconds for everything
    quick: bool
    gap_seconds: float


class Campaign:
    def __init__(self, runner, probe, chosen, present, settings, tell):
        self.runner, self.probe, self.settings, self.tell = runner, probe, settings, tell
        self.workloads, self.present = chosen, present
        self.samples = {}    # (workload, system): [sample]
        self.left_out = {}   # (workload, system): why
        self.failures = {}   # (workload, system): [why], one a run that gave nothing
        self.idle = []
        self.again = 0
        self.pace = {}       # the shortest time that each CPU ever took for the same arithmetic, ns
        self.began = time.monotonic()
        self.companion = None
        self.usual = (0, None)  # how many samples there were, and what usual_probe() made of them
        self.cost = {}       # seconds that a run took, by (workload, system)
        self.rest = 0        # seconds that the runs from the present one on take, as far as is known

    # --- The plan ---

    def part(self, workload, system):
        """Why the system is not measured here; None when it is."""
        if system.family not in self.present:
            return "missing"
        refusal = workload.refuses(system)
        if not refusal and self.settings.quick and workload.quick and system.key not in workload.quick:
            return "left to --full"
        return refusal or self.left_out.get((workload.name, system.key))

    def plan(self):
        """[(repetition, workload, system)]: every repetition has every workload once, each in another order."""
        steps = []
        for repetition in range(self.settings.repeat):
            for workload in self.workloads:
                seldom = self.settings.others is not None and repetition >= self.settings.others
                able = [system for system in systems.SYSTEMS if self.part(workload, system) is None
                        and (workload.tells(system) or not seldom)]
                turn = repetition * 5 % max(1, len(able))
                order = able[turn:] + able[:turn]
                if repetition % 2:
                    order.reverse()
                steps += [(repetition, workload, system) for system in order]
        return steps

    def expected(self, workload, system):
        known = self.cost.get((workload.name, system.key))
        if known:
            return known
        settings = self.settings
        replay = workload.shape.bytes / 400e6 if workload.shape.late else 0
        return (0.8 + system.start_seconds * (2 if system.serve else 1) + max(settings.warmup, system.warm)
                + settings.seconds * workload.seconds + replay + (0.7 if self.probe.able else 0))

    def run(self):
        steps = self.plan()
        for number, (repetition, workload, system) in enumerate(steps):
            if self.part(workload, system) is not None:
                continue  # it has failed meanwhile
            rest = sum(self.expected(w, s) for _, w, s in steps[number:] if self.part(w, s) is None)
            cost = self.expected(workload, system)
            elapsed = time.monotonic() - self.began
            if self.settings.quick and self.settings.budget and elapsed + cost > self.settings.budget:
                if not self.samples.get((workload.name, system.key)):
                    self.left_out[workload.name, system.key] = "no time was left"
                continue
            self.rest = rest
            if self.settings.budget:
                rest = min(rest, self.settings.budget - elapsed)
            self.tell(f"[{number + 1}/{len(steps)}] round {repetition + 1} of {self.settings.repeat}, {workload.title}: "
                      f"{system.label} (about {cost:.0f} s; {clock(rest)} left)")
            self.measure(workload, system)

    # --- One step ---

    def measure(self, workload, system):
        began = time.monotonic()
        gaps = None
        if workload.open_loop:
            gaps = self.beside(workload, system)
        try:
            sample = self.sample(workload, system)
        except runs.Failed as failure:
            self.failed(workload, system, failure)
            return
        if workload.open_loop:
            if system.key == "ring":
                self.companion = (time.monotonic(), workload.name, sample["latency"], gaps)
            elif self.companion and self.companion[1] == workload.name:
                sample["ring"], sample["gaps"] = self.companion[2].summary(), self.companion[3]
        self.samples.setdefault((workload.name, system.key), []).append(sample)
        self.cost[workload.name, system.key] = time.monotonic() - began

    def beside(self, workload, system):
        """The minimal ring under the same load, not older than a minute, and the gaps at that time."""
        if system.key != "ring":
            fresh = (self.companion and self.companion[1] == workload.name
                     and time.monotonic() - self.companion[0] < COMPANION_AGE)
            ring = next(one for one in systems.SYSTEMS if one.key == "ring")
            if not fresh and self.part(workload, ring) is None:
                self.tell("    beside it: the minimal ring under the same load, and the CPUs' gaps")
                self.measure(workload, ring)
            return None
        return self.probe.gaps(self.settings.gap_seconds)

    def sample(self, workload, system):
        limits = runs.Limits(self.settings.warmup, self.settings.seconds * workload.seconds, self.settings.grace)
        for attempt in range(AGAIN + 1):
            before = self.probe.before()
            result = self.runner.run(system, workload.shape, limits)
            after = self.probe.after()
            result["probe"] = [one["two_lines"] for one in (before, after) if one]
            result["one_line"] = [one["one_line"] for one in (before, after) if one]
            result["slow_share"] = self.slow_share(result.pop("paces"))
            slowed = workload.tails and result["slow_share"] > 0
            result["steady"] = steady(result["probe"]) and not slowed
            if result["steady"] or attempt == AGAIN or self.out_of_time(workload, system):
                return result
            self.again += 1
            self.tell("    " + ("a CPU was slowed down" if slowed else f"R went from {before['two_lines']:.0f} to "
                                f"{after['two_lines']:.0f} ns") + ": once more")
        return result

    def slow_share(self, paces):
        """Of the time of a run, as far as the CPU that was slowed down for longer was."""
        shares = [0.0]
        for cpu, readings in paces.items():
            if readings:
                self.pace[cpu] = min([self.pace.get(cpu, readings[0]), *readings])
                shares.append(sum(took > SLOW * self.pace[cpu] for took in readings) / len(readings))
        return max(shares)

    def out_of_time(self, workload, system):
        if not self.settings.budget:
            return False
        elapsed = time.monotonic() - self.began
        if not self.settings.quick:
            return elapsed + self.rest > self.settings.budget
        # A second try is worth less than another system's first.
        return self.again >= 8 or elapsed > 0.7 * self.settings.budget

    def failed(self, workload, system, failure):
        self.tell(f"    {system.label}: {failure}")
        key = (workload.name, system.key)
        self.failures.setdefault(key, []).append(str(failure))
        if isinstance(failure, runs.Unavailable) or key not in self.samples:
            self.left_out[key] = f"failed: {failure}"

    # --- Idle topics ---

    def measure_idle(self, topics):
        """Memory and CPU of a service with and without idle topics."""
        for system in idle_systems():
            if system.family not in self.present:
                continue
            self.tell(f"idle topics: {system.label}, with {topics} and with none (about 8 s)")
            try:
                none, some = (self._idle_once(system, count) for count in (0, topics))
            except runs.Failed as failure:
                self.tell(f"    {system.label}: {failure}")
                continue
            self.idle.append({"system": system.key, "topics": topics,
                              "shm_kib_per_topic": (some["shm_kib"] - none["shm_kib"]) / topics,
                              "private_kib_per_topic": (some["private_kib"] - none["private_kib"]) / topics,
                              "cpu_share_per_topic": (some["cpu_share"] - none["cpu_share"]) / topics,
                              "cpu_share": some["cpu_share"], "cpu_share_without": none["cpu_share"]})

    def _idle_once(self, system, topics):
        runner = self.runner
        runner.count += 1
        folder = runner.folders[system.disk] / f"r{runner.count}"
        notes = runner.folders[False] / f"n{runner.count}"
        for made in (folder, notes):
            made.mkdir()
            runner.paths.append(made)
        try:
            command = systems.command_of(system.family, runner.build)
            serve = runner.start("serve", [*command, "serve", "--dir", folder, "--mode", system.mode, "--topics",
                                           topics], notes)
            runner._wait(serve.says_ready, [serve], 60, "was not ready")
            time.sleep(1.0)
            before, seconds = session_cpu(serve.pid), 4.0
            time.sleep(seconds)
            share = (session_cpu(serve.pid) - before) / seconds
            shared = runs.folder_bytes(shared_memory_of(folder)) / 1024
            return {"shm_kib": shared, "private_kib": max(0, session_memory_kib(serve.pid) - shared),
                    "cpu_share": share}
        finally:
            runner.clean()

    # --- Summaries ---

    def usual_probe(self):
        """The lower decile: a single R may be anything, as when the hypervisor puts both CPUs on one core."""
        count = sum(len(samples) for samples in self.samples.values())
        if self.usual[0] != count:
            found = sorted(r for samples in self.samples.values() for sample in samples for r in sample["probe"])
            self.usual = (count, found[len(found) // 10] if found else None)
        return self.usual[1]

    def moved(self):
        """How many samples there are during which the machine changed, done again or not."""
        return sum(not sample["steady"] for samples in self.samples.values() for sample in samples)

    def slowed(self):
        """(of how many samples, in how many a CPU was slowed down, the share of all their time)."""
        shares = [sample["slow_share"] for samples in self.samples.values() for sample in samples]
        return len(shares), sum(share > 0 for share in shares), sum(shares) / len(shares) if shares else 0

    def distance(self, sample):
        """"near", "far", or "one core" (hyper-threads of one, for a while); "" where there was no probe."""
        if not sample["probe"]:
            return ""
        ratio = statistics.mean(sample["probe"]) / self.usual_probe()
        return "far" if ratio > NEAR else "near" if ratio >= 1 / NEAR else "one core"

    def rows(self, workload):
        """One row per system and distance: {system, distance, n, steady, metrics: {name: (median, min, max)}}."""
        found = []
        for system in systems.SYSTEMS:
            samples = self.samples.get((workload.name, system.key), [])
            for distance in ("near", "far", "one core", ""):
                some = [sample for sample in samples if self.distance(sample) == distance]
                if some:
                    found.append(summary_row(system, distance, some))
        return found


def steady(probe):
    return len(probe) < 2 or abs(probe[0] - probe[1]) <= UNSTEADY * max(probe)


def summary_row(system, distance, samples):
    trusted = [sample for sample in samples if sample["steady"]] or samples
    metrics = {}

    def add(name, values):
        values = [value for value in values if value is not None]
        if values:
            metrics[name] = (statistics.median(values), min(values), max(values))
    summaries = [sample["latency"].summary() for sample in trusted]
    for name in ("p50", "p90", "p99", "p99_9", "p99_99", "max"):
        add(name, [one[name] for one in summaries])
        add(f"send_{name}", [sample["lateness"].summary()[name] for sample in trusted if sample["lateness"]])
        add(f"{name}_over_ring", [one[name] / sample["ring"][name] for one, sample in zip(summaries, trusted)
                                  if sample.get("ring") and one[name] and sample["ring"][name]])
    for name in ("records_per_second", "bytes_per_second", "records_per_cpu_second", "attach_s", "open_ns",
                 "sent_in_s", "bytes_read"):
        add(name, [sample.get(name) for sample in trusted])
    add("probe", [value for sample in trusted for value in sample["probe"]])
    return {"system": system, "distance": distance, "wait": trusted[0].get("wait", ""), "n": len(trusted), "of": len(samples),
            "steady": all(sample["steady"] for sample in trusted),
            "kept_up": all(sample["kept_up"] for sample in trusted), "metrics": metrics,
            "latency": Histogram.merged(sample["latency"] for sample in trusted),
            "notes": sorted({note for sample in trusted for note in sample["notes"]}),
            "gaps": next((sample["gaps"] for sample in trusted if sample.get("gaps")), None)}


def shared_memory_of(folder):
    """Of the Ringtail log in a folder."""
    text = (pathlib.Path(folder) / "ringtail.toml").read_text()
    return "/dev/shm/ringtail-" + re.search(r'log_id\s*=\s*"([0-9a-f]{32})"', text).group(1)


def clock(seconds):
    seconds = int(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60}:{seconds % 60:02d} min"


def to_json(campaign, about):
    """Everything that was measured, for programs: every sample, with its percentile curve."""
    def plain(sample):
        kept = {name: value for name, value in sample.items() if name not in ("latency", "lateness", "gaps")}
        kept["latency_ns"] = sample["latency"].summary()
        kept["curve"] = [[round(level, 7), value] for level, value, _ in sample["latency"].curve(3)]
        kept["send_ns"] = sample["lateness"].summary() if sample["lateness"] else None
        kept["distance"] = campaign.distance(sample)
        # A gaps' histogram has a thousand values, and stands beside every system of its minute.
        kept["gaps"] = [{**{key: value for key, value in cpu.items() if key != "histogram"},
                         "gaps_ns": Histogram(cpu["histogram"]).summary()} for cpu in sample.get("gaps") or []]
        return kept
    return json.dumps({
        **about,
        "workloads": {workload.name: {
            "title": workload.title, "metric": workload.metric,
            "systems": {system.key: [plain(sample) for sample in campaign.samples[workload.name, system.key]]
                        for system in systems.SYSTEMS if (workload.name, system.key) in campaign.samples},
        } for workload in campaign.workloads},
        "idle": campaign.idle,
        "left_out": {f"{workload}/{system}": why for (workload, system), why in campaign.left_out.items()},
        "failures": {f"{workload}/{system}": why for (workload, system), why in campaign.failures.items()},
    }, separators=(",", ":")) + "\n"
