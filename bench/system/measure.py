"""Runs the programs of one measurement and turns what they print into samples."""
import dataclasses
import json
import pathlib
import re
import shutil
import statistics
import subprocess

MIB = 1 << 20


class Failed(Exception):
    """A program did not do its part; the message says which and why."""


@dataclasses.dataclass
class Figure:
    """One line of the table: a value that is compared with a target."""
    title: str
    unit: str
    target: float | None = None
    lower_is_better: bool = False
    samples: list = dataclasses.field(default_factory=list)

    def add(self, value, probe=None, **details):
        self.samples.append({"value": value, "probe_ns": probe, **details})

    def trusted(self):
        """Samples whose probes of before and after agree to a sixth; all, if none does."""
        def steady(sample):
            probe = sample["probe_ns"]
            return not probe or abs(probe["before"] - probe["after"]) <= max(probe.values()) / 6
        return [sample for sample in self.samples if steady(sample)] or self.samples

    def values(self):
        return [sample["value"] for sample in self.trusted()]

    def median(self):
        return statistics.median(self.values())

    def share_of_target(self):
        """1 and above: met."""
        if not self.target or not self.median():
            return None
        return self.target / self.median() if self.lower_is_better else self.median() / self.target


def figures():
    """All figures by name, in the order of the table."""
    return {
        "ping_pong": Figure("ping-pong 32 B, disk, p50 in R", "R", 1.7, True),
        "ping_pong_ns": Figure("ping-pong 32 B, disk, p50", "ns"),
        "spike_ping_pong": Figure("  reference, p50 in its R", "R"),
        "append_parts": Figure("what an append cannot do without, on warm lines", "ns"),
        "append_memory": Figure("append alone 64 B, memory, p50", "ns", 25, True),
        "append_memory_timed": Figure("  with the clock that times it", "ns"),
        "append_disk": Figure("append alone 64 B, disk, p50", "ns", 25, True),
        "append_disk_timed": Figure("  with the clock that times it", "ns"),
        "one_to_one_memory": Figure("one to one 64 B, memory", "M records/s", 25),
        "one_to_one_memory_pinned": Figure("  with the keeper on the consumer's CPU", "M records/s"),
        "spike_one_to_one_memory": Figure("  reference", "M records/s"),
        "one_to_one_disk": Figure("one to one 64 B, disk", "M records/s", 12),
        "spike_one_to_one_disk": Figure("  reference", "M records/s"),
        "batches_memory": Figure("batches of 64, 64 B, memory", "M records/s", 50),
        "batches_disk": Figure("batches of 64, 64 B, disk", "M records/s"),
        "open_loop_memory": Figure("1 M records/s open loop, memory, p99.9", "ns"),
        "open_loop_disk": Figure("1 M records/s open loop, disk, p99.9", "ns"),
        "open_loop": Figure("disk p99.9 over memory p99.9", "x", 3, True),
        "flush_fio": Figure("fio writes, O_DIRECT, 1 MiB, depth 8", "MiB/s"),
        "flush_ringtail": Figure("flush of 1 KiB records, until synced", "MiB/s"),
        "flush": Figure("flush over fio", "%", 85),
        "replay_fio": Figure("fio reads in sequence, O_DIRECT, 1 MiB, depth 8", "MiB/s"),
        "replay_ringtail": Figure("replay of 1 KiB records, page cache cold", "MiB/s"),
        "replay": Figure("replay over fio", "%", 80),
        "member_poll_1": Figure("a group member's poll over another's, a record at a time", "x", 1.15, True),
        "member_poll_256": Figure("  256 records at most", "x", 1.15, True),
        "commit_1": Figure("asynchronous commit, 1 partition", "ns", 50, True),
        "commit_16": Figure("asynchronous commit, 16 partitions", "ns", 50, True),
        "takeover_p50": Figure("takeover of a killed member's partitions, p50", "ms"),
        "takeover_p99": Figure("takeover of a killed member's partitions, p99", "ms", 20, True),
        "takeover_max": Figure("  the longest of 400", "ms"),
        "takeover_keeper_p50": Figure("  with the keeper killed as well, p50", "ms"),
        "takeover_keeper_p99": Figure("  with the keeper killed as well, p99", "ms"),
        "takeover_keeper_max": Figure("  with the keeper killed as well, the longest of 400", "ms"),
    }


