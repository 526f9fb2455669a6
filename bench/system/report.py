"""Writes what was measured: a table for people, JSON for programs, charts."""
import json
import math

STYLE = """<style>
  svg { --ink: #1c2330; --faint: #667085; --grid: #d0d5dd; --good: #0f8a5f; --bad: #d9480f; --other: #2563eb;
        font: 13px system-ui, sans-serif; background: #fff }
  @media (prefers-color-scheme: dark) { svg { --ink: #e6e9ef; --faint: #98a2b3; --grid: #3a4150;
        --good: #4fd1a1; --bad: #ff9559; --other: #6ea8fe; background: #14171d } }
  text { fill: var(--ink) } .faint { fill: var(--faint) } .grid { stroke: var(--grid) }
  .good { fill: var(--good) } .bad { fill: var(--bad) } .whisker { stroke: var(--ink) }
  polyline { fill: none; stroke-width: 1.5 } .memory { stroke: var(--other) } .disk { stroke: var(--bad) }
</style>"""


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def probe_range(figure):
    probes = [sample["probe_ns"] for sample in figure.samples if sample["probe_ns"]]
    values = [value for probe in probes for value in probe.values()]
    return f"{min(values):.0f}–{max(values):.0f}" if values else ""


def markdown(figures, surroundings):
    changed = ", with changes" if surroundings["changed"] else ""
    lines = [
        f"{surroundings['machine']}, {surroundings['kernel']}, {surroundings['file_system']}, CPUs "
        f"{surroundings['cpus']}; commit {surroundings['commit'][:12]}{changed}; {surroundings['date']}. "
        f"Median of {surroundings['repeat']} interleaved repetitions; R is the round trip of a cache line, "
        "in ns, over all samples. Samples during which R moved by more than a sixth are left out while "
        "others remain.",
        "",
        *([f"**Ended early:** {surroundings['failed']}", ""] if surroundings.get("failed") else []),
        "| figure | target | median | min | max | unit | samples | R | met |",
        "|---|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for figure in figures:
        values = figure.values()
        bound = "≤" if figure.lower_is_better else "≥"
        target = "" if figure.target is None else f"{bound} {number(figure.target)}"
        share = figure.share_of_target()
        met = "" if share is None else "yes" if share >= 1 else "**no**"
        lines.append(f"| {figure.title} | {target} | {number(figure.median())} | {number(min(values))} | "
                     f"{number(max(values))} | {figure.unit} | {len(values)} of {len(figure.samples)} | "
                     f"{probe_range(figure)} | {met} |")
    return "\n".join(lines) + "\n"


def text(x, y, words, anchor="middle", style="faint"):
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def line(x1, y1, x2, y2, style="grid"):
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def picture(width, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    return "\n".join([head, STYLE, *parts, "</svg>\n"])


def figures_svg(figures):
    """One bar per target: how much of it was reached, the worst and the best sample as a whisker."""
    shown = [figure for figure in figures if figure.share_of_target() is not None]
    left = max([300, *(20 + 7 * len(figure.title) for figure in shown)])
    width, row, most = left + 600, 30, 2.5
    height = row * len(shown) + 40

    def x(share):
        return left + (width - left - 110) / most * min(share, most)

    parts = [text(left - 10, height - 8, "share of the target", "end")]
    for share in (0, 0.5, 1, 1.5, 2, 2.5):
        parts += [line(x(share), 4, x(share), height - 26), text(x(share), height - 8, f"{share:g}")]
    for index, figure in enumerate(shown):
        y = 8 + index * row
        share = figure.share_of_target()
        ends = sorted(figure.target / value if figure.lower_is_better else value / figure.target
                      for value in figure.values())
        style = "good" if share >= 1 else "bad"
        parts += [text(left - 10, y + 15, figure.title, "end", "name"),
                  f'<rect class="{style}" x="{left}" y="{y}" height="20" width="{x(share) - left:.1f}"/>',
                  line(x(ends[0]), y + 10, x(ends[-1]), y + 10, "whisker"),
                  text(x(ends[-1]) + 6, y + 15, f"{number(figure.median())} {figure.unit}", "start")]
    return picture(width, height, parts)


def read_hgrm(path):
    """[(nines, ns)] of an .hgrm file."""
    points = []
    for line in path.read_text().splitlines()[2:]:
        if line.startswith("#") or not line.strip():
            continue
        value, share, count = (float(word) for word in line.split()[:3])
        finest = math.log10(max(count, 1))
        points.append((finest if share >= 1 else min(finest, -math.log10(1 - share)), max(value, 1)))
    return points


def time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns:g} ns"


def open_loop_svg(curves):
    """Delay over percentile of every repetition: `curves` is [(storage, points)]."""
    width, height, left, right, bottom = 900, 460, 80, 850, 420
    values = [math.log10(value) for _, points in curves for _, value in points]
    low, high = math.floor(min(values)), max(math.ceil(max(values)), math.floor(min(values)) + 1)
    nines = max(points[-1][0] for _, points in curves)

    def x(at):
        return left + (right - left) * at / nines

    def y(value):
        return bottom - (bottom - 20) * (math.log10(value) - low) / (high - low)

    parts = []
    for decade in range(low, high + 1):
        at = y(10.0 ** decade)
        parts += [line(left, at, right, at), text(left - 8, at + 4, time(10.0 ** decade), "end")]
    for at in range(int(nines) + 1):
        percent = f"{100 - 100 * 10.0 ** -at:.{max(at - 2, 0)}f} %"
        parts += [line(x(at), 20, x(at), bottom), text(x(at), bottom + 18, percent)]
    for storage, points in curves:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline class="{storage}" points="{path}"/>')
    for storage, at in (("memory", 36), ("disk", 56)):
        parts += [f'<polyline class="{storage}" points="{left + 20},{at} {left + 50},{at}"/>',
                  text(left + 58, at + 4, f"storage={storage}", "start", "name")]
    return picture(width, height, parts)


def write(out, figures, surroundings):
    measured = {name: figure for name, figure in figures.items() if figure.samples}
    (out / "results.md").write_text(markdown(measured.values(), surroundings))
    (out / "results.json").write_text(json.dumps({
        **surroundings,
        "figures": {name: {"title": figure.title.strip(), "unit": figure.unit, "target": figure.target,
                           "lower_is_better": figure.lower_is_better, "median": figure.median(),
                           "samples": figure.samples} for name, figure in measured.items()},
    }, indent=1) + "\n")
    (out / "figures.svg").write_text(figures_svg(measured.values()))
    repetitions = range(surroundings["repeat"])
    files = [(storage, out / "raw" / f"open_loop-{storage}-{number}.hgrm")
             for storage in ("memory", "disk") for number in repetitions]
    curves = [(storage, read_hgrm(path)) for storage, path in files if path.is_file()]
    if "open_loop" in measured and curves:
        (out / "open_loop.svg").write_text(open_loop_svg(curves))
