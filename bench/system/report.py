"""Writes what was measured: a table for people, JSON for programs, charts."""
import json
import math
import statistics

STYLE = """<style>
  svg { --ink: #1c2330; --faint: #667085; --grid: #d0d5dd; --good: #0f8a5f; --bad: #d9480f; --other: #2563eb;
        font: 13px system-ui, sans-serif; background: #fff }
  @media (prefers-color-scheme: dark) { svg { --ink: #e6e9ef; --faint: #98a2b3; --grid: #3a4150; --good: #4fd1a1;
        --bad: #ff9559; --other: #6ea8fe; background: #14171d } }
  text { fill: var(--ink) } .faint { fill: var(--faint) } line { stroke: var(--grid) }
  .good { fill: var(--good) } .bad { fill: var(--bad) } .whisker { stroke: var(--ink) }
  polyline { fill: none; stroke-width: 1.5 } .memory { stroke: var(--other) } .disk { stroke: var(--bad) }
</style>"""


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def probe_range(figure):
    values = [probe for sample in figure.samples if sample["probe_ns"] for probe in sample["probe_ns"].values()]
    return f"{min(values):.0f}–{max(values):.0f}" if values else ""


def markdown(figures, surroundings):
    changed = ", with changes" if surroundings["changed"] else ""
    lines = [
        f"{surroundings['machine']}, {surroundings['kernel']}, {surroundings['file_system']}, CPUs "
        f"{surroundings['cpus']}; commit {surroundings['commit'][:12]}{changed}; {surroundings['date']}. "
        f"Median of {surroundings['repeat']} interleaved repetitions; R is the round trip of a cache line, in ns, "
        "over all samples. Samples during which R moved by more than a sixth are left out while others remain.",
        "",
        "| figure | target | median | min | max | unit | samples | R | met |",
        "|---|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for figure in figures:
        values = figure.values()
        target = "" if figure.target is None else ("≤ " if figure.lower_is_better else "≥ ") + number(figure.target)
        share = figure.share_of_target()
        met = "" if share is None else "yes" if share >= 1 else "**no**"
        lines.append(f"| {figure.title} | {target} | {number(figure.median())} | {number(min(values))} | "
                     f"{number(max(values))} | {figure.unit} | {len(values)} of {len(figure.samples)} | "
                     f"{probe_range(figure)} | {met} |")
    return "\n".join(lines) + "\n"


def figures_svg(figures):
    """One bar per target: how much of it was reached, the worst and the best sample as a whisker."""
    shown = [figure for figure in figures if figure.share_of_target() is not None]
    left, width, row = 300, 900, 30
    height = row * len(shown) + 40
    scale = (width - left - 70) / 2.5

    def x(share):
        return left + scale * min(share, 2.5)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">', STYLE]
    for share in (0, 0.5, 1, 1.5, 2, 2.5):
        parts.append(f'<line x1="{x(share):.1f}" x2="{x(share):.1f}" y1="4" y2="{height - 26}"/>'
                     f'<text class="faint" x="{x(share):.1f}" y="{height - 8}" text-anchor="middle">{share:g}</text>')
    for index, figure in enumerate(shown):
        y = 8 + index * row
        share = figure.share_of_target()
        ends = sorted(figure.target / value if figure.lower_is_better else value / figure.target
                      for value in figure.values())
        parts.append(f'<text x="{left - 10}" y="{y + 15}" text-anchor="end">{figure.title}</text>'
                     f'<rect class="{"good" if share >= 1 else "bad"}" x="{left}" y="{y}" height="{row - 10}" '
                     f'width="{x(share) - left:.1f}"/>'
                     f'<line class="whisker" x1="{x(ends[0]):.1f}" x2="{x(ends[-1]):.1f}" '
                     f'y1="{y + 10}" y2="{y + 10}"/>'
                     f'<text class="faint" x="{x(max(share, ends[-1])) + 6:.1f}" y="{y + 15}">'
                     f'{number(figure.median())} {figure.unit}</text>')
    parts.append(f'<text class="faint" x="{left - 10}" y="{height - 8}" text-anchor="end">share of the target</text>')
    return "\n".join(parts) + "\n</svg>\n"


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


def open_loop_svg(curves):
    """Delay over percentile of every repetition: `curves` is [(storage, points)]."""
    width, height, left, bottom = 900, 460, 80, 420
    nines = max(points[-1][0] for _, points in curves)
    low = math.floor(math.log10(min(value for _, points in curves for _, value in points)))
    high = math.ceil(math.log10(max(value for _, points in curves for _, value in points)))
    high = max(high, low + 1)

    def x(at):
        return left + (width - left - 50) * at / nines

    def y(value):
        return bottom - (bottom - 20) * (math.log10(value) - low) / (high - low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">', STYLE]
    for decade in range(low, high + 1):
        name = ("{:g} ns".format(10 ** decade) if decade < 3 else "{:g} µs".format(10 ** (decade - 3))
                if decade < 6 else "{:g} ms".format(10 ** (decade - 6)))
        parts.append(f'<line x1="{left}" x2="{width - 50}" y1="{y(10 ** decade):.1f}" y2="{y(10 ** decade):.1f}"/>'
                     f'<text class="faint" x="{left - 8}" y="{y(10 ** decade) + 4:.1f}" text-anchor="end">{name}</text>')
    for at in range(int(nines) + 1):
        parts.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="20" y2="{bottom}"/>'
                     f'<text class="faint" x="{x(at):.1f}" y="{bottom + 18}" text-anchor="middle">'
                     f'{100 - 100 * 10.0 ** -at:.{max(at - 2, 0)}f} %</text>')
    for storage, points in curves:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline class="{storage}" points="{path}"/>')
    for index, storage in enumerate(("memory", "disk")):
        parts.append(f'<polyline class="{storage}" points="{left + 20},{36 + 20 * index} {left + 50},{36 + 20 * index}"/>'
                     f'<text x="{left + 58}" y="{40 + 20 * index}">storage={storage}</text>')
    return "\n".join(parts) + "\n</svg>\n"


def write(out, figures, surroundings):
    measured = {name: figure for name, figure in figures.items() if figure.samples}
    (out / "results.md").write_text(markdown(measured.values(), surroundings))
    (out / "results.json").write_text(json.dumps({
        **surroundings,
        "figures": {name: {"title": figure.title.strip(), "unit": figure.unit, "target": figure.target,
                           "lower_is_better": figure.lower_is_better, "median": statistics.median(figure.values()),
                           "samples": figure.samples} for name, figure in measured.items()},
    }, indent=1) + "\n")
    (out / "figures.svg").write_text(figures_svg(measured.values()))
    repetitions = range(surroundings["repeat"])
    files = [(storage, out / "raw" / f"open_loop-{storage}-{number}.hgrm")
             for storage in ("memory", "disk") for number in repetitions]
    curves = [(storage, read_hgrm(path)) for storage, path in files if path.is_file()]
    if "open_loop" in measured and curves:
        (out / "open_loop.svg").write_text(open_loop_svg(curves))
