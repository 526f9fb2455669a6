"""What Ringtail set out to reach against the others, each with what was measured."""
import dataclasses


@dataclasses.dataclass
class Goal:
    title: str
    target: str
    measured: str       # the ratio, or why there is none
    met: bool | None
    detail: str = ""


class Board:
    """Medians by workload, system and metric, in the same distance of the CPUs for all."""

    def __init__(self, campaign):
        self.rows = {}
        for workload in campaign.workloads:
            for row in campaign.rows(workload):
                self.rows.setdefault((workload.name, row["system"].key), {})[row["distance"]] = row

    def pair(self, workload, first, second, metric, other_workload=None, other_metric=None):
        """(first, second, distance, steady) as (median, min, max) each; a text where one of them is missing.

        From rows of runs during which R stood still, if there are any of both.
        """
        mine = self.rows.get((workload, first))
        theirs = self.rows.get((other_workload or workload, second))
        for name, found in ((first, mine), (second, theirs)):
            if not found:
                return f"not measured: {name}"
        both = [distance for distance in ("near", "far", "one core", "") if distance in mine and distance in theirs]
        for wanted in (True, False):
            for distance in both:
                steady = mine[distance]["steady"] and theirs[distance]["steady"]
                a = mine[distance]["metrics"].get(metric)
                b = theirs[distance]["metrics"].get(other_metric or metric)
                if steady == wanted and a and b and a[0] and b[0]:
                    return a, b, distance, steady
        return "not measured: both at the same distance of the CPUs"


def time_text(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def rate_text(rate):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {unit}/s"
    return f"{rate:.3g}/s"


def verdict(title, target, ratio, met, values, distance, steady):
    detail = " over ".join(values) + (f", {distance}" if distance else "")
    if not steady:
        return Goal(title, target, f"{ratio:.3g}", None, f"{detail}; no verdict, for R moved or a CPU was slowed down")
    return Goal(title, target, f"{ratio:.3g}", met, detail)


def at_most(board, title, target, workload, ours, theirs, metric, text=time_text, **more):
    """Ours over theirs is at most `target`."""
    found = board.pair(workload, ours, theirs, metric, **more)
    if isinstance(found, str):
        return Goal(title, f"≤ {target:g}", found, None)
    a, b, *where = found
    ratio = a[0] / b[0]
    return verdict(title, f"≤ {target:g}", ratio, ratio <= target, (text(a[0]), text(b[0])), *where)


def at_least(board, title, target, workload, ours, theirs, metric, text=rate_text, inverse=False, **more):
    """Ours over theirs (inverse: theirs over ours) is at least `target`."""
    found = board.pair(workload, ours, theirs, metric, **more)
    if isinstance(found, str):
        return Goal(title, f"≥ {target:g}", found, None)
    a, b, *where = found
    if inverse:
        a, b = b, a
    ratio = a[0] / b[0]
    return verdict(title, f"≥ {target:g}", ratio, ratio >= target, (text(a[0]), text(b[0])), *where)


def slow_reader(board):
    title = "slow consumer: the producer's p99.9 with one over without, disk topic"
    found = board.pair("slow", "ringtail-disk", "ringtail-disk", "send_p99_9", other_workload="fast")
    if isinstance(found, str):
        return Goal(title, "within the noise", found, None)
    with_one, without, *_ = found
    ratio = with_one[0] / without[0]
    return Goal(title, "within min–max without", f"{ratio:.3g}", with_one[0] <= without[2],
                f"{time_text(with_one[0])}; without {time_text(without[0])} "
                f"({time_text(without[1])}–{time_text(without[2])})")


def goals(campaign):
    board = Board(campaign)
    memory, disk = "ringtail-memory", "ringtail-disk"
    one_m = "1 M/s open loop, to disk"
    return [
        at_most(board, "ping-pong 32 B, p50, over Aeron IPC's", 1, "ping-spin", memory, "aeron-ipc", "p50"),
        at_most(board, "ping-pong 32 B, exclusive, p50, over Aeron IPC's", 1, "ping-spin", "ringtail-exclusive",
                "aeron-ipc", "p50"),
        at_most(board, "ping-pong 32 B, p50, over the raw cache line's", 1.5, "ping-spin", memory, "line", "p50"),
        at_most(board, "ping-pong 32 B, p99.9, over Aeron IPC's", 1, "ping-spin", memory, "aeron-ipc", "p99_9"),
        at_most(board, f"{one_m}, p50, over Chronicle Queue's", 1, "open-1m", disk, "chronicle", "p50"),
        at_least(board, f"{one_m}, p99.9 of Chronicle Queue over ours", 5, "open-1m", disk, "chronicle", "p99_9",
                 time_text, inverse=True),
        at_most(board, f"{one_m}, p50, over Aeron Archive's", 1, "open-1m", disk, "aeron-archive", "p50"),
        at_least(board, f"{one_m}, p99.9 of Aeron Archive over ours", 5, "open-1m", disk, "aeron-archive", "p99_9",
                 time_text, inverse=True),
        at_most(board, f"{one_m}, p50, over our memory topic's", 2, "open-1m", disk, memory, "p50"),
        at_most(board, f"{one_m}, p99.9, over our memory topic's", 2, "open-1m", disk, memory, "p99_9"),
        at_least(board, "saturation 64 B, 1→1, over Aeron IPC, concurrent publication", 1.5, "sat-64", memory,
                 "aeron-shared", "records_per_second"),
        at_least(board, "saturation 64 B, 1→1, batches of 64, over Aeron IPC, concurrent publication", 2.5, "sat-64",
                 "ringtail-batch", "aeron-shared", "records_per_second"),
        at_least(board, "saturation 64 B, 1→1, exclusive, over Aeron IPC, exclusive publication", 1.5, "sat-64",
                 "ringtail-exclusive", "aeron-ipc", "records_per_second"),
        at_least(board, "saturation 64 B, 1→1, exclusive, batches of 64, over Aeron IPC, exclusive publication", 2.5,
                 "sat-64", "ringtail-exclusive-batch", "aeron-ipc", "records_per_second"),
        at_least(board, "4→1 contended producers, over Aeron IPC", 1, "fan-4-1", memory, "aeron-ipc",
                 "records_per_second"),
        at_least(board, "saturation 1 KiB, over memcpy through a ring of the same size", 0.6, "sat-1k", memory, "memcpy",
                 "records_per_second"),
        at_least(board, "10 k/s open loop, p99 of Kafka (acks=1) over our disk topic's", 100, "open-10k", disk, "kafka",
                 "p99", time_text, inverse=True),
        at_least(board, "saturation 64 B, records per second of CPU time, disk topic over Kafka (acks=1)", 10, "sat-64",
                 disk, "kafka", "records_per_cpu_second"),
        slow_reader(board),
        at_most(board, "blocking waits, ping-pong p50, over the pipe's", 1, "ping-block", memory, "pipe", "p50"),
    ]
