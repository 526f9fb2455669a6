#include "tools/perf_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>
#include <vector>

#include "tools/output.h"

namespace ringtail::tools::perf {
namespace {

constexpr double kWidth = 960;
constexpr double kHeight = 520;
constexpr double kLeft = 76;
constexpr double kRight = 40;
constexpr double kTop = 16;
constexpr double kBottom = 44;
constexpr unsigned kPointsPerHalving = 10;

// {{ and }} stand for braces: these go through fmt::format.
constexpr std::string_view kHead = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{0}</title>
<style>
:root {{ color-scheme: light dark; --page: #ffffff; --ink: #1c2330; --faint: #667085; --grid: #e4e7ec;
  --c0: #2563eb; --c1: #d9480f; --c2: #0f8a5f; --c3: #9333ea; --c4: #b58105; --c5: #0e7490;
  --c6: #be185d; --c7: #57534e; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #14171d; --ink: #e6e9ef; --faint: #98a2b3; --grid: #2a303b;
    --c0: #6ea8fe; --c1: #ff9559; --c2: #4fd1a1; --c3: #c995ff; --c4: #f2c14e; --c5: #4cc9e0;
    --c6: #ff7eb6; --c7: #b8b2ac; }}
}}
body {{ margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.25rem; margin: 0 0 .5rem; }}
p, pre {{ color: var(--faint); margin: .25rem 0 1rem; font-size: .85rem; white-space: pre-wrap; }}
svg {{ width: 100%; height: auto; display: block; }}
text {{ fill: var(--faint); font-size: 12px; }}
.grid {{ stroke: var(--grid); }}
.curve {{ fill: none; stroke-width: 2; stroke-linejoin: round; }}
#cursor {{ stroke: var(--faint); stroke-dasharray: 3 3; visibility: hidden; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .75rem; }}
td, th {{ padding: .2rem .9rem .2rem 0; text-align: right; font-weight: normal; }}
td:first-child, th:first-child {{ text-align: left; }}
th {{ color: var(--faint); }}
.key {{ display: inline-block; width: 1.1em; height: 3px; vertical-align: middle; margin-right: .5em; }}
</style>
</head>
<body>
<h1>{0}</h1>
<p>{1}</p>
)html";

// The pointer's place on the percentile axis, and each curve's value there in the last column.
constexpr std::string_view kScript = R"html(<script>
"use strict";
const svg = document.querySelector("svg"), cursor = document.getElementById("cursor");
const at = document.getElementById("at"), cells = document.querySelectorAll("td.at");
const time = ns => ns < 1e3 ? ns + " ns" : ns < 999500 ? (ns / 1e3).toPrecision(3) + " µs"
  : ns < 999500000 ? (ns / 1e6).toPrecision(3) + " ms" : (ns / 1e9).toPrecision(3) + " s";
svg.addEventListener("pointermove", event => {
  const matrix = svg.getScreenCTM().inverse();
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix);
  const x = Math.min(Math.max(point.x, plot.left), plot.right);
  const nines = (x - plot.left) / (plot.right - plot.left) * plot.nines;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.style.visibility = "visible";
  at.textContent = "p" + parseFloat((100 - 100 * 10 ** -nines).toFixed(Math.ceil(nines)));
  curves.forEach((curve, i) => {
    const hit = curve.find(([, reached]) => reached >= nines) ?? curve[curve.length - 1];
    cells[i].textContent = time(hit[0]);
  });
});
</script>
</body>
</html>
)html";

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

// The plot's scales: both axes are logarithmic.
struct Scales {
  double nines;  // length of the percentile axis: 3 for 99.9 %
  double low;    // decades of nanoseconds at the bottom and the top
  double high;

  double x(double at_nines) const { return kLeft + (kWidth - kLeft - kRight) * at_nines / nines; }
  double y(double ns) const {
    const double share = (std::log10(std::max(ns, 1.0)) - low) / (high - low);
    return kHeight - kBottom - (kHeight - kTop - kBottom) * share;
  }
};

Scales scales_for(std::span<const ChartSeries> series) {
  Scales scales{.nines = 1, .low = 18, .high = 0};
  for (const ChartSeries& one : series) {
    const Histogram& latency = *one.latency_ns;
    scales.nines = std::max(scales.nines, std::log10(static_cast<double>(latency.count())));
    const auto decades = [](std::uint64_t ns) {
      return std::log10(static_cast<double>(std::max<std::uint64_t>(ns, 1)));
    };
    scales.low = std::min(scales.low, std::floor(decades(latency.min())));
    scales.high = std::max(scales.high, std::ceil(decades(latency.max())));
  }
  if (scales.high <= scales.low) scales.high = scales.low + 1;
  return scales;
}

