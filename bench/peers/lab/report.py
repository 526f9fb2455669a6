"""Writes what was measured: results.md, results.json, hgrm/, index.html."""
import pathlib
import shutil

from . import campaign as campaigns
from . import page, systems
from .goals import goals, rate_text, time_text

HOW = """\
Each record is checked: its place in its producer's order, and one word of every 64 bytes. A run in which one was
lost, came twice, out of order or damaged is a failure, not a figure. Latencies of open loops count from when a
record was meant to leave. **R** is the round trip of two raw cache lines between the two CPUs, before and after each
run. A run during which it moved by more than 15 % is done again, four times at most, and left out of the medians while
steadier ones remain; where latencies count, so is one during which a CPU was slowed down: every 8 ms it was asked for
the same half microsecond of arithmetic, and took over three times as long as ever before. CPUs whose R is more than
1.5 times the lower decile of all R are *far*, as far below it *one core* (two hyper-threads); they have rows of their
own.
Figures are medians over the runs, with least and most in brackets. *Durability* says where a record is when its
producer goes on: compare like with like. *× ring* is the ratio to the minimal ring under the same load within the
same minute: on a shared machine the CPU itself goes away for milliseconds, and an absolute tail says nothing. *Ends
sleep*: a system with threads between sender and receiver, where two spinning ends would leave it no CPU."""


def span(metric, text):
    """Median (least–most)."""
    if metric is None:
        return ""
    median, least, most = metric
    return text(median) if least == most else f"{text(median)} ({text(least)}–{text(most)})"


