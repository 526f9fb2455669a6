"""The results as one HTML page that needs nothing else: no script, style, font or picture from elsewhere."""
import html

from . import charts, report
from .goals import goals

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #16191f; --faint: #5b6472; --grid: #ccd2db; --fine: #e9ecf1;
  --panel: #f5f6f9; --good: #00664b; --bad: #a63f00; --bar: #56B4E9; --ours: #D55E00; --floor: #8a93a1; --blue: #0072B2 }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e8ebf0; --faint: #a2abb9; --grid: #3d4552;
  --fine: #252b34; --panel: #1c2129; --good: #4fd1a1; --bad: #ff9d5c; --bar: #3f86b0; --floor: #6b7482; --blue: #3f9bdc } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1180px; padding: 24px 28px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 26px; margin: 0 0 8px } h2 { font-size: 19px; margin: 42px 0 4px } p { margin: 6px 0 10px }
.faint, .about { color: var(--faint) } .about { font-size: 14px }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif }
svg text { fill: var(--ink) } svg text.faint { fill: var(--faint) } svg text.name { font-size: 13px }
.grid { stroke: var(--grid) } .fine { stroke: var(--fine) } .whisker { stroke: var(--ink); stroke-width: 1.5 }
.bar { fill: var(--bar) } .bar.ours { fill: var(--ours) } .bar.floor { fill: var(--floor) }
.curve { stroke-linejoin: round } .dim .curve, .dim .key { opacity: .12 } .dim .lit { opacity: 1 }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; margin: 8px 0 12px }
.key { display: inline-flex; align-items: center; gap: 6px; cursor: default } .key svg { width: 38px; flex: none }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 4px 9px; text-align: right; border-bottom: 1px solid var(--fine); vertical-align: top }
th { color: var(--faint); font-weight: 600; border-color: var(--grid); white-space: nowrap }
td { white-space: nowrap } th.left, td.left { text-align: left; white-space: normal } td.left { min-width: 9em } tr.ours td.left:first-child { color: var(--ours); font-weight: 600 }
td small { color: var(--faint); display: block; white-space: nowrap }
.met { color: var(--good); font-weight: 600; white-space: nowrap } .missed { color: var(--bad); font-weight: 600; white-space: nowrap }
.note { background: var(--panel); border-left: 3px solid var(--grid); padding: 8px 14px; margin: 8px 0 }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 14px; margin: 12px 0 } a { color: inherit }
"""

# Pointing at a curve or its name dims the others.
SCRIPT = """
for (const box of document.querySelectorAll('.chart')) {
  const show = key => { box.classList.toggle('dim', !!key);
    for (const one of box.querySelectorAll('[data-key]')) one.classList.toggle('lit', one.dataset.key === key) };
  for (const one of box.querySelectorAll('[data-key]')) {
    for (const on of ['mouseenter', 'focus']) one.addEventListener(on, () => show(one.dataset.key));
    for (const off of ['mouseleave', 'blur']) one.addEventListener(off, () => show(null)) } }