// 100 -> "100 ns", 10000 -> "10 µs".
std::string decade_name(double decade) {
  constexpr std::string_view kUnits[] = {"ns", "µs", "ms", "s"};
  const auto unit = static_cast<std::size_t>(std::clamp(decade / 3, 0.0, 3.0));
  return fmt::format("{:.0f} {}", std::pow(10.0, decade - 3 * static_cast<double>(unit)), kUnits[unit]);
}

void draw_axes(std::string& svg, const Scales& scales) {
  auto out = std::back_inserter(svg);
  for (double decade = scales.low; decade <= scales.high; ++decade) {
    const double y = scales.y(std::pow(10.0, decade));
    fmt::format_to(out, R"(<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)", kLeft,
                   kWidth - kRight, y, y);
    fmt::format_to(out, R"(<text x="{}" y="{:.1f}" text-anchor="end">{}</text>)", kLeft - 8, y + 4,
                   decade_name(decade));
  }
  for (int nines = 0; nines <= scales.nines; ++nines) {
    const double x = scales.x(nines);
    fmt::format_to(out, R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>)", x, x, kTop,
                   kHeight - kBottom);
    const double percent = 100 - 100 * std::pow(10.0, -nines);
    fmt::format_to(out, R"(<text x="{:.1f}" y="{}" text-anchor="middle">{:.{}f} %</text>)", x,
                   kHeight - kBottom + 18, percent, std::max(nines - 2, 0));
  }
  fmt::format_to(out, R"(<text x="{}" y="{}" text-anchor="middle">percentile</text>)",
                 (kLeft + kWidth - kRight) / 2, kHeight - 6);
}

// Where a point lies on the percentile axis; the one at 100 % at the distance its count can resolve.
double nines_of(const Histogram::CurvePoint& point) {
  const double finest = std::log10(static_cast<double>(point.count));
  return point.percentile >= 100 ? finest : std::min(finest, -std::log10(1 - point.percentile / 100));
}

void draw_curve(std::string& svg, std::string& data, const Scales& scales, const Histogram& latency,
                std::size_t number) {
  fmt::format_to(std::back_inserter(svg), R"svg(<polyline class="curve" stroke="var(--c{})" points=")svg",
                 number);
  data += '[';
  for (const Histogram::CurvePoint& point : latency.percentile_curve(kPointsPerHalving)) {
    const double nines = nines_of(point);
    const double y = scales.y(static_cast<double>(point.value));
    fmt::format_to(std::back_inserter(svg), "{:.1f},{:.1f} ", scales.x(nines), y);
    fmt::format_to(std::back_inserter(data), "[{},{:.4f}],", point.value, nines);
  }
  svg += "\"/>\n";
  data += "],";
}

std::string legend(std::span<const ChartSeries> series) {
  constexpr double kPercents[] = {50, 90, 99, 99.9, 99.99};
  std::string table = "<table>\n<tr><th></th>";
  auto out = std::back_inserter(table);
  for (const double percent : kPercents) fmt::format_to(out, "<th>p{}</th>", percent);
  table += "<th>max</th><th id=\"at\"></th></tr>\n";
  for (std::size_t i = 0; i < series.size(); ++i) {
    fmt::format_to(out, R"svg(<tr><td><span class="key" style="background:var(--c{})"></span>{}</td>)svg", i,
                   escape(series[i].name));
    for (const double percent : kPercents) {
      fmt::format_to(out, "<td>{}</td>", human_nanoseconds(series[i].latency_ns->percentile(percent)));
    }
    fmt::format_to(out, "<td>{}</td><td class=\"at\"></td></tr>\n",
                   human_nanoseconds(series[i].latency_ns->max()));
  }
  return table + "</table>\n";
}

}  // namespace

std::string percentile_page(const std::string& title, const std::string& notes,
                            std::span<const ChartSeries> series) {
  const Scales scales = scales_for(series);
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Latency by percentile\">\n", kWidth, kHeight);
  std::string data;
  draw_axes(svg, scales);
  for (std::size_t i = 0; i < series.size(); ++i) draw_curve(svg, data, scales, *series[i].latency_ns, i);
  svg += fmt::format("<line id=\"cursor\" y1=\"{}\" y2=\"{}\"/>\n</svg>\n", kTop, kHeight - kBottom);
  std::string page = fmt::format(kHead, escape(title), escape(notes));
  page += svg + legend(series);
  page +=
      fmt::format("<script>const curves = [{}], plot = {{left: {}, right: {}, nines: {:.4f}}};</script>\n",
                  data, kLeft, kWidth - kRight, scales.nines);
  return page + std::string(kScript);
}

}  // namespace ringtail::tools::perf