def ratio_text(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


COLUMNS = {
    "latency": [("p50", "p50", time_text), ("p99", "p99", time_text), ("p99.9", "p99_9", time_text),
                ("p99.99", "p99_99", time_text)],
    "rate": [("records", "records_per_second", rate_text),
             ("MiB/s", "bytes_per_second", lambda value: f"{value / 1048576:.0f}"),
             ("records per CPU second", "records_per_cpu_second", rate_text), ("p99 of full queues", "p99", time_text)],
    "send": [("send p50", "send_p50", time_text), ("send p99", "send_p99", time_text),
             ("send p99.9", "send_p99_9", time_text), ("consumer's p99.9", "p99_9", time_text)],
    "replay": [("records", "records_per_second", rate_text),
               ("MiB/s", "bytes_per_second", lambda value: f"{value / 1048576:.0f}"),
               ("GiB read", "bytes_read", lambda value: f"{value / (1 << 30):.2f}"), ("written in", "sent_in_s", lambda value: f"{value:.1f} s")],
    "attach": [("processes started until ready", "attach_s", lambda value: time_text(value * 1e9)),
               ("of it, opening the system", "open_ns", lambda value: time_text(value) if value else "not told")],
}
OVER_RING = [("p99 × ring", "p99_over_ring", ratio_text), ("p99.9 × ring", "p99_9_over_ring", ratio_text)]


def columns_of(workload):
    return COLUMNS[workload.metric] + (OVER_RING if workload.open_loop else [])


def table(campaign, workload):
    """(head, rows) of texts; None when nothing was measured."""
    found = campaign.rows(workload)
    if not found:
        return None
    columns = columns_of(workload)
    several = len({row["distance"] for row in found}) > 1
    head = ["system", "durability", *([] if not several else ["CPUs"]), *(name for name, _, _ in columns), "R, ns", "runs"]
    rows = []
    for row in found:
        metrics = row["metrics"]
        r = metrics.get("probe")
        sleeps = ", ends sleep" if row["wait"] == "block" and workload.shape.wait == "spin" else ""
        cells = [row["system"].label + sleeps + ("" if row["kept_up"] or not workload.shape.rate else " *"),
                 row["system"].durability, *([] if not several else [row["distance"]]),
                 *(span(metrics.get(key), text) for _, key, text in columns),
                 f"{r[1]:.0f}–{r[2]:.0f}" if r else "", f"{row['n']} of {row['of']}"]
        rows.append(cells)
    return head, rows


def not_kept(campaign, workload):
    return workload.shape.rate and any(not row["kept_up"] for row in campaign.rows(workload))


def left_out(campaign, workload):
    """{why: [labels]} of systems that have no row."""
    found = {}
    for system in systems.SYSTEMS:
        if (workload.name, system.key) in campaign.samples:
            continue
        why = campaign.part(workload, system)
        if why and why not in ("missing", "no part of this workload"):
            found.setdefault(why, []).append(system.label)
    return found


def failed_runs(campaign, workload):
    """[sentence] of systems that have a row, without the runs that failed."""
    found = []
    for system in systems.SYSTEMS:
        samples = campaign.samples.get((workload.name, system.key))
        failures = campaign.failures.get((workload.name, system.key))
        if samples and failures:
            found.append(f"{system.label}: {len(failures)} of {len(samples) + len(failures)} runs failed; "
                         f"the last one: {failures[-1]}")
    return found


def about_text(about):
    changed = ", with changes" if about["changed"] else ""
    virtual = " (virtual)" if about["virtual"] else ""
    kind = "--quick" if about["quick"] else "--full"
    return (f"{about['machine']}{virtual}, {about['cpu_count']} CPUs, {about['memory_gib']} GiB, {about['kernel']}, "
            f"{about['file_system']}; CPUs {','.join(map(str, about['cpus']))}; commit {about['commit'][:12]}{changed}; "
            f"{about['date']}; {kind}: {about['repeat']} rounds of {about['seconds']:g} s a run"
            + (", fewer where the time was up" if about["quick"] else "")
            + f"; {about['again']} runs done again because the machine changed, {about['moved']} kept though it did.")


def gaps_text(campaign):
    """One sentence on how long the CPUs were away, over all open-loop runs."""
    found = [cpu for samples in campaign.samples.values() for sample in samples for cpu in sample.get("gaps") or []]
    if not found:
        return ""
    by_cpu = {}
    for cpu in found:
        by_cpu.setdefault(cpu["cpu"], []).append(cpu)
    parts = []
    for number, some in sorted(by_cpu.items()):
        share = sum(cpu["away_share"] for cpu in some) / len(some)
        longest = max(cpu["max_ns"] for cpu in some)
        per_second = sum(cpu["count"] for cpu in some) / sum(cpu["seconds"] for cpu in some)
        parts.append(f"CPU {number} was away {per_second:.0f} times a second, {100 * share:.2g} % of the time, "
                     f"{time_text(longest)} at the longest")
    return "A spinning thread that only reads the clock, beside the open loops: " + "; ".join(parts) + "."


def pace_text(campaign):
    """One sentence on how often a CPU was slowed down, over all runs that were kept."""
    count, slowed, share = campaign.slowed()
    if not slowed:
        return ""
    return (f"In {slowed} of the {count} runs a CPU was slowed down to less than a third of its pace for a while, "
            f"{100 * share:.2g} % of the time of all.")


def markdown(campaign, about, missing, problems, versions):
    lines = ["# The performance lab's results", "", about_text(about), "", HOW, ""]
    for said in (gaps_text(campaign), pace_text(campaign)):
        lines += [said, ""] if said else []
    lines += [f"- **Note:** {problem}" for problem in problems]
    lines += ["", "## Goals", "", "| goal | target | measured | met | from |", "|---|---:|---:|---|---|"]
    for goal in goals(campaign):
        met = {True: "yes", False: "**no**", None: "–"}[goal.met]
        lines.append(f"| {goal.title} | {goal.target} | {goal.measured} | {met} | {goal.detail} |")
    for workload in campaign.workloads:
        found = table(campaign, workload)
        if not found:
            continue
        head, rows = found
        lines += ["", f"## {workload.title}", "", workload.question, "", "| " + " | ".join(head) + " |",
                  "|---|---|" + "---:|" * (len(head) - 2)]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows]
        if not_kept(campaign, workload):
            lines += ["", "\\* did not keep the rate up: what arrived is counted, what did not is not."]
        for why, labels in left_out(campaign, workload).items():
            lines += ["", f"Not measured: {', '.join(labels)} ({why})."]
        for sentence in failed_runs(campaign, workload):
            lines += ["", f"{sentence}."]
    lines += idle_lines(campaign)
    lines += ["", "## Systems", "", "| system | version |", "|---|---|"]
    lines += [f"| {family} | {version} |" for family, version in versions.items()]
    lines += [f"| {family} | **not here**: {why} |" for family, why in missing.items()]
    return "\n".join(lines) + "\n"


def idle_lines(campaign):
    if not campaign.idle:
        return []
    lines = ["", "## Idle topics", "", "| system | topics | shared memory a topic | private memory a topic | "
             "CPU a topic | CPU with none |", "|---|---:|---:|---:|---:|---:|"]
    for one in campaign.idle:
        label = next(system.label for system in systems.SYSTEMS if system.key == one["system"])
        lines.append(f"| {label} | {one['topics']} | {one['shm_kib_per_topic'] / 1024:.1f} MiB | "
                     f"{max(0, one['private_kib_per_topic']):.0f} KiB | {100 * max(0, one['cpu_share_per_topic']):.3f} % | "
                     f"{100 * one['cpu_share_without']:.1f} % |")
    return lines


def write(out, campaign, about, missing, problems, versions):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(markdown(campaign, about, missing, problems, versions))
    (out / "results.json").write_text(campaigns.to_json(campaign, {
        **about, "versions": versions, "missing": missing, "problems": problems,
        "goals": [vars(goal) for goal in goals(campaign)]}))
    folder = out / "hgrm"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for workload in campaign.workloads:
        if workload.metric in ("latency", "send"):
            for row in campaign.rows(workload):
                tail = "-" + row["distance"].replace(" ", "-") if row["distance"] else ""
                (folder / f"{workload.name}-{row['system'].key}{tail}.hgrm").write_text(row["latency"].hgrm())
    (out / "index.html").write_text(page.page(campaign, about, missing, problems, versions))