NAMES = ["ping_pong", "append", "one_to_one", "batches", "open_loop", "flush", "replay", "member", "takeover"]


def both(first, second, swapped):
    """Runs two measurements that are compared, in turn first; returns their results in order."""
    if swapped:
        later = second()
        return first(), later
    return first(), second()


class Bench:
    def __init__(self, args):
        self.args = args
        self.figures = figures()
        self.work = None
        self.has_fio = shutil.which("fio") is not None
        self.ringtail = args.build / "bin" / "ringtail"
        self.micro = args.build / "bench" / "ringtail_micro"
        self.disk_rates = args.build / "bench" / "ringtail_disk_rates"
        self.takeover_program = args.build / "bench" / "ringtail_takeover"
        self.bytes = int(args.gigabytes * (1 << 30))
        self.number = 0

    def missing_programs(self):
        programs = [self.ringtail, self.micro, self.disk_rates, self.takeover_program]
        if self.args.spike:
            programs.append(pathlib.Path(self.args.spike))
        return [str(program) for program in programs if not program.is_file()]

    def measure(self, name, number):
        self.number = number
        getattr(self, name)()

    # --- Programs ---

    def output(self, command, raw_name, suffix="json"):
        """Standard output of a program that runs in the work folder; kept in raw/."""
        command = [str(word) for word in command]
        done = subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)
        (self.args.out / "raw" / f"{raw_name}-{self.number}.{suffix}").write_text(done.stdout)
        if done.returncode != 0:
            raise Failed(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def perf(self, mode, raw_name, *options):
        command = [self.ringtail.resolve(), "--json", "perf", mode, "--repeat", 1, "--cpus", self.args.cpus]
        return json.loads(self.output([*command, *options], raw_name))

    def spike(self, *words):
        raw_name = "spike-" + "-".join(map(str, words))
        return self.output([pathlib.Path(self.args.spike).resolve(), *words], raw_name, "txt")

    def spike_line(self):
        return float(re.search(r"R=([0-9.]+)", self.spike("line", 0, 8, 1000000)).group(1))

    def fio(self, direction):
        """Bytes per second. A write makes a new file, as a log does; it stays for the read that follows."""
        if direction == "write":
            (self.work / "fio.dat").unlink(missing_ok=True)
        out = self.output(["fio", "--name=sequential", "--filename=fio.dat", f"--rw={direction}", "--bs=1M",
                           "--iodepth=8", "--ioengine=io_uring", "--direct=1", f"--size={self.bytes}",
                           "--output-format=json"], f"fio-{direction}")
        # fio may say something before the object.
        return json.loads(out[out.index("{"):])["jobs"][0][direction]["bw_bytes"]

    # --- Measurements ---

    def ping_pong(self):
        run = self.perf("latency", "ping_pong", "--size", 32, "--storage", "disk",
                        "--seconds", self.args.seconds)
        p50, probe = run["latency_ns"]["p50"], run["probe_ns"]
        ratio = p50 / statistics.mean(probe.values())
        self.figures["ping_pong"].add(ratio, probe, latency_ns=run["latency_ns"])
        self.figures["ping_pong_ns"].add(p50, probe)
        if self.args.spike:
            before = self.spike_line()
            spike = float(re.search(r"p50=([0-9.]+)", self.spike("pp", 1, 32, 1000000)).group(1))
            probe = {"before": before, "after": self.spike_line()}
            self.figures["spike_ping_pong"].add(spike / statistics.mean(probe.values()), probe, p50_ns=spike)

    def append(self):
        out = self.output([self.micro.resolve(), "--benchmark_format=json",
                           "--benchmark_filter=append_parts|append_timed/bytes:64/.*/rate:1000000"], "append")
        for run in json.loads(out)["benchmarks"]:
            if run["name"] == "append_parts":
                self.figures["append_parts"].add(run["real_time"])
                continue
            storage = "disk" if "disk:1" in run["name"] else "memory"
            self.figures[f"append_{storage}"].add(run["p50"] - run["clock"], clock_ns=run["clock"])
            self.figures[f"append_{storage}_timed"].add(run["p50"], p99_9=run["p99_9"])

    def member(self):
        out = self.output([self.micro.resolve(), "--benchmark_format=json",
                           "--benchmark_filter=poll_of_member|commit_async"], "member")
        for run in json.loads(out)["benchmarks"]:
            count = re.search(r":(\d+)", run["name"]).group(1)
            if run["name"].startswith("commit_async"):
                self.figures[f"commit_{count}"].add(run["commit_ns"])
            else:
                self.figures[f"member_poll_{count}"].add(run["ratio"], member_ns=run["member_ns"])

    def takeover(self):
        for name, options in (("takeover", []), ("takeover_keeper", ["--keeper"])):
            run = json.loads(self.output([self.takeover_program.resolve(), "--rounds", 100, *options], name))
            self.figures[f"{name}_p50"].add(run["p50_ms"])
            self.figures[f"{name}_p99"].add(run["p99_ms"])
            self.figures[f"{name}_max"].add(run["max_ms"])

    def one_to_one(self):
        for storage in ("memory", "disk"):
            self.throughput(f"one_to_one_{storage}", storage, 1)
            if storage == "memory":
                consumer_cpu = self.args.cpus.split(",")[1]
                self.throughput("one_to_one_memory_pinned", storage, 1, "--keeper-cpu", consumer_cpu)
            if self.args.spike:
                out = self.spike("tp", int(storage == "disk"), 64, 20000000)
                rate = float(re.search(r"([0-9.]+) Mmsg/s", out).group(1))
                self.figures[f"spike_one_to_one_{storage}"].add(rate)

    def batches(self):
        for storage in ("memory", "disk"):
            self.throughput(f"batches_{storage}", storage, 64)

    def throughput(self, name, storage, batch, *options):
        run = self.perf("throughput", name, "--size", 64, "--storage", storage, "--batch", batch,
                        "--seconds", self.args.seconds, *options)
        self.figures[name].add(run["records_per_second"] / 1e6, run["probe_ns"])

    def open_loop(self):
        def run(storage):
            hgrm = (self.args.out / "raw" / f"open_loop-{storage}-{self.number}.hgrm").resolve()
            return self.perf("latency", f"open_loop-{storage}", "--size", 64, "--storage", storage,
                             "--rate", 1000000, "--config", "flush.ms=5", "--seconds", self.args.seconds,
                             "--hgrm", hgrm)
        memory, disk = both(lambda: run("memory"), lambda: run("disk"), self.number % 2 == 1)
        for name, result in (("open_loop_memory", memory), ("open_loop_disk", disk)):
            latency = result["latency_ns"]
            self.figures[name].add(latency["p99_9"], result["probe_ns"], latency_ns=latency)
        probes = [result["probe_ns"][when] for result in (memory, disk) for when in ("before", "after")]
        ratio = disk["latency_ns"]["p99_9"] / memory["latency_ns"]["p99_9"]
        self.figures["open_loop"].add(ratio, {"before": min(probes), "after": max(probes)})

    def rates(self, raw_name, reads):
        return json.loads(self.output([self.disk_rates.resolve(), "--bytes", self.bytes, "--size", 1024,
                                       "--reads", reads], raw_name))

    def flush(self):
        self.beside_fio("flush", "write", lambda: self.rates("flush", 0)["write"])

    def replay(self):
        self.beside_fio("replay", "read", lambda: self.rates("replay", 1)["reads"][0])

    def beside_fio(self, name, direction, ringtail):
        fio = None
        if self.has_fio:
            result, fio = both(ringtail, lambda: self.fio(direction), self.number % 2 == 1)
        else:
            result = ringtail()
        rate = result["log_bytes_per_second"]
        self.figures[f"{name}_ringtail"].add(rate / MIB)
        if fio:
            self.figures[f"{name}_fio"].add(fio / MIB)
            self.figures[name].add(100 * rate / fio)

    def surroundings(self):
        def said(*command):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.stdout.strip() if done.returncode == 0 else "unknown"
        source = str(pathlib.Path(__file__).resolve().parent)
        cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
        return {
            "machine": cpu.group(1) if cpu else "unknown",
            "cpus": self.args.cpus,
            "kernel": said("uname", "-sr"),
            "commit": said("git", "-C", source, "rev-parse", "HEAD"),
            "changed": said("git", "-C", source, "status", "--porcelain", "--untracked-files=no") != "",
            "file_system": said("stat", "-f", "-c", "%T", str(self.args.dir)),
            "date": said("date", "-u", "+%Y-%m-%d %H:%M UTC"),
            "repeat": self.args.repeat,
            "seconds": self.args.seconds,
        }
