// Charts of latencies as pages that need nothing else: no script, style or font from elsewhere.
#pragma once

#include <span>
#include <string>

#include "base/histogram.h"

namespace ringtail::tools::perf {

struct ChartSeries {
  std::string name;
  const Histogram* latency_ns;
};

// A page with one curve per series: latency over the percentile, both logarithmic, the percentile axis
// in the distance to 100 % (each step to the right is a ten times rarer event). Follows the reader's
// light or dark scheme; the pointer shows the values under it. `title` and `notes` are shown as text.
// Requires 1 to 8 series that have counted something.
std::string percentile_page(const std::string& title, const std::string& notes,
                            std::span<const ChartSeries> series);

}  // namespace ringtail::tools::perf
