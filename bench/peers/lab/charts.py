"""Charts as SVG text: percentile curves on log axes, and bars. Colours by CSS classes, see page.py."""
import html
import math

from .goals import rate_text, time_text

# Okabe and Ito's colours, which people with any kind of colour blindness can tell apart, without their yellow, which
# is hard to see on white; `ink` is black or white. Each system has a colour and a dash of its own.
COLOURS = {"ink": "var(--ink)", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73", "blue": "var(--blue)",
           "vermillion": "#D55E00", "purple": "#CC79A7"}
DASHES = {"solid": "", "dashed": "7 4", "dotted": "2 4", "dashdot": "9 3 2 3", "long": "16 5", "longdot": "16 4 2 4 2 4"}
STYLES = {
    "line": ("ink", "dotted"), "ring": ("ink", "solid"), "memcpy": ("ink", "dashed"), "memcpy-small": ("ink", "dashdot"),
    "ringtail-memory": ("vermillion", "solid"), "ringtail-batch": ("vermillion", "dotted"),
    "ringtail-exclusive": ("vermillion", "long"), "ringtail-exclusive-batch": ("vermillion", "longdot"),
    "ringtail-exclusive-disk": ("vermillion", "longdot"),
    "ringtail-small": ("vermillion", "dotted"), "ringtail-small-batch": ("vermillion", "dashdot"),
    "ringtail-disk": ("vermillion", "dashed"), "ringtail-disk-batch": ("vermillion", "dotted"),
    "ringtail-durable": ("vermillion", "dashdot"), "ringtail-durable-batch": ("vermillion", "dashdot"),
    "ringtail-group": ("vermillion", "dotted"),
    "pipe": ("sky", "solid"), "socket": ("sky", "dashed"), "boost": ("sky", "dotted"), "zeromq": ("sky", "dashdot"),
    "iceoryx": ("green", "solid"), "iceoryx2": ("green", "dashed"),
    "redis": ("purple", "solid"), "redis-aof": ("purple", "dashed"), "nats": ("purple", "dotted"),
    "nats-file": ("purple", "dashdot"),
    "aeron-ipc": ("blue", "solid"), "aeron-shared": ("blue", "dashdot"), "aeron-archive": ("blue", "dashed"),
    "aeron-recorded": ("blue", "dotted"),
    "chronicle": ("blue", "dashdot"),
    "kafka": ("orange", "solid"), "kafka-all": ("orange", "dashed"), "kafka-durable": ("orange", "dotted"),
}
WIDTH, HEIGHT = 1080, 520
LEFT, RIGHT, TOP, BOTTOM = 74, 1060, 16, 470


def stroke(key):
    """The attributes of a system's line."""
    colour, dash = STYLES.get(key, ("ink", "solid"))
    width = 3 if key.startswith("ringtail") else 1.8
    dashes = f' stroke-dasharray="{DASHES[dash]}"' if DASHES[dash] else ""
    return f'stroke="{COLOURS[colour]}" stroke-width="{width}"{dashes}'


def text(x, y, words, anchor="middle", style="faint"):
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def grid(x1, y1, x2, y2):
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def percentile_chart(title, rows):
    """Latency over the percentile, both axes logarithmic: the x axis is 1/(1-p). One curve a row."""
    curves = [(row, points_of(row["latency"])) for row in rows if row["latency"].total]
    curves = [(row, points) for row, points in curves if points]
    if not curves:
        return ""
    low = math.floor(math.log10(min(value for _, points in curves for _, value in points)))
    high = max(low + 1, math.ceil(math.log10(max(value for _, points in curves for _, value in points))))
    nines = max(1.0, max(points[-1][0] for _, points in curves))

    def x(at):
        return LEFT + (RIGHT - LEFT) * at / nines

    def y(value):
        return BOTTOM - (BOTTOM - TOP) * (math.log10(value) - low) / (high - low)

    parts = []
    for decade in range(low, high + 1):
        parts += [grid(LEFT, y(10.0 ** decade), RIGHT, y(10.0 ** decade)),
                  text(LEFT - 8, y(10.0 ** decade) + 4, time_text(10.0 ** decade), "end")]
        for between in (2, 5):
            if decade < high:
                parts.append(f'<line class="fine" x1="{LEFT}" y1="{y(between * 10.0 ** decade):.1f}" x2="{RIGHT}" '
                             f'y2="{y(between * 10.0 ** decade):.1f}"/>')
    for at in range(int(nines) + 1):
        percent = f"{100 - 100 * 10.0 ** -at:.{max(at - 2, 0)}f} %"
        parts += [grid(x(at), TOP, x(at), BOTTOM), text(x(at), BOTTOM + 20, percent),
                  text(x(at), BOTTOM + 36, f"1/(1−p) = {10 ** at:,}")]
    for row, points in sorted(curves, key=lambda one: one[0]["system"].key.startswith("ringtail")):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        key = row["system"].key
        parts.append(f'<polyline class="curve" data-key="{key}" fill="none" {stroke(key)} points="{path}">'
                     f'<title>{html.escape(label_of(row))}</title></polyline>')
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}: latency over percentile">'
            + "".join(parts) + "</svg>")


def points_of(histogram):
    """[(nines, ns)] up to where ten values lie behind."""
    most = math.log10(max(1.0, histogram.total / 10))
    points = []
    for level, value, _ in histogram.curve():
        at = most if level >= 100 else -math.log10(1 - level / 100)
        if at <= most and level < 100:
            points.append((at, max(value, 1)))
    return points


def label_of(row):
    return row["system"].label + (f", {row['distance']}" if row["distance"] in ("far", "one core") else "")


def legend(rows):
    parts = []
    for row in rows:
        key = row["system"].key
        parts.append(f'<span class="key" data-key="{key}" tabindex="0"><svg width="38" height="12" viewBox="0 0 38 12" '
                     f'aria-hidden="true"><line x1="1" y1="6" x2="37" y2="6" {stroke(key)}/></svg>'
                     f'{html.escape(label_of(row))}</span>')
    return f'<p class="legend">{"".join(parts)}</p>'


def rate_chart(title, rows):
    """A bar a row: median, with the least and the most as a whisker."""
    shown = sorted((row for row in rows if "records_per_second" in row["metrics"]),
                   key=lambda row: -row["metrics"]["records_per_second"][0])
    if not shown:
        return ""
    most = max(row["metrics"]["records_per_second"][2] for row in shown)
    left, right, step = 270, 900, 26
    height = step * len(shown) + 12

    def x(rate):
        return left + (right - left) * rate / most

    parts = []
    for number, row in enumerate(shown):
        middle = 8 + step * number + step / 2 - 2
        median, least, highest = row["metrics"]["records_per_second"]
        style = ("bar ours" if row["system"].key.startswith("ringtail") else
                 "bar floor" if row["system"].family in ("ring", "line") else "bar")
        parts += [text(left - 10, middle + 4, label_of(row), "end", "name"),
                  f'<rect class="{style}" x="{left}" y="{middle - 8:.1f}" width="{max(1, x(median) - left):.1f}" height="16"/>',
                  f'<line class="whisker" x1="{x(least):.1f}" y1="{middle:.1f}" x2="{x(highest):.1f}" y2="{middle:.1f}"/>',
                  text(max(x(highest), x(median)) + 8, middle + 4,
                       f"{rate_text(median)}, {row['system'].durability}", "start", "faint")]
    return (f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}: records per second">'
            + "".join(parts) + "</svg>")
