"""The workloads: what each asks, and which systems take part in it."""
import dataclasses

from .runs import Shape
from .systems import SYSTEMS

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    question: str
    shape: Shape = Shape()
    metric: str = "latency"   # or "rate", "send" (the producer's latency), "replay", "attach"
    quick: tuple | None = ()  # systems that --quick measures; empty: all; None: not part of it
    open_loop: bool = False   # beside it: the minimal ring, and the gaps of a spinning thread
    only: tuple = ()          # systems; empty: all that can
    seconds: float = 1.0      # share of the time that was asked for
    goal: tuple = ()          # systems of a goal that --quick leaves out

    @property
    def tails(self):
        """Whether it is about latencies, of which a CPU that is slowed down for a moment makes something else."""
        return self.metric in ("latency", "send")

    def tells(self, system):
        """Whether --quick measures the system here, or a goal is about it."""
        return self.quick is not None and (not self.quick or system.key in self.quick) or system.key in self.goal

    def refuses(self, system):
        """Why the system has no part in it; None when it has."""
        shape = self.shape
        if self.only and system.key not in self.only:
            return "no part of this workload"
        if system.only and self.name not in system.only:
            return "no part of this workload"
        if self.name in system.never:
            return system.note or "not asked of it"
        if shape.wait not in system.waits:
            return "has no way to wait without spinning" if shape.wait == "block" else "does not spin"
        if shape.producers > 1 and not system.fan_in:
            return "has one producer only"
        if shape.consumers > 1 and not system.fan_out:
            return "its consumers share the records"
        if shape.size > system.max_size:
            return "does not take as many bytes at once"
        if shape.slow_ns and not system.slow:
            return "its program cannot be made slow"
        if shape.late and not system.late:
            return "a reader that comes later gets nothing, or all of it lies in memory"
        return None


def _open(name, rate, label, quick=None):
    return Workload(f"open-{name}", f"open loop, {label} records/s, 64 B",
                    "How late is a record, counted from when it was meant to leave?",
                    Shape(rate=rate), open_loop=True, quick=quick)


def _saturation(name, size, quick=None):
    label = f"{size} B" if size < 1024 else f"{size // 1024} KiB"
    return Workload(f"sat-{name}", f"saturation, {label}, 1→1", "How many records a second?", Shape(size=size), "rate",
                    quick=quick)


def _fan(producers, consumers, quick=None):
    return Workload(f"fan-{producers}-{consumers}", f"saturation, 64 B, {producers}→{consumers}, blocking waits",
                    "How many records a second, with more processes than CPUs? Each consumer gets all of them.",
                    Shape(producers=producers, consumers=consumers, wait="block"), "rate", quick=quick)


QUICK_OPEN = ("ring", "ringtail-memory", "ringtail-disk", "aeron-ipc", "aeron-archive", "chronicle",
              "iceoryx2")
# With other systems that keep everything in memory, a slow reader stops the producer; that is what it would show.
SLOW_KEYS = ("ringtail-disk", "ringtail-memory", "pipe", "zeromq", "redis", "nats-file")
DISK_KEYS = ("ringtail-disk", "nats-file", "aeron-archive", "chronicle", "kafka", "redis-aof")


def workloads(replay_bytes):
    return [
        Workload("ping-spin", "ping-pong, 32 B, spinning", "How long do a question and its answer take?",
                 Shape(ping_pong=True, size=32),
                 quick=("line", "ring", "ringtail-memory", "ringtail-exclusive", "ringtail-disk", "ringtail-group",
                        "pipe", "socket", "boost", "zeromq", "iceoryx", "redis", "aeron-ipc", "chronicle", "iceoryx2")),
        _saturation("64", 64, ("ring", "ringtail-memory", "ringtail-batch", "ringtail-exclusive",
                               "ringtail-exclusive-batch", "ringtail-small-batch", "ringtail-disk",
                               "ringtail-disk-batch", "ringtail-durable-batch", "pipe", "boost", "zeromq", "iceoryx",
                               "redis", "aeron-ipc", "aeron-shared", "aeron-archive", "chronicle", "kafka",
                               "iceoryx2")),
        _open("1m", 1e6, "1 M", QUICK_OPEN),
        Workload("ping-block", "ping-pong, 32 B, blocking waits", "The same, with readers that sleep.",
                 Shape(ping_pong=True, size=32, wait="block"),
                 quick=("ringtail-memory", "ringtail-disk", "pipe", "socket", "boost", "zeromq", "iceoryx2")),
        _open("10k", 1e4, "10 k", ("ring", "ringtail-disk", "kafka", "redis", "nats-file")),
        _saturation("1k", 1024, ("memcpy", "memcpy-small", "ring", "ringtail-memory", "ringtail-batch", "aeron-ipc",
                                 "iceoryx2")),
        _fan(4, 1, ("ringtail-memory", "ringtail-batch", "pipe", "aeron-ipc", "iceoryx2")),
        _open("100k", 1e5, "100 k"),
        _saturation("256", 256),
        _saturation("16k", 16384),
        _fan(1, 4),
        _fan(4, 4),
        Workload("fast", "open loop, 500 k records/s, two consumers", "Beside the next one.",
                 Shape(rate=5e5, consumers=2, wait="block"), "send", quick=None, only=SLOW_KEYS,
                 goal=("ringtail-disk",)),
        Workload("slow", "open loop, 500 k records/s, a slow consumer beside a fast one",
                 "Does the producer feel a consumer that falls more than a ring behind? (It takes a record in 150 µs.)",
                 Shape(rate=5e5, consumers=2, wait="block", slow_ns=100_000), "send", quick=None, only=SLOW_KEYS,
                 goal=("ringtail-disk",)),
        Workload("disk-idle", "open loop, 100 k records/s, the disk idle",
                 "What the producer's send takes, from when it was due; beside the next one.",
                 Shape(rate=1e5), "send", quick=None, only=DISK_KEYS),
        Workload("disk-busy", "open loop, 100 k records/s, the disk saturated by two dd",
                 "Does the producer feel what another program does to the disk?",
                 Shape(rate=1e5, load=True), "send", quick=None, only=DISK_KEYS),
        Workload("replay", f"replay of {replay_bytes / GIB:g} GiB, 1 KiB records, page cache dropped",
                 "How fast are records read from disk?",
                 Shape(size=1024, late=True, bytes=replay_bytes), "replay", quick=None),
        Workload("attach", "attach", "How long until a new process can read and write?",
                 Shape(rate=1e4, wait="block"), "attach", quick=None, seconds=0.25),
    ]


def idle_systems():
    return [system for system in SYSTEMS if system.idle and system.mode in ("memory", "disk") and system.batch == 1]
