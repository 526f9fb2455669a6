"""Histograms as the peers write them, [[value_ns, count], ...]: merging, percentiles, .hgrm files."""
import bisect
import math


class Histogram:
    def __init__(self, pairs=()):
        counts = {}
        for value, count in pairs:
            counts[value] = counts.get(value, 0) + count
        self.values = sorted(counts)
        self.counts = [counts[value] for value in self.values]
        self.running = []
        total = 0
        for count in self.counts:
            total += count
            self.running.append(total)
        self.total = total

    @staticmethod
    def merged(histograms):
        return Histogram(pair for one in histograms for pair in one.pairs())

    def pairs(self):
        return [[value, count] for value, count in zip(self.values, self.counts)]

    def percentile(self, percent):
        """The least value that `percent` % of all do not exceed; None when there are none."""
        if not self.total:
            return None
        # 99.9 % of 1000 is 999, though the product comes out a little above it.
        wanted = max(1, math.ceil(percent / 100 * self.total * (1 - 1e-14)))
        return self.values[min(bisect.bisect_left(self.running, wanted), len(self.values) - 1)]

    def mean(self):
        return sum(v * c for v, c in zip(self.values, self.counts)) / self.total if self.total else None

    def summary(self):
        """The percentiles of the tables. None where too few values stand behind one."""
        names = {"p50": 50, "p90": 90, "p99": 99, "p99_9": 99.9, "p99_99": 99.99}
        found = {name: self.percentile(percent) if self.total * (100 - percent) >= 100 else None
                 for name, percent in names.items()}
        return {**found, "max": self.values[-1] if self.values else None, "samples": self.total}

    def curve(self, ticks=5):
        """[(percentile, value, count)], `ticks` points for each halving of the distance to 100 %."""
        points, level = [], 0.0
        for value, running in zip(self.values, self.running):
            reached = 100 * running / self.total
            while reached >= level and level < 100:
                points.append((level, value, running))
                if running == self.total:
                    break
                halvings = math.floor(math.log2(100 / (100 - level)))
                level += 100 / (ticks * 2 ** (halvings + 1))
        if self.total:
            points.append((100.0, self.values[-1], self.total))
        return points

    def hgrm(self):
        """HdrHistogram's text format, in ns."""
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
        for level, value, count in self.curve():
            share = level / 100
            tail = f" {1 / (1 - share):14.2f}" if share < 1 else ""
            lines.append(f"{value:12.3f} {share:2.12f} {count:10d}{tail}")
        lines.append(f"#[Mean    = {self.mean() or 0:12.3f}, Max     = {self.values[-1] if self.values else 0:12.3f}]")
        lines.append(f"#[Total count    = {self.total:12d}]")
        return "\n".join(lines) + "\n"