"""


def cell(words, left):
    """The span behind a median goes on a line of its own."""
    main, bracket, span = words.partition(" (")
    style = ' class="left"' if left else ""
    if bracket and not left:
        return f"<td{style}>{html.escape(main)}<small>{html.escape(span.rstrip(')'))}</small></td>"
    return f"<td{style}>{html.escape(words)}</td>"


def table(head, rows, ours=lambda row: False, lefts=2):
    marks = ['class="left"' if i < lefts else "" for i in range(len(head))]
    parts = ['<div class="scroll"><table><thead><tr>',
             *(f"<th {mark}>{html.escape(name)}</th>" for name, mark in zip(head, marks)), "</tr></thead><tbody>"]
    for row in rows:
        parts.append(f'<tr{" class=ours" if ours(row) else ""}>')
        parts += [cell(words, i < lefts) for i, words in enumerate(row)]
        parts.append("</tr>")
    return "".join(parts) + "</tbody></table></div>"


def goals_table(campaign):
    parts = ['<div class="scroll"><table><thead><tr><th class="left">goal</th><th>target</th><th>measured</th>'
             '<th class="left">met</th><th class="left">from</th></tr></thead><tbody>']
    for goal in goals(campaign):
        met = {True: '<span class="met">✓ met</span>', False: '<span class="missed">✗ not met</span>',
               None: '<span class="faint">–</span>'}[goal.met]
        measured = html.escape(goal.measured) if goal.met is not None else ""
        detail = html.escape(goal.detail if goal.met is not None else goal.measured)
        parts.append(f'<tr><td class="left">{html.escape(goal.title)}</td><td>{html.escape(goal.target)}</td>'
                     f'<td><b>{measured}</b></td><td class="left">{met}</td><td class="left faint">{detail}</td></tr>')
    return "".join(parts) + "</tbody></table></div>"


def section(campaign, workload):
    found = report.table(campaign, workload)
    if not found:
        return ""
    head, rows = found
    all_rows = campaign.rows(workload)
    parts = [f'<h2 id="{workload.name}">{html.escape(workload.title)}</h2><p class="faint">{html.escape(workload.question)}</p>']
    if workload.metric == "latency":
        parts.append('<div class="chart">' + charts.percentile_chart(workload.title, all_rows)
                     + charts.legend(all_rows) + "</div>")
    elif workload.metric in ("rate", "replay"):
        parts.append(charts.rate_chart(workload.title, all_rows))
    parts.append(table(head, rows, lambda row: row[0].startswith("Ringtail")))
    if report.not_kept(campaign, workload):
        parts.append('<p class="faint">* did not keep the rate up: what arrived is counted, what did not is not.</p>')
    for why, labels in report.left_out(campaign, workload).items():
        parts.append(f'<p class="faint">Not measured: {html.escape(", ".join(labels))} ({html.escape(why)}).</p>')
    for sentence in report.failed_runs(campaign, workload):
        parts.append(f'<p class="faint">{html.escape(sentence)}.</p>')
    return "".join(parts)


def paragraphs(text):
    """Markdown's stars as tags; nothing else of it is used there."""
    words = html.escape(text)
    for mark, tag in (("**", "b"), ("*", "i")):
        pieces = words.split(mark)
        words = "".join(piece if i % 2 == 0 else f"<{tag}>{piece}</{tag}>" for i, piece in enumerate(pieces))
    return f"<p>{words}</p>"


def idle_section(campaign):
    lines = [line for line in report.idle_lines(campaign) if line.startswith("|")]
    if not lines:
        return ""
    cells = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    return '<h2 id="idle">Idle topics</h2>' + table(cells[0], cells[2:], lefts=1)


def page(campaign, about, missing, problems, versions):
    measured = [workload for workload in campaign.workloads if campaign.rows(workload)]
    links = "".join(f'<a href="#{workload.name}">{html.escape(workload.title)}</a>' for workload in measured)
    notes = "".join(f'<p class="note">{html.escape(problem)}</p>' for problem in problems)
    notes += "".join(f'<p class="note"><b>{html.escape(family)}</b> is not here: {html.escape(why)}</p>'
                     for family, why in missing.items())
    listed = [[family, version] for family, version in versions.items()]
    gaps = " ".join([report.gaps_text(campaign), report.pace_text(campaign)])
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ringtail and its peers, measured</title><style>{STYLE}</style></head><body>
<h1>Ringtail and its peers, on one machine, in one run</h1>
<p class="about">{html.escape(report.about_text(about))}</p>
{notes}
<nav>{links}</nav>
<h2>Goals</h2>
{goals_table(campaign)}
{"".join(section(campaign, workload) for workload in measured)}
{idle_section(campaign)}
<h2>How to read this</h2>
{paragraphs(report.HOW)}
<p>{html.escape(gaps)}</p>
<p>Raw figures: <a href="results.json">results.json</a>; distributions for HdrHistogram's plotter in
<a href="hgrm/">hgrm/</a>; how it is measured: bench/peers/README.md.</p>
<h2>Versions</h2>
{table(["system", "version"], listed)}
<script>{SCRIPT}</script>
</body></html>
"""
