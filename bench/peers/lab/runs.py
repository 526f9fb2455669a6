"""One run: its processes, the moment at which they begin, what they report, and that nothing stays behind."""
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

from . import run_file, systems
from .histogram import Histogram
from .processes import Process, session_memory_kib


class Failed(Exception):
    """The run could not be done; the message says why."""


class TooLate(Failed):
    """Something was waited for in vain."""


class Unavailable(Failed):
    """The system says that it is not here, or cannot do this."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is sent, by how many to how many."""
    ping_pong: bool = False
    producers: int = 1
    consumers: int = 1
    size: int = 64
    rate: float = 0       # of all producers together
    wait: str = "spin"
    slow_ns: int = 0      # the last consumer idles so long behind each record
    late: bool = False    # consumers come when everything was sent
    bytes: int = 0        # late: how much is sent
    load: bool = False    # another program writes to the disk as fast as it can

    @property
    def processes(self):
        return 2 if self.ping_pong else self.producers + self.consumers


@dataclasses.dataclass
class Limits:
    warmup: float = 0.5   # seconds of the schedule that do not count
    seconds: float = 2.0
    grace: float = 5.0    # to deliver what was sent until the end
    ready: float = 60.0


class Runner:
    """Runs shapes of systems. `folders`: where runs have their folders, by whether they lie on the disk."""

    def __init__(self, build, folders, cpus, tell):
        self.build, self.folders, self.cpus, self.tell = build, folders, cpus, tell
        self.count = 0
        self.live = []
        self.paths = []

    # --- Life and death ---

    def start(self, name, command, folder):
        process = Process(name, command, folder)
        self.live.append(process)
        return process

    def clean(self):
        """Ends every process and removes every folder of the run."""
        for process in reversed(self.live):
            process.end(patience=10 if process.name == "serve" else 3)
        self.live.clear()
        for path in self.paths:
            remove(path)
        self.paths.clear()

    def run(self, system, shape, limits):
        """The result of one run. Raises Failed or Unavailable."""
        self.count += 1
        shape = self.shape_for(system, shape)
        limits = dataclasses.replace(limits, warmup=max(limits.warmup, system.warm if not shape.late else 0))
        folder = self.folders[system.disk] / f"r{self.count}"
        notes = self.folders[False] / f"n{self.count}"
        path = self.folders[False] / f"run-{self.count}"
        for made in (folder, notes):
            made.mkdir(parents=True)
            self.paths.append(made)
        page = run_file.RunFile(path, 1 if shape.ping_pong else shape.producers,
                                1 if shape.ping_pong else shape.consumers)
        try:
            return self._run(system, shape, limits, page, folder, notes)
        finally:
            page.set(run_file.STOP, 1)
            self.clean()
            page.close()

    def shape_for(self, system, shape):
        """Where both ends would spin and there is no CPU besides, a system with threads in between gets ends that
        sleep: it would wait for its turn otherwise."""
        if system.server and shape.wait == "spin" and os.cpu_count() < 3:
            return dataclasses.replace(shape, wait="block")
        return shape

    def _words(self, system, shape, page, folder):
        rate = shape.rate / shape.producers
        words = ["--run", page.path, "--dir", folder, "--size", shape.size, "--rate", f"{rate:.10g}",
                 "--wait", shape.wait, "--batch", system.batch]
        return words + (["--mode", system.mode] if system.mode else [])

    def _cpu(self, number, shape):
        """Pinned where each process can have a CPU of its own."""
        pinned = shape.processes <= len(self.cpus) and len(self.cpus) > 1
        return ["--cpu", self.cpus[number]] if pinned else []

    def _run(self, system, shape, limits, page, folder, notes):
        command = systems.command_of(system.family, self.build)
        words = self._words(system, shape, page, folder)
        serve = None
        if system.serve:
            serve = self.start("serve", [*command, "serve", *words], notes)
            self._wait(serve.says_ready, [serve], limits.ready, "was not ready")
        began = time.monotonic()

        def role(name, index, cpu):
            hist = ["--hist", notes / f"{name}-{index}.json"]
            slow = (["--slow-ns", shape.slow_ns]
                    if name == "consume" and shape.slow_ns and index == shape.consumers - 1 else [])
            return self.start(f"{name}-{index}", [*command, name, *words, "--index", index, *hist, *slow,
                                                  *self._cpu(cpu, shape)], notes)

        if shape.ping_pong:
            senders, readers = [role("ping", 0, 0)], [role("pong", 0, 1)]
        else:
            readers = [] if shape.late else [role("consume", k, shape.producers + k) for k in range(shape.consumers)]
            senders = [role("produce", k, k) for k in range(shape.producers)]
        everybody = senders + readers + ([serve] if serve else [])
        self._wait(lambda: page.get(run_file.READY) >= len(senders) + len(readers), everybody, limits.ready,
                   "were not all ready")
        attach = time.monotonic() - began
        load = self._start_load(folder, notes) if shape.load else []
        pace = self._watch_pace(notes)
        self._go(page, shape, limits)
        for process in everybody:
            process.mark_start()
        if shape.late:
            sent_in = self._send_all(page, shape, folder, everybody, limits)
            forget_pages(folder)
            readers = [role("consume", k, 1) for k in range(shape.consumers)]
            everybody += readers
            timed_out = self._wait_for(readers, everybody, limits.seconds * 20 + 60)
        else:
            sent_in = None
            timed_out = self._finish(page, shape, limits, senders, readers, everybody)
        memory = session_memory_kib(serve.pid) if serve else 0
        cpu = sum(process.cpu_seconds() for process in everybody)
        for process in load:
            process.end(1)
        self._check(everybody)
        paces = self._paces(pace, page)
        return self._collect(system, shape, page, notes, timed_out,
                             {"wait": shape.wait, "attach_s": attach, "cpu_s": cpu, "serve_kib": memory, "sent_in_s": sent_in,
                              "paces": paces})

    # --- Waiting ---

    def _check(self, processes):
        for process in processes:
            code = process.poll()
            if code in (None, 0) and not (process.name == "serve" and code == 0):
                continue
            if process.name == "serve" and code == 0:
                raise Failed("serve ended before the run did")
            if code == 3:
                raise Unavailable(process.complaint())
            why = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
            raise Failed(f"{process.name} {why}: {process.complaint()}")

    def _wait(self, done, processes, seconds, what):
        until = time.monotonic() + seconds
        while not done():
            self._check(processes)
            if time.monotonic() > until:
                names = ", ".join(process.name for process in processes)
                raise TooLate(f"{names} {what} within {seconds:.0f} s: {processes[0].complaint()}")
            time.sleep(0.002)

    def _times_out(self, done, processes, seconds):
        try:
            self._wait(done, processes, seconds, "")
        except TooLate:
            return True
        return False

    def _wait_for(self, ending, everybody, seconds):
        """Whether they did not end within so long; they are then told to."""
        until = time.monotonic() + seconds
        while any(process.poll() is None for process in ending):
            self._check(everybody)
            if time.monotonic() > until:
                return True
            time.sleep(0.005)
        return False

    def _go(self, page, shape, limits):
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        start = now + 50_000_000
        measure = start + int(limits.warmup * 1e9)
        page.set(run_file.MEASURE, 0 if shape.late else measure)
        seconds = 600 if shape.late else limits.seconds
        page.set(run_file.END, measure + int(seconds * 1e9))
        page.set(run_file.START, start)

    def _finish(self, page, shape, limits, senders, readers, everybody):
        """Waits for the end; true when there was more to deliver than the time of grace allowed for."""
        span = 0.05 + limits.warmup + limits.seconds + limits.grace
        ends_alone = readers[:-1] if shape.slow_ns else readers
        if shape.ping_pong:
            ends_alone = senders
        timed_out = self._wait_for(ends_alone, everybody, span)
        page.set(run_file.STOP, 1)
        if self._wait_for(senders + readers, everybody, 10):
            raise Failed("they did not end 10 s after they were told to")
        return timed_out

    def _send_all(self, page, shape, folder, everybody, limits):
        """Lets the producers send `bytes`; returns how many seconds that took."""
        began = time.monotonic()
        limit = limits.seconds * 20 + 60
        while folder_bytes(folder) < shape.bytes and time.monotonic() - began < limit:
            self._check(everybody)
            time.sleep(0.02)
        page.set(run_file.END, time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        took = time.monotonic() - began
        # Who has read the end once for all hears of it by `stop`, which the readers do not see any more.
        if self._times_out(page.all_done, everybody, 3):
            page.set(run_file.STOP, 1)
            self._wait(page.all_done, everybody, 30, "did not stop sending")
            page.set(run_file.STOP, 0)
        time.sleep(0.3)  # what is still on its way to the files
        return took

    def _start_load(self, folder, notes):
        """Two writers that keep the disk busy, each over 1 GiB, again and again."""
        target = f"while :; do dd if=/dev/zero of={folder}/load-$0 bs=1M count=1024 oflag=direct conv=fdatasync; done"
        return [self.start(f"load-{k}", ["sh", "-c", target, k], notes) for k in range(2)]

    def _watch_pace(self, notes):
        """What reads both CPUs' pace from now on; None where there are no two."""
        program = systems.command_of("line", self.build)
        if len(self.cpus) != 2 or not pathlib.Path(program[0]).is_file():
            return None
        return self.start("pace", [*program, "pace", "--cpus", ",".join(map(str, self.cpus))], notes)

    def _paces(self, watch, page):
        """{cpu: [ns that the same arithmetic took, every 8 ms]} of the time that is measured."""
        if watch is None:
            return {}
        watch.end(3)
        begin, end = page.get(run_file.MEASURE), page.get(run_file.END)
        try:
            return {one["cpu"]: [took for at, took in one["readings"] if begin <= at <= end]
                    for one in json.loads(watch.out.read_text())}
        except ValueError:
            return {}  # it has said why

    # --- Results ---

    def _collect(self, system, shape, page, notes, timed_out, more):
        def read(name):
            path = notes / name
            return json.loads(path.read_text()) if path.is_file() and path.stat().st_size else None
        readers = [read("ping-0.json")] if shape.ping_pong else [read(f"consume-{k}.json")
                                                                 for k in range(shape.consumers)]
        producers = [read(f"produce-{k}.json") for k in range(shape.producers)]
        producers = [one for one in producers if one]
        if any(one is None for one in readers):
            raise Failed("a reader ended without a result")
        wrong = {name: sum(one.get(name, 0) for one in readers)
                 for name in ("lost", "duplicated", "reordered", "corrupt")}
        if any(wrong.values()):
            raise Failed("not what was sent: " + ", ".join(f"{count} {name}" for name, count in wrong.items() if count))
        counted = readers[:-1] if shape.slow_ns else readers
        return summarize(shape, counted, producers, page.sent(), timed_out, more)


def summarize(shape, readers, producers, sent, timed_out, more):
    latency = Histogram.merged(Histogram(one["histogram"]) for one in readers)
    if not latency.total:
        raise Failed("did not keep up: of what was due after the warm-up nothing had arrived at the end")
    rates = [rate_of(one) for one in readers]
    rate = sum(rates) / len(rates)
    lateness = Histogram.merged(Histogram(one["histogram"]) for one in producers)
    received = sum(one["received"] for one in readers)
    handled = max(sent, received // max(1, len(readers)))
    return {
        "latency": latency, "lateness": lateness if lateness.total else None,
        "records_per_second": rate, "bytes_per_second": rate * shape.size,
        "received": received, "sent": sent, "bytes_read": received / len(readers) * shape.size,
        "kept_up": not timed_out and (not shape.rate or rate >= 0.95 * shape.rate),
        "records_per_cpu_second": handled / more["cpu_s"] if more["cpu_s"] > 0 else None,
        "open_ns": max(one.get("open_ns", 0) for one in readers),
        "notes": sorted({one["note"] for one in readers + producers if one.get("note")}),
        **more,
    }


def rate_of(reader):
    span = reader["last_ns"] - reader["first_ns"]
    return (reader["measured"] - 1) * 1e9 / span if span > 0 else 0.0


# --- Files ---

def folder_bytes(folder):
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total


def forget_pages(folder):
    """Writes back and drops the files' pages, so that a replay reads the disk."""
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            except OSError:
                continue
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                pass
            finally:
                os.close(descriptor)


def remove(path):
    """A folder, and the shared memory of a Ringtail log in it whose keeper was killed."""
    identity = pathlib.Path(path) / "ringtail.toml"
    if identity.is_file():
        found = re.search(r'log_id\s*=\s*"([0-9a-f]{32})"', identity.read_text())
        if found:
            shutil.rmtree(f"/dev/shm/ringtail-{found.group(1)}", ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)


def sync_disk():
    subprocess.run(["sync"], check=False)
